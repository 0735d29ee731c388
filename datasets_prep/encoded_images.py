"""Reading, preparing and encoding the images of make_lmdb.py and make_tar.py, and what their outputs were made from."""

import argparse
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.data.image_source import ImageSource, open_source, resize_square
from gpen_plugin.data.lmdb_file import BUILDING
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.images.files import write_whole

MADE_FROM = "made_from.json"
BLOCK = 8  # pixels, side of JPEG's blocks
SHIFTS = tuple((y, x) for y in range(1, BLOCK, 2) for x in range(1, BLOCK, 2))
SHARPEN_SIGMA = 1.5  # pixels of the stored image


def parser(
    description: str,
    kind: str,  # what is made, in capitals: the metavar
    output: str,  # help of --output
) -> argparse.ArgumentParser:
    """The options that both scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-i", "--input", help="faces: a folder, zip file, LMDB, or tars (a pattern or URL of .tar files)"
    )
    parser.add_argument("-o", "--output", type=Path, help=output)
    parser.add_argument("-s", "--size", type=int, default=512, help="side of the stored images (default 512)")
    parser.add_argument("--skip", type=int, default=0, help="leave out this many images, the first by name")
    parser.add_argument("--limit", type=int, help="store at most this many of the others")
    parser.add_argument(
        "--format", choices=("png", "bmp"), default="png", help="small (png, the default) or fast (bmp)"
    )
    parser.add_argument("--compress-level", type=int, help="of PNG, 0 to 9 (default 1, as BasicSR's own)")
    parser.add_argument("--deblock", type=int, metavar="QUALITY", help="remove the block grid of JPEG sources")
    parser.add_argument("--sharpen", type=float, metavar="AMOUNT", help="unsharp mask after resizing, e.g. 0.8")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads (default: one per processor)")
    verify = f"decode all that is stored: at the end, or of this {kind}, without --input and --output"
    parser.add_argument("--verify", type=Path, nargs="?", const=True, metavar=kind, help=verify)
    return parser


def parse(command: argparse.ArgumentParser, argv: Sequence[str] | None, kind: str) -> argparse.Namespace:
    """The options of a command line, in which the path after --verify is the output too."""
    options = command.parse_args(argv)
    if isinstance(options.verify, Path):
        if options.input or options.output:
            command.error(f"--verify: got {options.verify}; expected nothing after it beside --input or --output")
        options.output = options.verify
    if options.output is None:
        command.error(f"name the {kind}: --output {kind}, or --verify {kind} if it is finished")
    return options


def check(options: argparse.Namespace, **more_limits: tuple[int, int | None]) -> None:
    """OptionError if a number is out of range; sets the default of `compress_level`."""
    if not options.input and not options.verify:
        raise OptionError("--input", "missing", "a folder, zip file, LMDB or tar of faces")
    limits = {"size": (1, 65500), "skip": (0, None), "limit": (1, None), "compress_level": (0, 9), "workers": (1, None)}
    limits |= {"deblock": (1, 100), "sharpen": (0, 10), **more_limits}
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if value is not None and (value < low or (high and value > high)):
            expected = f"a number from {low}" + (f" to {high}" if high else "")
            raise OptionError("--" + name.replace("_", "-"), f"got {value}", expected)
    if options.compress_level is None:
        options.compress_level = {"png": 1, "bmp": 0}[options.format]
    elif options.format != "png":
        got = f"got {options.compress_level} together with --format {options.format}"
        raise OptionError("--compress-level", got, "--format png, the only one that compresses", "Leave it out.")


def open_input(options: argparse.Namespace) -> tuple[ImageSource, list[str], dict]:
    """The source, the keys of the images to store, and what determines the output, as JSON."""
    source = open_source(options.input, "--input")
    keys = source.keys[options.skip :][: options.limit]
    if not keys:
        raise OptionError("--skip", f"got {options.skip}", f"fewer than the {len(source.keys)} images of the input")
    names = hashlib.sha256("\n".join(keys).encode("utf-8", "surrogateescape")).hexdigest()
    settings = {name: getattr(options, name) for name in ("size", "format", "compress_level", "deblock", "sharpen")}
    return source, keys, {**settings, "images": len(keys), "names": names}


def is_finished(output: Path, made_from: dict, verify: Callable[[], object]) -> bool:
    """Whether there is nothing to do; makes the folder and notes what it is being made from if it is new.

    A finished output is checked with `verify`. DataError if it was made from something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        write_note(output / BUILDING, made_from)
        return False
    note = next((output / name for name in (BUILDING, MADE_FROM) if (output / name).is_file()), None)
    if note is None:
        got = f"{output} exists and was not made by this script"
        raise DataError("--output", got, "a new name", "Choose another name, or remove what is there.")
    # what older versions of this script did not have
    earlier = {"format": "png", "deblock": None, "sharpen": None, **json.loads(note.read_text())}
    for name, value in made_from.items():
        if earlier.get(name) != value:
            words = "other images" if name == "names" else f"{name} {earlier.get(name)}, not {value}"
            got = f"{output} was begun with {words}"
            raise DataError("--output", got, "the same command as before", "Choose another name, or remove it.")
    if note.name == BUILDING:
        return False
    verify()
    left_out = earlier["unreadable"]
    print(f"{output} is finished: {made_from['images'] - len(left_out)} images, {len(left_out)} left out.")
    return True


