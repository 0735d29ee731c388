"""Find the inputs of a run, and name the target of each."""

import glob
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from gpen_plugin.data.image_source import IMAGE_SUFFIXES
from gpen_plugin.errors import DataError, GPENError, OptionError, join_errors
from gpen_plugin.images.photograph import RAW_SUFFIXES, WRITTEN_SUFFIXES
from gpen_plugin.restore.video_writer import CONTAINERS

_FILMS = (".mp4", ".m4v", ".mov", ".qt", ".f4v", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv")
_STREAMED = (".3gp", ".3gpp", ".3g2", ".ogv", ".ogm", ".rm", ".rmvb", ".ts", ".tp", ".trp", ".mxf", ".gxf", ".wtv")
_OF_CAMCORDERS = (".mts", ".m2t", ".m2ts", ".mod", ".tod", ".dv", ".dif", ".dvr-ms")
_OF_DISCS = (".mpg", ".mpeg", ".mpe", ".mpv", ".m1v", ".m2v", ".vob", ".evo", ".vro")
VIDEO_SUFFIXES = (*_FILMS, *_STREAMED, *_OF_CAMCORDERS, *_OF_DISCS)
WRITTEN_VIDEOS = tuple(CONTAINERS)
_MACOS_FOLDER = "__MACOSX"  # added by macOS to archives, without images
_EXPECTED = "an image, a video, a folder of them, or a pattern such as 'in/*.jpg'"
MAX_COLLISIONS = 12  # in an error message

Kind = Literal["image", "video"]
Identity = tuple[int, int]


@dataclass(frozen=True)
class Job:
    source: Path | str  # the input; a URL is a str
    kind: Kind  # of the input
    target: Path  # the result
    replaces: bool = False  # whether results of an earlier attempt may be replaced

    def written(self, endings: Iterable[str] = ()) -> list[Path]:
        """Paths of all results: ``x.png``, and ``x_1.png`` for the ending ``_1``."""
        return [self.target.with_name(f"{self.target.stem}{ending}{self.target.suffix}") for ending in ("", *endings)]


@dataclass(frozen=True)
class Inputs:
    """The inputs of a command line."""

    jobs: list[Job]  # files to restore
    # files of searched folders and patterns that are neither photographs nor videos, each with its kind
    skipped_files: list[str]
    unreadable: list[tuple[Path, DataError]]  # folders that cannot be searched, and why


@dataclass
class _Skipped:
    """See `Inputs`."""

    skipped_files: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, DataError]] = field(default_factory=list)

    def add_unreadable(self, error: OSError) -> None:
        folder = Path(error.filename)
        got = f"is a folder that cannot be read ({error.strerror})"
        self.unreadable.append((folder, DataError(str(folder), got, "a readable folder", "Change its permissions.")))


@dataclass(frozen=True)
class _Found:
    """An input file, and its path below the folder or the fixed part of the pattern that was given."""

    source: Path
    relative: Path
    searched: bool

    @property
    def kind(self) -> Kind:
        return "video" if self.source.suffix.lower() in VIDEO_SUFFIXES else "image"


def expand(
    inputs: Sequence[str | os.PathLike],  # files, folders and patterns; duplicates are restored once
    # a folder; or the file name of the target of a single input file, recognized by its suffix
    output: str | os.PathLike,
    suffix: str | None = None,  # of all written images, with or without the dot
    *,
    endings: Sequence[str] = (),  # of further results of each file; see `Job.written`
    recursive: bool = True,  # whether subfolders are searched
) -> Inputs:
    """Find the input files and name their targets. Nothing is written.

    An input is a file with any suffix; a folder, which is searched for images and videos by suffix; or a pattern, if no
    such file exists. Hidden files are ignored. A target has the name of its file; below it, the path below the folder,
    or below the part of the pattern before the first wildcard: ``a/b.jpg`` of ``in/a/b.jpg`` for ``in`` and ``in/*/*``.
    PNG, JPEG, WebP, TIFF, BMP, MP4, MOV and MKV files keep their names; other images become ``a.heic.png``, and other
    videos ``b.avi.mp4``. So a target does not depend on the other inputs.

    Returns: Files in the order of the inputs, those of a folder or pattern sorted.
    Raises:
        DataError: inputs that do not exist, or contain nothing to restore; all of them are named.
        OptionError: an output among the inputs, a file name for several inputs, a suffix that cannot be written, two
            inputs with one target, or one input with two targets.
    """
    output = Path(output).expanduser()
    if suffix is not None:
        suffix = f".{suffix.lower().removeprefix('.')}"
        _check_suffix("--suffix", suffix, "image")
    skipped = _Skipped()
    found = _found(inputs, recursive, skipped)
    skipped_files = sorted({f"{path} ({_kind_of_skipped(path)})" for path in skipped.skipped_files})
    if _is_file_name(output):
        jobs = [_single_job(found, output, suffix)]
        _check_files(jobs, endings)
        return Inputs(jobs, skipped_files, skipped.unreadable)
    if output.exists() and not output.is_dir():
        raise OptionError("--output", f"got {output}, which is a file", "a folder", "Name another one.")
    jobs = [Job(file.source, file.kind, output / _target(file, suffix)) for file in found]
    _check_folders(inputs, jobs, output)
    _check_files(jobs, endings)
    return Inputs(jobs, skipped_files, skipped.unreadable)


