"""Run the jobs of ``gpen-restore`` in batches and report them; a job that fails does not stop the others."""

import contextlib
import itertools
import json
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from gpen_plugin.errors import DataError, GPENError, MissingFileError, plain_message
from gpen_plugin.images.files import write_whole
from gpen_plugin.images.grid import side_by_side
from gpen_plugin.images.photograph import (
    Photograph,
    TiffWriter,
    check_holds_pages,
    encode_photograph,
    has_format_of,
    read_pages,
)
from gpen_plugin.restore.alignment import side_in_photograph
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.outputs import FACES_FOLDER, OutputError, Outputs
from gpen_plugin.restore.restorer import Restoration, RestoredFace, Restorer
from gpen_plugin.restore.video import restore_video
from gpen_plugin.restore.video_reader import VideoSource

MAX_PIXELS_AT_ONCE = 64_000_000  # of photographs and results in memory; a larger one is restored by itself
MIN_SIZE_RATIO = 2  # of a face to the network's input, from which a larger network is recommended
MAX_NAMES = 12  # in a line of the summary; the report file has all


@dataclass(frozen=True)
class FaceReport:
    """The report of a face, without images."""

    entry: dict[str, Any]  # in the report file
    skip_reason: str | None  # see `RestoredFace`

    @classmethod
    def of(cls, face: RestoredFace, page: int | None = None) -> "FaceReport":
        """`page`: number of the page in a file of several, from 1."""
        known = face.identity is not None and math.isfinite(face.identity)  # JSON has no NaN
        entry: dict[str, Any] = {} if page is None else {"page": page}
        if face.detected is not None:
            entry |= {
                "box": face.detected.box.round(2).tolist(),
                "landmarks": face.detected.landmarks.round(2).tolist(),
                "score": round(face.detected.score, 4),
                "detector": face.detected.detector,
            }
        entry |= {"identity": face.identity if known else None}
        if face.added_detail is not None:
            entry |= {"added_detail": round(face.added_detail, 2), "weight": round(face.weight, 2)}
        return cls({**entry, "skip_reason": face.skip_reason}, face.skip_reason)


@dataclass
class JobReport:
    source: Path  # the input
    target: Path | None  # the result; None for a folder that could not be read
    faces: Sequence[FaceReport] = ()  # of a photograph or aligned image
    video: dict[str, Any] | None = None  # fields of `VideoReport`
    notes: Sequence[str] = ()  # for the user, e.g. that only the first frame was read
    error: str | None = None  # why nothing was written

    @property
    def found(self) -> int:
        """Number of faces; for a video, the sum over all frames."""
        return self.video["faces"] if self.video else len(self.faces)

    def to_dict(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"source": str(self.source), "target": self.target and str(self.target)}
        if self.error is not None:
            return {**entry, "error": self.error}
        entry["notes"] = list(self.notes)
        if self.video:
            return {**entry, "video": self.video}
        return {**entry, "faces": [face.entry for face in self.faces]}


@dataclass
class _Names:
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: object) -> None:
        self.count += 1
        if self.count <= MAX_NAMES:
            self.first.append(str(name))

    def __str__(self) -> str:
        return _join_names(self.first, self.count, ", ")


