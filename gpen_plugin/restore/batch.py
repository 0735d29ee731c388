"""Run the jobs of ``gpen-restore`` in batches; a job that fails does not stop the others."""

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
    check_holds_pages,
    encode_photograph,
    has_format_of,
    read_pages,
)
from gpen_plugin.restore.alignment import side_in_photograph
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.manifest import Manifest
from gpen_plugin.restore.outputs import FACES_FOLDER, OutputError, Outputs
from gpen_plugin.restore.report import FaceReport, JobReport
from gpen_plugin.restore.restorer import Restoration, RestoredFace, Restorer
from gpen_plugin.restore.video import restore_video
from gpen_plugin.restore.video_reader import VideoSource

MAX_PIXELS_AT_ONCE = 64_000_000  # of photographs and results in memory; a larger one is restored by itself
MIN_SIZE_RATIO = 2  # of a face to the network's input, from which a larger network is recommended


class Runner:
    def __init__(
        self,
        restorer: Restorer,  # for all jobs
        outputs: Outputs,  # writes the files
        # restorers of further results, by the endings of their names; see `Job.written`
        variants: Mapping[str, Restorer],
        *,
        aligned: bool,  # whether each image shows one aligned face
        manifest: Manifest | None = None,  # of the output folder; jobs that it lists as done are skipped
        redo: bool = False,  # whether these are run again, and their results replaced
    ):
        self._restorer, self._outputs, self._aligned = restorer, outputs, aligned
        self._manifest, self._redo = manifest, redo
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

        def finish(job: Job, report: JobReport) -> None:
            self._record(job, report)
            done(report)
            if self._fatal is not None:
                raise self._fatal

        images = [job for job in jobs if job.kind == "image"]
        for group in self._groups(images, finish):
            for job, report in self._restore_group(group):
                finish(job, report)
        for job in jobs:
            if job.kind == "video":
                finish(job, self._restore_video(job))

    def _begin(self, job: Job) -> JobReport | None:
        """Record that a job starts, or return its report if an earlier run has done it."""
        self._outputs.check()
        if self._manifest is not None:
            line = None if self._redo else self._manifest.finished(job)
            if line is not None:
                return JobReport.of_earlier_run(job, line["report"])
            if self._manifest.owns(job):  # redone, interrupted, failed, or a result is lost
                self._outputs.allow_replacing(job, list(self._variants))
        self._outputs.refuse_existing(job, list(self._variants))
        if self._manifest is not None:
            self._manifest.start(job)
        return None

    def _record(self, job: Job, report: JobReport) -> None:
        if self._manifest is None or report.is_earlier:
            return
        try:
            self._manifest.end(job, report.to_dict(), job.written(self._variants if job.kind == "image" else ()))
        except DataError as error:
            self._fatal = self._fatal or self._outputs.fatal_error(error)
            report.notes = [*report.notes, plain_message(error)]

    def _groups(
        self, jobs: Sequence[Job], finish: Callable[[Job, JobReport], None]
    ) -> Iterator[list[tuple[Job, Photograph]]]:
        """Photographs that share batches and fit into memory together; others are finished here."""
        group, pixels = [], 0
        results = len(self._restorers) * self._restorer.upscale**2
        for job in jobs:
            try:
                earlier = self._begin(job)
                if earlier is not None:
                    finish(job, earlier)
                    continue
                pages = read_pages(job.source)
                photograph = next(pages)
            except Exception as error:
                finish(job, self._failure(job, error))
                continue
            if photograph.pages > 1:
                finish(job, self._restore_pages(job, itertools.chain([photograph], pages)))
                continue
            size = photograph.pixels.shape[0] * photograph.pixels.shape[1] * (1 + results)
            if group and (len(group) == self._restorer.batch or pixels + size > MAX_PIXELS_AT_ONCE):
                yield group
                group, pixels = [], 0
            group.append((job, photograph))
            pixels += size
        if group:
            yield group

    def _restore_group(self, group: Sequence[tuple[Job, Photograph]]) -> Iterator[tuple[Job, JobReport]]:
        """Restore together; if that fails, one by one, so that only the photograph that fails is lost."""
        try:
            results = self._detect_and_restore([photograph for _, photograph in group])
        except MissingFileError:  # costs all of them
            raise
        except Exception as error:
            if len(group) == 1:
                yield group[0][0], self._failure(group[0][0], error)
                return
            for one in group:
                yield from self._restore_group([one])
            return
        for (job, photograph), result in zip(group, results, strict=True):
            yield job, self._write_results(job, photograph, result)

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
            earlier = self._begin(job)
            if earlier is not None:
                return earlier
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
