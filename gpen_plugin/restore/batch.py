"""Do the jobs of ``gpen-restore``: read, restore in batches, write; a job that fails is reported and the rest done."""

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
    encode_photograph,
    has_format_of,
    holds_pages,
    read_pages,
)
from gpen_plugin.restore.alignment import side_in_photograph
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.outputs import FACES, OutputError, Outputs
from gpen_plugin.restore.restorer import Restoration, RestoredFace, Restorer
from gpen_plugin.restore.video import restore_video
from gpen_plugin.restore.video_reader import VideoSource

TOGETHER = 64_000_000  # pixels of photographs and results that are held at once, besides one that is larger
MUCH = 2  # times the network's input: from here on a larger network is recommended
LISTED = 12  # names in a line of the summary; the file of `Report.write` has all


@dataclass(frozen=True)
class FaceReport:
    """What became of a face.

    Attributes:
        entry: what the report file says of it.
        kept: why it was left as it is; None if the restored one stands in the image.
    """

    entry: dict[str, Any]
    kept: str | None

    @classmethod
    def of(cls, face: RestoredFace, page: int | None = None) -> "FaceReport":
        """Without the images of the face. `page`: of a file of several pages, from 1."""
        known = face.identity is not None and math.isfinite(face.identity)  # JSON has no NaN
        entry: dict[str, Any] = {} if page is None else {"page": page}
        if face.detected is not None:
            entry |= {
                "box": face.detected.box.round(2).tolist(),
                "landmarks": face.detected.landmarks.round(2).tolist(),
                "score": round(face.detected.score, 4),
                "detector": face.detected.detector,
            }
        return cls({**entry, "identity": face.identity if known else None, "kept": face.kept}, face.kept)


@dataclass
class JobReport:
    """What became of one input.

    Attributes:
        source: the input.
        target: where its result goes; None for a folder that could not be read.
        faces: one entry for each face, of a photograph or an aligned image.
        video: figures of a video.
        notes: what a person should know, e.g. that only the first frame was read.
        error: why nothing was written; None if all went well.
    """

    source: Path
    target: Path | None
    faces: Sequence[FaceReport] = ()
    video: dict[str, Any] | None = None
    notes: Sequence[str] = ()
    error: str | None = None

    @property
    def found(self) -> int:
        """Number of faces; in a video, over all frames."""
        return self.video["faces"] if self.video else len(self.faces)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        entry: dict[str, Any] = {"source": str(self.source), "target": self.target and str(self.target)}
        if self.error is not None:
            return {**entry, "error": self.error}
        entry["notes"] = list(self.notes)
        if self.video:
            return {**entry, "video": self.video}
        return {**entry, "faces": [face.entry for face in self.faces]}