def _found(inputs: Sequence[str | os.PathLike], recursive: bool, skipped: _Skipped) -> list[_Found]:
    found: dict[object, _Found] = {}
    two: list[str] = []
    problems: list[GPENError] = []
    for given in inputs:
        try:
            for file in _files(os.fspath(given), recursive, skipped):
                known = found.setdefault(_file_key(file.source), file)
                if known.relative != file.relative:
                    two.append(f"{file.source} would become {known.relative} and {file.relative}")
        except DataError as problem:
            problems.append(problem)
    if not inputs:
        problems.append(DataError("INPUT", "is missing", _EXPECTED))
    if not found:
        problems += [error for _, error in skipped.unreadable]
    if two:
        hint = "Leave one of the two inputs out, or restore them into two folders."
        problems.append(OptionError("INPUT", _join_few(two), "each file in one input", hint))
    if problems:
        raise join_errors(problems)
    return list(found.values())


def _join_few(texts: Sequence[str]) -> str:
    more = [f"{len(texts) - MAX_COLLISIONS} more"] if len(texts) > MAX_COLLISIONS else []
    return "; ".join([*texts[:MAX_COLLISIONS], *more])


def _files(given: str, recursive: bool, skipped: _Skipped) -> list[_Found]:
    path = Path(given).expanduser()
    if os.path.lexists(path):  # before patterns, as names may hold brackets
        met = len(skipped.skipped_files), len(skipped.unreadable)
        found = _of_path(path, recursive, skipped)
        if not found and len(skipped.unreadable) == met[1]:
            number = len(skipped.skipped_files) - met[0]
            others = f" ({number} other file{'s' * (number != 1)})" if number else ""
            raise DataError(given, f"holds no image and no video{others}", _EXPECTED, "Name another folder.")
        return found
    if not glob.has_magic(given):
        raise DataError(given, "is not there", _EXPECTED, "Check the path.")
    base, found = _fixed_part(path), []
    for match in _matches(str(path), skipped):
        for file in _of_path(match, recursive, skipped):
            found.append(_Found(file.source, file.source.relative_to(base), file.searched))
    if not found:
        raise DataError(given, "matches no image and no video", _EXPECTED, "Check the pattern.")
    return found


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first wildcard."""
    parts = pattern.parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _matches(pattern: str, skipped: _Skipped) -> list[Path]:
    matches = (Path(match) for match in sorted(glob.glob(pattern, recursive=True)))
    found = []
    for match in matches:
        if _MACOS_FOLDER in match.parts:
            continue
        known = match.is_dir() or match.suffix.lower() in _searched_suffixes()
        (found if known else skipped.skipped_files).append(match)
    return found


def _of_path(path: Path, recursive: bool, skipped: _Skipped) -> list[_Found]:
    if not path.is_dir():
        return [_Found(path, Path(path.name), searched=False)]
    targets = sorted(_search(path, recursive, skipped), key=lambda relative: relative.parts)
    return [_Found(path / relative, relative, searched=True) for relative in targets]


def _search(folder: Path, recursive: bool, skipped: _Skipped) -> Iterator[Path]:
    """Relative paths of images and videos below a folder. A folder that several links lead to is searched once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=skipped.add_unreadable):
        here = _identity(Path(parent))
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if recursive and not _is_hidden(name))
        for name in files:
            path = Path(parent) / name
            if _is_hidden(name):
                continue
            if path.suffix.lower() in _searched_suffixes():
                yield path.relative_to(folder)
            else:
                skipped.skipped_files.append(path)


