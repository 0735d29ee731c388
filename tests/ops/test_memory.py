"""Freed memory that the process keeps, counted in page faults."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, threading
from gpen_plugin.ops.memory import keep_freed_memory, return_freed_memory

c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.memset.argtypes, c.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]

def use(results):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        block = c.malloc(96 << 20)
        c.memset(block, 1, 96 << 20)
        c.free(block)
    results.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def use_in_a_thread(results):
    thread = threading.Thread(target=use, args=(results,))
    thread.start()
    thread.join()

if KEEP:
    keep_freed_memory()
results = []
for run in (use, use, use_in_a_thread):
    run(results)
return_freed_memory()
use(results)
print(*results[1:])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_freed_memory_is_kept_and_returned():
    """Page faults of five blocks of 96 MiB in turn, of 24,576 pages each: more than glibc keeps in any thread."""
    counts = {}
    for keep in (False, True):
        code = FAULTS.replace("KEEP", str(keep))
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        counts[keep] = [int(count) for count in result.stdout.split()]
    for returned, kept in zip(counts[False][:2], counts[True][:2], strict=True):
        assert kept < returned / 10, counts
    assert counts[True][2] > 10 * counts[True][0], "memory that was returned has to be mapped again"
