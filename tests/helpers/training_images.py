"""Images and folders that several tests of the data need."""

from pathlib import Path

import cv2
import lmdb
import numpy as np


def color_image(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    """A smooth random image, (height, width, 3) BGR uint8."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def write_faces(folder: Path, count: int, side: int = 32) -> Path:
    """Fill a folder with face_0.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"face_{i}.png"), color_image(i, side, side))
    return folder


def write_lmdb(path: Path, images: dict[str, np.ndarray]) -> Path:
    """An LMDB as the host's own tools write it."""
    with lmdb.open(str(path), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, image in images.items():
            transaction.put(key.encode("ascii"), cv2.imencode(".png", image)[1].tobytes())
    lines = (f"{key}.png ({p.shape[0]},{p.shape[1]},3) 1\n" for key, p in images.items())
    (path / "meta_info.txt").write_text("".join(lines))
    return path
