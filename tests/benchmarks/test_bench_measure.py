"""A call in a process of its own, as the benchmarks run the reference."""

import os
from functools import partial

import pytest
from measure import in_another_process


def test_calls_run_in_another_process_until_one_fails(tmp_path):
    folder = tmp_path / "made"
    with in_another_process(partial, os.mkdir, folder) as call:
        assert not folder.exists(), "it only builds the call"
        call()
        assert folder.is_dir()
        with pytest.raises(EOFError):  # the folder is there already
            call()


def test_build_that_fails_ends_the_benchmark():
    with pytest.raises(EOFError), in_another_process(partial):
        pass
