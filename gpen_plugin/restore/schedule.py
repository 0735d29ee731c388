"""The order of a run: which jobs are next, what an earlier run has done, and reports in the order of the jobs."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2

from gpen_plugin.errors import DataError, GPENError, plain_message
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.manifest import Manifest
from gpen_plugin.restore.outputs import OutputError, Outputs
from gpen_plugin.restore.report import JobReport

MAX_AHEAD = 1000  # jobs that may start before an earlier one ends; their reports wait in memory


class Schedule:
    """Hands out jobs, photographs first, and records their results. Does not run them."""

    def __init__(
        self,
        jobs: Sequence[Job],  # see `expand`
        outputs: Outputs,
        endings: Sequence[str],  # of further results of each photograph; see `Job.written`
        done: Callable[[JobReport], None],  # called for each job in order, after its result is written
        *,
        chunk: int,  # photographs that are handed out together
        manifest: Manifest | None = None,  # of the output folder; jobs that it lists as done are skipped
        redo: bool = False,  # whether these are run again, and their results replaced
    ):
        self._jobs = sorted(jobs, key=lambda job: job.kind == "video")
        self._outputs, self._endings, self._done = outputs, list(endings), done
        self.chunk, self._manifest, self._redo = chunk, manifest, redo
        self._started: dict[Path, int] = {}  # indices of jobs that are handed out, by target
        self._reports: dict[int, JobReport] = {}  # of jobs that ended before an earlier one
        self._next = self._passed = 0  # indices of the job to start and of the report to pass on

    def take(self) -> list[Job]:
        """Jobs to run together: photographs, or one video. Empty if there are none, or none until others end.

        Raises: OutputError: nothing more can be written.
        """
        chunk: list[Job] = []
        while len(chunk) < self.chunk and self._next < min(len(self._jobs), self._passed + MAX_AHEAD):
            job = self._jobs[self._next]
            if chunk and job.kind == "video":
                break
            self._started[job.target] = self._next
            self._next += 1
            try:
                found = self._begin(job)
            except Exception as error:
                self.finish(job, failure(job, error))
                if fatal := self._outputs.fatal_error(error):
                    raise fatal from error
                continue
            if isinstance(found, JobReport):
                self.finish(job, found)
                continue
            chunk.append(found)
            if job.kind == "video":
                break
        return chunk

    def take_ahead(self, workers: int) -> list[Job]:
        """Photographs for one of `workers` that still has some. None at the end, where those that are free get them."""
        left = self._jobs[self._next :][: workers * self.chunk + 1]
        return self.take() if len(left) > workers * self.chunk and left[0].kind == "image" else []

    def finish(self, job: Job, report: JobReport) -> None:
        """Record the report of a job, and pass on those whose turn it is. OutputError as for `take`."""
        fatal = self._record(job, report)
        self._reports[self._started.pop(job.target)] = report
        while self._passed in self._reports:
            self._done(self._reports.pop(self._passed))
            self._passed += 1
        if fatal is not None:
            raise fatal

    def retry(self, job: Job) -> Job:
        """The job to run after an attempt that was killed or has failed. Temporary files of that are removed."""
        self._outputs.allow_replacing(job, self._endings)
        return replace(job, replaces=True)

    def fail(self, job: Job, error: DataError) -> None:
        """Finish a job whose process was killed."""
        self.finish(self.retry(job), failure(job, error))

    def stop(self) -> None:
        """Pass on the reports that wait for earlier jobs, which do not end any more."""
        for index in sorted(self._reports):
            self._done(self._reports.pop(index))

    def _begin(self, job: Job) -> Job | JobReport:
        """The job to run, of which the manifest has a line then; or its report if an earlier run has done it."""
        self._outputs.check()
        if self._manifest is not None:
            line = None if self._redo else self._manifest.finished(job)
            if line is not None:
                return JobReport.of_earlier_run(job, line["report"])
            if self._manifest.owns(job):  # redone, interrupted, failed, or a result is lost
                job = self.retry(job)
        self._outputs.refuse_existing(job, self._endings)
        if self._manifest is not None:
            self._manifest.start(job)
        return job

    def _record(self, job: Job, report: JobReport) -> OutputError | None:
        if self._manifest is None or report.is_earlier:
            return None
        try:
            self._manifest.end(job, report.to_dict(), job.written(self._endings if job.kind == "image" else ()))
        except DataError as error:
            report.notes = [*report.notes, plain_message(error)]
            return self._outputs.fatal_error(error)
        return None


def failure(job: Job, error: Exception) -> JobReport:
    """The report of a job that an error has ended."""
    if not isinstance(error, GPENError):
        error = _to_data_error(job.source, error)
    return JobReport(job.source, job.target, error=plain_message(error))


def _to_data_error(source: Path, error: Exception) -> DataError:
    """The error for the user: out of memory, or a bug of this program."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | cv2.error) or "out of memory" in text:
        got = f"cannot be restored ({text or 'out of memory'})"
        return DataError(str(source), got, hint="Reduce its size or --upscale.")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    got = f"cannot be restored ({type(error).__name__}: {text}, in {Path(frame.filename).name}, line {frame.lineno})"
    return DataError(str(source), got, hint="The other inputs are restored. Please report this error with the file.")
