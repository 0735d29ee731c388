"""Published weight files: found on this machine, or downloaded and checked.

The search covers the folders in ``$GPEN_PLUGIN_WEIGHTS``, ``~/.cache/gpen_plugin/weights``, PyTorch's downloads and
this package. If ``$GPEN_PLUGIN_OFFLINE`` is set, nothing is downloaded.
"""

import contextlib
import functools
import http.client
import os
import queue
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import path as osp
from pathlib import Path
from types import ModuleType

import torch
from filelock import FileLock

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError

FOLDERS = "GPEN_PLUGIN_WEIGHTS"  # environment: one or several folders, separated as in PATH
OFFLINE = "GPEN_PLUGIN_OFFLINE"  # environment: anything but 0 forbids downloading
PACKAGE = Path(__file__).parents[1] / "weights"  # files that come with this package
HUB = "hf:"  # how names of files on the Hugging Face Hub begin
HUB_WEIGHTS = "model.safetensors"  # the file of a repository, or of a folder of `save_pretrained`
CONNECT_TIMEOUT = 2  # seconds to find the server's address and to connect
READ_TIMEOUT = 30  # seconds that a connected server may be silent
MIN_DIGEST_PREFIX = 8  # hex digits


@dataclass(frozen=True)
class WeightFile:
    """A published file."""

    name: str  # of the file, as published
    what: str  # content and purpose, e.g. `Inception v3, for FID and KID`
    url: str | None  # of the download; None if it needs a browser or an account
    sha256: str | None  # hex digits, or the first 8 or more of them; without it the file is never downloaded
    also: tuple[str, ...] = ()  # other common names of the file; `name` is searched first

    def __post_init__(self):
        assert self.sha256 is None or len(self.sha256) >= MIN_DIGEST_PREFIX


def find_weights(
    file: WeightFile,
    given: str | None = None,  # the user's own path; nothing else is searched then
    where: str = "weights",  # key path or argument that names `given`, for the error
) -> Path:
    """Find a published file on this machine, or download it.

    Only downloads are compared with the digest; a file of that name in a folder is used without a check. A download
    that fails is not tried again in this process. If no server answers within two seconds, no other file is tried
    either. Raises MissingFileError: one line with the file, its purpose, its URL and the folder to put it into.
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
    reason = _download_blocked_reason(file) or _failures.get(file) or _network.failure
    if reason is None:
        try:
            return _download(file, cache_folder())
        except (OSError, http.client.HTTPException, ValueError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            reason = _failures[file] = _network.failure or f"downloading failed: {message}"
    published = f"from {file.url} " if file.url else ""
    got = f"{file.name} ({file.what}) is not on this machine, and {reason}"
    named = f" as {' or '.join((file.name, *file.also))}" if file.also else ""
    hint = f"Get it {published}and put it into {_shown(cache_folder())}{named}, or name its folder in ${FOLDERS}."
    raise MissingFileError(where, got, hint=hint)


def is_offline() -> bool:
    """Whether the environment forbids downloading."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def local_path(model: str | os.PathLike) -> Path:
    """The path that a name stands for, the same if it is a file's or unknown; for a folder its ``model.safetensors``.

    ``hf:user/repo``, ``hf:user/repo/FILE`` and either with ``@revision`` name a file on the Hugging Face Hub, which is
    downloaded into huggingface_hub's cache. MissingFileError: there is none, or no network, or no huggingface_hub.
    """
    name = str(model).replace(os.sep, "/")
    if name.startswith(HUB):
        return _download_from_hub(name)
    path = Path(osp.expanduser(model))
    return path / HUB_WEIGHTS if osp.isfile(path / HUB_WEIGHTS) else path


@functools.cache  # a file is opened more than once, and each time the Hub would be asked
def _download_from_hub(name: str) -> Path:
    place, _, revision = name.removeprefix(HUB).partition("@")
    user, _, rest = place.partition("/")
    repository, _, file = rest.partition("/")
    if not user or not repository:
        raise MissingFileError(name, "is not a file on the Hub", "hf:user/repo, hf:user/repo/FILE", "Check the name.")
    arguments = {"revision": revision or None, "local_files_only": is_offline()}
    with hub_errors(name):
        return Path(import_hub().hf_hub_download(f"{user}/{repository}", file or HUB_WEIGHTS, **arguments))


def import_hub() -> ModuleType:
    """huggingface_hub; MissingFileError if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        got, hint = "huggingface_hub is not installed", 'Run: pip install "gpen_plugin[hub]"'
        raise MissingFileError("Hugging Face Hub", got, hint=hint) from error
    return huggingface_hub


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn what huggingface_hub raises for the repository or file `name` into a MissingFileError of one line."""
    import_hub()
    from huggingface_hub import errors

    reasons = {
        errors.HFValidationError: ("is no name of a repository", "Write user/repo."),
        errors.GatedRepoError: ("asks for an account with access", "Run: hf auth login"),
        errors.RepositoryNotFoundError: ("is not on the Hub, or is private", "Check the name, or run: hf auth login"),
        errors.RevisionNotFoundError: ("has no such revision", "Check what follows the @."),
        errors.LocalEntryNotFoundError: (
            "is not in the cache, and cannot be downloaded",
            f"${OFFLINE} forbids downloading." if is_offline() else "Check the network.",
        ),
        errors.EntryNotFoundError: (f"has no such file (default {HUB_WEIGHTS})", "Write hf:user/repo/FILE."),
    }
    try:
        yield
    except tuple(reasons) as error:
        got, hint = next(reason for kind, reason in reasons.items() if isinstance(error, kind))
        raise MissingFileError(name, got, hint=hint) from error
    except (OSError, errors.HfHubHTTPError) as error:
        got = f"cannot be read from the Hub ({' '.join(str(error).split())[:160]})"
        raise MissingFileError(name, got, hint="Check the network.") from error


