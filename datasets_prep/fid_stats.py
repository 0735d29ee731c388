"""Write the statistics of a set of images for FID and KID.

    python datasets_prep/fid_stats.py --input datasets/ffhq/ffhq_512.lmdb --output datasets/ffhq_512.npz --features

Then, in an option file: `fid: {type: calculate_fid, better: lower, statistics: datasets/ffhq_512.npz}`. KID needs the
features of each image, which `--features` adds: 8 kB per image. pytorch-fid reads the file too. Precision and recall
need `--network vgg16 --features`: 16 kB per image.

An image that cannot be read is reported and skipped; the statistics of the others are written, and the exit status
is 1. The network's weights are searched for in `--weights-dir`, `$GPEN_PLUGIN_WEIGHTS` and the cache, or downloaded.
"""

import argparse
import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpen_plugin.checkpoints.download import add_search_dir
from gpen_plugin.data.image_source import ImageSource, open_source, resize_square
from gpen_plugin.errors import DataError, OptionError, handle_errors
from gpen_plugin.metrics.fid import NETWORKS, FeatureStats

BATCH = 16  # images per call of the network


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--input", type=Path, required=True, help="folder, zip file or LMDB of images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to make; its name ends in .npz")
    parser.add_argument("-s", "--size", type=int, help="bring images to this side, as make_lmdb.py does")
    parser.add_argument("--limit", type=int, help="use at most this many images, the first by name")
    parser.add_argument("--features", action="store_true", help="keep the features of each image, for KID")
    networks = "inception for FID and KID, vgg16 for precision and recall"
    parser.add_argument("--network", choices=[*NETWORKS], default="inception", help=networks)
    parser.add_argument("--weights-dir", type=Path, help="folder with the network's weights")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Make a file of statistics.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if all images are in; 1 if some could not be read, or on an error; 130 if it was stopped.
    """
    options = parser().parse_args(argv)
    _check(options)
    if options.weights_dir:
        add_search_dir(options.weights_dir)
    source = open_source(options.input, "--input")
    keys = source.keys[: options.limit]
    try:
        used, moments, features = _look_at(source, keys, options)
        _write(options, used, moments, features)
    except KeyboardInterrupt:
        print("\nStopped. Nothing was written.", file=sys.stderr)
        return 130
    left_out = len(keys) - len(used)
    print(f"{options.output}: {len(used)} images" + (f", {left_out} left out." if left_out else "."))
    return 1 if left_out else 0


def _check(options: argparse.Namespace) -> None:
    if options.output.suffix != ".npz":
        raise OptionError("--output", f"got {options.output}", "a name that ends in .npz")
    if options.output.exists():
        raise DataError("--output", f"{options.output} exists", "a new name", "Choose another, or remove the file.")
    folder = next(parent for parent in options.output.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):  # an error now, not after hours
        raise DataError("--output", f"nothing can be written into {folder}", "a folder of yours")
    for name, least in (("size", 1), ("limit", 2)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise OptionError(f"--{name}", f"got {value}", f"a number from {least}")


def _look_at(
    source: ImageSource, keys: Sequence[str], options: argparse.Namespace
) -> tuple[list[str], FeatureStats, list[np.ndarray]]:
    """Keys of the readable images, mean and covariance of their features, and the features if required."""
    used, parts, moments = [], [], None
    for names, images in _batches(_readable(source, keys, options.size)):
        features = NETWORKS[options.network].extract_features(images, options.device)
        moments = moments or FeatureStats(features.shape[1])
        moments.add(features)
        used += names
        parts += [features] if options.features else []
    if len(used) < 2:
        raise DataError("--input", f"{options.input} has {len(used)} readable images", "at least 2")
    return used, moments, parts


def _readable(source: ImageSource, keys: Sequence[str], size: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """Images by key; what cannot be read is reported."""
    with tqdm(keys, unit="image") as progress:
        for key in progress:
            try:
                image = source.read(key)
            except DataError as error:
                progress.write(f"left out: {error}", file=sys.stderr)
                continue
            yield key, image if size is None else resize_square(image, size)


def _batches(images: Iterator[tuple[str, np.ndarray]]) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    names, batch = [], []
    for name, image in images:
        names.append(name)
        batch.append(image)
        if len(batch) == BATCH:
            yield names, batch
            names, batch = [], []
    if batch:
        yield names, batch


def _write(options: argparse.Namespace, used: list[str], moments: FeatureStats, features: list[np.ndarray]) -> None:
    """Write the file whole or not at all."""
    content = {
        "mu": moments.mean,
        "sigma": moments.covariance(),
        "count": moments.count,
        "name": options.output.stem,
        "size": options.size or 0,  # 0: each as it was
        "images": hashlib.sha256("\n".join(used).encode()).hexdigest(),
    }
    if features:
        content["features"] = np.concatenate(features)
    temporary = options.output.with_name(f".{options.output.name}.{os.getpid()}.part")
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            np.savez(stream, **content)
        os.replace(temporary, options.output)
    except OSError as error:
        raise DataError(str(options.output), f"cannot be written ({error})", "a folder with enough space") from error
    finally:
        with contextlib.suppress(OSError):  # it is not there, and perhaps neither is the folder
            temporary.unlink()


if __name__ == "__main__":
    sys.exit(main())
