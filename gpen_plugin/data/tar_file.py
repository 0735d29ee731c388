"""Tar files in WebDataset's layout: which shards a root names, what is where in each, and copies of remote ones.

A sample is an image ``KEY.EXTENSION``; the key ends at the first dot of the file name. The index beside
``faces-000000.tar`` is ``faces-000000.idx``, in the layout of NVIDIA DALI's ``wds2idx`` 1.2: after ``v1.2 SAMPLES``, a
line per sample with extension, offset, length and name of each of its members. In all functions, `where` is the key
path or argument that names the root, for error messages.
"""

import glob
import hashlib
import logging
import os
import re
import tarfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

from filelock import FileLock

from gpen_plugin.errors import DataError
from gpen_plugin.images.files import write_whole

BLOCK = 512  # bytes, tar's unit
BUILDING = "building.json"  # in a folder of shards that make_tar.py has not finished
CACHE = "~/.cache/gpen_plugin/tar"  # copies of remote shards
INSTALL_REMOTE = 'pip install "gpen_plugin[remote]"'
_VERSION = "v1.2"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_UNQUOTED = "".join(map(chr, range(33, 127)))  # "%" too: a key is unquoted once, wherever its name was quoted
_MAKE_HINT = "Make it again, e.g. with datasets_prep/make_tar.py."


class Member(NamedTuple):
    """A file in a tar."""

    name: str  # printable ASCII without spaces; other characters are %XX as in web addresses
    offset: int  # of its first byte in the tar
    length: int  # bytes

    @property
    def key(self) -> str:
        """The name up to the first dot after the last slash, still quoted."""
        folder, slash, file = self.name.rpartition("/")
        return folder + slash + file.partition(".")[0]


def member_name(key: str, suffix: str) -> str:
    """The name of an image in a tar, from which `Member` makes the key again: a dot in the file name becomes %2E."""
    folder, slash, file = quote(key, safe=_UNQUOTED.replace("%", ""), errors="surrogateescape").rpartition("/")
    return f"{folder}{slash}{file.replace('.', '%2E')}{suffix}"


def is_remote(path: str) -> bool:
    """Whether a path is a URL that fsspec opens."""
    return "://" in path


def list_shards(root: str | Sequence[str], where: str) -> list[str]:
    """The tars of a root: a path, a glob, a range ``{000..099}``, a folder, a URL of these, or a list of them.

    DataError: one is not there, or there are none.
    """
    patterns = [root] if isinstance(root, str) else root
    shards = [shard for pattern in patterns for path in _expand_ranges(pattern) for shard in _matches(path, where)]
    missing = [shard for shard in shards if not is_remote(shard) and not os.path.isfile(shard)]
    if missing or not shards:
        more = f" and {len(missing) - 1} more" * (len(missing) > 1)
        got = f"{missing[0]} is not there{more}" if missing else f"no tar at {root}"
        raise DataError(where, got, "tar files, their folder, or a pattern such as faces-{000..099}.tar", _MAKE_HINT)
    return shards


