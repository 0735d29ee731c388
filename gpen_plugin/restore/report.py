"""What a run of ``gpen-restore`` found and did, for people and for programs."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpen_plugin.picture_file import write_whole
from gpen_plugin.restore.face import RestoredFace

LISTED = 12  # names in a line of the summary; the file of `Report.write` has all


@dataclass
class JobReport:
    """What became of one input.

    Attributes:
        source: the input.
        target: what was written.
        faces: one entry for each face, of a photograph or an aligned picture.
        video: figures of a video.
        notes: what a person should know, e.g. that only the first frame was read.
        error: why nothing was written; None if all went well.
    """

    source: Path
    target: Path
    faces: list[RestoredFace] = field(default_factory=list)
    video: dict[str, Any] | None = None
    notes: Sequence[str] = ()
    error: str | None = None

    @property
    def found(self) -> int:
        """Number of faces; in a video, over all frames."""
        return self.video["faces"] if self.video else len(self.faces)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        entry: dict[str, Any] = {"source": str(self.source)}
        if self.error is not None:
            return {**entry, "error": self.error}
        entry |= {"target": str(self.target), "notes": list(self.notes)}
        if self.video:
            return {**entry, "video": self.video}
        return {**entry, "faces": [_face(face) for face in self.faces]}


@dataclass
class Report:
    """What became of all inputs.

    Attributes:
        model: description of the network.
        settings: the options of the run by name.
        total: number of inputs.
        aligned: whether nothing was looked for.
        jobs: one entry for each input that is done with.
        seconds: that it took.
    """

    model: str
    settings: dict[str, Any]
    total: int
    aligned: bool = False
    jobs: list[JobReport] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> list[JobReport]:
        """Inputs that gave nothing."""
        return [job for job in self.jobs if job.error is not None]

    @property
    def status(self) -> int:
        """The command's exit status; see its help."""
        if self.failed:
            return 1
        return 3 if self.jobs and not self.aligned and not any(job.found for job in self.jobs) else 0

    def summary(self) -> str:
        """One or several lines for the terminal."""
        done = [job for job in self.jobs if job.error is None]
        faces = sum(job.found for job in done)
        lines = [f"{len(done)} of {_count(self.total, 'input')} written, {_count(faces, 'face')}, {self.seconds:.1f} s"]
        if self.failed:
            lines.append(f"not written: {_listed(self.failed)}")
        empty = [job for job in done if not job.found]
        if empty and not self.aligned:
            lines.append(f"no face in: {_listed(empty)}")
        kept = [job for job in done if any(face.kept for face in job.faces)]
        if kept:
            left = sum(face.kept is not None for job in kept for face in job.faces)
            reasons = sorted({face.kept for job in kept for face in job.faces if face.kept})
            lines.append(f"{_count(left, 'face')} left alone ({_some(reasons, '; ')}) in: {_listed(kept)}")
        for job in done:
            if job.video:
                lines.append(f"{job.source.name}: {_stability(job.video)}")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all. DataError if that fails."""
        whole = {
            "model": self.model,
            "settings": self.settings,
            "seconds": round(self.seconds, 3),
            "jobs": [job.to_dict() for job in self.jobs],
        }
        write_whole(path, (json.dumps(whole, indent=2, default=str) + "\n").encode())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _listed(jobs: Sequence[JobReport]) -> str:
    return _some([str(job.source) for job in jobs], ", ")


def _some(texts: Sequence[str], between: str) -> str:
    """All of a few, and how many more there are."""
    more = [f"and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return between.join([*texts[:LISTED], *more])


def _face(face: RestoredFace) -> dict[str, Any]:
    told = face.identity is not None and math.isfinite(face.identity)  # JSON has no NaN
    entry: dict[str, Any] = {"identity": face.identity if told else None, "kept": face.kept}
    if face.detected is None:
        return entry
    found = face.detected
    return {
        "box": found.box.round(2).tolist(),
        "landmarks": found.landmarks.round(2).tolist(),
        "score": round(found.score, 4),
        "detector": found.detector,
        **entry,
    }


def _stability(video: dict[str, Any]) -> str:
    before, after = video["flicker_before"], video["flicker_after"]
    frames = f"{video['frames']} frames"
    return frames if before is None else f"{frames}, flicker of faces {before:.2f} before, {after:.2f} after"
