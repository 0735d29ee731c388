"""What is to be restored, and where each result goes, before any work begins."""

import glob
import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
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
_FROM_ARCHIVES = "__MACOSX"  # a folder that macOS adds, of what are no images
_WHAT = "an image, a video, a folder of them, or a pattern such as 'in/*.jpg'"

Kind = Literal["image", "video"]
Identity = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """One file to restore.

    Attributes:
        source: the file.
        kind: what it is.
        target: where its restoration goes.
    """

    source: Path
    kind: Kind
    target: Path

    def written(self, endings: Iterable[str] = ()) -> list[Path]:
        """The target, and those whose names end otherwise: with ``_1``, ``x.png`` and ``x_1.png``."""
        return [self.target.with_name(f"{self.target.stem}{ending}{self.target.suffix}") for ending in ("", *endings)]


@dataclass(frozen=True)
class Inputs:
    """What a command line means.

    Attributes:
        jobs: the files to restore.
        skipped_files: files of searched folders and patterns that are neither photographs nor videos: a name each, and
            what it is.
        unreadable: folders that could not be searched, and why.
    """

    jobs: list[Job]
    skipped_files: list[str]
    unreadable: list[tuple[Path, DataError]]


@dataclass
class _Rest:
    """What a search has met beside photographs and videos; see `Inputs`."""

    skipped_files: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, DataError]] = field(default_factory=list)

    def add_unreadable(self, error: OSError) -> None:
        folder = Path(error.filename)
        got = f"is a folder that cannot be read ({error.strerror})"
        self.unreadable.append((folder, DataError(str(folder), got, "a readable folder", "Change its permissions.")))


@dataclass(frozen=True)
class _Found:
    """A file of the input, and its place below the folder that was given, without a folder its name alone."""

    source: Path
    place: Path
    searched: bool

    @property
    def kind(self) -> Kind:
        return "video" if self.source.suffix.lower() in VIDEO_SUFFIXES else "image"


def expand(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    suffix: str | None = None,
    *,
    endings: Sequence[str] = (),
    recursive: bool = True,
) -> Inputs:
    """Find the files that are meant, and name their targets. Nothing is read or written.

    An input is a file, whatever its suffix; a folder, searched for images and videos by suffix; or a pattern, where
    no such file exists. Hidden files are left out, and what else a folder or pattern holds is passed over.
    Targets repeat the folders below a folder that was given. They keep the suffix of PNG, JPEG, WebP, TIFF and BMP
    files, and of MP4, MOV and MKV; other images become PNG, other videos MP4. Where two would have one name, on any
    disk, each gets its origin into its name: ``x_jpg.png`` and ``x_png.png``, ``a_x.png`` and ``b_x.png``, or a digest
    of its path.

    Args:
        inputs: files, folders and patterns; what is named twice is done once.
        output: a folder; or, of one input file, the name of its target, which is known by its suffix.
        suffix: of all images that are written, with or without its dot.
        endings: of the further results of each file; see `Job.written`.
        recursive: whether folders in folders are searched.
    Returns:
        Files in the order of the inputs, those of a folder or pattern sorted; and what cannot be restored.
    Raises:
        DataError: inputs that are not there, or hold nothing to restore; all of them are named.
        OptionError: an output among the inputs, a file for several of them, or a suffix that is not written.
    """
    output = Path(output).expanduser()
    if suffix is not None:
        suffix = f".{suffix.lower().removeprefix('.')}"
        _check_suffix("--suffix", suffix, "image")
    rest = _Rest()
    found = _found(inputs, recursive, rest)
    skipped_files = sorted({f"{path} ({_kind_of_rest(path)})" for path in rest.skipped_files})
    if _is_file_name(output):
        jobs = [_only_job(found, output, suffix)]
        _spare_files(jobs, endings)
        return Inputs(jobs, skipped_files, rest.unreadable)
    if output.exists() and not output.is_dir():
        raise OptionError("--output", f"got {output}, which is a file", "a folder", "Name another one.")
    places = _distinct({file.source: file.place.with_suffix(_target_suffix(file, suffix)) for file in found})
    jobs = [Job(file.source, file.kind, output / places[file.source]) for file in found]
    _spare_folders(inputs, jobs, output)
    _spare_files(jobs, endings)
    return Inputs(jobs, skipped_files, rest.unreadable)