@dataclass
class _Names:
    """How many inputs, and the names of the first."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: object) -> None:
        self.count += 1
        if self.count <= LISTED:
            self.first.append(str(name))

    def __str__(self) -> str:
        return _some(self.first, self.count, ", ")


@dataclass
class Report:
    """What became of all inputs: counts and a few names, and for a report file one line of text for each input.

    Attributes:
        model: description of the network.
        settings: the options of the run by name.
        total: number of inputs.
        aligned: whether nothing was looked for.
        skipped_files: files of searched folders that are neither photographs nor videos; see `Inputs`.
        has_file: whether `to_json` will be asked for.
        seconds: that it took.
    """

    model: str
    settings: dict[str, Any]
    total: int
    aligned: bool = False
    skipped_files: Sequence[str] = ()
    has_file: bool = True
    seconds: float = 0.0
    faces: int = field(default=0, init=False)
    _done: int = field(default=0, init=False)
    _failed: _Names = field(default_factory=_Names, init=False)
    _empty: _Names = field(default_factory=_Names, init=False)
    _with_kept: _Names = field(default_factory=_Names, init=False)
    _kept: int = field(default=0, init=False)
    _reasons: set[str] = field(default_factory=set, init=False)
    _videos: list[str] = field(default_factory=list, init=False)
    _entries: list[str] = field(default_factory=list, init=False)

    def add(self, job: JobReport) -> None:
        """Count an input that is done with."""
        if self.has_file:
            self._entries.append(json.dumps(job.to_dict(), default=str))
        if job.error is not None:
            self._failed.add(job.source)
            return
        self._done += 1
        self.faces += job.found
        if not job.found:
            self._empty.add(job.source)
        reasons = [face.kept for face in job.faces if face.kept]
        if reasons:
            self._kept += len(reasons)
            self._reasons.update(reasons)
            self._with_kept.add(job.source)
        if job.video:
            self._videos.append(f"{job.source.name}: {_count(job.video['frames'], 'frame')}")

    @property
    def status(self) -> int:
        """The command's exit status; see its help."""
        if self._failed.count or self._done < self.total:
            return 1
        return 3 if self._done and not self.aligned and not self.faces else 0

    def summary(self) -> str:
        """One or several lines for the terminal."""
        written = f"{self._done} of {_count(self.total, 'input')} written"
        lines = [f"{written}, {_count(self.faces, 'face')}, {self.seconds:.1f} s"]
        if self._failed.count:
            lines.append(f"not written: {self._failed}")
        if rest := self.total - self._done - self._failed.count:
            lines.append(f"not begun: {_count(rest, 'input')}")
        if self._empty.count and not self.aligned:
            lines.append(f"no face in: {self._empty}")
        if self._kept:
            reasons = sorted(self._reasons)
            because = _some(reasons[:LISTED], len(reasons), "; ")
            lines.append(f"{_count(self._kept, 'face')} left alone ({because}) in: {self._with_kept}")
        if self.skipped_files:
            names = _some(self.skipped_files[:LISTED], len(self.skipped_files), ", ")
            lines.append(f"passed over: {_count(len(self.skipped_files), 'file')}: {names}")
        return "\n".join([*lines, *self._videos])

    def to_json(self) -> str:
        """All that is known, for programs."""
        head = {
            "model": self.model,
            "settings": self.settings,
            "seconds": round(self.seconds, 3),
            "skipped_files": list(self.skipped_files),
        }
        opened = json.dumps(head, indent=2, default=str).removesuffix("\n}")
        return f'{opened},\n  "jobs": [\n    ' + ",\n    ".join(self._entries) + "\n  ]\n}\n"

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all. DataError if that fails."""
        write_whole(path, self.to_json().encode())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _some(first: Iterable[str], count: int, between: str) -> str:
    """The first of some texts, and how many more there are."""
    more = [f"and {count - LISTED} more"] if count > LISTED else []
    return between.join([*first, *more])


class Runner:
    """Runs jobs.

    Args:
        restorer: does the work.
        outputs: writes the files.
        variants: restorers of further results, by the endings of their names; see `Job.written`.
        aligned: whether each image shows one aligned face.
    """

    def __init__(self, restorer: Restorer, outputs: Outputs, variants: Mapping[str, Restorer], *, aligned: bool):
        self._restorer, self._outputs, self._aligned = restorer, outputs, aligned
        self._restorers = {"": restorer, **variants}
        self._variants = variants
        self._lost: OutputError | None = None

    def __call__(self, jobs: Sequence[Job], done: Callable[[JobReport], None]) -> None:
        """Do the jobs, photographs first.

        Args:
            jobs: see `expand`.
            done: called for each, as soon as its result is written.
        Raises:
            MissingFileError: weights that all photographs need are not to be had.
            OutputError: nothing more can be written.
        """

        def finish(report: JobReport) -> None:
            done(report)
            if self._lost is not None:
                raise self._lost

        images = [job for job in jobs if job.kind == "image"]
        for group in self._groups(images, finish):
            for report in self._of_group(group):
                finish(report)
        for job in jobs:
            if job.kind == "video":
                finish(self._video(job))

    def _groups(
        self, jobs: Sequence[Job], finish: Callable[[JobReport], None]
    ) -> Iterator[list[tuple[Job, Photograph]]]:
        """Readable photographs, as many at once as share batches and fit into memory; the others are done with."""
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
                finish(self._of_pages(job, itertools.chain([photograph], pages)))
                continue
            size = photograph.pixels.shape[0] * photograph.pixels.shape[1] * (1 + results)
            if group and (len(group) == self._restorer.batch or pixels + size > TOGETHER):
                yield group
                group, pixels = [], 0
            group.append((job, photograph))
            pixels += size
        if group:
            yield group

    def _of_group(self, group: Sequence[tuple[Job, Photograph]]) -> Iterator[JobReport]:
        """Restore together; where that fails, one by one, so that only the one that fails is lost."""
        try:
            results = self._restored([photograph for _, photograph in group])
        except MissingFileError:  # costs all of them
            raise
        except Exception as error:
            if len(group) == 1:
                yield self._failure(group[0][0], error)
                return
            for one in group:
                yield from self._of_group([one])
            return
        for (job, photograph), result in zip(group, results, strict=True):
            yield self._written(job, photograph, result)

    def _restored(self, photographs: list[Photograph]) -> list[dict[str, Restoration]]:
        """Of each photograph, the results by the endings of their names."""
        faces = None if self._aligned else [self._restorer.find(photograph) for photograph in photographs]
        results = {ending: self._restore(restorer, photographs, faces) for ending, restorer in self._restorers.items()}
        return [{ending: each[place] for ending, each in results.items()} for place in range(len(photographs))]

    def _restore(
        self, restorer: Restorer, photographs: list[Photograph], faces: list[list[DetectedFace]] | None
    ) -> list[Restoration]:
        return restorer.restore_all(photographs, aligned=self._aligned, faces=faces)

    def _written(self, job: Job, photograph: Photograph, results: Mapping[str, Restoration]) -> JobReport:
        try:
            self._write_beside(job, photograph, results)
            notes = dict.fromkeys(_too_large(results[""].faces))
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

    def _of_pages(self, job: Job, pages: Iterator[Photograph]) -> JobReport:
        """Restore a TIFF file page by page into files of as many pages."""
        paths, faces, notes = job.written(self._variants), [], {}
        try:
            holds_pages(job.target, job.source)
            with contextlib.ExitStack() as stack:
                files = [stack.enter_context(self._outputs.new_file(path)) for path in paths]
                writers = [TiffWriter(file, path) for file, path in zip(files, paths, strict=True)]
                unchanged = [True for _ in paths]
                for number, page in enumerate(pages, 1):
                    (results,) = self._restored([page])
                    self._write_beside(job, page, results, f"_p{number}")
                    faces += [FaceReport.of(face, number) for face in results[""].faces]
                    found = [*page.damage, *page.notes, *_too_large(results[""].faces)]
                    for place, result in enumerate(results.values()):
                        found += writers[place].add(result.photograph)
                        unchanged[place] &= result.unchanged
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

    def _write_beside(
        self, job: Job, photograph: Photograph, results: Mapping[str, Restoration], page: str = ""
    ) -> None:
        """Write what is asked for beside the results."""
        for ending, result in results.items():
            if self._outputs.faces:
                for number, face in enumerate(result.faces):
                    for what, pixels in (("before", face.crop), ("after", face.restored)):
                        path = self._outputs.beside(FACES, job, f"{ending}{page}_{number:02d}_{what}.png")
                        self._outputs.write_image(path, np.rint(pixels * 255).astype(np.uint8))
            if self._outputs.compare:
                both = side_by_side(photograph.pixels, result.photograph.pixels)
                self._outputs.write_image(self._outputs.compared(job, f"{ending}{page}"), both)

    def _video(self, job: Job) -> JobReport:
        options = (("--save-faces", self._outputs.faces), ("--variants", bool(self._variants)))
        left_out = [f"{option} is for photographs: left out for this video" for option, given in options if given]
        try:
            if self._aligned:
                raise DataError(str(job.source), "is a video, and --aligned is for images of one face")
            self._outputs.check()
            self._outputs.refuse_existing(job, [])
            compare = self._outputs.compared(job) if self._outputs.compare else None
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
        self._lost = self._lost or self._outputs.loss(error)
        if not isinstance(error, GPENError):
            error = _explained(job.source, error)
        return JobReport(job.source, job.target, error=plain_message(error))


def _too_large(faces: Sequence[RestoredFace]) -> list[str]:
    """What is to be said of faces that the network sees much smaller than they are."""
    shown = [face for face in faces if face.detected is not None and face.kept is None]
    found = [(side_in_photograph(face.crop, face.matrix), len(face.crop)) for face in shown]
    large = [round(side) for side, seen in found if side > MUCH * seen]
    if not large:
        return []
    seen = found[0][1]
    return [f"a face fills {max(large)} px, and the network sees {seen}: a network of a larger size would do it better"]


def _explained(source: Path, error: Exception) -> DataError:
    """An error of ours for one that was not foreseen: memory that is wanting, or a mistake in this program."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | cv2.error) or "out of memory" in text:
        got = f"cannot be restored ({text or 'out of memory'})"
        return DataError(str(source), got, hint="Make it or --upscale smaller.")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    got = f"cannot be restored ({type(error).__name__}: {text}, in {Path(frame.filename).name}, line {frame.lineno})"
    return DataError(str(source), got, hint="The other inputs are restored. Please report this with the file.")
