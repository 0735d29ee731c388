"""Turn a folder or zip file of faces into an LMDB of images of one size, in BasicSR's format.

    python datasets_prep/make_lmdb.py --input FFHQ --output datasets/ffhq/ffhq_512.lmdb --size 512

It can be stopped at any time: the same command resumes it. An image is cropped to its central square and resized; one
that cannot be read is reported and skipped. Keys are the names below the input without their
suffix; what is not ASCII, and '%', is written %XX as in web addresses.

Images are stored without loss: as PNG, or with `--format bmp` uncompressed, which every reader of the LMDB takes too.
A face of 512 x 512 pixels is about 0.45 MB as PNG, and decoding it takes more of a processor's time than all else that
is done to a training image; as BMP it is 0.79 MB, and read at the speed of the disk or, if the file fits there, of
memory. Choose BMP to train on few cores, if the disk is large enough.

To check a finished LMDB, `python datasets_prep/make_lmdb.py --verify datasets/ffhq/ffhq_512.lmdb` decodes all images
and compares them with the list of entries.

JPEG images have a grid of blocks, which a GAN learns to reproduce. `--deblock 75` removes it before
resizing: each image is encoded again at this quality at 16 shifts of the grid, and the mean is taken (Nosratinia,
"Enhancement of JPEG-compressed images by re-application of JPEG", 2001). Give the quality that the source was saved
with. `--sharpen 0.8` adds so much of an unsharp mask after resizing, for sources that are softer than their size.

For a validation set that is never trained on: `--limit 500` for the one, `--skip 500` for the other; the order is that
of the names.
"""

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
import lmdb
import numpy as np
from tqdm import tqdm

from gpen_plugin.data.image_source import ImageSource, decode_image, open_folder_or_zip, resize_square
from gpen_plugin.data.lmdb_file import BUILDING, META_INFO, Entry, check_length, check_lmdb, lmdb_key, read_meta_info
from gpen_plugin.errors import DataError, OptionError, handle_errors

MADE_FROM = "made_from.json"
BATCH = 128  # images per commit, the most that is done again after a kill
MAP_SIZE = 1 << 30  # bytes to begin with; it grows
BLOCK = 8  # pixels, side of JPEG's blocks
SHIFTS = tuple((y, x) for y in range(1, BLOCK, 2) for x in range(1, BLOCK, 2))
SHARPEN_SIGMA = 1.5  # pixels of the stored image
LONGEST_KEY = 511  # bytes, fixed when the lmdb library is built


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--input", type=Path, help="folder or zip file of faces")
    parser.add_argument("-o", "--output", type=Path, help="folder to make; its name ends in .lmdb")
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
    verify_help = "decode all that is stored: at the end, or of this LMDB, without --input and --output"
    parser.add_argument("--verify", type=Path, nargs="?", const=True, metavar="LMDB", help=verify_help)
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Make, go on making, or verify an LMDB.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the LMDB is whole, be it without some unreadable images; 1 otherwise.
    """
    options = _options(argv)
    _check(options)
    try:
        if options.input:
            _make(options)
        if options.verify:
            _verify(options)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command resumes {options.output}.", file=sys.stderr)
        return 130
    except (OSError, lmdb.Error) as error:
        got = f"cannot be {'written' if options.input else 'read'} ({error})"
        raise DataError(str(options.output), got, "a whole LMDB, in a folder with enough space") from error
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, in which an LMDB after --verify is the output too."""
    command = parser()
    options = command.parse_args(argv)
    if isinstance(options.verify, Path):
        if options.input or options.output:
            command.error(f"--verify: got {options.verify}; expected nothing after it beside --input or --output")
        options.output = options.verify
    if options.output is None:
        command.error("name the LMDB: --output LMDB, or --verify LMDB if it is finished")
    return options


def _check(options: argparse.Namespace) -> None:
    if options.output.suffix != ".lmdb":
        where = "--verify" if options.output == options.verify else "--output"
        raise OptionError(where, f"got {options.output}", "a name that ends in .lmdb, as BasicSR demands")
    if not options.input and not options.verify:
        raise OptionError("--input", "missing", "a folder or zip file of faces")
    limits = {"size": (1, 65500), "skip": (0, None), "limit": (1, None), "compress_level": (0, 9), "workers": (1, None)}
    limits |= {"deblock": (1, 100), "sharpen": (0, 10)}
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


def _make(options: argparse.Namespace) -> None:
    source = open_folder_or_zip(options.input, "--input")
    keys = source.keys[options.skip :][: options.limit]
    if not keys:
        raise OptionError("--skip", f"got {options.skip}", f"fewer than the {len(source.keys)} images of the input")
    made_from = {
        "size": options.size,
        "format": options.format,
        "compress_level": options.compress_level,
        "deblock": options.deblock,
        "sharpen": options.sharpen,
        "images": len(keys),
        "names": hashlib.sha256("\n".join(keys).encode("utf-8", "surrogateescape")).hexdigest(),
    }
    if _is_finished(options.output, made_from):
        return
    unreadable = _fill(options, source, keys)
    stored = _finish(options, made_from, unreadable)
    print(f"{options.output}: {stored} images of {options.size} x {options.size}, {len(unreadable)} left out.")


