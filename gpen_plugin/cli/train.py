"""``python -m gpen_plugin.train -opt options/gpen_finetune.yml``: the host's training, from any folder.

Options are the host's (``basicsr/train.py``); experiments/ and tb_logger/ are made under the current folder. Under
torchrun: ``torchrun --nproc_per_node=4 -m gpen_plugin.train -opt ... --launcher pytorch``.
"""

import os
import sys
from collections.abc import Sequence

from gpen_plugin.cli import host_pipeline, read_command_line
from gpen_plugin.errors import handle_errors


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train as the option file says.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    read_command_line("gpen-train", "Train as an option file says.", argv)

    host_pipeline("train")(os.getcwd())
    return 0


if __name__ == "__main__":
    sys.exit(main())
