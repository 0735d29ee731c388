"""Auxiliary pretrained networks that metrics and detectors use."""