def find_local(file: WeightFile) -> Path | None:
    """The path of a published file on this machine, or None. Nothing is downloaded."""
    paths = (folder / name for name in (file.name, *file.also) for folder in weight_folders())
    return next((path for path in paths if osp.isfile(path)), None)


def add_search_dir(folder: str | os.PathLike, where: str = "--weights-dir") -> None:
    """Search `folder` first, in this process and its children. Raises `OptionError` if there is no such folder."""
    path = Path(osp.expanduser(folder))
    if not path.is_dir():
        raise OptionError(
            where, f"{folder} is {'a file' if path.exists() else 'not there'}", "a folder", "Check the path."
        )
    os.environ[FOLDERS] = os.pathsep.join(filter(None, (str(path.resolve()), os.environ.get(FOLDERS))))


def weight_folders() -> list[Path]:
    """The folders to search, in order."""
    named = [Path(osp.expanduser(folder)) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    return [*named, cache_folder(), Path(torch.hub.get_dir()) / "checkpoints", PACKAGE]


def cache_folder() -> Path:
    """The folder of downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or osp.expanduser("~/.cache")) / "gpen_plugin" / "weights"


def read_weights(
    path: str | os.PathLike,
    objects: bool = False,  # whether the file may hold objects besides, such as a trainer's; they become inert
) -> Mapping:
    """Read the weights of an auxiliary network, tensors on the CPU. No code of the file runs.

    Raises CheckpointError: the file is damaged, holds code, or no mapping.
    """
    try:
        with torch.serialization.safe_globals(_inert_classes(path) if objects else []):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as RuntimeError, EOFError, IndexError, struct.error and many others
        got = f"cannot be read, or is not safe to read ({type(error).__name__})"
        raise CheckpointError(str(path), got, "a whole file of weights", "Delete it and download it again.") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(str(path), f"holds a {type(content).__name__}", "tensors by name", "Download it again.")
    return content


def _inert_classes(path: str | os.PathLike) -> list[tuple[type, str]]:
    """A class that does nothing for each name in a file that `torch.load` holds unsafe."""

    class Inert:
        def __init__(self, *args: object, **kwargs: object):
            pass

        def __setstate__(self, state: object) -> None:
            pass

    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(type(name, (Inert,), {}), name) for name in names]


_failures: dict[WeightFile, str] = {}  # a metric asks again at each image, and each time could wait for the network


class _Network:
    """The state of the network, as far as this process knows it."""

    failure: str | None = None  # why nothing can be downloaded; None if nothing failed

    def connect(self, url: str) -> None:
        """Connect to the server of `url`, or to its proxy. OSError if it fails or takes over `CONNECT_TIMEOUT`."""
        server = urllib.parse.urlsplit(url)
        proxy = urllib.request.getproxies().get(server.scheme)
        if proxy and not urllib.request.proxy_bypass(server.hostname):
            server = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        address = server.hostname, server.port or (443 if server.scheme == "https" else 80)
        outcome: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

        def attempt() -> None:
            try:
                socket.create_connection(address, timeout=CONNECT_TIMEOUT).close()
                outcome.put(None)
            except OSError as error:
                outcome.put(error)

        # a thread, because a name lookup has no timeout
        threading.Thread(target=attempt, daemon=True).start()
        try:
            error = outcome.get(timeout=CONNECT_TIMEOUT)
        except queue.Empty:
            error = TimeoutError()
        if isinstance(error, TimeoutError):
            self.failure = f"there is no network ({address[0]} was not reached within {CONNECT_TIMEOUT} s)"
            raise TimeoutError(self.failure)
        if error is not None:
            raise error


_network = _Network()


def _shown(path: Path) -> str:
    """With ``~`` for the home folder, which holds the user's name: the text goes into logs and reports."""
    home = osp.expanduser("~")
    return str("~" / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _download_blocked_reason(file: WeightFile) -> str | None:
    if file.url is None:
        return "has to be downloaded by hand"
    if file.sha256 is None:
        return "no digest of it is published, so it is not downloaded"
    if is_offline():
        return f"${OFFLINE} forbids downloading"
    return None


def _download(file: WeightFile, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    with folder_lock(folder):  # other ranks and runs wait here
        if target.is_file():  # another process was faster
            return target
        _network.connect(file.url)
        print(f"Downloading {file.name} from {file.url}", file=sys.stderr)
        with _socket_timeout(READ_TIMEOUT):
            try:
                torch.hub.download_url_to_file(file.url, str(target), hash_prefix=file.sha256.lower())
            except RuntimeError as error:  # of another digest
                raise OSError(f"it is incomplete or another version: {error}") from error
    return target


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """One process at a time, where the disk has locks."""
    lock = FileLock(folder / ".lock")
    with contextlib.suppress(OSError, NotImplementedError):  # some network disks have no locks
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """The timeout of new sockets, because PyTorch's download has no argument for it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
