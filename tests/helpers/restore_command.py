"""Files for and of `gpen-restore`."""

from fnmatch import fnmatch

import cv2

from helpers.restorer_parts import photograph


def write(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photograph(seed=seed))
    return path


def files(folder):
    """All files of a folder, without the manifests."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not fnmatch(name.rpartition("/")[2], "manifest*.jsonl"))
