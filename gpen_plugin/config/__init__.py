"""Option files: their schema, how they are read, and the dataclasses of their sections."""
