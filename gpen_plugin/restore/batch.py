"""Do the jobs of ``gpen-restore``: read, restore in batches, write; a job that fails is reported and the rest done."""

import contextlib
import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gpen_plugin.errors import DataError, GPENError, MissingFileError, plain_message
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
from gpen_plugin.restore.face import DetectedFace, Restoration, RestoredFace
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.outputs import FACES, OutputError, Outputs
from gpen_plugin.restore.report import FaceReport, JobReport
from gpen_plugin.restore.restorer import Restorer
from gpen_plugin.restore.video import restore_video
from gpen_plugin.restore.video_io import VideoSource

TOGETHER = 64_000_000  # pixels of photographs and results that are held at once, besides one that is larger
MUCH = 2  # times the network's input: from here on a larger network is recommended


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
