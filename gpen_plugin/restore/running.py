"""Do the jobs of ``gpen-restore``: read, restore in batches, write; a job that fails is reported and the rest done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gpen_plugin.errors import DataError, GPENError, MissingFileError, OptionError, plain_message
from gpen_plugin.picture_file import write_picture
from gpen_plugin.restore.alignment import side_in_photograph
from gpen_plugin.restore.face import DetectedFace, Restoration, RestoredFace
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.photograph import Photograph, read_photograph, write_photograph
from gpen_plugin.restore.report import JobReport
from gpen_plugin.restore.restorer import Restorer
from gpen_plugin.restore.video import restore_video
from gpen_plugin.restore.video_file import VideoSource
from gpen_plugin.sheet import side_by_side

TOGETHER = 64_000_000  # pixels of photographs and results that are held at once, besides one that is larger
MUCH = 2  # times the network's input: from here on a larger network is recommended
FACES, COMPARED = "faces", "compare"  # rooms of the output folder
# Memory that is wanting, too: OpenCV has an error of its own for that.
_FAILURES = (GPENError, MemoryError, cv2.error)


@dataclass(frozen=True)
class Outputs:
    """What is written beside the results.

    Attributes:
        folder: of `faces` and `compare`.
        faces: each face before and after.
        compare: photographs side by side.
    """

    folder: Path
    faces: bool
    compare: bool

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise an `OptionError` where results would lie among faces or comparisons, which may have their names."""
        for option, room, asked in (("--save-faces", FACES, self.faces), ("--compare", COMPARED, self.compare)):
            met = next((job for job in jobs if (self.folder / room) in job.target.parents), None)
            if asked and met is not None:
                came = f"would write to {self.folder / room}, where the result of {met.source} goes"
                raise OptionError(option, came, way_out="Restore the inputs of that folder apart.")


