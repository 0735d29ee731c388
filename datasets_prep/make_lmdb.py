"""Turn a folder, zip file or tars of faces into an LMDB of images of one size, in BasicSR's format.

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
import sys
from collections.abc import Sequence

import lmdb
from encoded_images import check, encoder, finish, in_order, is_finished, none_readable, open_input, parse, parser, run
from tqdm import tqdm

from gpen_plugin.data.image_source import ImageSource, decode_image
from gpen_plugin.data.lmdb_file import META_INFO, Entry, check_length, check_lmdb, lmdb_key, read_meta_info
from gpen_plugin.errors import DataError, OptionError, handle_errors
from gpen_plugin.images.files import write_whole

BATCH = 128  # images per commit, the most that is done again after a kill
MAP_SIZE = 1 << 30  # bytes to begin with; it grows
LONGEST_KEY = 511  # bytes, fixed when the lmdb library is built


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Make, go on making, or verify an LMDB.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the LMDB is whole, be it without some unreadable images; 1 otherwise.
    """
    options = parse(parser(__doc__, "LMDB", "folder to make; its name ends in .lmdb"), argv, "LMDB")
    if options.output.suffix != ".lmdb":
        where = "--verify" if options.output == options.verify else "--output"
        raise OptionError(where, f"got {options.output}", "a name that ends in .lmdb, as BasicSR demands")
    check(options)
    return run(options, _make, _verify, lmdb.Error)


def _make(options: argparse.Namespace) -> None:
    source, keys, made_from = open_input(options)
    if is_finished(options.output, made_from, lambda: check_lmdb(options.output, "--output")):
        return
    unreadable = _fill(options, source, keys)
    stored = _write_meta_info(options, unreadable)
    finish(options.output, made_from, unreadable)
    print(f"{options.output}: {stored} images of {options.size} x {options.size}, {len(unreadable)} left out.")


def _fill(options: argparse.Namespace, source: ImageSource, keys: list[str]) -> list[str]:
    """Store what is not stored yet, and return what could not be read."""
    check_length(options.output, "--output")
    unreadable = []
    with lmdb.open(str(options.output), map_size=MAP_SIZE) as environment:
        with environment.begin(buffers=True) as transaction:
            missing = [key for key in keys if not _is_stored(transaction, key)]
        if len(missing) < len(keys):
            print(f"Going on with {options.output}: {len(keys) - len(missing)} of {len(keys)} are there.")
        encode_readable = encoder(source, options)

        def encode(key: str) -> bytes | DataError:
            if len(lmdb_key(key)) > LONGEST_KEY:
                return DataError(source.name(key), "its name is too long for LMDB", f"at most {LONGEST_KEY} bytes")
            return encode_readable(key)

        batch = []
        with tqdm(total=len(keys), initial=len(keys) - len(missing), unit="image") as progress:
            for key, encoded in in_order(encode, missing, options.workers):
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


def _write_meta_info(options: argparse.Namespace, unreadable: list[str]) -> int:
    """Write the list of entries. Returns how many there are."""
    with lmdb.open(str(options.output), readonly=True) as environment, environment.begin() as transaction:
        names = sorted(name.decode("ascii") for name in transaction.cursor().iternext(values=False))
    if not names:
        raise none_readable(options, unreadable)
    line = f".png ({options.size},{options.size},3) {options.compress_level}\n"
    write_whole(options.output / META_INFO, "".join(name + line for name in names).encode())
    return len(names)


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

        for entry, found in tqdm(in_order(problem, entries, options.workers), total=len(entries), desc="verifying"):
            if found:
                bad += 1
                tqdm.write(f"damaged: {entry.lmdb_key}: {found}", file=sys.stderr)
    if bad:
        raise DataError(f"--verify {options.output}", f"{bad} of {len(entries)} images are damaged", "none")
    print(f"{options.output}: all {len(entries)} images verified.")


if __name__ == "__main__":
    sys.exit(main())
