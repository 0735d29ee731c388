"""A worker of benchmarks/gpu.py whose rows end in every way; without PyTorch, whose import takes seconds."""

import os
import time
from argparse import Namespace
from multiprocessing.connection import Connection

GOOD, HANGS, ENDS, FAILS = range(4)


def work(connection: Connection, options: Namespace) -> None:
    """Answer row by row with `options.answers`, which are pickled, by the number of the row."""
    os.setpgrp()
    connection.send({"GPU": "none"})
    while True:
        number = connection.recv()
        if number == HANGS:
            time.sleep(60)
        if number == ENDS:
            os._exit(1)
        connection.send_bytes(options.answers[number])