def _expand_ranges(pattern: str) -> list[str]:
    """``a-{00..02}.tar`` -> ``a-00.tar``, ``a-01.tar``, ``a-02.tar``; any number of ranges."""
    found = _RANGE.search(pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    return [
        path
        for number in range(int(first), int(last) + 1)
        for path in _expand_ranges(f"{pattern[: found.start()]}{number:0{len(first)}d}{pattern[found.end() :]}")
    ]


def _matches(path: str, where: str) -> list[str]:
    """The tars at a path or URL without ranges."""
    if is_remote(path):
        files, inside = _filesystem(path, where)
        if path.partition("?")[0].endswith(".tar") and "*" not in path:
            return [path]
        pattern = inside if "*" in inside else f"{inside.rstrip('/')}/*.tar"
        return [files.unstrip_protocol(each) for each in sorted(_try_remote(lambda: files.glob(pattern), path, where))]
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        if os.path.exists(os.path.join(path, BUILDING)):
            got, hint = f"{path} is not finished", "Run datasets_prep/make_tar.py again: it resumes."
            raise DataError(where, got, "a finished folder of tars", hint)
        path = os.path.join(glob.escape(path), "*.tar")
    return sorted(glob.glob(path)) if glob.has_magic(path) else [path]


def index_path(tar: Path) -> Path:
    """Where the index of a tar is."""
    return tar.with_suffix(".idx")


def load_index(tar: Path, where: str) -> tuple[list[Member], bool]:
    """The members of a local tar, and whether its index is on the disk: read, or written as a whole.

    An index that is older than the tar, or does not fit it, is made again. DataError as in `build_index`.
    """
    try:
        if index_path(tar).stat().st_mtime_ns >= tar.stat().st_mtime_ns:
            members = read_index(index_path(tar))
            with tar.open("rb") as file:
                read_member(file, members[-1])
            return members, True
    except (OSError, ValueError, IndexError):
        pass  # no index, or one that does not fit
    members = build_index(tar, where)
    try:
        write_whole(index_path(tar), index_text(members).encode("ascii"))
    except DataError:
        return members, False
    return members, True


def read_index(index: Path) -> list[Member]:
    """The members that an index lists; ValueError if it is none of this version."""
    first, *lines = index.read_text(encoding="utf-8").splitlines()
    if first.split()[:2] != [_VERSION, str(len(lines))]:
        raise ValueError(f"{index} is no index of version {_VERSION}")
    members = []
    for line in lines:
        fields = line.split(" ")
        for _, offset, length, name in zip(*[iter(fields)] * 4, strict=True):
            members.append(Member(_quoted(name), int(offset), int(length)))
    return members


def index_text(members: Sequence[Member]) -> str:
    """The contents of an index."""
    samples = [[*group] for _, group in groupby(members, key=lambda member: member.key)]
    lines = [" ".join(f"{m.name[len(m.key) + 1 :]} {m.offset} {m.length} {m.name}" for m in group) for group in samples]
    return "\n".join([f"{_VERSION} {len(lines)}", *lines, ""])


def build_index(tar: Path, where: str) -> list[Member]:
    """The files in a tar that have an extension, in order; DataError if it is damaged, truncated or no tar."""
    members = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                member = Member(_quoted(info.name), info.offset_data, info.size)
                is_hidden = not member.key.rpartition("/")[2]
                if info.isreg() and not info.issparse() and not is_hidden and member.key != member.name:
                    members.append(member)
            end = archive.offset  # tarfile stops silently at a damaged header, and where the file ends
        with tar.open("rb") as file:
            file.seek(end)
            block = file.read(BLOCK)
    except tarfile.ReadError as error:
        if "unexpected end of data" not in str(error):
            got, hint = f"{tar} is no tar, or a compressed one", "Unpack .tar.gz files, or check the path."
            raise DataError(where, got, "a tar without compression", hint) from error
        end, block = tar.stat().st_size, b""
    except OSError as error:
        raise DataError(where, f"{tar} cannot be read ({error.strerror})", "a tar that you may read") from error
    if len(block) < BLOCK:
        got = f"{tar} is truncated: {tar.stat().st_size:,} bytes"
        raise DataError(where, got, "a tar with an end mark", "Copy it again from its source, or make it again.")
    if any(block):
        got = f"{tar} is damaged at byte {end:,}"
        raise DataError(where, got, "the header of a member", "Copy it again from its source, or make it again.")
    return members


def read_member(file: object, member: Member) -> bytes:
    """The contents of a member, from an open tar; ValueError if the tar has no file of this length there."""
    file.seek(member.offset - BLOCK)
    header = file.read(BLOCK)
    data = file.read(member.length)
    if int(header[124:136].strip(b"\0 "), 8) != member.length or len(data) < member.length:
        raise ValueError(f"no file of {member.length:,} bytes at {member.offset:,}")
    return data


def _quoted(name: str) -> str:
    if name.isascii() and name.isprintable() and " " not in name:
        return name  # `quote` takes far longer
    return quote(name, safe=_UNQUOTED, errors="surrogateescape")


class Shard:
    """A tar and its members. A remote one with an index beside it is copied when it is first read, others at once."""

    def __init__(self, path: str, where: str, cache: str | None = None):
        self.path, self._where, self._cache = path, where, cache
        self._local = None if is_remote(path) else Path(path)
        self.has_index = True  # on the disk, or beside a remote tar
        bare, mark, query = path.partition("?")
        index = None if self._local else _fetch(f"{bare.removesuffix('.tar')}.idx{mark}{query}", where, cache, True)
        if index is None:
            self.members, self.has_index = load_index(self.local(), where)
            return
        try:
            self.members = read_index(index)
        except ValueError as error:
            raise DataError(where, str(error), "one of datasets_prep/make_tar.py or wds2idx", _MAKE_HINT) from error

    def local(self) -> Path:
        """The tar on this machine, copied if it is remote and not there yet."""
        if self._local is None:
            self._local = _fetch(self.path, self._where, self._cache)
        return self._local


def _fetch(url: str, where: str, cache: str | None, optional: bool = False) -> Path | None:
    """Copy a remote file into the cache, once, whichever process comes first; None if it is `optional` and not there.

    The name of the copy depends on the URL and on what the server says of the file, so a changed file is copied again.
    """
    # not by fsspec's simplecache: killed while copying, it would leave a part of a file that the next run takes
    files, inside = _filesystem(url, where)
    if optional and not _try_remote(lambda: files.exists(inside), url, where):
        return None
    state = _try_remote(lambda: (files.info(inside).get("size"), files.ukey(inside)), url, where)
    digest = hashlib.sha256(repr((url, state)).encode()).hexdigest()[:16]
    folder = Path(cache or CACHE).expanduser()
    target = folder / f"{digest}-{PurePosixPath(url.partition('?')[0]).name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                logging.getLogger("basicsr").info(f"Copying {url} ({state[0] or 0:,} bytes) to {target}")
                part = target.with_name(f"{target.name}.part")
                _try_remote(lambda: files.get_file(inside, str(part)), url, where)
                os.replace(part, target)
    except OSError as error:
        got = f"{folder} cannot be written ({error.strerror or error})"
        raise DataError(where, got, "a folder with space for the shards", "Set io_backend: cache_dir.") from error
    return target


def _filesystem(url: str, where: str) -> tuple[object, str]:
    """fsspec's file system of a URL, and the path in it."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # ValueError: no such protocol
        hint = f"For http:// run {INSTALL_REMOTE}, for s3:// pip install s3fs, for gs:// pip install gcsfs."
        raise DataError(where, f"{url} cannot be opened ({error})", "a URL that fsspec can open", hint) from error


def _try_remote(action: object, url: str, where: str) -> object:
    try:
        return action()
    except FileNotFoundError as error:
        raise DataError(where, f"{url} is not there", "a tar, or a folder of tars", "Check the URL.") from error
    except Exception as error:  # of any kind: each file system raises its own
        got = f"{url} cannot be read ({type(error).__name__}: {error})"
        raise DataError(
            where, got, "a file that you may read", "Check the URL, your access, and the space on the disk."
        ) from error
