"""Faces in parallel, each on its own cores: threads that share one face would wait for each other at every layer."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()


def parallel_map(
    work: Callable[[Item], Result],  # may read shared data but must not change it
    items: Iterable[Item],  # its arguments
) -> list[Result]:
    """Apply a function to each item in threads that divide torch's threads among them; the results are in order.

    Several threads may call it; their numbers of threads do not change. If calls fail, the error is that of the first.
    """
    items = list(items)
    with _lock:
        cores = torch.get_num_threads()
    workers = min(cores, len(items))
    if workers < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers, "face", _set_threads, (cores // workers, cores)) as threads:
        return list(threads.map(work, items))


def _set_threads(count: int, default: int) -> None:
    """Let torch use `count` threads in this thread, and `default` in threads that start later."""
    with _lock:
        torch.get_num_threads()  # else the first computation here would begin with the second one
        torch.set_num_threads(count)
        # That also set the number of new threads, which a short-lived thread resets.
        passing = threading.Thread(target=torch.set_num_threads, args=(default,))
        passing.start()
        passing.join()
