"""``python -m gpen_plugin.study make -r results/evaluate/wild -o study.html``, then ``count votes/*.json``"""

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.errors import handle_errors
from gpen_plugin.evaluate.pooling import pooled
from gpen_plugin.evaluate.results import read_results, write_text
from gpen_plugin.study.key_file import write_key
from gpen_plugin.study.page import make_page
from gpen_plugin.study.selection import select

HEAVY = 100 * 2**20  # bytes; beyond, old telephones have trouble with a page


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    whole, tile = _whole_number(1), _whole_number(32)
    parser = argparse.ArgumentParser(
        prog="python -m gpen_plugin.study",
        description="A blind user study: volunteers rank what methods made of the same degraded face.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="make the page from the images of an evaluation")
    make.add_argument("-r", "--results", type=Path, required=True, help="folder of an evaluation")
    make.add_argument("-o", "--output", type=Path, required=True, help="the page; its key lies beside it")
    make.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="default: all that ran")
    which = make.add_mutually_exclusive_group()
    which.add_argument("--images", type=whole, metavar="N", help="draw N images by the seed; default: all")
    which.add_argument("--keys", nargs="+", default=[], metavar="KEY", help="these images")
    make.add_argument("--condition", help="e.g. 16x; needed where the protocol has several")
    make.add_argument("--show-input", action="store_true", default=True, help="show the degraded image (default)")
    make.add_argument("--no-input", dest="show_input", action="store_false", help="do not show it")
    make.add_argument("--allow-ties", action="store_true", help="two images may share a place")
    make.add_argument(
        "--seed", type=_whole_number(0), help="of the opaque names and the draw (default: one that nobody knows)"
    )
    make.add_argument("--title", default="Which face looks best?", help="the page's head; it must name no method")
    make.add_argument("--tile", type=tile, default=512, help="longest side of an image in pixels (default 512)")
    make.add_argument("--lossless", action="store_true", help="PNG, about four times the size of JPEG")
    add = commands.add_parser("count", help="add votes up")
    add.add_argument("votes", type=Path, nargs="+", help="files that volunteers exported")
    add.add_argument("-k", "--key", type=Path, required=True, help="the key file that `make` wrote")
    add.add_argument("-o", "--output", type=Path, required=True, help="folder for figure8.png and the tables")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Make a study's page, or add its votes up.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0, or 1 where a file of votes was refused.
    """
    options = parser().parse_args(argv)
    if options.command == "count":
        from gpen_plugin.study.count import count  # brings SciPy

        return count(options.votes, options.key, options.output)
    return _make(options)


def _make(options: argparse.Namespace) -> int:
    results = pooled(read_results(options.results))  # of a method with several runs the first stands for all
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed  # a known one gives the names away
    selection = select(
        options.results,
        results,
        methods=options.methods,
        keys=options.keys,
        num_images=options.images,
        condition=options.condition,
        seed=seed,
    )
    html, key = make_page(
        options.results,
        results,
        selection,
        title=options.title,
        tile=options.tile,
        lossless=options.lossless,
        show_input=options.show_input,
        allow_ties=options.allow_ties,
        seed=seed,
    )
    beside = options.output.with_name(f"{options.output.stem}_key.json")
    write_key(beside, key)
    write_text(options.output, html)
    for failure in key.left_out:
        print(f"gpen_plugin: left out: {failure.key}: {failure.method}: {failure.reason}", file=sys.stderr)
    print(f"{options.output}: {len(key.images)} images, {len(key.methods)} methods, {len(html) / 2**20:.1f} MiB")
    print(f"{beside}: keep it; it is not for volunteers. Study {key.study}.")
    if len(html) > HEAVY:
        print("gpen_plugin: a heavy page: --images, --tile or JPEG make it lighter", file=sys.stderr)
    return 0


def _whole_number(lowest: int):
    def parse(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"got {number}; expected a number from {lowest}")
        return number

    parse.__name__ = "whole number"
    return parse


if __name__ == "__main__":
    sys.exit(main())