def _found(inputs: Sequence[str | os.PathLike], recursive: bool, rest: _Rest) -> list[_Found]:
    found: dict[object, _Found] = {}
    problems: list[GPENError] = []
    for given in inputs:
        try:
            for file in _files(os.fspath(given), recursive, rest):
                found.setdefault(_entry(file.source), file)
        except DataError as problem:
            problems.append(problem)
    if not inputs:
        problems.append(DataError("INPUT", "nothing is given", _WHAT))
    if not found:
        problems += [error for _, error in rest.unreadable]
    if problems:
        raise join_errors(problems)
    return list(found.values())


def _files(given: str, recursive: bool, rest: _Rest) -> list[_Found]:
    """The files that one input means."""
    path = Path(given).expanduser()
    if os.path.lexists(path):  # before patterns, as names may hold brackets
        met = len(rest.skipped_files), len(rest.unreadable)
        found = _of_path(path, recursive, rest)
        if not found and len(rest.unreadable) == met[1]:
            number = len(rest.skipped_files) - met[0]
            others = f" ({number} other file{'s' * (number != 1)})" if number else ""
            raise DataError(given, f"holds no image and no video{others}", _WHAT, "Name another folder.")
        return found
    if not glob.has_magic(given):
        raise DataError(given, "is not there", _WHAT, "Check the path.")
    matches = _matches(str(path), rest)
    found = [file for match in matches for file in _of_path(match, recursive, rest)]
    if not found:
        raise DataError(given, "matches no image and no video", _WHAT, "Mend the pattern.")
    return found


def _matches(pattern: str, rest: _Rest) -> list[Path]:
    """Folders, images and videos that a pattern means."""
    matches = (Path(match) for match in sorted(glob.glob(pattern, recursive=True)))
    found = []
    for match in matches:
        if _FROM_ARCHIVES in match.parts:
            continue
        known = match.is_dir() or match.suffix.lower() in _searched_suffixes()
        (found if known else rest.skipped_files).append(match)
    return found


def _of_path(path: Path, recursive: bool, rest: _Rest) -> list[_Found]:
    if not path.is_dir():
        return [_Found(path, Path(path.name), searched=False)]
    places = sorted(_search(path, recursive, rest), key=lambda place: place.parts)
    return [_Found(path / place, place, searched=True) for place in places]


def _search(folder: Path, recursive: bool, rest: _Rest) -> Iterator[Path]:
    """Places of images and videos below a folder. A folder that links lead to again is searched once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=rest.add_unreadable):
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
                rest.skipped_files.append(path)


def _kind_of_rest(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return "raw"
    return suffix.removeprefix(".") or "no suffix"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in (_FROM_ARCHIVES, "lost+found")  # the second: of Linux, at the top of a disk


def _searched_suffixes() -> tuple[str, ...]:
    return (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _identity(path: Path) -> Identity | None:
    """Which file or folder this is, whatever links and spellings lead there; None where nothing is."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _entry(path: Path) -> object:
    """The same for all spellings of one name in one folder, and no other: two links to one file are two images."""
    return _identity(path.parent), _identity(path), _folded(path.name)