@dataclass
class Report:
    """The report of a run: counts, a few names, and for the report file one line per input."""

    model: str  # description of the network
    settings: dict[str, Any]  # the options of the run
    total: int  # number of inputs
    aligned: bool = False  # whether the inputs are aligned faces
    skipped_files: Sequence[str] = ()  # see `Inputs`
    has_file: bool = True  # whether `to_json` will be called
    seconds: float = 0.0  # duration
    faces: int = field(default=0, init=False)
    _done: int = field(default=0, init=False)
    _failed: _Names = field(default_factory=_Names, init=False)
    _empty: _Names = field(default_factory=_Names, init=False)
    _with_skipped: _Names = field(default_factory=_Names, init=False)
    _skipped: int = field(default=0, init=False)
    _reasons: set[str] = field(default_factory=set, init=False)
    _videos: list[str] = field(default_factory=list, init=False)
    _entries: list[str] = field(default_factory=list, init=False)

    def add(self, job: JobReport) -> None:
        if self.has_file:
            self._entries.append(json.dumps(job.to_dict(), default=str))
        if job.error is not None:
            self._failed.add(job.source)
            return
        self._done += 1
        self.faces += job.found
        if not job.found:
            self._empty.add(job.source)
        reasons = [face.skip_reason for face in job.faces if face.skip_reason]
        if reasons:
            self._skipped += len(reasons)
            self._reasons.update(reasons)
            self._with_skipped.add(job.source)
        if job.video:
            self._videos.append(f"{job.source.name}: {_count(job.video['frames'], 'frame')}")

    @property
    def status(self) -> int:
        if self._failed.count or self._done < self.total:
            return 1
        return 3 if self._done and not self.aligned and not self.faces else 0

    def summary(self) -> str:
        written = f"{self._done} of {_count(self.total, 'input')} written"
        lines = [f"{written}, {_count(self.faces, 'face')}, {self.seconds:.1f} s"]
        if self._failed.count:
            lines.append(f"not written: {self._failed}")
        if rest := self.total - self._done - self._failed.count:
            lines.append(f"not started: {_count(rest, 'input')}")
        if self._empty.count and not self.aligned:
            lines.append(f"no face in: {self._empty}")
        if self._skipped:
            reasons = sorted(self._reasons)
            because = _join_names(reasons[:MAX_NAMES], len(reasons), "; ")
            lines.append(f"{_count(self._skipped, 'face')} left unchanged ({because}) in: {self._with_skipped}")
        if self.skipped_files:
            names = _join_names(self.skipped_files[:MAX_NAMES], len(self.skipped_files), ", ")
            lines.append(f"skipped: {_count(len(self.skipped_files), 'file')}: {names}")
        return "\n".join([*lines, *self._videos])

    def to_json(self) -> str:
        head = {
            "model": self.model,
            "settings": self.settings,
            "seconds": round(self.seconds, 3),
            "skipped_files": list(self.skipped_files),
        }
        opened = json.dumps(head, indent=2, default=str).removesuffix("\n}")
        return f'{opened},\n  "jobs": [\n    ' + ",\n    ".join(self._entries) + "\n  ]\n}\n"

    def write(self, path: Path) -> None:
        """Write it as JSON. DataError if that fails."""
        write_whole(path, self.to_json().encode())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _join_names(first: Iterable[str], count: int, between: str) -> str:
    """The first of some texts, and the number of further ones."""
    more = [f"and {count - MAX_NAMES} more"] if count > MAX_NAMES else []
    return between.join([*first, *more])


