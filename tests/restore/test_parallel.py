"""Work side by side: the results are those of work in turn, and the number of threads is what it was."""

import threading

import pytest
import torch
from helpers.thread_counts import torch_threads

from gpen_plugin.restore.parallel import parallel_map


@pytest.mark.parametrize("cores", [1, 2, 5])
@pytest.mark.parametrize("items", [0, 1, 3, 7])
def test_results_are_in_order(cores, items):
    with torch_threads(cores):
        assert parallel_map(lambda item: item**2, iter(range(items))) == [item**2 for item in range(items)]


@pytest.mark.parametrize(("cores", "items", "each"), [(1, 3, 1), (4, 1, 4), (4, 2, 2), (5, 2, 2), (4, 9, 1)])
def test_workers_divide_the_cores(cores, items, each):
    with torch_threads(cores):
        assert parallel_map(lambda _: torch.get_num_threads(), range(items)) == [each] * items


def test_items_are_worked_on_side_by_side():
    """In turn, the first would wait for the others in vain."""
    together = threading.Barrier(3, timeout=10)
    with torch_threads(3):
        assert sorted(parallel_map(lambda _: together.wait(), range(3))) == [0, 1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_threads_of_others_have_the_number_that_was_set(fails):
    def work(item):
        if fails:
            raise ValueError(f"item {item}")

    found = []
    with torch_threads(3):
        if fails:
            with pytest.raises(ValueError, match="item 0"):
                parallel_map(work, range(3))
        else:
            parallel_map(work, range(3))
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert torch.get_num_threads() == 3
    assert found == [3]


def test_concurrent_calls_keep_thread_counts():
    """No call starts with another's number of threads, or leaves its own behind."""
    found, began = [], threading.Barrier(3, timeout=10)

    def share_out():
        parallel_map(lambda item: item or began.wait(), range(3))  # so that all of them are at it at once
        found.append(torch.get_num_threads())

    with torch_threads(6):
        users = [threading.Thread(target=share_out) for _ in range(3)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        parallel_map(lambda _: found.append(torch.get_num_threads()), [0])
    assert found == [6] * 4
