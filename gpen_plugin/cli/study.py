"""``python -m gpen_plugin.study make -r results/evaluate/wild -o study.html``, then ``count votes/*.json``"""

import argparse
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpen_plugin.errors import handle_errors

LARGE_PAGE = 100 * 2**20  # bytes; old telephones cannot open larger pages


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    whole, tile = _whole_number(1), _whole_number(32)
    parser = argparse.ArgumentParser(
        prog="python -m gpen_plugin.study",
        description="A blind user study: volunteers rank what several methods made of the same degraded face.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="make the page from the images of an evaluation")
    make.add_argument("-r", "--results", type=Path, required=True, help="folder of an evaluation")
    make.add_argument("-o", "--output", type=Path, required=True, help="the page; its key is written beside it")
    make.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="default: all that ran")
    which = make.add_mutually_exclusive_group()
    which.add_argument("--images", type=whole, metavar="N", help="number of images, sampled by the seed (default: all)")
    which.add_argument("--keys", nargs="+", default=[], metavar="KEY", help="these images")
    make.add_argument("--condition", help="e.g. 16x; required if the protocol has several")
    make.add_argument("--show-input", action="store_true", default=True, help="show the degraded image (default)")
    make.add_argument("--no-input", dest="show_input", action="store_false", help="hide the degraded image")
    make.add_argument("--allow-ties", action="store_true", help="two images may share a rank")
    make.add_argument(
        "--seed", type=_whole_number(0), help="seed of the opaque names and of --images (default: random, secret)"
    )
    make.add_argument("--title", default="Which face looks best?", help="title of the page; it must name no method")
    make.add_argument("--tile", type=tile, default=512, help="longest side of an image in pixels (default 512)")
    make.add_argument("--lossless", action="store_true", help="PNG, about four times the size of JPEG")
    add = commands.add_parser("count", help="count the votes")
    add.add_argument("votes", type=Path, nargs="+", help="files that volunteers exported")
    add.add_argument("-k", "--key", type=Path, required=True, help="the key file that `make` wrote")
    add.add_argument("-o", "--output", type=Path, required=True, help="folder for figure8.png and the tables")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Make the page of a study, or count its votes.

    Returns:
        Exit status: 0, or 1 if a file of votes was refused.
    """
    options = parser().parse_args(argv)
    if options.command == "count":
        from gpen_plugin.evaluate.study.figure8 import count

        return count(options.votes, options.key, options.output)
    return _make(options)


def _make(options: argparse.Namespace) -> int:
    from gpen_plugin.evaluate.results import read_results, write_text
    from gpen_plugin.evaluate.stats import average_runs
    from gpen_plugin.evaluate.study.page import make_page, select, write_key

    results = average_runs(read_results(options.results))  # the images of the first run stand for all runs
    # By default the seed is secret: with it, a volunteer could compute which name is which method.
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
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
    key_path = options.output.with_name(f"{options.output.stem}_key.json")
    write_key(key_path, key)
    write_text(options.output, html)
    for failure in key.left_out:
        print(f"gpen_plugin: left out: {failure.key}: {failure.method}: {failure.reason}", file=sys.stderr)
    print(f"{options.output}: {len(key.images)} images, {len(key.methods)} methods, {len(html) / 2**20:.1f} MiB")
    print(f"{key_path}: keep this file, and do not give it to volunteers. Study {key.study}.")
    if len(html) > LARGE_PAGE:
        print("gpen_plugin: the page is large; --images, --tile or JPEG make it smaller", file=sys.stderr)
    return 0


def _whole_number(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"got {number}; expected a number from {lowest}")
        return number

    parse.__name__ = "whole number"
    return parse


if __name__ == "__main__":
    sys.exit(main())