def _folded(name: str) -> str:
    """As discs compare names that take no account of case, or of how accents are written."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_file_name(output: Path) -> bool:
    known = output.suffix.lower() in (*_searched_suffixes(), *WRITTEN_SUFFIXES)
    return known and not output.is_dir()


def _check_suffix(where: str, suffix: str, kind: Kind) -> None:
    written = WRITTEN_SUFFIXES if kind == "image" else WRITTEN_VIDEOS
    if suffix.lower() not in written:
        got = f"got {suffix} for {'an image' if kind == 'image' else 'a ' + kind}"
        raise OptionError(where, got, "one of " + ", ".join(written), f"Take {written[0]} if in doubt.")


def _target_suffix(file: _Found, suffix: str | None) -> str:
    own = file.source.suffix
    if file.kind == "video":
        return own if own.lower() in WRITTEN_VIDEOS else WRITTEN_VIDEOS[0]
    return suffix or (own if own.lower() in WRITTEN_SUFFIXES else WRITTEN_SUFFIXES[0])


def _only_job(found: list[_Found], output: Path, suffix: str | None) -> Job:
    """The job whose target was named as a file."""
    if len(found) > 1 or found[0].searched:
        got = f"got {output}, the name of one file, for {len(found)} from a folder or several inputs"
        raise OptionError("--output", got, "a folder", "Name one without such a suffix.")
    (file,) = found
    _check_suffix("--output", output.suffix, file.kind)
    if suffix not in (None, output.suffix.lower()) and file.kind == "image":
        raise OptionError("--suffix", f"got {suffix}, and {output} for the output", "one of them", "Leave one out.")
    return Job(file.source, file.kind, output)


def _distinct(places: dict[Path, Path]) -> dict[Path, Path]:
    """Let no two sources share a place: those that would are named after their origins."""
    groups = defaultdict(list)
    for source, place in places.items():
        groups[_folded(place.as_posix())].append(source)
    taken = {folded for folded, sources in groups.items() if len(sources) == 1}
    distinct = dict(places)
    for folded in sorted(groups.keys() - taken):
        names = _names_by_origin(groups[folded], places, taken)
        distinct.update(names)
        taken |= {_folded(place.as_posix()) for place in names.values()}
    return distinct


def _names_by_origin(sources: list[Path], places: dict[Path, Path], taken: set[str]) -> dict[Path, Path]:
    """Say as much of the origin as tells the sources apart: first the suffix, then more and more folders."""
    full = {source: Path(os.path.abspath(source)) for source in sources}
    depth = max(len(path.parts) for path in full.values())
    for folders, with_suffix in [(0, True), *product(range(1, depth), (False, True))]:
        named = {}
        for source, path in full.items():
            parts = [*path.parts[max(len(path.parts) - 1 - folders, 1) : -1], path.stem]
            parts += [path.suffix[1:].lower()] if with_suffix and path.suffix else []
            named[source] = places[source].with_name("_".join(parts) + places[source].suffix)
        folded = {_folded(place.as_posix()) for place in named.values()}
        if len(folded) == len(sources) and not folded & taken:
            return named
    # As same.png and SAME.PNG in one folder, which are one file on many disks.
    digests = {source: hashlib.sha256(os.fsencode(path)).hexdigest()[:8] for source, path in full.items()}
    return {source: places[source].with_stem(f"{places[source].stem}_{digest}") for source, digest in digests.items()}


def _spare_folders(inputs: Sequence[str | os.PathLike], jobs: list[Job], output: Path) -> None:
    """Refuse a folder where inputs lie, though other files be written there: they would pass for originals later.

    So an output in a folder that is searched must be new: nobody knows whether images there are results.
    """
    given = {Path(text).expanduser() for text in inputs}
    sources = {folder for job in jobs for folder in (job.source.parent, job.source.resolve().parent)}
    originals = _identities(path for path in given | sources if path.is_dir())
    if originals & _identities({output, *(job.target.parent for job in jobs)}):
        got = f"got {output}, and inputs are where results would be written"
        hint = "Name a new one, or remove it if it holds results of before: the originals are left as they are."
        raise OptionError("--output", got, "another folder", hint)


def _spare_files(jobs: list[Job], endings: Sequence[str]) -> None:
    """Refuse results in place of inputs, whatever links and spellings lead there, or of each other."""
    sources, taken = _identities(job.source for job in jobs), {}
    for job in jobs:
        for path in job.written(endings):
            if _identities([path]) & sources:
                got = f"got {path}, which is one of the inputs"
                raise OptionError("--output", got, "another name", "The originals are left as they are.")
            if (other := taken.setdefault(_folded(path.as_posix()), job)) is not job:
                got = f"{path} would be a result of {other.source} and of {job.source}"
                raise OptionError("--variants", got, "inputs whose names differ", "Restore them into two folders.")


def _identities(paths: Iterable[Path]) -> set[Identity]:
    return {identity for path in paths if (identity := _identity(path))}
