"""Weight files: read, write, convert, grow and download them."""
