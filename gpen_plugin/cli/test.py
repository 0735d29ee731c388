"""``python -m gpen_plugin.test -opt options/gpen_test.yml``: the host's testing, from any folder.

Options are the host's (``basicsr/test.py``); results/ is made under the current folder.
"""

import os
import sys
from collections.abc import Sequence

from gpen_plugin.cli import host_pipeline, parser, read_command_line
from gpen_plugin.errors import handle_errors


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Restore and measure the test sets of an option file."""
    read_command_line(parser("gpen-test", "Restore and measure the test sets of an option file."), argv)
    host_pipeline("test")(os.getcwd())
    return 0


if __name__ == "__main__":
    sys.exit(main())
