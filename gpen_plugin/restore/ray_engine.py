"""``gpen-restore --engine ray``: Ray Data reads photographs, restores them with a pool of `RestoreBatch`, and writes.

A result is written by a worker, completely or not at all, and counts as soon as this process has recorded it. So a
worker that is lost costs time alone: Ray runs its part again, which writes the same files.
"""

import contextlib
import hashlib
import io
import itertools
import json
import logging
import os
import pickle
import signal
import tarfile
import threading
import time
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import cv2
import torch

from gpen_plugin.checkpoints import download
from gpen_plugin.data.image_source import IMAGE_SUFFIXES
from gpen_plugin.data.tar_file import is_remote, list_shards
from gpen_plugin.errors import DataError, GPENError, MissingFileError, OptionError, plain_message
from gpen_plugin.images.files import write_whole
from gpen_plugin.restore.inputs import Job, expand, target_name
from gpen_plugin.restore.manifest import Manifest
from gpen_plugin.restore.outputs import exists_error
from gpen_plugin.restore.report import FaceReport, JobReport
from gpen_plugin.restore.restore_batch import REPORT, RestoreBatch

MAX_TASKS = 10_000  # of reading
FILES_PER_TASK = 8  # that are read together, and restored again if a worker is lost
_NOWHERE = Path(os.devnull, "results")  # a folder that cannot be among the inputs
_PART = ".gpen-{}.part"
LINES_PER_SEGMENT = 500
REDO = "Pass --redo to restore it again, or name another folder."


class Item(NamedTuple):
    source: str  # path or URL of a photograph, or of a tar of photographs
    target: str  # of the result, relative to the output; for a tar, the folder of its results

    @property
    def is_tar(self) -> bool:
        return self.source.partition("?")[0].endswith(".tar")


def split_output(output: str) -> tuple[str, str | None]:
    """Folder or URL, and the pattern of the names of shards; OptionError for a pattern without a number."""
    if not output.endswith(".tar"):
        return output, None
    folder, _, pattern = output.rpartition("/")
    try:
        if pattern % 0 == pattern % 1:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise OptionError("--output", f"got {pattern}", "a name with a number, such as shard-%06d.tar") from error
    return folder or ".", pattern


def list_items(inputs: Sequence[str], output: str, suffix: str | None) -> tuple[list[Item], list[str]]:
    """The photographs and tars of folders, globs, and URLs of these; and the files that are skipped.

    Errors: those of `expand`; an OptionError for videos.
    """
    tars = [given for given in inputs if given.partition("?")[0].endswith(".tar")]
    urls = [given for given in inputs if is_remote(given) and given not in tars]
    local = [given for given in inputs if given not in tars and given not in urls]
    items, skipped = [], []
    if local:
        folder = _NOWHERE if is_remote(output) or output.endswith(".tar") else Path(output).expanduser()
        found = expand(local, folder, suffix)
        if found.unreadable:
            raise found.unreadable[0][1]
        video = next((job for job in found.jobs if job.kind == "video"), None)
        if video is not None:
            raise OptionError("--engine ray", f"got the video {video.source}", "photographs", "Restore it without.")
        items += [Item(os.path.abspath(job.source), job.target.relative_to(folder).as_posix()) for job in found.jobs]
        skipped = found.skipped_files
    for url in urls:
        items += _remote_items(url, suffix)
    for shard in list_shards(tars, "INPUT") if tars else ():
        name = PurePosixPath(shard.partition("?")[0]).stem
        items.append(Item(shard if is_remote(shard) else os.path.abspath(shard), name))
    sources: dict[str, str] = {}
    for item in items:
        if sources.setdefault(item.target, item.source) != item.source:
            got = f"{sources[item.target]} and {item.source} would both become {item.target}"
            raise OptionError("INPUT", got, "inputs with different names", "Restore them into two folders.")
    return [Item(source, target) for target, source in sources.items()], skipped