def _kind_of_skipped(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return "raw"
    return suffix.removeprefix(".") or "no suffix"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in (_MACOS_FOLDER, "lost+found")  # the second: of Linux, at the top of a disk


def _searched_suffixes() -> tuple[str, ...]:
    return (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _identity(path: Path) -> Identity | None:
    """Device and inode; None if nothing is there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _file_key(path: Path) -> object:
    """Equal for all spellings of a name in a folder; two links to one file are two images."""
    return _identity(path.parent), _identity(path), _fold(path.name)


def _fold(name: str) -> str:
    """As compared by file systems that ignore case and Unicode normalization."""
    return unicodedata.normalize("NFC", name).casefold()


def _ignores_case(path: Path) -> bool:
    """Whether the file system of a path does, as far as names of folders above it show."""
    for folder in Path(os.path.abspath(path)).parents:
        other = folder.with_name(folder.name.swapcase())
        if folder.exists() and other.name != folder.name:
            return _identity(other) == _identity(folder)
    return False


def _is_file_name(output: Path) -> bool:
    known = output.suffix.lower() in (*_searched_suffixes(), *WRITTEN_SUFFIXES)
    return known and not output.is_dir()


def _check_suffix(where: str, suffix: str, kind: Kind) -> None:
    written = WRITTEN_SUFFIXES if kind == "image" else WRITTEN_VIDEOS
    if suffix.lower() not in written:
        got = f"got {suffix} for {'an image' if kind == 'image' else 'a ' + kind}"
        raise OptionError(where, got, "one of " + ", ".join(written), f"Use {written[0]} if in doubt.")


def _target(file: _Found, suffix: str | None) -> Path:
    if file.kind == "image" and suffix is not None:
        return file.relative.with_suffix(suffix)
    written = WRITTEN_SUFFIXES if file.kind == "image" else WRITTEN_VIDEOS
    is_written = file.source.suffix.lower() in written
    return file.relative if is_written else file.relative.with_name(file.relative.name + written[0])


def target_name(name: PurePath, suffix: str | None) -> PurePath:
    """The name of the result of an image; `suffix` as for `expand`."""
    return _target(_Found(name, name, searched=True), suffix)


def _single_job(found: list[_Found], output: Path, suffix: str | None) -> Job:
    if len(found) > 1 or found[0].searched:
        got = f"got the file name {output} for a folder or several inputs ({len(found)} files)"
        raise OptionError("--output", got, "a folder", "Name one without such a suffix.")
    (file,) = found
    _check_suffix("--output", output.suffix, file.kind)
    if suffix not in (None, output.suffix.lower()) and file.kind == "image":
        raise OptionError("--suffix", f"got {suffix}, but {output} for the output", "one of them", "Leave one out.")
    return Job(file.source, file.kind, output)


def _check_folders(inputs: Sequence[str | os.PathLike], jobs: list[Job], output: Path) -> None:
    """Refuse to write into folders with inputs, where results could be taken for originals later.

    So the output of a searched folder must be new: it is unknown whether images there are results.
    """
    given = {Path(text).expanduser() for text in inputs}
    sources = {folder for job in jobs for folder in (job.source.parent, job.source.resolve().parent)}
    originals = _identities(path for path in given | sources if path.is_dir())
    if originals & _identities({output, *(job.target.parent for job in jobs)}):
        got = f"got {output}, but inputs are in a folder where results would be written"
        hint = "Name a new one, or remove it if it contains earlier results. Originals are never changed."
        raise OptionError("--output", got, "another folder", hint)


def _check_files(jobs: list[Job], endings: Sequence[str]) -> None:
    """Refuse results that would replace inputs, under any link or spelling, or each other."""
    sources, taken, collisions = _identities(job.source for job in jobs), {}, []
    key = _fold if jobs and _ignores_case(jobs[0].target) else str
    for job in jobs:
        for path in job.written(endings):
            if _identities([path]) & sources:
                got = f"got {path}, which is one of the inputs"
                raise OptionError("--output", got, "another name", "Originals are never changed.")
            if (other := taken.setdefault(key(path.as_posix()), job)) is not job:
                collisions.append(f"{path} would be the result of {other.source} and of {job.source}")
    if collisions:
        hint = "Give their common folder or a quoted pattern, leave --suffix out, or restore them into two folders."
        raise OptionError("INPUT", _join_few(collisions), "results with different names", hint)


def _identities(paths: Iterable[Path]) -> set[Identity]:
    return {identity for path in paths if (identity := _identity(path))}
