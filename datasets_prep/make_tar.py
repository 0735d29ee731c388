"""Turn a folder, zip file, LMDB or tars of faces into tars of images of one size, in WebDataset's layout.

    python datasets_prep/make_tar.py --input FFHQ --output datasets/ffhq/ffhq_512 --size 512

This writes ffhq_512-000000.tar and so on into the folder, with an index beside each. `io_backend: {type: tar}` reads
them: `dataroot_gt: datasets/ffhq/ffhq_512`, or their URL. WebDataset and Ray Data read them, too, and NVIDIA DALI with
the indexes.

It can be stopped at any time: the same command resumes it, after the last whole tar. An image is cropped to its central
square and resized; one that cannot be read is reported and skipped. The same input gives the same bytes. A key is the
name below the input without its suffix; what is not ASCII, spaces, '%', and a dot in the file name are written %XX as
in web addresses, because a key ends at the first dot.

Images are stored without loss, as PNG or BMP. Options are those of make_lmdb.py, whose help describes --deblock and
--sharpen.

To check finished tars, `python datasets_prep/make_tar.py --verify datasets/ffhq/ffhq_512` decodes all images and
compares the indexes with the tars.
"""

import argparse
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from encoded_images import (
    MADE_FROM,
    check,
    encoder,
    finish,
    in_order,
    is_finished,
    none_readable,
    open_input,
    parse,
    parser,
    run,
)
from tqdm import tqdm

from gpen_plugin.data.image_source import TarSource
from gpen_plugin.data.tar_file import build_index, index_path, index_text, list_shards, load_index, member_name
from gpen_plugin.errors import DataError, OptionError, handle_errors
from gpen_plugin.images.files import write_whole


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Make, go on making, or verify tars.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the tars are whole, be it without some unreadable images; 1 otherwise.
    """
    command = parser(__doc__, "FOLDER", "folder to make, for the tars")
    command.add_argument("--shard-size", type=int, default=1000, help="images per tar (default 1000)")
    options = parse(command, argv, "FOLDER")
    if options.output.suffix in (".tar", ".lmdb"):
        raise OptionError("--output", f"got {options.output}", "the name of a folder for the tars")
    check(options, shard_size=(1, None))
    return run(options, _make, _verify)


def _make(options: argparse.Namespace) -> None:
    source, keys, made_from = open_input(options)
    made_from["shard_size"] = options.shard_size
    if is_finished(options.output, made_from, lambda: list_shards(str(options.output), "--output")):
        return
    shards: dict[Path, list[str]] = {}  # their keys
    for start in range(0, len(keys), options.shard_size):
        name = f"{options.output.name}-{start // options.shard_size:06d}.tar"
        shards[options.output / name] = keys[start : start + options.shard_size]
    whole = {path for path in shards if path.exists()}
    missing = [key for path, shard in shards.items() if path not in whole for key in shard]
    if whole:
        print(f"Going on with {options.output}: {len(keys) - len(missing)} of {len(keys)} are there.")
    unreadable = []
    encoded = in_order(encoder(source, options), missing, options.workers)
    progress = tqdm(total=len(keys), initial=len(keys) - len(missing), unit="image")

    def members(shard: list[str]) -> Iterator[tuple[str, bytes]]:
        for key, (_, data) in zip(shard, encoded, strict=False):  # takes no more of `encoded` than the shard has
            progress.update()
            if isinstance(data, DataError):
                progress.write(f"left out: {data}", file=sys.stderr)
                unreadable.append(key)
            else:
                yield member_name(key, f".{options.format}"), data

    with progress:
        for path, shard in shards.items():
            if path in whole:
                stored = {member.name for member in load_index(path, "--output")[0]}
                unreadable += [key for key in shard if member_name(key, f".{options.format}") not in stored]
                continue
            write_shard(path, members(shard))
    if len(unreadable) == len(keys):
        raise none_readable(options, unreadable)
    finish(options.output, made_from, unreadable)
    stored = len(keys) - len(unreadable)
    print(f"{options.output}: {stored} images of {options.size} x {options.size}, {len(unreadable)} left out.")


def write_shard(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar of files, by name, and its index; no tar without files, or after a kill."""
    part = path.with_suffix(".part")
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)  # no time, no owner
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    members = build_index(part, str(part))
    if not members:
        part.unlink()
        return
    write_whole(index_path(path), index_text(members).encode("ascii"))
    os.replace(part, path)


def _verify(options: argparse.Namespace) -> None:
    """Decode every image, and compare indexes, sizes and numbers; `DataError` counts the bad ones."""
    source = TarSource(options.output, "--verify")
    note = options.output / MADE_FROM
    made_from = json.loads(note.read_text()) if note.is_file() else {}
    side = made_from.get("size")
    bad = 0

    def problem(key: str) -> str | None:
        try:
            shape = source.read(key).shape
        except DataError as error:
            return error.got
        return None if side is None or shape == (side, side, 3) else f"has shape {shape}, not {(side, side, 3)}"

    found = in_order(problem, source.keys, options.workers)
    for key, what in tqdm(found, total=len(source.keys), desc="verifying"):
        if what:
            bad += 1
            tqdm.write(f"damaged: {key}: {what}", file=sys.stderr)
    for path in map(Path, list_shards(str(options.output), "--verify")):
        if build_index(path, "--verify") != load_index(path, "--verify")[0]:
            bad += 1
            tqdm.write(f"damaged: {index_path(path)} is not the index of its tar", file=sys.stderr)
    wanted = made_from.get("images", len(source.keys)) - len(made_from.get("unreadable", []))
    if bad or len(source.keys) != wanted:
        got = f"{bad} of {wanted} images are damaged, {wanted - len(source.keys)} are missing"
        raise DataError(f"--verify {options.output}", got, "none")
    print(f"{options.output}: all {len(source.keys)} images verified.")


if __name__ == "__main__":
    sys.exit(main())
