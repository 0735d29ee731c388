"""``gpen-restore INPUT... -o OUT``: photographs and videos in, photographs and videos out."""

import sys
from collections.abc import Sequence

from gpen_plugin.errors import told_plainly
from gpen_plugin.restore.command_line import parser


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Restore what the command line names.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status, see the command's help.
    """
    arguments = parser().parse_args(argv)
    try:
        # each is imported when the one before it has found nothing wrong: PyTorch takes seconds
        from gpen_plugin.restore.request import Request

        request = Request.of(arguments)

        from gpen_plugin.restore.command import run

        return run(arguments, request)
    except KeyboardInterrupt:
        print("\ngpen_plugin: stopped; each file that is written is whole", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
