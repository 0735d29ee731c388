"""``python -m gpen_plugin.train -opt options/gpen_finetune.yml``: the host's training, from any folder.

Options are the host's (``basicsr/train.py``) and ``--dry-run``; experiments/ and tb_logger/ are made in the current
folder. Under torchrun: ``torchrun --nproc_per_node=4 -m gpen_plugin.train -opt ... --launcher pytorch``.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from gpen_plugin.cli import host_pipeline, parser, read_command_line
from gpen_plugin.errors import handle_errors


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train as the option file says, or only check it."""
    command = parser("gpen-train", "Train as an option file says.")
    command.add_argument(
        "--dry-run", action="store_true", help="check the option file as a run would, and start nothing"
    )
    given = read_command_line(command, argv)
    pipeline = host_pipeline("train")
    if given.dry_run:
        sys.argv.remove("--dry-run")  # the host's own parser does not know it
        return _check()
    pipeline(os.getcwd())
    return 0


def _check() -> int:
    from basicsr.utils.options import parse_options

    from gpen_plugin.host.run_hooks import no_claims

    with redirect_stdout(sys.stderr), no_claims():
        opt, _ = parse_options(os.getcwd(), is_train=True)
    print(f"{opt['name']}: the option file is valid. Nothing was started.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
