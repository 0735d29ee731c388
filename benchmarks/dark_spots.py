"""How many dark spots a restored face has on clean skin, for a growing noise of the input.

    python benchmarks/dark_spots.py FACES [-n 40] [--model GPEN-BFR-512]

Aligned faces (FFHQ) are blurred, reduced to a third, get noise and JPEG at quality 90 (Eq. 4), and are restored. On
cheeks and forehead, spots are counted that the ground truth lacks. `Restorer(denoise=True)` removes strong noise first.
"""

import argparse
from collections.abc import Sequence

import cv2
import numpy as np

from gpen_plugin import Restorer
from gpen_plugin.data.degradation import DegradationRanges, degrade_lowres, sample_recipe
from gpen_plugin.data.image_source import FolderSource, resize_square
from gpen_plugin.data.rng import rng_from_key

NOISES = (0, 5, 10, 15, 20, 25)  # standard deviations, in units of 1/255
RADII = (1.0, 1.5, 2.2, 3.2)  # pixels at 256 px: standard deviations of the spots
RING = 2.5  # in units of the radius: the surroundings that a spot is darker than
MIN_DEPTH = 0.04  # of the value range
APART = 7  # pixels: one spot at most in a square of this side
# cheeks and forehead in FFHQ's alignment: center and half axes, of the side
SKIN = ((0.322, 0.625, 0.074, 0.066), (0.678, 0.625, 0.074, 0.066), (0.5, 0.3125, 0.137, 0.047))


def find_spots(
    face: np.ndarray,  # (S, S, 3) BGR float32 in [0, 1]
) -> np.ndarray:
    """Centers of dark spots, (S, S) bool."""
    gray, scale = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), len(face) / 256
    depths = [
        cv2.GaussianBlur(gray, (0, 0), RING * radius * scale) - cv2.GaussianBlur(gray, (0, 0), radius * scale)
        for radius in RADII
    ]
    depth = np.max(depths, axis=0)
    window = np.ones((round(APART * scale) | 1,) * 2, np.uint8)
    return (depth == cv2.dilate(depth, window)) & (depth > MIN_DEPTH)


def skin(side: int) -> np.ndarray:
    """Cheeks and forehead of an aligned face, (side, side) bool."""
    mask = np.zeros((side, side), np.uint8)
    for *center, across, down in SKIN:
        middle, axes = ([round(value * side) for value in pair] for pair in (center, (across, down)))
        cv2.ellipse(mask, middle, axes, 0, 0, 360, 1, -1)
    return mask.astype(bool)


def new_spots(restored: np.ndarray, truth: np.ndarray) -> int:
    """The number of dark spots on the skin of a restored face that the ground truth lacks; both as `find_spots`."""
    known = cv2.dilate(find_spots(truth).astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    return int((find_spots(restored) & skin(len(restored)) & ~known).sum())


def degrade(truth: np.ndarray, noise: float, key: str) -> np.ndarray:
    """A face, (S, S, 3) uint8, to a noisy one of a third of its side."""
    ranges = {"blur_sigma": [1, 2], "kernel_size": [9, 15], "downsample_range": [3, 3], "jpeg_range": [90, 90]}
    ranges = DegradationRanges.from_options({**ranges, "noise_range": [noise, noise]}, "degradation")
    return degrade_lowres(truth, sample_recipe(ranges, rng_from_key(0, key)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", help="folder of aligned faces without noise")
    parser.add_argument("-n", "--number", type=int, default=40, help="faces (default %(default)s)")
    parser.add_argument("-m", "--model", help="as in gpen-restore")
    arguments = parser.parse_args(argv)
    source = FolderSource(arguments.faces, "faces")
    restorers = [Restorer(arguments.model, denoise=denoise, skip_sharp=False) for denoise in (False, True)]
    side = restorers[0].network.out_size
    truths = {key: resize_square(source.read(key), side) for key in source.keys[: arguments.number]}
    print("| noise | new spots | with `denoise` | PSNR, dB | with `denoise` |\n| ---: | ---: | ---: | ---: | ---: |")
    for noise in NOISES:
        lows = [degrade(truth, noise, key) for key, truth in truths.items()]
        cells = []
        for restorer in restorers:
            results = [face.restored for (face,) in restorer.restore_faces(lows, aligned=True)]
            pairs = [
                (result, truth.astype(np.float32) / 255) for result, truth in zip(results, truths.values(), strict=True)
            ]
            decibels = [-10 * np.log10(np.mean((result - truth) ** 2)) for result, truth in pairs]
            cells.append((np.mean([new_spots(*pair) for pair in pairs]), np.mean(decibels)))
        (spots, psnr), (fewer, higher) = cells
        print(f"| {noise} | {spots:.1f} | {fewer:.1f} | {psnr:.2f} | {higher:.2f} |", flush=True)


if __name__ == "__main__":
    main()
