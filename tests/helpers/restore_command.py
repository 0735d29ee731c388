"""Files for and of `gpen-restore`."""

import cv2

from helpers.restorer_parts import photograph


def write(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photograph(seed=seed))
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
