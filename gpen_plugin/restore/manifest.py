"""The manifest of an output folder, ``manifest.jsonl``: it lets the same command continue where it was stopped.

One JSON object per line. A job has a line when it starts and another when it ends; the last one counts. Lines are only
appended, so a process that is killed loses at most the line that it was writing, and that job is run again. Each rank
of torchrun or srun appends to a file of its own, ``manifest-0-of-4.jsonl``; all of them are read.

    source     absolute path or URL of the input
    status     ``started``, ``done`` or ``failed``
    settings   digest of the options and weights, see `settings_digest`
    size, mtime_ns, sha256   of the input when the job started
    time       when the line was written, in seconds since 1970; of several files, the latest line of an input counts
    target     path of the result, relative to the folder
    outputs    files of a job that is done, relative to the folder, with their sizes in bytes
    seconds    since the job started; the jobs of a batch run together
    report     the entry of the report file: faces, notes or the error
"""

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gpen_plugin.checkpoints import sha256_of
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.ranks import ALONE, Ranks

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None
    import msvcrt

NAME, _OF_RANKS = "manifest.jsonl", "manifest-*-of-*.jsonl"
_LOCKED_BYTE = 2**40  # beyond the end; Windows locks bytes, and a locked one cannot be read


def settings_digest(
    settings: Mapping[str, Any],  # what decides the results, besides the inputs
    files: Iterable[str | os.PathLike | None],  # whose contents decide them; no file: skipped
) -> str:
    """Digest of settings and file contents, 16 hex digits."""
    contents = [sha256_of(file) if file and os.path.isfile(file) else None for file in files]
    text = json.dumps([settings, contents], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Known(NamedTuple):
    """The last line of an input, in short."""

    status: str
    settings: str
    target: str
    time: float
    path: Path  # the file of the line
    start: int  # its position there


class Manifest:
    """The open manifest of an output folder. No process but the other ranks can open it meanwhile.

    Raises:
        OptionError: another process is working in this folder.
        DataError: the file cannot be read or written, or is damaged.
    """

    def __init__(
        self,
        folder: Path,  # the output folder, which exists
        settings: str,  # of this run, from `settings_digest`
        ranks: Ranks = ALONE,
    ):
        self.path, self._folder, self._settings = ranks.own_file(folder / NAME), folder, settings
        self._known: dict[str, _Known] = {}
        self._started: dict[str, tuple[dict[str, Any], float]] = {}
        self._file = _open_locked(self.path)
        others = [path for path in (folder / NAME, *folder.glob(_OF_RANKS)) if path != self.path and path.exists()]
        try:
            for path in others:
                with contextlib.suppress(FileNotFoundError):  # the other rank had no inputs
                    if not path.match(f"*-of-{ranks.count}.jsonl"):
                        _refuse_locked(path)
                    self._read(path)
            self._file.truncate(self._read(self.path))
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Release it. It is removed if there are no results."""
        own = [known for known in self._known.values() if known.path == self.path]
        if not any(known.status == "done" or self._size(known.target) is not None for known in own):
            self.path.unlink(missing_ok=True)
        self._file.close()

    def owns(self, job: Job) -> bool:
        """Whether an earlier run has begun the job: then results that are there are of that run."""
        known = self._known.get(_key(job))
        return known is not None and known.target == self._relative(job.target)

    def finished(self, job: Job) -> dict[str, Any] | None:
        """The line of a job that is done, if input, settings and results are still the same; otherwise None.

        Raises: DataError: the job is done, but from another state of the input, or with other settings.
        """
        known = self._known.get(_key(job))
        if known is None or known.status != "done":
            return None
        line = self._line(known)
        there = {name: self._size(name) for name in line["outputs"]}
        if line["target"] != self._relative(job.target) or None in there.values():
            return None
        hint = "Pass --redo to restore it again, or name another folder."
        if known.settings != self._settings:
            raise DataError(str(job.target), "was restored with other options or weights", "those of this run", hint)
        if isinstance(job.source, Path) and not _same_input(job.source, line):
            raise DataError(str(job.target), f"was restored before {job.source} changed", "the same input", hint)
        if there != line["outputs"]:
            raise DataError(str(job.target), "has changed since it was written", "the result of an earlier run", hint)
        return line

    def targets(self) -> dict[str, Path]:
        """Paths of the results of all inputs that have a line."""
        return {source: self._folder / known.target for source, known in self._known.items()}

    def start(self, job: Job, state: Mapping[str, Any] | None = None) -> None:
        """Record that a job starts. DataError if the input or the manifest cannot be accessed.

        `state`: size, mtime_ns and sha256 of the input; None to find them.
        """
        line = {"source": _key(job), "settings": self._settings, "target": self._relative(job.target)}
        line |= _state(job.source) if state is None else state
        self._append({**line, "status": "started"})
        self._started[_key(job)] = line, time.monotonic()

    def end(self, job: Job, report: Mapping[str, Any], outputs: Iterable[Path]) -> None:
        """Record how a job that has started ended: its entry of the report file, and the files that it has written."""
        if _key(job) not in self._started:
            return
        line, since = self._started.pop(_key(job))
        line |= {"seconds": round(time.monotonic() - since, 3), "report": dict(report)}
        if "error" not in report:
            line["outputs"] = {self._relative(path): path.stat().st_size for path in outputs}
        self.record(job, line)

    def record(self, job: Job, entry: Mapping[str, Any]) -> None:
        """Record a job that ended elsewhere. `entry`: fields of its line, from size to report."""
        line = {"settings": self._settings, **entry, "source": _key(job), "target": self._relative(job.target)}
        self._append({**line, "status": "failed" if "error" in entry["report"] else "done"})

    def _read(self, path: Path) -> int:
        """Read a file, and return the size of its whole lines."""
        whole = 0
        with path.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break  # the process was killed while it wrote this line, or another rank is writing it
                try:
                    self._remember(json.loads(raw), path, whole)
                except (ValueError, KeyError, TypeError) as error:
                    hint = "Move it away; results that are there are then refused, or replaced with --overwrite."
                    raise DataError(str(path), f"is damaged at byte {whole}", "a JSON object per line", hint) from error
                whole += len(raw)
        return whole

    def _remember(self, line: Mapping[str, Any], path: Path, start: int) -> None:
        known = _Known(line["status"], line["settings"], line["target"], line["time"], path, start)
        before = self._known.get(line["source"])
        if before is None or before.path == path or before.time <= known.time:
            self._known[line["source"]] = known

    def _append(self, line: Mapping[str, Any]) -> None:
        line = {**line, "time": round(time.time(), 3)}
        raw = json.dumps(line, default=str).encode() + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(raw) < len(raw):
                self._file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            got = f"cannot be written ({error.strerror})"
            raise DataError(str(self.path), got, "a writable folder with space left") from error
        self._remember(line, self.path, start)

    def _line(self, known: _Known) -> dict[str, Any]:
        with known.path.open("rb") as file:
            file.seek(known.start)
            return json.loads(file.readline())

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _size(self, name: str) -> int | None:
        try:
            return (self._folder / name).stat().st_size
        except OSError:
            return None


def _key(job: Job) -> str:
    return os.path.abspath(job.source) if isinstance(job.source, Path) else job.source


def _state(source: Path) -> dict[str, Any]:
    try:
        found = source.stat()
        return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256_of(source)}
    except OSError as error:
        raise DataError(str(source), f"cannot be read ({error.strerror})", "a readable file") from error


def _same_input(source: Path, line: Mapping[str, Any]) -> bool:
    found = source.stat()
    if found.st_size != line["size"]:
        return False
    return found.st_mtime_ns == line["mtime_ns"] or sha256_of(source) == line["sha256"]


def _open_locked(path: Path) -> BinaryIO:
    while True:
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            got = f"cannot be opened ({error.strerror})"
            raise DataError(str(path), got, "a manifest that can be read and written") from error
        if not _lock(file):
            file.close()
            raise _in_use(path)
        # A process that ends removes an empty manifest: then this is a file without a name.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()


def _refuse_locked(path: Path) -> None:
    """Raise an OptionError if another process has locked the file."""
    with path.open("rb") as file:
        if not _lock(file, shared=True):
            raise _in_use(path)


def _in_use(path: Path) -> OptionError:
    hint = "Wait for that run or stop it, or name another folder."
    return OptionError("--output", f"{path.parent} is in use by another gpen-restore", "a folder", hint)


def _lock(file: BinaryIO, shared: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process has it."""
    try:
        if fcntl is not None:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except BlockingIOError:
        return False
    except OSError:
        return fcntl is not None  # a file system without locks; on Windows this is how a locked byte is reported
    return True
