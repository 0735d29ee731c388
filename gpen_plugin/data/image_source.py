"""Image sources: a folder, an LMDB, a zip file or tars behind one interface.

Keys are sorted. A key is the path below the root, with '/' between folders and without the suffix, so an image has the
same key in a folder and in the LMDB or the tars made of it. In all sources, `where` is the key path or argument that
names the path, for error messages.
"""

import logging
import os
import threading
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import cv2
import numpy as np

from gpen_plugin.data.lmdb_file import check_lmdb, key_of, read_meta_info
from gpen_plugin.data.tar_file import Member, Shard, index_path, list_shards, read_member
from gpen_plugin.errors import DataError
from gpen_plugin.host import host_module
from gpen_plugin.images.decode import decode

_COMMON = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE_SUFFIXES = (*_COMMON, ".gif", ".heic", ".heif", ".avif", ".jp2")
_ZIP_ERRORS = (OSError, RuntimeError, NotImplementedError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
MAX_OPEN_TARS = 64  # per process
_WHOLE_FILE = "a whole image file of " + ", ".join(IMAGE_SUFFIXES)


class ImageSource(Protocol):
    """Images by key."""

    keys: list[str]

    def read(self, key: str) -> np.ndarray:
        """The image, (H, W, 3) BGR uint8; DataError if it cannot be read."""

    def name(self, key: str) -> str:
        """The image's file or key, for messages."""


class FolderSource:
    """The images below a folder; DataError if it or one below cannot be read, has no images, or two share a key."""

    def __init__(self, root: str | os.PathLike, where: str):
        root = Path(root)
        if not root.is_dir():
            got = f"{root} is {'a file' if root.exists() else 'not there'}"
            hint = "Check the path, or put the images there."
            if root.is_file() and zipfile.is_zipfile(root):
                hint = "Use io_backend: type: zip with it."
            raise DataError(where, got, "a folder of images", hint)
        if root.suffix == ".lmdb":
            raise DataError(where, f"{root} is an LMDB", "a folder of images", "Use io_backend: type: lmdb with it.")
        found = (path.relative_to(root).as_posix() for path in _files_below(root, where))
        self._files = _by_key(found, str(root), where)
        self._root = root
        self.keys = list(self._files)

    def read(self, key: str) -> np.ndarray:
        try:
            data = Path(self.name(key)).read_bytes()
        except OSError as error:
            raise DataError(self.name(key), f"cannot be read ({error.strerror})", _WHOLE_FILE) from error
        return decode_image(data, self.name(key))

    def name(self, key: str) -> str:
        return str(self._root / self._files[key])


class LmdbSource:
    """The images of a ``*.lmdb`` folder in BasicSR's format, read by its file client. Errors as in `check_lmdb`."""

    # The database is opened at the first read in each process: an open one survives neither a fork nor being pickled
    # for a spawned worker.

    def __init__(self, path: str | os.PathLike, where: str):
        check_lmdb(path, where)
        entries = (entry.lmdb_key for entry in read_meta_info(path, where))
        self._stored = dict(sorted((key_of(stored), stored) for stored in entries))
        self._path, self._client, self._process = str(path), None, None
        self.keys = list(self._stored)

    def read(self, key: str) -> np.ndarray:
        if self._process != os.getpid():
            files = host_module("basicsr.utils", "reading an LMDB").FileClient
            self._client, self._process = files("lmdb", db_paths=self._path), os.getpid()
        data = self._client.get(self._stored[key])
        if data is None:
            raise DataError(self._path, f"the key '{self._stored[key]}' of its meta_info.txt is not stored", "all keys")
        return decode_image(data, f"{self._path}: {self.name(key)}")

    def name(self, key: str) -> str:
        return f"{key}.png"  # as in meta_info.txt

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_client": None, "_process": None}


class ZipSource:
    """The images of a zip file, for several threads and processes.

    DataError if it is none, has no images, or two share a key.
    """

    # It is opened at the first read in each process: an open one survives neither a fork nor being pickled.

    def __init__(self, path: str | os.PathLike, where: str):
        self._path = str(path)
        try:
            with zipfile.ZipFile(path) as file:
                names = file.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(where, f"{path} cannot be read ({error})", "a zip file of images") from error
        self._files = _by_key(names, self._path, where)
        self.keys = list(self._files)
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def read(self, key: str) -> np.ndarray:
        try:
            opened = self._opened
            if opened is None or opened[0] != os.getpid():
                opened = self._opened = os.getpid(), zipfile.ZipFile(self._path)
            data = opened[1].read(self._files[key])
        except _ZIP_ERRORS as error:
            raise DataError(self.name(key), f"cannot be read ({error})", _WHOLE_FILE) from error
        return decode_image(data, self.name(key))

    def name(self, key: str) -> str:
        return f"{self._path}: {self._files[key]}"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None}


