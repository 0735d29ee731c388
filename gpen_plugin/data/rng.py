"""The random generator of a key, for everything that is sampled per image rather than per training step."""

import hashlib

import numpy as np


def rng_from_key(*parts: str | int) -> np.random.Generator:
    """A generator that depends on `parts` only, such as a seed and an image key; unlike `hash`, on every machine."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
