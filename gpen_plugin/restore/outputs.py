"""The output folder of a run: writing files, and detecting that it is lost."""

import contextlib
import errno
import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.images.files import encode_image, remove_temporary, whole_file
from gpen_plugin.restore.inputs import Job

FACES_FOLDER, COMPARE_FOLDER = "faces", "compare"  # subfolders of the output folder
LONGEST_NAME = 255  # bytes, on nearly all file systems
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class OutputError(DataError):
    """Nothing more can be written to the output folder; ends the run."""


class Outputs:
    def __init__(
        self,
        folder: Path,  # the output folder
        *,
        faces: bool = False,  # whether each face is written before and after, to ``folder/faces``
        compare: bool = False,  # whether photographs are written side by side, to ``folder/compare``
        overwrite: bool = False,  # whether existing files are replaced
    ):
        self.folder, self.faces, self.compare, self._overwrite = folder, faces, compare, overwrite
        self._created, self._device = [], None
        self._replaceable: set[Path] = set()

    def check_names(self, jobs: Sequence[Job]) -> None:
        """Raise an OptionError if results would be written into the folders of faces or comparisons."""
        for option, name, asked in (
            ("--save-faces", FACES_FOLDER, self.faces),
            ("--compare", COMPARE_FOLDER, self.compare),
        ):
            met = next((job for job in jobs if (self.folder / name) in job.target.parents), None)
            if asked and met is not None:
                got = f"would write to {self.folder / name}, like the result of {met.source}"
                raise OptionError(option, got, hint="Restore the inputs of that folder separately.")

    def open(self) -> None:
        """Create the output folder if needed, and test writing. OptionError if that fails."""
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._created = missing
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"test")
            self._device = self.folder.stat().st_dev
        except OSError as error:
            self.close()
            got = f"{self.folder} cannot be written to ({error.strerror})"
            raise OptionError("--output", got, "a writable folder with space left", "Name another one.") from error

    def close(self) -> None:
        """Remove the folders that `open` created if they are still empty."""
        with contextlib.suppress(OSError):
            for path in self._created:
                path.rmdir()

    def check(self) -> None:
        """Raise an OutputError if the output folder is gone, or on another device than before."""
        try:
            same = self.folder.stat().st_dev == self._device
        except OSError:
            same = False
        if not same:
            got = "is not there any more, or is on another disk"
            raise OutputError(str(self.folder), got, "the folder of the start", "Connect the disk, and run again.")

    def allow_replacing(self, job: Job, endings: Sequence[str]) -> None:
        """Let a job replace the files that an earlier attempt has written for it, and remove its temporary files."""
        faces = self.side_path(FACES_FOLDER, job)
        paths = {*job.written(endings), *(self.compare_path(job, ending) for ending in ("", *endings))}
        self._replaceable.update(paths, faces.parent.glob(glob.escape(faces.name) + "_*.png"))
        for path in (*paths, faces):
            remove_temporary(path.parent, path.name)

    def refuse_existing(self, job: Job, endings: Sequence[str]) -> None:
        """Raise a DataError if a file that a job will write exists and must not be replaced."""
        if self._overwrite:
            return
        paths = job.written(endings)
        if self.compare:
            paths += [self.compare_path(job, ending) for ending in ("", *endings)]
        if self.faces:
            paths.append(self.side_path(FACES_FOLDER, job, "_00_before.png"))
        there = next((path for path in paths if os.path.lexists(path) and path not in self._replaceable), None)
        if there is not None:
            raise exists_error(there)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file completely or not at all. DataError if that fails, or the file exists."""
        with self.new_file(path) as file:
            file.write(data)

    def write_image(self, path: Path, image: np.ndarray) -> None:
        """Write (H, W, 3) BGR uint8; see `write`."""
        self.write(path, encode_image(path, image))

    @contextlib.contextmanager
    def new_file(self, path: Path) -> Iterator[BinaryIO]:
        """A file that gets its name at the end of the block, unless an error occurs. See `write`."""
        self.make_parents(path)
        if not self._overwrite and path not in self._replaceable and os.path.lexists(path):
            raise exists_error(path)
        with whole_file(path) as file:
            yield file
        self._replaceable.discard(path)

    def make_parents(self, path: Path) -> None:
        self.check()
        folder = self.folder
        try:
            for name in path.parent.relative_to(self.folder).parts:
                folder /= name
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(str(folder), f"cannot be created ({error.strerror})", "a writable folder") from error

    def compare_path(self, job: Job, ending: str = "") -> Path:
        return self.side_path(COMPARE_FOLDER, job, ending if job.kind == "video" else f"{ending}.png")

    def side_path(self, subfolder: str, job: Job, ending: str = "") -> Path:
        """A path in `subfolder` that mirrors the target's; it keeps the suffix, so that a.jpg and a.png differ."""
        relative = job.target.relative_to(self.folder)
        return self.folder / subfolder / relative.with_name(shorten_name(relative.name, ending))

    def fatal_error(self, error: BaseException) -> OutputError | None:
        """The reason if nothing more can be written after an error: full disk, lost folder. Otherwise None."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OutputError):
                return cause
            if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
                return OutputError(str(self.folder), cause.strerror, "space left", "Free some space, and run again.")
            cause = cause.__cause__ or cause.__context__
        try:
            self.check()
        except OutputError as lost:
            return lost
        return None


def shorten_name(name: str, ending: str) -> str:
    """`name + ending`; a name too long for a file system is cut and gets a digest."""
    if len(os.fsencode(name + ending)) <= LONGEST_NAME:
        return name + ending
    digest = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    space = LONGEST_NAME - len(os.fsencode(digest + ending))
    while len(os.fsencode(name)) > space:
        name = name[:-1]
    return name + digest + ending


def exists_error(path: Path) -> DataError:
    hint = "Pass --overwrite to replace it, or name another folder."
    return DataError(str(path), "is there already", "a new file", hint)
