"""Start-up of gpen-restore: time to its help, to the error for a wrong input, and of the imports of a run.

python benchmarks/start_up.py --rounds 3
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

from measure import Comparison, compare, parser, report

IMPORTS = "import gpen_plugin.restore.batch"  # what a run imports before it opens its model
WITH_HOST = f"import basicsr; {IMPORTS}"
HELP = ("-m", "gpen_plugin.restore", "--help")
REFUSED = ("-m", "gpen_plugin.restore", "not_there.jpg", "-o", "restored")
LIMIT = 0.5  # seconds
LEFT = "Left are the interpreter itself, which every run of Python pays, and argparse."
FORMATS = "Left are OpenCV, NumPy and Pillow, whose formats it knows."
PYTORCH = "Left is the import of PyTorch: see the row of PyTorch alone."


def started(*arguments: str, status: int = 0) -> Callable[[], str]:
    """A call that runs Python with `arguments`, gives its standard error, and ends the script at another `status`."""

    def call() -> str:
        run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if run.returncode != status:
            sys.exit(f"{' '.join(arguments)} ended with status {run.returncode}:\n{run.stderr}")
        return run.stderr

    return call


def without_pytorch(*arguments: str, status: int = 0) -> str:
    """Tell that a start imports no PyTorch; the script ends here if it does."""
    lines = started("-X", "importtime", *arguments, status=status)().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    if "torch" in imported:
        sys.exit(f"{' '.join(arguments)} imports PyTorch: nothing was timed.")
    return f"{len(imported)} modules imported, PyTorch not among them"


def rows(options: argparse.Namespace) -> list[Comparison]:
    """The command's two quick ends, and the imports of a run."""
    a_run = ("importing what a run needs", started("-c", IMPORTS))
    return [
        compare(
            "gpen-restore --help",
            a_run,
            ("the command", started(*HELP)),
            rounds=options.rounds,
            limit=LIMIT,
            error=without_pytorch(*HELP),
            note=LEFT,
        ),
        compare(
            "gpen-restore, an input that is not there",
            a_run,
            ("the command", started(*REFUSED, status=1)),
            rounds=options.rounds,
            error=without_pytorch(*REFUSED, status=1),
            note=FORMATS,
        ),
        compare(
            "imports of a run of gpen-restore",
            ("BasicSR with all its networks first, to register in it", started("-c", WITH_HOST)),
            ("classes wait until BasicSR is imported, if ever", started("-c", IMPORTS)),
            rounds=options.rounds,
            note=PYTORCH,
        ),
        compare(
            "PyTorch alone",
            a_run,
            ("import torch", started("-c", "import torch")),
            rounds=options.rounds,
        ),
    ]


if __name__ == "__main__":
    options = parser(__doc__, rounds=3).parse_args()
    report("Start-up", rows(options), options)
