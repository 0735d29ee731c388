"""Faces side by side, each on a core of its own.

Cores that share one face wait for each other at every layer and every small picture; cores with a face each do not, and
each keeps its face in its own cache.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_cores(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the same work on each item, in threads that share out the threads that torch has here.

    Args:
        work: what is done; it may read what others read, but change nothing that they use.
        items: what it is done to.
    Returns:
        The results, in the order of the items. Where some fail, the error is that of the first.
    """
    items, cores = list(items), torch.get_num_threads()
    workers = min(cores, len(items))
    if workers < 2:
        return [work(item) for item in items]
    try:
        with ThreadPoolExecutor(workers, "face", torch.set_num_threads, (cores // workers,)) as threads:
            return list(threads.map(work, items))
    finally:
        torch.set_num_threads(cores)  # the number is each thread's own, but threads begin with what was set last
