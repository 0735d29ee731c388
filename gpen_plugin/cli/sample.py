"""``python -m gpen_plugin.sample -m net_g_latest.pth -o samples.png``: what a GAN prior draws."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from gpen_plugin.errors import MissingFileError, handle_errors
from gpen_plugin.images.files import write_image
from gpen_plugin.images.grid import mosaic

if TYPE_CHECKING:
    from gpen_plugin.restore.prior_sampler import Drawing, PriorSampler

FRAMES_PER_SECOND = 24
MOST_STEPS = 8  # from seed to seed in a table, whose width stays that of nine images
MOVING = ("", ".mp4")  # suffixes of what holds all frames: a folder, a film

# What each mode reads besides the common options, with its defaults.
MODES = {
    "grid": {"rows": 4, "columns": 8, "seed": 0, "separate": None, "noise": "random"},
    "mix": {"sources": [0, 1, 2, 3], "styles": [4, 5, 6, 7], "from_resolution": 16, "noise": "random"},
    "interpolate": {"seeds": [0, 1, 2, 3], "frames": 24, "space": "w", "noise": "fixed"},
}


def parser() -> argparse.ArgumentParser:
    """The command's options. Those of one mode alone have no default here: see `MODES`."""
    count, seed = _whole_number(1), _whole_number(0)
    parser = argparse.ArgumentParser(
        prog="python -m gpen_plugin.sample",
        description="Draw images with a GAN prior. Each is a function of its seed, so that it can be drawn again.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("-m", "--model", type=Path, required=True, help="weights of a GPENPrior")
    parser.add_argument("-o", "--output", type=Path, required=True, help="image file; see also interpolate")
    parser.add_argument("--mode", choices=list(MODES), default="grid", help="what to draw (default grid)")
    parser.add_argument("--key", default=None, help="entry of the weight file; default: the averaged weights")
    parser.add_argument("--truncation", type=float, default=0.7, help="0 the mean face, 1 all variety (default 0.7)")
    parser.add_argument("--noise", choices=["random", "fixed", "zero"], help="per seed, one for all, or none")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU, if any")
    parser.add_argument("--batch", type=count, default=8, help="images drawn at once (default 8)")
    grid = parser.add_argument_group("grid", "samples of consecutive seeds in a table")
    grid.add_argument("--rows", type=count, help="default 4")
    grid.add_argument("--columns", type=count, help="default 8")
    grid.add_argument("--seed", type=seed, help="the first one (default 0)")
    grid.add_argument("--separate", type=Path, metavar="FOLDER", help="write each sample as SEED.png too")
    mix = parser.add_argument_group("mix", "style mixing: sources go down, styles go across")
    mix.add_argument("--sources", type=seed, nargs="+", metavar="SEED", help="pose and shape (default 0 1 2 3)")
    mix.add_argument("--styles", type=seed, nargs="+", metavar="SEED", help="what is finer (default 4 5 6 7)")
    mix.add_argument("--from-resolution", type=count, help="the coarsest block that follows the style (default 16)")
    interpolate = parser.add_argument_group(
        "interpolate",
        "from face to face. OUTPUT is a film (.mp4), a folder of frames (no suffix), or an image: a table with a row "
        "for each seed and the next, both of them shown, so that a row begins with the face that ended the one above",
    )
    interpolate.add_argument("--seeds", type=seed, nargs="+", metavar="SEED", help="default 0 1 2 3")
    frames_help = f"from each seed to the next (default 24); a table has {MOST_STEPS} at most, evenly spaced"
    interpolate.add_argument("--frames", type=count, help=frames_help)
    interpolate.add_argument("--space", choices=["w", "z"], help="straight in w (default) or along the arc in z")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw and write.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if all was written, 1 otherwise.
    """
    options = _options(argv)

    from gpen_plugin.nets.loading import select_device
    from gpen_plugin.restore.prior_sampler import PriorSampler

    device = select_device(options.device, where="--device")
    sampler = PriorSampler(options.model, options.key, device, options.truncation, options.noise, options.batch)
    draw: dict[str, Callable] = {"grid": _grid, "mix": _mix, "interpolate": _interpolate}
    count = draw[options.mode](sampler, options)
    print(f"{count} images drawn to {options.output} by {sampler.spec}")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options with their mode's defaults; those of another mode and unknown kinds of output are refused."""
    command = parser()
    given = vars(command.parse_args(argv))
    mode, output = given["mode"], given["output"]
    for other, names in MODES.items():
        for name in names:
            if name in given and name not in MODES[mode]:
                command.error(f"--{name.replace('_', '-')} belongs to --mode {other}, not to {mode}")
    options = argparse.Namespace(**(MODES[mode] | given))
    if mode == "interpolate" and options.noise == "random":
        command.error("--noise random would jump at each seed; expected fixed or zero")
    if mode == "interpolate" and len(options.seeds) < 2:
        command.error(f"--seeds: got {len(options.seeds)}; expected two or more")
    moving = mode == "interpolate" and output.suffix.lower() in MOVING
    if not moving and not cv2.haveImageWriter(str(output)):
        others = ", a film (.mp4) or a folder (no suffix)" if mode == "interpolate" else ""
        command.error(f"--output: got {output}; expected an image file such as samples.png{others}")
    return options


def _grid(sampler: "PriorSampler", options: argparse.Namespace) -> int:
    seeds = range(options.seed, options.seed + options.rows * options.columns)
    images = list(_shown(sampler, map(sampler.seeded, seeds), len(seeds)))
    if options.separate is not None:
        for seed, image in zip(seeds, images, strict=True):
            write_image(options.separate / f"{seed}.png", image)
    write_image(options.output, mosaic(images, options.columns))
    return len(images)


def _mix(sampler: "PriorSampler", options: argparse.Namespace) -> int:
    """A table whose first row and column are the styles' and the sources' own images."""
    styles = [sampler.seeded(seed) for seed in options.styles]
    drawings = list(styles)
    for source in map(sampler.seeded, options.sources):
        drawings += [source, *(sampler.mixed(source, style, options.from_resolution) for style in styles)]
    images = list(_shown(sampler, drawings, len(drawings)))
    corner = np.full_like(images[0], 255)
    write_image(options.output, mosaic([corner, *images], 1 + len(styles)))
    return len(images)


def _interpolate(sampler: "PriorSampler", options: argparse.Namespace) -> int:
    suffix, ways = options.output.suffix.lower(), len(options.seeds) - 1
    frames = options.frames if suffix in MOVING else min(options.frames, MOST_STEPS)
    count = frames * ways + 1
    images = _shown(sampler, sampler.between(options.seeds, frames, options.space), count)
    if suffix == ".mp4":
        _write_film(options.output, images)
    elif not suffix:
        for number, image in enumerate(images):
            write_image(options.output / f"{number:05d}.png", image)
    else:
        whole = list(images)
        rows = [image for way in range(ways) for image in whole[way * frames : (way + 1) * frames + 1]]
        write_image(options.output, mosaic(rows, frames + 1))
    return count


def _shown(sampler: "PriorSampler", drawings: Iterable["Drawing"], count: int) -> Iterator[np.ndarray]:
    """The images, with a bar where one has to wait for them."""
    return iter(tqdm(sampler(drawings), total=count, unit="image", disable=count <= 4 * sampler.batch))


def _write_film(path: Path, images: Iterator[np.ndarray]) -> None:
    """Write an MP4, whole or not at all."""
    from gpen_plugin.restore.video_writer import VideoTarget

    duration = Fraction(1, FRAMES_PER_SECOND)
    try:
        target = VideoTarget(path, None, Fraction(FRAMES_PER_SECOND))
    except MissingFileError as error:
        hint = f"{error.hint}, or name a folder (no suffix): the frames go there."
        raise MissingFileError(error.where, error.got, hint=hint) from error
    with target:
        for number, image in enumerate(images):
            target.write(image, number * duration, duration)


def _whole_number(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"got {text}; expected a whole number from {low}")
        return int(text)

    return read


if __name__ == "__main__":
    sys.exit(main())