class TarSource:
    """The images of tars in WebDataset's layout, for several threads and processes. Errors as in `tar_file`.

    Roots as in `list_shards`; remote tars are copied to `cache`. Members that are no images are ignored, and counted in
    the log. DataError if there are no images, or if two share a key.
    """

    # A tar is opened at the first read in each process: an open one survives neither a fork nor being pickled.

    def __init__(self, root: str | os.PathLike | Sequence[str], where: str, cache: str | None = None):
        root = os.fspath(root) if isinstance(root, os.PathLike) else root
        self._shards = [Shard(path, where, cache) for path in list_shards(root, where)]
        self._members: dict[str, tuple[int, Member]] = {}
        ignored: Counter[str] = Counter()
        for number, shard in enumerate(self._shards):
            for member in shard.members:
                # as PurePosixPath does it, which takes seconds for 100,000 names
                suffix = f".{member.name.rpartition('.')[2]}"
                parts = [part for part in member.key.split("/") if part not in ("", ".")]
                is_outside = member.name.startswith("/")  # ".." counts as hidden
                if suffix.lower() not in IMAGE_SUFFIXES or is_outside or any(map(_is_ignored, parts)):
                    ignored[suffix] += 1
                    continue
                key = key_of("/".join(parts))
                if key in self._members:
                    first, other = self._members[key]
                    got = (
                        f"{self._shards[first].path}: {other.name} and {shard.path}: {member.name} share a key, '{key}'"
                    )
                    hint = "A key ends at the first dot of a file name. Rename one, or use datasets_prep/make_tar.py."
                    raise DataError(where, got, "one image per sample, each key once in all tars", hint)
                self._members[key] = number, member
            del shard.members
        if not self._members:
            raise DataError(where, f"{root} holds no images", "files " + ", ".join(IMAGE_SUFFIXES))
        self.keys = sorted(self._members)
        self._opened = None
        self._log(ignored)

    def _log(self, ignored: Counter[str]) -> None:
        log, tars = logging.getLogger("basicsr"), f"{self._shards[0].path}, {len(self._shards)} in all"
        if ignored:
            kinds = ", ".join(sorted(ignored))
            log.info(f"{tars}: {len(self.keys)} images; {ignored.total()} other members ({kinds}) are ignored.")
        without = [shard.path for shard in self._shards if not shard.has_index]
        if without:
            index = index_path(Path(without[0]))
            hint = "They are made again at every start. Make the folder writable once."
            log.warning(f"{index} and {len(without) - 1} other indexes cannot be written. {hint}")

    def read(self, key: str) -> np.ndarray:
        number, member = self._members[key]
        label = f"{self._shards[number].path}: {member.name}"
        try:
            data = self._read(number, member)
        except OSError as error:
            raise DataError(label, f"cannot be read ({error.strerror})", _WHOLE_FILE) from error
        except ValueError as error:
            hint = "Remove the index; it is made again. Make it again beside a remote tar."
            raise DataError(label, f"is not where the index says ({error})", "an index of this tar", hint) from error
        return decode_image(data, label)

    def _read(self, number: int, member: Member) -> bytes:
        path = self._shards[number].local()
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = os.getpid(), threading.Lock(), {}
        _, lock, files = opened
        with lock:
            if number not in files:
                if len(files) == MAX_OPEN_TARS:
                    files.pop(next(iter(files))).close()
                files[number] = path.open("rb", buffering=0)
            return read_member(files[number], member)

    def name(self, key: str) -> str:
        return key + PurePosixPath(self._members[key][1].name).suffix

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None}