def finish(output: Path, made_from: dict, unreadable: list[str]) -> None:
    """Note what the output was made from, then drop the mark that more is to come."""
    write_note(output / MADE_FROM, {**made_from, "unreadable": unreadable})
    (output / BUILDING).unlink()


def write_note(path: Path, content: dict) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(content).encode())


def encoder(source: ImageSource, options: argparse.Namespace) -> Callable[[str], bytes | DataError]:
    """A function that any thread can call: key -> image file, or what is wrong with the image."""
    level = [cv2.IMWRITE_PNG_COMPRESSION, options.compress_level] if options.format == "png" else []

    def encode(key: str) -> bytes | DataError:
        try:
            image = source.read(key)
        except DataError as error:
            return error
        if options.deblock:
            image = deblock(image, options.deblock)
        image = resize_square(image, options.size)
        if options.sharpen:
            image = sharpen(image, options.sharpen)
        written, data = cv2.imencode(f".{options.format}", image, level)
        assert written, f"OpenCV was built without {options.format}"
        return data.tobytes()

    return encode


def deblock(image: np.ndarray, quality: int) -> np.ndarray:
    """Remove the grid of 8 x 8 blocks that JPEG leaves: the mean of the image encoded again at 16 shifts of the grid.

    Args:
        image: (H, W, 3) BGR uint8.
        quality: JPEG quality of the encodings, 1 to 100: that of the source.
    Returns:
        (H, W, 3) BGR uint8.
    """
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, BLOCK, BLOCK, BLOCK, BLOCK, cv2.BORDER_REFLECT_101)
    total = np.zeros(image.shape, np.float32)
    for y, x in SHIFTS:
        shifted = np.ascontiguousarray(padded[y : y + height + BLOCK, x : x + width + BLOCK])
        _, data = cv2.imencode(".jpg", shifted, [cv2.IMWRITE_JPEG_QUALITY, quality])
        top, left = BLOCK - y, BLOCK - x
        total += cv2.imdecode(data, cv2.IMREAD_COLOR)[top : top + height, left : left + width]
    return np.rint(total / len(SHIFTS)).astype(np.uint8)


def sharpen(image: np.ndarray, amount: float) -> np.ndarray:
    """Add `amount` times the difference to a Gaussian blur of `SHARPEN_SIGMA` pixels: (H, W, 3) uint8 -> the same."""
    blurred = cv2.GaussianBlur(image, (0, 0), SHARPEN_SIGMA)
    return cv2.addWeighted(image, 1 + amount, blurred, -amount, 0)


def in_order(work: Callable, items: Sequence, workers: int) -> Iterator[tuple]:
    """(item, result) in order, with a few results of `workers` threads waiting; OpenCV lets threads run abreast."""
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[object, Future]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > 4 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for item, future in waiting:
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def none_readable(options: argparse.Namespace, unreadable: list[str]) -> DataError:
    """The error of an output without images."""
    return DataError("--input", f"none of the {len(unreadable)} images of {options.input} can be read", "faces")


def run(options: argparse.Namespace, make: Callable, verify: Callable, errors: type[Exception] = OSError) -> int:
    """Make and verify as the options say; the exit status. `errors` are those of a storage that cannot be used."""
    try:
        if options.input:
            make(options)
        if options.verify:
            verify(options)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command resumes {options.output}.", file=sys.stderr)
        return 130
    except (OSError, errors) as error:
        got = f"cannot be {'written' if options.input else 'read'} ({error})"
        raise DataError(str(options.output), got, "a whole output, in a folder with enough space") from error
    return 0