def _remote_items(url: str, suffix: str | None) -> list[Item]:
    files, inside = open_filesystem(url)
    with _remote_errors(url):
        if "*" in inside:
            paths, base = files.glob(inside), inside[: inside.index("*")].rpartition("/")[0]
        elif files.isdir(inside):
            paths, base = files.find(inside), inside
        else:
            paths, base = [inside] if files.exists(inside) else [], inside.rpartition("/")[0]
    found = [path for path in sorted(paths) if path.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        raise DataError(url, "holds no image", "an image, a folder of images, or a pattern", "Check the URL.")
    names = [PurePosixPath(path[len(base) :].lstrip("/")) for path in found]
    return [
        Item(files.unstrip_protocol(path), str(target_name(name, suffix)))
        for path, name in zip(found, names, strict=True)
    ]


def open_filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a path or URL, and the path in it. OptionError if its package is not installed."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # ValueError: no such protocol
        hint = "For s3:// run `pip install s3fs`, for gs:// `pip install gcsfs`."
        raise OptionError(url, f"cannot be opened ({error})", "a URL that fsspec can open", hint) from error


@contextlib.contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    try:
        yield
    except GPENError:
        raise
    except Exception as error:  # of any kind: each file system has its own
        raise DataError(url, f"cannot be accessed ({type(error).__name__}: {error})") from error


class ReadItem:
    """Reads the photographs of an item, except those of a tar that are done."""

    def __init__(self, suffix: str | None, done: Mapping[str, Sequence[str]]):
        self._suffix, self._done = suffix, done  # targets that are done, by the target of their tar

    def __call__(self, row: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        item = Item(row["source"], row["target"])
        try:
            with _remote_errors(item.source):
                if item.is_tar:
                    yield from self._members(item)
                elif is_remote(item.source):
                    files, inside = open_filesystem(item.source)
                    yield _row(item, files.cat_file(inside))
                else:
                    mtime_ns = os.stat(item.source).st_mtime_ns
                    yield _row(item, Path(item.source).read_bytes(), mtime_ns=mtime_ns)
        except GPENError as error:
            yield _row(item, b"", failure=plain_message(error))

    def _members(self, tar: Item) -> Iterator[dict[str, Any]]:
        """The images of a tar; the first of each sample, with the other members of the sample."""
        done = set(self._done.get(tar.target, ()))
        files, inside = open_filesystem(tar.source)
        with files.open(inside, "rb") as file, tarfile.open(fileobj=file, mode="r|") as archive:
            named = (
                member for member in archive if member.isreg() and not PurePosixPath(member.name).name.startswith(".")
            )
            for _, members in itertools.groupby(named, lambda member: _key(member.name)):
                sample = [(member.name, archive.extractfile(member).read()) for member in members]
                others = [(name, data) for name, data in sample if not name.lower().endswith(IMAGE_SUFFIXES)]
                for name, data in sample:
                    if not name.lower().endswith(IMAGE_SUFFIXES):
                        continue
                    path = PurePosixPath(name)
                    item = Item(f"tar://{name}::{tar.source}", f"{tar.target}/{target_name(path, self._suffix)}")
                    if path.is_absolute() or ".." in path.parts:
                        yield _row(item, b"", failure=f"{item.source}: has a name that leads out of the output folder")
                    elif item.target not in done:
                        yield _row(item, data, others=[(f"{tar.target}/{name}", data) for name, data in others])
                    others = []


def _key(name: str) -> str:
    """That of a sample of WebDataset: the name up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _row(item: Item, data: bytes, mtime_ns: int = 0, failure: str = "", others: Sequence[Any] = ()) -> dict[str, Any]:
    state = {"size": len(data), "mtime_ns": mtime_ns, "sha256": hashlib.sha256(data).hexdigest()}
    entry = {**item._asdict(), **state, "failure": failure, "started": time.time()}
    return {"image": data, "name": item.target, "entry": json.dumps(entry), "others": pickle.dumps(others)}


def _entries(
    batch: Mapping[str, Sequence[Any]],
) -> Iterator[tuple[dict[str, Any], bytes | None, list[tuple[str, bytes]]]]:
    """What is recorded of each photograph of a restored batch, its result, and the other members of its sample."""
    for text, data, report, others in zip(batch["entry"], batch["image"], batch[REPORT], batch["others"], strict=True):
        entry, report = json.loads(text), json.loads(report)
        if failure := entry.pop("failure"):
            data, report = None, {"error": failure}
        elif data is None:
            report["error"] = report["error"].replace(entry["target"], entry["source"], 1)
        yield {**entry, "report": report}, data, pickle.loads(others)


class WriteFiles:
    """Writes a batch of results to a folder or URL."""

    def __init__(self, output: str):
        self._output = output

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
        """One row: what is recorded."""
        files, folder = open_filesystem(self._output)
        entries = []
        for entry, data, _ in _entries(batch):
            try:
                if data is not None:
                    with _remote_errors(self._output):
                        _write(files, f"{folder}/{entry['target']}", data)
                    entry["outputs"] = {entry["target"]: len(data)}
            except GPENError as error:
                entry["report"] = {"error": plain_message(error)}
            entry["seconds"] = round(time.time() - entry.pop("started"), 3)
            entries.append(entry)
        return {"part": [""], "entries": [json.dumps(entries)]}


class WriteShard:
    """Writes a batch of results as a tar in WebDataset's layout, under a temporary name."""

    def __init__(self, output: str):
        self._output = output  # the folder

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
        """One row: the temporary name, empty without a result, and what is recorded."""
        files, folder = open_filesystem(self._output)
        buffer, entries, part = io.BytesIO(), [], _PART.format(uuid.uuid4().hex)
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for entry, data, others in _entries(batch):
                entry["seconds"] = round(time.time() - entry.pop("started"), 3)
                entries.append(entry)
                if data is None:
                    continue
                path = PurePosixPath(entry["target"])
                # the key of a sample ends at the first dot
                is_member = entry["source"].startswith("tar://")
                name = str(path if is_member else path.with_stem(path.stem.replace(".", "%2E")))
                report = json.dumps(entry["report"]).encode()
                for member_name, content in [(name, data), (f"{name}.json", report), *others]:
                    member = tarfile.TarInfo(member_name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        is_empty = all("error" in entry["report"] for entry in entries)
        if not is_empty:
            with _remote_errors(self._output):
                _write(files, f"{folder}/{part}", buffer.getvalue())
        return {"part": ["" if is_empty else part], "entries": [json.dumps(entries)]}


def _write(files: Any, path: str, data: bytes) -> None:
    """Write a file completely or not at all, as all object stores do."""
    if "file" in files.protocol:
        write_whole(path, data)
    else:
        files.pipe_file(path, data)


class Records(Protocol):
    """What is done in an output, and recording more."""

    def begin(self, item: Item) -> tuple[list[JobReport], list[str] | None]:
        """Reports of what needs no restoring; and the targets of a tar that are done, or None if nothing is to do."""

    def commit(self, part: str, entries: list[dict[str, Any]]) -> list[JobReport]:
        """Record what a worker has written."""

    def close(self) -> None: ...


class ManifestRecords:
    """Of a local folder: the manifest that other runs have, too."""

    def __init__(self, folder: Path, manifest: Manifest, *, redo: bool, overwrite: bool):
        self._folder, self._manifest, self._redo, self._overwrite = folder, manifest, redo, overwrite
        self._members = defaultdict(list)
        for source, target in manifest.targets().items():
            if source.startswith("tar://"):
                self._members[source.partition("::")[2]].append(Job(source, "image", target))

    def begin(self, item: Item) -> tuple[list[JobReport], list[str] | None]:
        job = Job(_path(item.source), "image", self._folder / item.target)
        reports = []
        for known in () if self._redo else self._members[item.source] if item.is_tar else [job]:
            try:
                if (line := self._manifest.finished(known)) is not None:
                    reports.append(JobReport.of_earlier_run(known, line["report"]))
            except DataError as error:
                reports.append(JobReport(known.source, known.target, error=plain_message(error)))
        done = [report.target.relative_to(self._folder).as_posix() for report in reports]
        if reports and not item.is_tar:
            return reports, None
        if not (self._overwrite or self._manifest.owns(job)) and os.path.lexists(job.target):
            return [*reports, JobReport(job.source, job.target, error=plain_message(exists_error(job.target)))], None
        self._manifest.start(job, {})
        return reports, done

    def commit(self, part: str, entries: list[dict[str, Any]]) -> list[JobReport]:
        reports = []
        for entry in entries:
            job = Job(_path(entry["source"]), "image", self._folder / entry["target"])
            self._manifest.record(job, entry)
            reports.append(_report(entry["source"], job.target, entry["report"]))
        return reports

    def close(self) -> None:
        self._manifest.close()


class SegmentRecords:
    """Of a URL, or of shards: files of lines as in a manifest, ``manifest-*.jsonl``, written once.

    A shard counts when its lines are there, which name its temporary file until it has its own name.
    """

    def __init__(self, output: str, settings: str, *, shards: str | None, redo: bool):
        self._url, self._settings, self._shards = output, settings, shards
        self._files, self._folder = open_filesystem(output)
        self._waiting: list[dict[str, Any]] = []
        self._lines: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)  # by tar or photograph and by target
        with _remote_errors(output):
            self._files.makedirs(self._folder, exist_ok=True)
            self._load(redo)

    def _load(self, redo: bool) -> None:
        sizes = {path[len(self._folder) + 1 :]: info["size"] for path, info in self._found().items()}
        for name in sorted(name for name in sizes if fnmatch(name, "manifest-*.jsonl")):
            for line in map(json.loads, self._files.cat_file(f"{self._folder}/{name}").splitlines()):
                (output, size), *_ = line["outputs"].items()
                if output not in sizes and line["part"] in sizes:  # the run was killed before it could rename it
                    self._files.mv(f"{self._folder}/{line['part']}", f"{self._folder}/{output}")
                    sizes[output] = sizes.pop(line["part"])
                known = self._lines[line["source"].partition("::")[2] or line["source"]]
                if sizes.get(output) == size and not redo and line["time"] >= known.get(line["target"], line)["time"]:
                    known[line["target"]] = line
            if redo and self._shards:
                for path in (name, output):
                    self._files.rm(f"{self._folder}/{path}")
                    sizes.pop(path)
        for name in sizes:
            if fnmatch(name, _PART.format("*")):
                self._files.rm(f"{self._folder}/{name}")
        self._numbers = filter(lambda number: self._shards % number not in sizes, itertools.count())

    def _found(self) -> dict[str, dict[str, Any]]:
        return self._files.find(self._folder, detail=True)

    def begin(self, item: Item) -> tuple[list[JobReport], list[str] | None]:
        reports = []
        for line in self._lines[item.source].values():
            report = _report(line["source"], line["target"], line["report"])
            report.is_earlier = True
            if line["settings"] != self._settings:
                error = DataError(
                    line["target"], "was restored with other options or weights", "those of this run", REDO
                )
                report = JobReport(line["source"], line["target"], error=plain_message(error))
            reports.append(report)
        return reports, None if reports and not item.is_tar else list(self._lines[item.source])

    def commit(self, part: str, entries: list[dict[str, Any]]) -> list[JobReport]:
        reports = [_report(entry["source"], entry["target"], entry["report"]) for entry in entries]
        lines = [
            {**entry, "status": "done", "settings": self._settings, "part": part, "time": round(time.time(), 3)}
            for entry in entries
            if "error" not in entry["report"]
        ]
        if not part:
            self._waiting += lines
            if len(self._waiting) >= LINES_PER_SEGMENT:
                self.close()
        elif lines:
            name = self._shards % next(self._numbers)
            outputs = {name: self._files.size(f"{self._folder}/{part}")}
            self._write_segment([{**line, "outputs": outputs} for line in lines])
            with _remote_errors(self._url):
                self._files.mv(f"{self._folder}/{part}", f"{self._folder}/{name}")
        return reports

    def close(self) -> None:
        if self._waiting:
            self._write_segment(self._waiting)
            self._waiting = []

    def _write_segment(self, lines: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        with _remote_errors(self._url):
            _write(self._files, f"{self._folder}/manifest-{uuid.uuid4().hex}.jsonl", text.encode())


def _path(source: str) -> Path | str:
    return source if is_remote(source) else Path(source)


def _report(source: str, target: str | Path, report: Mapping[str, Any]) -> JobReport:
    faces = [FaceReport(face, face["skip_reason"]) for face in report.get("faces", ())]
    return JobReport(source, target, faces, notes=report.get("notes", ()), error=report.get("error"))


class RestoreRows(RestoreBatch):
    """`RestoreBatch` for the rows of `ReadItem`, on any machine of a cluster."""

    def __init__(self, weights_dir: str | None, **options: Any):
        super().__init__("image", "name", **options)
        cv2.setNumThreads(torch.get_num_threads())  # which Ray limits to the worker's CPUs
        if weights_dir:
            download.add_search_dir(weights_dir)


class RayRunner:
    """Runs items on a cluster, or on this machine if there is none."""

    def __init__(
        self,
        restore: Mapping[str, Any],  # arguments of `RestoreBatch`
        records: Records,
        output: str,  # a folder or URL
        *,
        suffix: str | None,
        address: str | None,  # of a cluster; ``auto`` finds that of this machine; None starts Ray here
        workers: int | None,  # most processes that restore; None for as many as the cluster has room for
        num_cpus: float,  # of each
        num_gpus: float | None,  # of each, also a part of one; None: 1 if the cluster has GPUs
        batch: int,  # photographs that are restored together
        shard_size: int | None,  # photographs in a tar; None: files are written
    ):
        self._restore, self._records, self._output, self._suffix = dict(restore), records, output, suffix
        self._workers, self._num_cpus, self._num_gpus, self._batch = workers, num_cpus, num_gpus, batch
        self._shard_size = shard_size
        self._address = address

    def __call__(self, items: Sequence[Item], done: Callable[[JobReport], None]) -> None:
        """Restore the items; `done` is called for each photograph when it is recorded."""
        rows, finished = [], {}
        for item in items:
            reports, targets = self._records.begin(item)
            for report in reports:
                done(report)
            if targets is not None:
                rows.append(item._asdict())
            if targets:
                finished[item.target] = targets
        if rows:
            for part, entries in self._written(rows, finished):
                for report in self._records.commit(part, entries):
                    done(report)

    def _written(self, rows: list[dict[str, str]], finished: dict[str, list[str]]) -> Iterator[tuple[str, list]]:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise MissingFileError(
                "ray", f"cannot be imported ({error})", hint='Run `pip install "gpen_plugin[ray]"`.'
            ) from error

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's, on a number of blocks that is small
            stop = signal.getsignal(signal.SIGTERM)
            ray.init(self._address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, stop)  # which Ray has replaced
            ray.data.DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            for row in self._dataset(ray, rows, finished).iter_rows():
                yield row["part"], json.loads(row["entries"])

    def _dataset(self, ray: Any, rows: list[dict[str, str]], finished: dict[str, list[str]]) -> Any:
        total = ray.cluster_resources()
        gpus = self._num_gpus if self._num_gpus is not None else float(total.get("GPU", 0) > 0)
        room = int(min(total.get(kind, 0) // each for kind, each in (("CPU", self._num_cpus), ("GPU", gpus)) if each))
        if not (room or self._workers):
            got = (
                f"a worker takes {self._num_cpus:g} CPUs and {gpus:g} GPUs, and the cluster has {total.get('CPU', 0):g}"
            )
            raise OptionError("--num-cpus, --num-gpus", f"{got} and {total.get('GPU', 0):g}", "room for one worker")
        most = self._workers or room
        # Reading and writing wait for disks and networks. With CPUs of their own, they would wait for the actors.
        light = {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(size=max(2, int(total.get("CPU", 0))))}
        blocks = min(len(rows), max(2 * most, min(len(rows) // FILES_PER_TASK, MAX_TASKS)))
        photographs = (
            ray.data.from_items(rows, override_num_blocks=blocks)
            .flat_map(ReadItem(self._suffix, finished), **light)
            .map_batches(
                RestoreRows,
                fn_constructor_kwargs=self._restore,
                batch_size=self._batch,
                compute=ray.data.ActorPoolStrategy(min_size=max(1, min(room, most, blocks)), max_size=most),
                num_cpus=self._num_cpus,
                num_gpus=gpus,
            )
        )
        if self._shard_size:
            return photographs.map_batches(WriteShard(self._output), batch_size=self._shard_size, **light)
        return photographs.map_batches(WriteFiles(self._output), batch_size=self._batch, **light)
