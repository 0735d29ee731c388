"""Faces side by side, each on a core of its own.

Cores that share one face wait for each other at every layer and every small image; cores with a face each do not, and
each keeps its face in its own cache.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_sharing = threading.Lock()


def parallel_map(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the same work on each item, in threads that share out the threads that torch has here.

    Threads of others keep theirs, and may call this at the same time.

    Args:
        work: what is done; it may read what others read, but change nothing that they use.
        items: what it is done to.
    Returns:
        The results, in the order of the items. Where some fail, the error is that of the first.
    """
    items = list(items)
    with _sharing:
        cores = torch.get_num_threads()
    workers = min(cores, len(items))
    if workers < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers, "face", _take_share, (cores // workers, cores)) as threads:
        return list(threads.map(work, items))


def _take_share(share: int, whole: int) -> None:
    """Have torch compute in `share` threads here, and in `whole` in threads that are yet to begin, as before.

    What a thread sets is its own number, and that with which others begin. A passing thread sets the second one back.
    """
    with _sharing:
        torch.get_num_threads()  # else the first computation here would begin with the second one
        torch.set_num_threads(share)
        passing = threading.Thread(target=torch.set_num_threads, args=(whole,))
        passing.start()
        passing.join()