def open_folder_or_zip(path: str | os.PathLike, where: str) -> FolderSource | ZipSource:
    """A zip file if the path is a file, else a folder."""
    return ZipSource(path, where) if Path(path).is_file() else FolderSource(path, where)


def open_source(path: str | os.PathLike, where: str) -> ImageSource:
    """Tars, an LMDB, or a zip file or folder, by the end of the name: ``.tar``, ``.lmdb``. ``~`` is the home folder."""
    if os.fspath(path).endswith(".tar"):
        return TarSource(path, where)
    path = Path(path).expanduser()
    return LmdbSource(path, where) if path.suffix == ".lmdb" else open_folder_or_zip(path, where)


def _files_below(root: Path, where: str) -> Iterator[Path]:
    """All files below a folder; links to folders are followed."""
    # Each folder is listed once, and a link to a folder that contains the link or `root` is not followed: a circular
    # link must not multiply a data set, and a link to the parent of ``train`` must not add ``val`` to it.

    def fail(error: OSError) -> None:
        got = f"{error.filename} cannot be read ({error.strerror})"
        raise DataError(where, got, "a folder that you may read", "Change its permissions, or remove it.") from error

    listed: set[str] = set()  # by real path
    folders = [root]  # links come after all real folders, so that a file keeps the shorter of two keys
    for start in folders:
        target = os.path.realpath(start)
        containing = [Path(os.path.realpath(folder)) for folder in (root, start.parent)]
        if start != root and any(folder.is_relative_to(target) for folder in containing):
            continue
        for parent, below, files in os.walk(start, onerror=fail):
            here = os.path.realpath(parent)
            if here in listed:
                below.clear()
                continue
            listed.add(here)
            below[:] = sorted(name for name in below if not _is_ignored(name))
            folders += [path for path in (Path(parent, name) for name in below) if path.is_symlink()]
            yield from (Path(parent, name) for name in files)


def _is_ignored(name: str) -> bool:
    # hidden files, the files macOS adds to archives, and Linux's lost+found
    return name.startswith(".") or name in ("__MACOSX", "lost+found")


def _by_key(paths: Iterable[str], root: str, where: str) -> Mapping[str, str]:
    """The image files among `paths`, by key. Names in an archive that lead out of it are ignored."""
    files: dict[str, str] = {}
    for path in map(PurePosixPath, paths):
        outside = path.is_absolute()  # ".." counts as hidden
        if outside or any(map(_is_ignored, path.parts)) or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        key = str(path.with_suffix(""))
        if key in files:
            got = f"{files[key]} and {path} in {root} share the key '{key}'"
            raise DataError(where, got, "one image per name, whatever the suffix", "Rename or remove one of them.")
        files[key] = str(path)
    if not files:
        raise DataError(where, f"{root} holds no images", "files " + ", ".join(IMAGE_SUFFIXES))
    return dict(sorted(files.items()))


def without_suffix(name: str) -> str:
    """The key of an image's file name; a key may contain dots."""
    return name[: -len(suffix)] if (suffix := PurePosixPath(name).suffix).lower() in IMAGE_SUFFIXES else name


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode any common image file to (H, W, 3) BGR uint8; orientation, pages and colors as in `images.decode`.

    Gray and palette images become color; 16 bits become 8 by rounding value / 257; transparency is put on white.
    DataError, which starts with `name`, if the file is damaged or truncated.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about unusual metadata
            samples = decode(data, name).samples  # [H, W, C], gray or BGR, with or without alpha
    except DataError as error:
        prefix = "cannot be decoded"
        got = error.got if error.got.startswith(prefix) else f"{prefix}: it {error.got}"
        raise DataError(name, got, _WHOLE_FILE, "Replace or remove it.") from error
    if samples.dtype == np.uint16:
        samples = np.rint(samples / 257.0).astype(np.uint8)
    if samples.shape[2] in (2, 4):
        alpha = samples[:, :, -1:].astype(np.float32) / 255
        samples = np.rint(samples[:, :, :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.repeat(samples, 3, axis=2) if samples.shape[2] == 1 else samples


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of (H, W, 3) uint8, resized to (size, size, 3): area to shrink, bicubic to enlarge."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
