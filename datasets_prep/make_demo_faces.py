"""Make the faces of the demo: two folders, train and val, of PNG images of one size.

    python datasets_prep/make_demo_faces.py --output datasets/demo/faces --size 128
    python datasets_prep/make_demo_faces.py --output datasets/demo/faces --size 128 --input MY_FACES.zip

Without --input, val has synthetic faces; train has other synthetic faces and random crops of the portrait photograph
that scikit-image ships. With --input, the images are ordered by a hash of their names, which is the same
on all machines: the first go to val, the next to train. No image of val is in train.
"""

import argparse
import hashlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from synthetic_faces import render_face
from tqdm import tqdm

from gpen_plugin.cli.demo import EYES, portrait
from gpen_plugin.data.image_source import open_folder_or_zip, resize_square
from gpen_plugin.errors import DataError, OptionError, handle_errors
from gpen_plugin.images.files import write_image

PORTRAIT_FRACTION = 0.25  # of the training images: most faces must be of other persons
FIRST_VAL_SEED = 1 << 32  # of the synthetic faces; those of train start from 0
FRAMINGS = {"ffhq": ((0.377, 0.469), (0.623, 0.469)), "dlib": ((0.316, 0.296), (0.679, 0.296))}  # eyes, of the side


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for train/ and val/")
    parser.add_argument("-i", "--input", type=Path, help="folder or zip file of face images to use instead")
    parser.add_argument("-s", "--size", type=int, default=128, help="side of the images (default 128)")
    parser.add_argument("--train", type=int, default=400, help="how many to train on, at most (default 400)")
    parser.add_argument("--val", type=int, default=24, help="how many for validation (default 24)")
    parser.add_argument("--framing", choices=FRAMINGS, default="ffhq", help="how faces fill the image (default ffhq)")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic faces and of the crops (default 0)")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write the images.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0, or 1 with a message.
    """
    options = parser().parse_args(argv)
    for name in ("size", "train", "val"):
        if getattr(options, name) < 1:
            raise OptionError(f"--{name}", f"got {getattr(options, name)}", "a number above 0")
    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        raise DataError(
            "--output", f"{options.output} is there already", "a new folder", "Remove it or choose another."
        )
    unfinished = options.output.with_name(options.output.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    if options.input:
        _split_faces(options.input, unfinished, options)
    else:
        _render_faces(unfinished, options)
    os.replace(unfinished, options.output)
    train, val = (len(_images(options.output / name)) for name in ("train", "val"))
    print(f"{options.output}: {train} faces for training, {val} for validation, {options.size} x {options.size}.")
    return 0


def _images(folder: Path) -> list[Path]:
    return list(folder.rglob("*.png"))


def _render_faces(output: Path, options: argparse.Namespace) -> None:
    crops = round(PORTRAIT_FRACTION * options.train)
    first = options.seed * 1_000_003
    targets = [(output / f"train/drawn_{i:05d}.png", first + i) for i in range(options.train - crops)]
    targets += [(output / f"val/drawn_{i:05d}.png", FIRST_VAL_SEED + first + i) for i in range(options.val)]
    render = partial(render_framed, size=options.size, framing=options.framing)
    _in_parallel(lambda target: write_image(target[0], render(target[1])), targets, "rendering")
    photograph, rng = portrait(), np.random.default_rng(options.seed)
    for i in range(crops):
        write_image(output / f"train/portrait_{i:05d}.png", random_crop(photograph, options.size, rng, options.framing))


def _in_parallel(work: Callable, items: Sequence, words: str) -> list:
    """Results in order, from one thread per processor: NumPy and OpenCV release the lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(work, items), total=len(items), desc=words, unit="face"))


def render_framed(seed: int, size: int, framing: str) -> np.ndarray:
    """A synthetic face, cropped from FFHQ's framing to this one: (size, size, 3) BGR uint8."""
    if framing == "ffhq":
        return render_face(seed, size)
    (left, top), (right, _) = FRAMINGS["ffhq"]
    (own_left, own_top), (own_right, _) = FRAMINGS[framing]
    fraction = (right - left) / (own_right - own_left)  # of the rendered image
    whole = render_face(seed, round(size / fraction))
    x, y = (round((eye - own * fraction) * len(whole)) for eye, own in ((left, own_left), (top, own_top)))
    return np.ascontiguousarray(whole[y : y + size, x : x + size])


def random_crop(photograph: np.ndarray, size: int, rng: np.random.Generator, framing: str = "ffhq") -> np.ndarray:
    """The portrait's face in about this framing, shifted, scaled, turned, mirrored and in another light.

    Args:
        photograph: the portrait, (512, 512, 3) BGR uint8.
        size: side of the result.
        rng: of the augmentation.
        framing: see `FRAMINGS`.
    Returns:
        (size, size, 3) BGR uint8.
    """
    big = 2 * size  # reduced at the end, so that nothing aliases
    (left_x, left_y), (right_x, right_y) = EYES
    eyes = FRAMINGS[framing]
    scale = (eyes[1][0] - eyes[0][0]) * big / math.hypot(right_x - left_x, right_y - left_y)
    scale *= rng.uniform(0.8, 1.1)
    turn = cv2.getRotationMatrix2D(((left_x + right_x) / 2, (left_y + right_y) / 2), rng.normal(0, 5), scale)
    center = np.array([0.5, eyes[0][1]]) + rng.uniform(-0.05, 0.05, 2)
    turn[:, 2] += center * big - ((left_x + right_x) / 2, (left_y + right_y) / 2)
    crop = cv2.warpAffine(photograph, turn, (big, big), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    bright = (crop / 255.0) ** rng.uniform(0.8, 1.25) * rng.uniform(0.94, 1.06, 3)
    return np.rint(np.clip(bright, 0, 1) * 255).astype(np.uint8)


def _split_faces(path: Path, output: Path, options: argparse.Namespace) -> None:
    source = open_folder_or_zip(path, "--input")
    if len(source.keys) < 2:
        raise DataError("--input", f"{path} holds one image", "at least two: one to train on, one to keep apart")
    ranked = sorted(source.keys, key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())
    val = min(options.val, max(1, len(ranked) // 5))
    targets = [(output / "val", key) for key in ranked[:val]]
    targets += [(output / "train", key) for key in ranked[val : val + options.train]]

    def copy(target: tuple[Path, str]) -> DataError | None:
        folder, key = target
        try:
            write_image(folder / f"{key}.png", resize_square(source.read(key), options.size))
        except DataError as error:
            return error
        return None

    for error in filter(None, _in_parallel(copy, targets, "reading")):
        print(f"skipped: {error}", file=sys.stderr)
    for name in ("train", "val"):
        if not _images(output / name):
            raise DataError("--input", f"no image of {path} for {name} can be read", "readable faces")


if __name__ == "__main__":
    sys.exit(main())
