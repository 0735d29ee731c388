"""Run PyTorch's exporters without what they say about themselves."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Within the block, warnings and what PyTorch logs below an error are not shown."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
