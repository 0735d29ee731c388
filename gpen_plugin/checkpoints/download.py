"""Published weight files: found on this machine, or else downloaded, checked and kept.

They are looked for in the folders that ``$GPEN_PLUGIN_WEIGHTS`` names, in ``~/.cache/gpen_plugin/weights``, among
what PyTorch has downloaded, and in this package. Where ``$GPEN_PLUGIN_OFFLINE`` is set, nothing is downloaded.
"""

import contextlib
import hashlib
import http.client
import os
import queue
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import path as osp
from pathlib import Path

import torch
from tqdm import tqdm

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FOLDERS = "GPEN_PLUGIN_WEIGHTS"  # environment: one or several folders, parted as in PATH
OFFLINE = "GPEN_PLUGIN_OFFLINE"  # environment: anything but 0 forbids downloading
PACKAGE = Path(__file__).parents[1] / "weights"  # what this package brings along
CHUNK = 1 << 20  # bytes
TO_CONNECT = 2  # seconds for finding the server's address and connecting to it
PATIENCE = 30  # seconds that a server may keep silent once it is connected
SHORTEST_PREFIX = 8  # hex digits


@dataclass(frozen=True)
class WeightFile:
    """A file that somebody has published.

    Attributes:
        name: of the file, as published.
        what: it is and is for, e.g. ``Inception v3, for FID and KID``.
        url: where it is published; None if only people can get it there.
        sha256: its digest in hex digits, or the first of them (8 or more, as published names of files carry them);
            without one it is never downloaded.
        also: other names under which people have it; it is looked for under its own first.
    """

    name: str
    what: str
    url: str | None
    sha256: str | None
    also: tuple[str, ...] = ()

    def __post_init__(self):
        assert self.sha256 is None or len(self.sha256) >= SHORTEST_PREFIX


def find_weights(file: WeightFile, given: str | None = None, where: str = "weights") -> Path:
    """Find a published file on this machine, or download it.

    Only what is downloaded is held against the digest: a file of that name that somebody put there is taken as it is.
    A download that fails is not tried again in this process; one that broke off goes on where it was in the next.
    Where the network drops packets, two seconds tell, and no other file is tried either.

    Args:
        file: which.
        given: a path of the user's, which is then the only one that counts.
        where: key path or argument that names `given`, for the error.
    Returns:
        Its path.
    Raises:
        MissingFileError: one line that says which file, what for, where it is published and where to put it.
    """
    if given is not None:
        path = Path(osp.expanduser(given))
        if not osp.isfile(path):
            got = f"{given} is {'a folder' if osp.isdir(path) else 'not there'}"
            raise MissingFileError(where, got, f"{file.name} ({file.what})", "Check the path.")
        return path
    found = find_local(file)
    if found is not None:
        return found
    reason = _why_not(file) or _failures.get(file) or _network.failure
    if reason is None:
        try:
            return _download(file, cache_folder())
        except (OSError, http.client.HTTPException, ValueError) as error:
            told = " ".join(str(error).split()) or type(error).__name__
            reason = _failures[file] = _network.failure or f"downloading failed: {told}"
    published = f"from {file.url} " if file.url else ""
    got = f"{file.name} ({file.what}) is not on this machine, and {reason}"
    named = f" as {' or '.join((file.name, *file.also))}" if file.also else ""
    hint = f"Get it {published}and put it into {_shown(cache_folder())}{named}, or name its folder in ${FOLDERS}."
    raise MissingFileError(where, got, hint=hint)


def find_local(file: WeightFile) -> Path | None:
    """The path of a published file on this machine; None if it is in none of the folders. Nothing is downloaded."""
    paths = (folder / name for name in (file.name, *file.also) for folder in weight_folders())
    return next((path for path in paths if osp.isfile(path)), None)


def add_search_dir(folder: str | os.PathLike, where: str = "--weights-dir") -> None:
    """Look into `folder` before all others, in this process and in those that it starts.

    Raises:
        OptionError: there is no such folder.
    """
    path = Path(osp.expanduser(folder))
    if not path.is_dir():
        raise OptionError(where, f"{folder} is {'a file' if path.exists() else 'not there'}", "a folder", "Mend it.")
    os.environ[FOLDERS] = os.pathsep.join(filter(None, (str(path.resolve()), os.environ.get(FOLDERS))))