def _is_finished(output: Path, made_from: dict) -> bool:
    """Whether there is nothing to do; makes the folder and notes what it is being made from if it is new."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        output.mkdir(parents=True, exist_ok=True)
        _write_whole(output / BUILDING, json.dumps(made_from))
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
    check_lmdb(output, "--output")
    left_out = earlier["unreadable"]
    print(f"{output} is finished: {made_from['images'] - len(left_out)} images, {len(left_out)} left out.")
    return True


def _fill(options: argparse.Namespace, source: ImageSource, keys: list[str]) -> list[str]:
    """Store what is not stored yet, and return what could not be read."""
    check_length(options.output, "--output")
    unreadable = []
    with lmdb.open(str(options.output), map_size=MAP_SIZE) as environment:
        with environment.begin(buffers=True) as transaction:
            missing = [key for key in keys if not _is_stored(transaction, key)]
        if len(missing) < len(keys):
            print(f"Going on with {options.output}: {len(keys) - len(missing)} of {len(keys)} are there.")
        encode = _encoder(source, options)
        batch = []
        with tqdm(total=len(keys), initial=len(keys) - len(missing), unit="image") as progress:
            for key, encoded in _in_order(encode, missing, options.workers):
                progress.update()
                if isinstance(encoded, DataError):
                    progress.write(f"left out: {encoded}", file=sys.stderr)
                    unreadable.append(key)
                    continue
                batch.append((lmdb_key(key).encode("ascii"), encoded))
                if len(batch) == BATCH:
                    _store(environment, batch)
                    batch = []
            _store(environment, batch)
    return unreadable


def _is_stored(transaction: lmdb.Transaction, key: str) -> bool:
    name = lmdb_key(key).encode("ascii")
    return len(name) <= LONGEST_KEY and transaction.get(name) is not None


def _encoder(source: ImageSource, options: argparse.Namespace) -> Callable[[str], bytes | DataError]:
    """A function that any thread can call: key -> image file, or what is wrong with the image."""
    level = [cv2.IMWRITE_PNG_COMPRESSION, options.compress_level] if options.format == "png" else []

    def encode(key: str) -> bytes | DataError:
        try:
            if len(lmdb_key(key)) > LONGEST_KEY:
                raise DataError(source.name(key), "its name is too long for LMDB", f"at most {LONGEST_KEY} bytes")
            image = source.read(key)
            if options.deblock:
                image = deblock(image, options.deblock)
            image = resize_square(image, options.size)
            if options.sharpen:
                image = sharpen(image, options.sharpen)
        except DataError as error:
            return error
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


def _in_order(work: Callable, items: Sequence, workers: int) -> Iterator[tuple]:
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


def _store(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]]) -> None:
    """Write a batch whole or not at all, making the map larger until it fits."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _finish(options: argparse.Namespace, made_from: dict, unreadable: list[str]) -> int:
    """Write the list of entries, then drop the mark that more is to come. Returns how many there are."""
    with lmdb.open(str(options.output), readonly=True) as environment, environment.begin() as transaction:
        names = sorted(name.decode("ascii") for name in transaction.cursor().iternext(values=False))
    if not names:
        raise DataError("--input", f"none of the {len(unreadable)} images of {options.input} can be read", "faces")
    line = f".png ({options.size},{options.size},3) {options.compress_level}\n"
    _write_whole(options.output / META_INFO, "".join(name + line for name in names))
    _write_whole(options.output / MADE_FROM, json.dumps({**made_from, "unreadable": unreadable}))
    (options.output / BUILDING).unlink()
    return len(names)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(text)
    os.replace(temporary, path)


def _verify(options: argparse.Namespace) -> None:
    """Decode every entry and compare it with its line of meta_info.txt; `DataError` counts the bad ones."""
    check_lmdb(options.output, "--verify")
    entries = read_meta_info(options.output, "--verify")
    bad = 0
    with lmdb.open(str(options.output), readonly=True, lock=False) as environment:

        def problem(entry: Entry) -> str | None:
            with environment.begin() as transaction:
                data = transaction.get(entry.lmdb_key.encode("ascii"))
            if data is None:
                return "not stored"
            try:
                shape = decode_image(data, entry.lmdb_key).shape
            except DataError as error:
                return error.got
            listed = (entry.height, entry.width, entry.channels)
            return None if shape == listed else f"has shape {shape}, not {listed}"

        for entry, found in tqdm(_in_order(problem, entries, options.workers), total=len(entries), desc="verifying"):
            if found:
                bad += 1
                tqdm.write(f"damaged: {entry.lmdb_key}: {found}", file=sys.stderr)
    if bad:
        raise DataError(f"--verify {options.output}", f"{bad} of {len(entries)} images are damaged", "none")
    print(f"{options.output}: all {len(entries)} images verified.")


if __name__ == "__main__":
    sys.exit(main())
