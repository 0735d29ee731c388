"""What a run of ``gpen-restore`` found and did, for people and for programs. Images are not kept."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpen_plugin.images.files import write_whole
from gpen_plugin.restore.face import RestoredFace

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
        passed_over: files of searched folders that are neither photographs nor videos; see `Inputs`.
        has_file: whether `to_json` will be asked for.
        seconds: that it took.
    """

    model: str
    settings: dict[str, Any]
    total: int
    aligned: bool = False
    passed_over: Sequence[str] = ()
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
            self._videos.append(f"{job.source.name}: {_stability(job.video)}")

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
        if self.passed_over:
            names = _some(self.passed_over[:LISTED], len(self.passed_over), ", ")
            lines.append(f"passed over: {_count(len(self.passed_over), 'file')}: {names}")
        return "\n".join([*lines, *self._videos])

    def to_json(self) -> str:
        """All that is known, for programs."""
        head = {
            "model": self.model,
            "settings": self.settings,
            "seconds": round(self.seconds, 3),
            "passed_over": list(self.passed_over),
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


def _stability(video: dict[str, Any]) -> str:
    before, after = video["flicker_before"], video["flicker_after"]
    frames = f"{video['frames']} frames"
    return frames if before is None else f"{frames}, flicker of faces {before:.2f} before, {after:.2f} after"