def weight_folders() -> list[Path]:
    """The folders that are looked into, in this order."""
    named = [Path(osp.expanduser(folder)) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    return [*named, cache_folder(), Path(torch.hub.get_dir()) / "checkpoints", PACKAGE]


def cache_folder() -> Path:
    """Where downloads go."""
    return Path(os.environ.get("XDG_CACHE_HOME") or osp.expanduser("~/.cache")) / "gpen_plugin" / "weights"


def read_weights(path: str | os.PathLike) -> Mapping:
    """Read a file of weights of somebody else's network, and weights only.

    Returns:
        What it holds, tensors on the CPU.
    Raises:
        CheckpointError: it is damaged, holds code, or no mapping.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as RuntimeError, EOFError, IndexError, struct.error and many others
        got = f"cannot be read, or is not safe to read ({type(error).__name__})"
        raise CheckpointError(str(path), got, "a whole file of weights", "Remove it, and fetch it again.") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(str(path), f"holds a {type(content).__name__}", "tensors by name", "Fetch it again.")
    return content


def sha256_of(path: str | os.PathLike) -> str:
    """The digest of a file in 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


_failures: dict[WeightFile, str] = {}  # a metric asks again at each image, and each time could wait for the network


class _Network:
    """What this process knows of its network.

    Attributes:
        failure: why nothing can be downloaded; None as long as that is not known.
    """

    failure: str | None = None

    def connect(self, url: str) -> None:
        """Connect to the server of `url`, or to the proxy that leads there, to see whether that works.

        Raises:
            OSError: it does not, or takes longer than `TO_CONNECT` seconds.
        """
        place = urllib.parse.urlsplit(url)
        proxy = urllib.request.getproxies().get(place.scheme)
        if proxy and not urllib.request.proxy_bypass(place.hostname):
            place = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        address = place.hostname, place.port or (443 if place.scheme == "https" else 80)
        outcome: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

        def attempt() -> None:
            try:
                socket.create_connection(address, timeout=TO_CONNECT).close()
                outcome.put(None)
            except OSError as error:
                outcome.put(error)

        # a thread, because looking up a name takes as long as the system wants
        threading.Thread(target=attempt, daemon=True).start()
        try:
            error = outcome.get(timeout=TO_CONNECT)
        except queue.Empty:
            error = TimeoutError()
        if isinstance(error, TimeoutError):
            self.failure = f"there is no network ({address[0]} was not reached within {TO_CONNECT} s)"
            raise TimeoutError(self.failure)
        if error is not None:
            raise error


_network = _Network()


def _shown(path: Path) -> str:
    """As people write it, and without their name: what is told of here goes into logs and reports."""
    home = osp.expanduser("~")
    return str("~" / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _why_not(file: WeightFile) -> str | None:
    if file.url is None:
        return "has to be fetched by hand"
    if file.sha256 is None:
        return "no digest of it is published, so it is not downloaded"
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        return f"${OFFLINE} forbids downloading"
    return None


def _download(file: WeightFile, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / file.name, folder / f"{file.name}.part"
    with _alone_in(folder):
        if target.is_file():  # another process was faster
            return target
        resumed = _transfer(file.url, part, file.name)
        if resumed and not _is_right(part, file):
            part.unlink()  # perhaps what lay there was of another version
            _transfer(file.url, part, file.name)
        if not _is_right(part, file):
            part.unlink()
            raise OSError(f"its SHA-256 does not begin with {file.sha256}")
        os.replace(part, target)
    return target


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Other ranks and runs wait here. The system ends the lock with its process, whatever that dies of."""
    with open(folder / ".lock", "w") as lock:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # of disks of a network, not all know locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _transfer(url: str, part: Path, name: str) -> bool:
    """Download into `part`, from where it ends if the server can do that; returns whether it was so."""
    begun = part.stat().st_size if part.exists() else 0
    _network.connect(url)
    try:
        response = _ask(url, begun)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return True  # nothing lies beyond what is there
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        begun = begun if resumed else 0
        length = response.headers.get("Content-Length")
        total = begun + int(length) if length else None
        with (
            open(part, "ab" if resumed else "wb") as stream,
            tqdm(desc=name, total=total, initial=begun, unit="B", unit_scale=True) as progress,
        ):
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                progress.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"it broke off after {part.stat().st_size:,} of {total:,} bytes")
    return resumed


def _ask(url: str, begin: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    return urllib.request.urlopen(request, timeout=PATIENCE)


def _is_right(path: Path, file: WeightFile) -> bool:
    return sha256_of(path).startswith(file.sha256.lower())
