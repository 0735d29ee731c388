"""The output folder of a run: what is written into it, and when the run must stop because it is lost."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.images.files import encode_image, whole_file
from gpen_plugin.restore.inputs import Job

FACES, COMPARED = "faces", "compare"  # subfolders of the output folder
LONGEST_NAME = 255  # bytes, on nearly all file systems
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class OutputError(DataError):
    """Nothing more can be written to the output folder: the run ends."""


class Outputs:
    """Writes the files of a run. Nothing of an earlier run is replaced unless that was asked for.

    Args:
        folder: the output folder.
        faces: whether each face is written before and after, to ``folder/faces``.
        compare: whether photographs are written side by side, to ``folder/compare``.
        overwrite: whether files that are there are replaced.
    """

    def __init__(self, folder: Path, *, faces: bool = False, compare: bool = False, overwrite: bool = False):
        self.folder, self.faces, self.compare, self._overwrite = folder, faces, compare, overwrite
        self._made, self._device = [], None

    def check_names(self, jobs: Sequence[Job]) -> None:
        """Raise an `OptionError` where results would lie among faces or comparisons, which may have their names."""
        for option, name, asked in (("--save-faces", FACES, self.faces), ("--compare", COMPARED, self.compare)):
            met = next((job for job in jobs if (self.folder / name) in job.target.parents), None)
            if asked and met is not None:
                got = f"would write to {self.folder / name}, where the result of {met.source} goes"
                raise OptionError(option, got, hint="Restore the inputs of that folder apart.")

    def open(self) -> None:
        """Make the output folder where it is missing, and write a file in it as a test.

        Raises:
            OptionError: it cannot be made, or nothing can be written to it.
        """
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = missing
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"test")
            self._device = self.folder.stat().st_dev
        except OSError as error:
            self.close()
            got = f"{self.folder} cannot be written to ({error.strerror})"
            raise OptionError("--output", got, "a writable folder with space left", "Name another one.") from error

    def close(self) -> None:
        """Remove the folders that `open` made, if they are still empty."""
        with contextlib.suppress(OSError):
            for path in self._made:
                path.rmdir()

    def check(self) -> None:
        """Raise an `OutputError` if the output folder is gone, or on another device than it was."""
        try:
            same = self.folder.stat().st_dev == self._device
        except OSError:
            same = False
        if not same:
            got = "is not there any more, or on another disk"
            raise OutputError(str(self.folder), got, "the folder of the beginning", "Connect the disk, and run again.")

    def refuse_existing(self, job: Job, endings: Sequence[str]) -> None:
        """Raise a `DataError` if a file that a job will write is there already and is not to be replaced."""
        if self._overwrite:
            return
        paths = job.written(endings)
        if self.compare:
            paths += [self.compared(job, ending) for ending in ("", *endings)]
        if self.faces:
            paths.append(self.beside(FACES, job, "_00_before.png"))
        there = next((path for path in paths if os.path.lexists(path)), None)
        if there is not None:
            raise _exists(there)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the run, whole or not at all. DataError if it cannot be written or is there already."""
        with self.new_file(path) as file:
            file.write(data)

    def write_image(self, path: Path, image: np.ndarray) -> None:
        """Write an array, (H, W, 3) BGR uint8; see `write`."""
        self.write(path, encode_image(path, image))

    @contextlib.contextmanager
    def new_file(self, path: Path) -> Iterator[BinaryIO]:
        """A file of the run to write to; it gets its name when the block has ended without an error. See `write`."""
        self.make_parents(path)
        if not self._overwrite and os.path.lexists(path):
            raise _exists(path)
        with whole_file(path) as file:
            yield file

    def make_parents(self, path: Path) -> None:
        """Make the folders between the output folder and a file; the output folder itself must be there."""
        self.check()
        folder = self.folder
        try:
            for name in path.parent.relative_to(self.folder).parts:
                folder /= name
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(str(folder), f"cannot be made ({error.strerror})", "a writable folder") from error

    def compared(self, job: Job, ending: str = "") -> Path:
        """Where a result stands beside its input: a PNG file, or a video."""
        return self.beside(COMPARED, job, ending if job.kind == "video" else f"{ending}.png")

    def beside(self, subfolder: str, job: Job, ending: str = "") -> Path:
        """A path below `subfolder` that mirrors the target's own; its suffix stays, so that a.jpg and a.png do."""
        relative = job.target.relative_to(self.folder)
        return self.folder / subfolder / relative.with_name(fitting_name(relative.name, ending))

    def loss(self, error: BaseException) -> OutputError | None:
        """Why nothing more can be written after an error: the disk is full or the folder is gone. None if it can."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OutputError):
                return cause
            if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
                return OutputError(str(self.folder), cause.strerror, "space left", "Make room, and run again.")
            cause = cause.__cause__ or cause.__context__
        try:
            self.check()
        except OutputError as lost:
            return lost
        return None


def fitting_name(name: str, ending: str) -> str:
    """`name` and `ending` in a row; of a name that would be too long for a file system, its first part and a digest."""
    if len(os.fsencode(name + ending)) <= LONGEST_NAME:
        return name + ending
    digest = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    room = LONGEST_NAME - len(os.fsencode(digest + ending))
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name + digest + ending


def _exists(path: Path) -> DataError:
    hint = "Pass --overwrite to replace it, or name another folder."
    return DataError(str(path), "is there already", "a new file", hint)
