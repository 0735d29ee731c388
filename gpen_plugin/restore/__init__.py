"""Restoring photographs and videos: find faces, align, restore, paste back."""
