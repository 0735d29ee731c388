"""Training pairs of 512 px per second, against the ordinary method.

    python benchmarks/degradation.py

The ordinary method is that of most data sets: it reads a PNG and applies Eq. 4 in float32 with a dense kernel of 41 px.
Both arms sample the same recipes for the same faces, and use one thread.
"""

import argparse
import itertools
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from face_images import COUNT, SIZE, lmdb_folder, png_folder
from measure import Comparison, check_close, compare, parser, report
from torch.utils.data import DataLoader

from gpen_plugin.data.degradation import (
    DegradationRanges,
    DegradationRecipe,
    blur_downsample,
    make_kernel,
    sample_recipe,
)
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.host.data_cursor import SampleIndex

PAIRS = 48  # of one call
KERNEL_SIZE = 41
BATCH = 4
INDICES = [SampleIndex(i % COUNT, 0, i) for i in range(PAIRS)]
ORDINARY = f"PNG, Eq. 4 in float32 with a dense kernel of {KERNEL_SIZE} px"


def data_set(root: Path, **options: object) -> GPENDegradationDataset:
    """Ours, with the paper's ranges."""
    backend = {"type": "lmdb" if root.suffix == ".lmdb" else "disk"}
    names = {"name": "faces", "type": "GPENDegradationDataset", "phase": "train", "dataroot_gt": str(root)}
    return GPENDegradationDataset({**names, "io_backend": backend, "out_size": SIZE, "use_hflip": True, **options})


def ordinary_pair(index: SampleIndex) -> dict:
    """The pair that the data set makes for the same index, made with the ordinary method."""
    rng = rng_from_key(0, index.epoch, index.position)
    face = cv2.imread(str(png_folder() / f"{index:02d}.png")).astype(np.float32) / 255
    if rng.random() < 0.5:
        face = np.ascontiguousarray(face[:, ::-1])
    recipe = sample_recipe(DegradationRanges(), rng)
    small = ordinary_blur(face, recipe)
    noise = np.random.Generator(np.random.PCG64(recipe.noise_seed)).standard_normal(small.shape)
    small = np.rint(np.clip(small * 255 + recipe.noise_sigma * noise, 0, 255)).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, recipe.jpeg_quality])[1]
    small = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).astype(np.float32) / 255
    lq = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return {"lq": ordinary_tensor(lq), "gt": ordinary_tensor(face)}


def ordinary_blur(face: np.ndarray, recipe: DegradationRecipe) -> np.ndarray:
    """(I * k) downsampled by s: the whole image is blurred, then made small."""
    blurred = cv2.filter2D(face, -1, kernel_of(recipe), borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(blurred, small_size(recipe)[::-1], interpolation=cv2.INTER_AREA)


def small_size(recipe: DegradationRecipe) -> tuple[int, int]:
    """Height and width of I_d."""
    return (max(1, round(SIZE / recipe.downsample)),) * 2


def kernel_of(recipe: DegradationRecipe) -> np.ndarray:
    """k with zeros around it up to `KERNEL_SIZE`."""
    return np.pad(make_kernel(recipe), (KERNEL_SIZE - recipe.kernel_size) // 2)


def ordinary_tensor(image: np.ndarray) -> torch.Tensor:
    """BGR (H, W, 3) in [0, 1] to RGB (3, H, W) in [-1, 1]."""
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb.transpose(2, 0, 1)).sub(0.5).div_(0.5)


def agreement(ours: GPENDegradationDataset) -> str:
    """Hold both arms together; the script ends here if they differ.

    A value that lies on the edge between two bytes may be rounded either way, and JPEG spreads the difference: so the
    blur is compared before the noise, and of the degraded images most have to be equal to the last bit but one.
    """
    equal, blurs = 0, []
    for index in INDICES:
        wanted, made = ordinary_pair(index), ours[index]
        check_close(wanted["gt"], made["gt"], tolerance=1e-6)
        equal += torch.allclose(wanted["lq"], made["lq"], rtol=0, atol=1e-5)
        rng = rng_from_key(0, index.epoch, index.position)
        rng.random()  # used by mirroring
        recipe = sample_recipe(DegradationRanges(), rng)
        face = cv2.imread(str(png_folder() / f"{index:02d}.png"))
        sparse = blur_downsample(face, kernel_of(recipe), small_size(recipe), recipe.downsampler == "area") / 255
        dense = ordinary_blur(face.astype(np.float32) / 255, recipe)
        blurs.append((torch.from_numpy(dense).flatten(), torch.from_numpy(sparse).flatten()))
    difference = check_close(*map(torch.cat, zip(*blurs, strict=True)))
    if equal < 0.9 * PAIRS:
        raise SystemExit(f"Only {equal} of {PAIRS} degraded images agree: nothing was timed.")
    return f"{difference} before noise and rounding; after them {equal} of {PAIRS} degraded images are equal"


def against_ordinary(root: Path, what: str, options: argparse.Namespace, target: float | None, note: str) -> Comparison:
    """Our data set on one kind of storage, against the ordinary method."""
    ours = data_set(root)
    return compare(
        f"training pairs of {SIZE} px per second and core: {what}",
        (ORDINARY, lambda: deque(map(ordinary_pair, INDICES), maxlen=BATCH)),
        (f"GPENDegradationDataset, {what}", lambda: deque(map(ours.__getitem__, INDICES), maxlen=BATCH)),
        rounds=options.rounds,
        target=target,
        items=PAIRS,
        error=agreement(ours),
        note=note,
    )


def throughput(workers: int, seconds: float, **options: object) -> float:
    """Pairs per second through torch's `DataLoader`.

    Args:
        workers: processes that make pairs; with 0 the caller's own does.
        seconds: how long to count, after the workers have started.
        options: of the data set.
    """
    endless = (SampleIndex(i % COUNT, 0, i) for i in itertools.count())
    batches = iter(DataLoader(data_set(lmdb_folder("bmp"), **options), BATCH, sampler=endless, num_workers=workers))
    for _ in range(1 + 3 * workers):  # the workers have started, and what they had made ahead is used up
        next(batches)
    begun, images = time.perf_counter(), 0
    while time.perf_counter() < begun + seconds:
        images += len(next(batches)["lq"])
    return images / (time.perf_counter() - begun)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one comparison per kind of storage."""
    options = parser(__doc__, threads=1).parse_args(argv)
    cv2.setNumThreads(options.threads)
    torch.set_num_threads(options.threads)
    kinds = [
        (lmdb_folder("bmp"), "LMDB of BMP", 4.0, "The blur is computed only at the pixels of the small image."),
        (png_folder(), "folder of PNG", None, "Decoding PNG is most of what remains."),
    ]
    rows = [against_ordinary(root, what, options, target, note) for root, what, target, note in kinds]
    report("Training pairs", rows, options)


if __name__ == "__main__":
    main()
