"""Trainings of the same option file side by side: variants by seeds."""