class Runner:
    def __init__(
        self,
        restorer: Restorer,  # for all jobs
        outputs: Outputs,  # writes the files
        # restorers of further results, by the endings of their names; see `Job.written`
        variants: Mapping[str, Restorer],
        *,
        aligned: bool,  # whether each image shows one aligned face
    ):
        self._restorer, self._outputs, self._aligned = restorer, outputs, aligned
        self._restorers = {"": restorer, **variants}
        self._variants = variants
        self._fatal: OutputError | None = None

    def __call__(
        self,
        jobs: Sequence[Job],  # see `expand`
        done: Callable[[JobReport], None],  # called for each job after its result is written
    ) -> None:
        """Run the jobs, photographs first.

        Raises:
            MissingFileError: weights that all photographs need are missing.
            OutputError: nothing more can be written.
        """

        def finish(report: JobReport) -> None:
            done(report)
            if self._fatal is not None:
                raise self._fatal

        images = [job for job in jobs if job.kind == "image"]
        for group in self._groups(images, finish):
            for report in self._restore_group(group):
                finish(report)
        for job in jobs:
            if job.kind == "video":
                finish(self._restore_video(job))

    def _groups(
        self, jobs: Sequence[Job], finish: Callable[[JobReport], None]
    ) -> Iterator[list[tuple[Job, Photograph]]]:
        """Photographs that share batches and fit into memory together; others are finished here."""
        group, pixels = [], 0
        results = len(self._restorers) * self._restorer.upscale**2
        for job in jobs:
            self._outputs.check()
            try:
                self._outputs.refuse_existing(job, list(self._variants))
                pages = read_pages(job.source)
                photograph = next(pages)
            except Exception as error:
                finish(self._failure(job, error))
                continue
            if photograph.pages > 1:
                finish(self._restore_pages(job, itertools.chain([photograph], pages)))
                continue
            size = photograph.pixels.shape[0] * photograph.pixels.shape[1] * (1 + results)
            if group and (len(group) == self._restorer.batch or pixels + size > MAX_PIXELS_AT_ONCE):
                yield group
                group, pixels = [], 0
            group.append((job, photograph))
            pixels += size
        if group:
            yield group

    def _restore_group(self, group: Sequence[tuple[Job, Photograph]]) -> Iterator[JobReport]:
        """Restore together; if that fails, one by one, so that only the photograph that fails is lost."""
        try:
            results = self._detect_and_restore([photograph for _, photograph in group])
        except MissingFileError:  # costs all of them
            raise
        except Exception as error:
            if len(group) == 1:
                yield self._failure(group[0][0], error)
                return
            for one in group:
                yield from self._restore_group([one])
            return
        for (job, photograph), result in zip(group, results, strict=True):
            yield self._write_results(job, photograph, result)

    def _detect_and_restore(self, photographs: list[Photograph]) -> list[dict[str, Restoration]]:
        """Results of each photograph, by the endings of their names."""
        faces = None if self._aligned else [self._restorer.find(photograph) for photograph in photographs]
        results = {ending: self._restore(restorer, photographs, faces) for ending, restorer in self._restorers.items()}
        return [{ending: each[i] for ending, each in results.items()} for i in range(len(photographs))]

    def _restore(
        self, restorer: Restorer, photographs: list[Photograph], faces: list[list[DetectedFace]] | None
    ) -> list[Restoration]:
        return restorer.restore_all(photographs, aligned=self._aligned, faces=faces)

    def _write_results(self, job: Job, photograph: Photograph, results: Mapping[str, Restoration]) -> JobReport:
        try:
            self._write_extras(job, photograph, results)
            notes = dict.fromkeys(_size_notes(results[""].faces))
            for result, path in zip(results.values(), job.written(self._variants), strict=True):
                if result.unchanged and has_format_of(path, photograph):
                    self._outputs.write(path, job.source.read_bytes())
                    notes |= dict.fromkeys(photograph.damage)
                else:
                    data, lost = encode_photograph(path, result.photograph)
                    self._outputs.write(path, data)
                    notes |= dict.fromkeys((*photograph.damage, *photograph.notes, *lost))
        except Exception as error:
            return self._failure(job, error)
        return JobReport(job.source, job.target, [FaceReport.of(face) for face in results[""].faces], notes=[*notes])

    def _restore_pages(self, job: Job, pages: Iterator[Photograph]) -> JobReport:
        """Restore a TIFF file page by page into files of as many pages."""
        paths, faces, notes = job.written(self._variants), [], {}
        try:
            check_holds_pages(job.target, job.source)
            with contextlib.ExitStack() as stack:
                files = [stack.enter_context(self._outputs.new_file(path)) for path in paths]
                writers = [TiffWriter(file, path) for file, path in zip(files, paths, strict=True)]
                unchanged = [True for _ in paths]
                for number, page in enumerate(pages, 1):
                    (results,) = self._detect_and_restore([page])
                    self._write_extras(job, page, results, f"_p{number}")
                    faces += [FaceReport.of(face, number) for face in results[""].faces]
                    found = [*page.damage, *page.notes, *_size_notes(results[""].faces)]
                    for i, result in enumerate(results.values()):
                        found += writers[i].add(result.photograph)
                        unchanged[i] &= result.unchanged
                    notes |= dict.fromkeys(f"page {number}: {note}" for note in found)
                for file, same in zip(files, unchanged, strict=True):
                    if same:
                        file.seek(0)
                        file.write(job.source.read_bytes())
                        file.truncate()
        except MissingFileError:
            raise
        except Exception as error:
            return self._failure(job, error)
        return JobReport(job.source, job.target, faces, notes=[] if all(unchanged) else [*notes])

    def _write_extras(
        self, job: Job, photograph: Photograph, results: Mapping[str, Restoration], page: str = ""
    ) -> None:
        for ending, result in results.items():
            if self._outputs.faces:
                for number, face in enumerate(result.faces):
                    for what, pixels in (("before", face.crop), ("after", face.restored)):
                        path = self._outputs.side_path(FACES_FOLDER, job, f"{ending}{page}_{number:02d}_{what}.png")
                        self._outputs.write_image(path, np.rint(pixels * 255).astype(np.uint8))
            if self._outputs.compare:
                both = side_by_side(photograph.pixels, result.photograph.pixels)
                self._outputs.write_image(self._outputs.compare_path(job, f"{ending}{page}"), both)

    def _restore_video(self, job: Job) -> JobReport:
        options = (("--save-faces", self._outputs.faces), ("--variants", bool(self._variants)))
        left_out = [f"{option} does not apply to videos" for option, given in options if given]
        try:
            if self._aligned:
                raise DataError(str(job.source), "is a video, but --aligned is for images of one face")
            self._outputs.check()
            self._outputs.refuse_existing(job, [])
            compare = self._outputs.compare_path(job) if self._outputs.compare else None
            for path in filter(None, (job.target, compare)):
                self._outputs.make_parents(path)
            with tqdm(total=VideoSource(job.source).expected, desc=job.source.name, unit="frame", leave=False) as bar:
                report = restore_video(
                    job.source,
                    job.target,
                    self._restorer,
                    batch=self._restorer.batch,
                    compare=compare,
                    progress=bar.update,
                )
        except Exception as error:
            return self._failure(job, error)
        figures = asdict(report)
        notes = figures.pop("notes")
        return JobReport(job.source, job.target, video=figures, notes=(*notes, *left_out))

    def _failure(self, job: Job, error: Exception) -> JobReport:
        self._fatal = self._fatal or self._outputs.fatal_error(error)
        if not isinstance(error, GPENError):
            error = _to_data_error(job.source, error)
        return JobReport(job.source, job.target, error=plain_message(error))


def _size_notes(faces: Sequence[RestoredFace]) -> list[str]:
    restored = [face for face in faces if face.detected is not None and face.skip_reason is None]
    found = [(side_in_photograph(face.crop, face.matrix), len(face.crop)) for face in restored]
    large = [round(side) for side, seen in found if side > MIN_SIZE_RATIO * seen]
    if not large:
        return []
    seen = found[0][1]
    return [f"a face has {max(large)} px, but the network only {seen} px: a larger network would give a sharper result"]


def _to_data_error(source: Path, error: Exception) -> DataError:
    """The error for the user: out of memory, or a bug of this program."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | cv2.error) or "out of memory" in text:
        got = f"cannot be restored ({text or 'out of memory'})"
        return DataError(str(source), got, hint="Reduce its size or --upscale.")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    got = f"cannot be restored ({type(error).__name__}: {text}, in {Path(frame.filename).name}, line {frame.lineno})"
    return DataError(str(source), got, hint="The other inputs are restored. Please report this error with the file.")
