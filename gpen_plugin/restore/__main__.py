"""``gpen-restore INPUT... -o OUT``: photographs and videos in, photographs and videos out."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from gpen_plugin.errors import handle_errors
from gpen_plugin.restore.command_line import parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Restore what the command line names.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status, see the command's help.
    """
    arguments = parser().parse_args(argv)
    try:
        with _raised_as_ctrl_c(signal.SIGTERM):
            # each is imported when the one before it has found nothing wrong: PyTorch takes seconds
            from gpen_plugin.restore.request import Request

            request = Request.of(arguments)

            from gpen_plugin.restore.command import run

            return run(arguments, request)
    except KeyboardInterrupt as stop:
        print("\ngpen_plugin: stopped; each file that is written is whole", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


@contextlib.contextmanager
def _raised_as_ctrl_c(number: int) -> Iterator[None]:
    """Let a signal raise `KeyboardInterrupt(number)`, once: the report is written, however often the signal comes."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():  # signals cannot be handled there
        yield
        return
    before = signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(number, before)


if __name__ == "__main__":
    sys.exit(main())
