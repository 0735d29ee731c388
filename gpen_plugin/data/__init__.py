"""Data sets for training and validation, the degradation of Eq. 4, and the image sources they read."""
