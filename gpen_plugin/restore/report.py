"""Reports of a run of ``gpen-restore``: of a face, of a job, the summary, and the report file."""

import errno
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpen_plugin.errors import DataError
from gpen_plugin.images.files import write_whole
from gpen_plugin.restore.inputs import Job

if TYPE_CHECKING:
    from gpen_plugin.restore.restorer import RestoredFace

NO_FACES = 3  # exit status: no face in any photograph
MAX_NAMES = 12  # in a line of the summary; the report file has all


@dataclass(frozen=True)
class FaceReport:
    """The report of a face, without images."""

    entry: dict[str, Any]  # in the report file
    skip_reason: str | None  # see `RestoredFace`

    @classmethod
    def of(cls, face: "RestoredFace", page: int | None = None) -> "FaceReport":
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
    is_earlier: bool = False  # whether an earlier run did it; see `Manifest`

    @classmethod
    def of_earlier_run(cls, job: Job, entry: Mapping[str, Any]) -> "JobReport":
        """The report of a job that is done, from its entry."""
        faces = [FaceReport(face, face["skip_reason"]) for face in entry.get("faces", ())]
        return cls(job.source, job.target, faces, entry.get("video"), entry["notes"], is_earlier=True)

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
    """The summary of a run: counts and a few names."""

    total: int  # number of inputs
    aligned: bool = False  # whether the inputs are aligned faces
    selects: bool = False  # whether only some of the faces are restored
    skipped_files: Sequence[str] = ()  # see `Inputs`
    seconds: float = 0.0  # duration
    faces: int = field(default=0, init=False)
    _done: int = field(default=0, init=False)
    _earlier: int = field(default=0, init=False)
    _failed: _Names = field(default_factory=_Names, init=False)
    _empty: _Names = field(default_factory=_Names, init=False)
    _unchanged: dict[str, _Names] = field(default_factory=dict, init=False)  # inputs by reason
    _reasons: Counter[str] = field(default_factory=Counter, init=False)  # numbers of faces
    _videos: list[str] = field(default_factory=list, init=False)

    def add(self, job: JobReport) -> None:
        self.total = max(self.total, self._done + self._failed.count + 1)  # a tar is one input until it is read
        if job.error is not None:
            self._failed.add(job.source)
            return
        self._done += 1
        self._earlier += job.is_earlier
        self.faces += job.found
        if not job.found:
            self._empty.add(job.source)
        reasons = Counter(face.skip_reason for face in job.faces if face.skip_reason)
        self._reasons += reasons
        for reason in reasons:
            self._unchanged.setdefault(reason, _Names()).add(job.source)
        if job.video:
            self._videos.append(f"{job.source.name}: {_count(job.video['frames'], 'frame')}")

    @property
    def status(self) -> int:
        if self._failed.count or self._done < self.total:
            return 1
        return NO_FACES if self._done and not self.aligned and not self.faces else 0

    def summary(self) -> str:
        written = f"{self._done} of {_count(self.total, 'input')} written"
        if self._earlier:
            written += f" ({self._earlier} of them by an earlier run)"
        faces = f"{_count(self.faces, 'face')} {'chosen' if self.selects else 'found'}"
        if unchanged := self._reasons.total():
            faces += f", {self.faces - unchanged} restored"
        lines = [f"{written}, {faces}, {self.seconds:.1f} s"]
        if self._failed.count:
            lines.append(f"{self._failed.count} not written: {self._failed}")
        if rest := self.total - self._done - self._failed.count:
            lines.append(f"not started: {_count(rest, 'input')}")
        if self._empty.count and not self.aligned:
            face = "no face to restore" if self.selects else "no face"
            lines.append(f"{face} in {_count(self._empty.count, 'input')}: {self._empty}")
        for reason, number in self._reasons.most_common():
            lines.append(f"{_count(number, 'face')} left unchanged, {reason}: {self._unchanged[reason]}")
        if self.skipped_files:
            names = _join_names(self.skipped_files[:MAX_NAMES], len(self.skipped_files), ", ")
            lines.append(f"skipped: {_count(len(self.skipped_files), 'file')}: {names}")
        return "\n".join([*lines, *self._videos])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _join_names(first: Iterable[str], count: int, between: str) -> str:
    """The first of some texts, and the number of further ones."""
    more = [f"and {count - MAX_NAMES} more"] if count > MAX_NAMES else []
    return between.join([*first, *more])


class ReportFile:
    """The report file, which grows while the jobs run: it is whole JSON after each of them.

    ``model``, ``settings``, ``skipped_files``; ``jobs``, a line each; and ``seconds``, the duration so far.
    """

    def __init__(self, path: Path, model: str, settings: Mapping[str, Any], skipped_files: Sequence[str]):
        """DataError if it cannot be written."""
        self.path, self._started, self._jobs = path, time.monotonic(), 0
        head = {"model": model, "settings": dict(settings), "skipped_files": list(skipped_files)}
        opened = json.dumps(head, indent=2, default=str).removesuffix("\n}")
        self._tail = self._end()
        write_whole(path, f'{opened},\n  "jobs": ['.encode() + self._tail)

    def add(self, job: JobReport) -> None:
        """Append a job. DataError if that fails; the file is as before then."""
        entry = json.dumps(job.to_dict(), default=str)
        tail = self._end()
        try:
            with self.path.open("r+b", buffering=0) as file:
                start = file.seek(-len(self._tail), os.SEEK_END)
                text = f"{',' * (self._jobs > 0)}\n    {entry}".encode() + tail
                if file.write(text) < len(text):  # as far as there was space
                    file.seek(start)
                    file.write(self._tail)
                    file.truncate()
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            got = f"cannot be written ({error.strerror}); without {job.source}"
            raise DataError(str(self.path), got, "a writable file with space left") from error
        self._tail, self._jobs = tail, self._jobs + 1

    def _end(self) -> bytes:
        return f'\n  ],\n  "seconds": {time.monotonic() - self._started:.3f}\n}}\n'.encode()
