"""Where a curve bends, and the cost of a call, on curves and calls that are given."""

import mmap

import pytest
from growth import bend, cost


@pytest.mark.parametrize(
    ("y", "where"), [((1, 1, 2, 4), 1), ((1, 2, 4, 4), 2), ((1, 2, 8, 32), 1), ((8, 4, 2, 2), 2)], ids=str
)
def test_a_curve_bends_where_its_logarithmic_slope_changes_most(y, where):
    assert bend((64, 128, 256, 512), y) == where


def test_the_cost_of_a_call_counts_the_pages_that_it_brings_in():
    def call():
        with mmap.mmap(-1, 1000 * mmap.PAGESIZE) as memory:
            for page in range(1000):
                memory[page * mmap.PAGESIZE] = 1

    found = cost(call, "cpu", rounds=3)
    assert 1000 <= found.faults < 1500
    assert found.seconds > 0
    assert 0 <= found.system <= 1
