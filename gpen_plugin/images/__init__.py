"""Image files and grids of images."""
