"""Run the jobs of ``gpen-restore`` in batches; a job that fails does not stop the others."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from tqdm import tqdm

from gpen_plugin.errors import DataError, MissingFileError
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
from gpen_plugin.restore.report import FaceReport, JobReport
from gpen_plugin.restore.restorer import Restoration, RestoredFace, Restorer
from gpen_plugin.restore.schedule import failure
from gpen_plugin.restore.video import restore_video
from gpen_plugin.restore.video_reader import VideoSource
from gpen_plugin.restore.workers import Facts

MAX_PIXELS_AT_ONCE = 64_000_000  # of photographs and results in memory; a larger one is restored by itself
GPU_MEMORY = 4 << 30  # bytes for each process that shares a GPU
MIN_SIZE_RATIO = 2  # of a face to the network's input, from which a larger network is recommended


class Runner:
    """Runs jobs in this process."""

    def __init__(
        self,
        restorer: Restorer,  # for all jobs
        outputs: Outputs,  # writes the files
        # restorers of further results, by the endings of their names; see `Job.written`
        variants: Mapping[str, Restorer],
        *,
        aligned: bool,  # whether each image shows one aligned face
        shows_frames: bool = True,  # whether a video has a progress bar
    ):
        self._restorer, self._outputs, self._aligned = restorer, outputs, aligned
        self._restorers = {"": restorer, **variants}
        self._variants, self._shows_frames = variants, shows_frames
        self._fatal: OutputError | None = None

    @property
    def facts(self) -> Facts:
        restorer = self._restorer
        notices = ("", "") if self._aligned else (restorer.detector.notice, restorer.mask.notice)
        file = getattr(restorer.network, "file", None)
        # on a CPU each face has a thread of its own
        batch = 1 if restorer.device.type == "cpu" and torch.get_num_threads() == 1 else restorer.batch
        return Facts(restorer.network.description, file, batch, *notices, _max_processes(restorer.device))

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, JobReport]]:
        """Run jobs; photographs share batches. Each result is written when its report comes, in any order.

        Raises:
            MissingFileError: weights that all photographs need are missing.
            OutputError: nothing more can be written.
        """
        for job, report in self._run(jobs):
            yield job, report
            if self._fatal is not None:
                raise self._fatal

    def _run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, JobReport]]:
        group, pixels = [], 0
        results = len(self._restorers) * self._restorer.upscale**2
        for job in jobs:
            if job.replaces:
                self._outputs.allow_replacing(job, list(self._variants))
            if job.kind == "video":
                yield job, self._restore_video(job)
                continue
            try:
                pages = read_pages(job.source)
                photograph = next(pages)
            except Exception as error:
                yield job, self._failure(job, error)
                continue
            if photograph.pages > 1:
                yield job, self._restore_pages(job, itertools.chain([photograph], pages))
                continue
            size = photograph.pixels.shape[0] * photograph.pixels.shape[1] * (1 + results)
            if group and (len(group) == self._restorer.batch or pixels + size > MAX_PIXELS_AT_ONCE):
                yield from self._restore_group(group)
                group, pixels = [], 0
            group.append((job, photograph))
            pixels += size
        if group:
            yield from self._restore_group(group)

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
            compare = self._outputs.compare_path(job) if self._outputs.compare else None
            for path in filter(None, (job.target, compare)):
                self._outputs.make_parents(path)
            total, hidden = VideoSource(job.source).expected, not self._shows_frames
            with tqdm(total=total, desc=job.source.name, unit="frame", leave=False, disable=hidden) as bar:
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
        return failure(job, error)


def _max_processes(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    memory = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.device_count() * max(1, memory // GPU_MEMORY)


def _size_notes(faces: Sequence[RestoredFace]) -> list[str]:
    restored = [face for face in faces if face.detected is not None and face.skip_reason is None]
    found = [(side_in_photograph(face.crop, face.matrix), len(face.crop)) for face in restored]
    large = [round(side) for side, seen in found if side > MIN_SIZE_RATIO * seen]
    if not large:
        return []
    seen = found[0][1]
    return [f"a face has {max(large)} px, but the network only {seen} px: a larger network would give a sharper result"]