class Runner:
    """Runs jobs.

    Args:
        restorer: does the work.
        outputs: what is written beside the results.
        variants: restorers of further results, by the endings of their names; see `Job.written`.
        aligned: whether each picture shows one aligned face.
    """

    def __init__(self, restorer: Restorer, outputs: Outputs, variants: Mapping[str, Restorer], *, aligned: bool):
        self._restorer, self._outputs, self._variants, self._aligned = restorer, outputs, variants, aligned

    def __call__(self, jobs: Sequence[Job], done: Callable[[JobReport], None]) -> None:
        """Do the jobs, photographs first.

        Args:
            jobs: see `expand`.
            done: called for each, as soon as its result is written.
        Raises:
            MissingFileError: weights that all photographs need are not to be had.
        """
        pictures = [job for job in jobs if job.kind == "picture"]
        for group in self._groups(pictures, done):
            for report in self._of_group(group):
                done(report)
        for job in jobs:
            if job.kind == "video":
                done(self._video(job))

    def _groups(self, jobs: Sequence[Job], done: Callable[[JobReport], None]) -> Iterator[list[tuple[Job, Photograph]]]:
        """Readable photographs, as many at once as share batches and fit into memory; the others are done with."""
        group, pixels = [], 0
        results = (1 + len(self._variants)) * self._restorer.upscale**2
        for job in jobs:
            try:
                photograph = read_photograph(job.source)
            except _FAILURES as error:
                done(_failure(job, error))
                continue
            size = photograph.pixels.shape[0] * photograph.pixels.shape[1] * (1 + results)
            if group and (len(group) == self._restorer.batch or pixels + size > TOGETHER):
                yield group
                group, pixels = [], 0
            group.append((job, photograph))
            pixels += size
        if group:
            yield group

    def _of_group(self, group: Sequence[tuple[Job, Photograph]]) -> list[JobReport]:
        """Restore together; where that fails, one by one, so that only the guilty one is lost."""
        try:
            photographs = [photograph for _, photograph in group]
            faces = None if self._aligned else [self._restorer.find(photograph) for photograph in photographs]
            results = {"": self._restored(self._restorer, photographs, faces)}
            for name, restorer in self._variants.items():
                results[name] = self._restored(restorer, photographs, faces)
        except MissingFileError:  # costs all of them
            raise
        except _FAILURES as error:
            if len(group) == 1:
                return [_failure(group[0][0], error)]
            return [report for one in group for report in self._of_group([one])]
        return [
            self._written(job, photograph, {name: result[place] for name, result in results.items()})
            for place, (job, photograph) in enumerate(group)
        ]

    def _restored(
        self, restorer: Restorer, photographs: list[Photograph], faces: list[list[DetectedFace]] | None
    ) -> list[Restoration]:
        return restorer.restore_all(photographs, aligned=self._aligned, faces=faces)

    def _written(self, job: Job, photograph: Photograph, results: Mapping[str, Restoration]) -> JobReport:
        try:
            notes = dict.fromkeys((*photograph.notes, *_too_large(results[""].faces)))
            for (name, result), path in zip(results.items(), job.written(self._variants), strict=True):
                notes |= dict.fromkeys(write_photograph(path, result.photograph))
                if self._outputs.faces:
                    self._write_faces(job, name, result)
                if self._outputs.compare:
                    beside = side_by_side(photograph.pixels, result.photograph.pixels)
                    write_picture(self._beside(COMPARED, job, f"{name}.png"), beside)
        except _FAILURES as error:
            return _failure(job, error)
        return JobReport(job.source, job.target, results[""].faces, notes=tuple(notes))

    def _write_faces(self, job: Job, name: str, result: Restoration) -> None:
        for number, face in enumerate(result.faces):
            for what, picture in (("before", face.crop), ("after", face.restored)):
                path = self._beside(FACES, job, f"{name}_{number:02d}_{what}.png")
                write_picture(path, np.rint(picture * 255).astype(np.uint8))

    def _beside(self, room: str, job: Job, ending: str) -> Path:
        """A path below OUTPUT/room that mirrors the target's own; its suffix stays, so that a.jpg and a.png do."""
        relative = job.target.relative_to(self._outputs.folder)
        return self._outputs.folder / room / relative.with_name(relative.name + ending)

    def _video(self, job: Job) -> JobReport:
        if self._aligned:
            error = DataError(str(job.source), "is a video, and --aligned is for images of one face")
            return _failure(job, error)
        options = (("--save-faces", self._outputs.faces), ("--variants", bool(self._variants)))
        left_out = [f"{option} is for photographs: left out for this video" for option, given in options if given]
        try:
            compare = self._beside(COMPARED, job, "") if self._outputs.compare else None
            with tqdm(total=VideoSource(job.source).expected, desc=job.source.name, unit="frame", leave=False) as bar:
                report = restore_video(
                    job.source,
                    job.target,
                    self._restorer,
                    batch=self._restorer.batch,
                    compare=compare,
                    progress=bar.update,
                )
        except _FAILURES as error:
            return _failure(job, error)
        figures = asdict(report)
        notes = figures.pop("notes")
        return JobReport(job.source, job.target, video=figures, notes=(*notes, *left_out))


def _too_large(faces: Sequence[RestoredFace]) -> list[str]:
    """What is to be said of faces that the network sees much smaller than they are."""
    shown = [face for face in faces if face.detected is not None and face.kept is None]
    found = [(side_in_photograph(face.crop, face.matrix), len(face.crop)) for face in shown]
    large = [round(side) for side, seen in found if side > MUCH * seen]
    if not large:
        return []
    seen = found[0][1]
    return [f"a face fills {max(large)} px, and the network sees {seen}: a network of a larger size would do it better"]


def _failure(job: Job, error: Exception) -> JobReport:
    if not isinstance(error, GPENError):
        reason = " ".join(str(error).split()) or "out of memory"
        error = DataError(str(job.source), f"cannot be restored ({reason})", way_out="Make it or --upscale smaller.")
    return JobReport(job.source, job.target, error=plain_message(error))
