"""The host's LMDB format: the files of a ``*.lmdb`` folder, its keys, and a check that it is complete.

`check_lmdb` does not open the database: reading beyond the end of a truncated one kills the process (SIGBUS).
In all functions, `where` is the key path or argument that names the folder, for error messages.
"""

import os
import re
import struct
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from gpen_plugin.errors import DataError

DATA, META_INFO, BUILDING = "data.mdb", "meta_info.txt", "building.json"
_MAKE_HINT = "Make one with datasets_prep/make_lmdb.py."
_MAKE_AGAIN_HINT = "Copy it again from its source, or make it again with datasets_prep/make_lmdb.py."
_EXPECTED = "a folder with data.mdb and meta_info.txt"
_UNQUOTED = "".join(chr(code) for code in range(32, 127) if chr(code) != "%")
_LINE = re.compile(r"(?P<key>.+)\.png \((?P<height>\d+),(?P<width>\d+),(?P<channels>\d+)\) (?P<level>\d+)")
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE_HEADER = 16  # bytes before the contents of a page
_META_BYTES = _PAGE_HEADER + 136


class Entry(NamedTuple):  # a line of meta_info.txt
    lmdb_key: str
    height: int
    width: int
    channels: int


def lmdb_key(key: str) -> str:
    """A key in ASCII, as the host needs it: other characters, control characters and '%' become %XX (UTF-8)."""
    return quote(key, safe=_UNQUOTED, errors="surrogateescape")


def key_of(lmdb_key: str) -> str:
    """Undo `lmdb_key`."""
    return unquote(lmdb_key, errors="surrogateescape")


def read_meta_info(path: str | os.PathLike, where: str) -> list[Entry]:
    """The entries of meta_info.txt, in order; DataError with file and line if one is not ``key.png (h,w,c) level``."""
    file = Path(path) / META_INFO
    entries = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise DataError(where, f"{file}, line {number} is {line!r}", "'key.png (h,w,c) level'", _MAKE_AGAIN_HINT)
        entries.append(Entry(match["key"], int(match["height"]), int(match["width"]), int(match["channels"])))
    return entries


def check_lmdb(path: str | os.PathLike, where: str) -> None:
    """DataError unless the folder exists, is finished, of its full length, and not empty."""
    path = Path(path)
    if not path.is_dir():
        raise DataError(
            where, f"{path} is not there" if not path.exists() else f"{path} is a file", _EXPECTED, _MAKE_HINT
        )
    if path.suffix != ".lmdb":
        raise DataError(where, f"got {path}", "a folder whose name ends in .lmdb", "Use io_backend: type: disk here.")
    if (path / BUILDING).exists():
        raise DataError(
            where, f"{path} is not finished", _EXPECTED, "Run datasets_prep/make_lmdb.py again: it resumes."
        )
    for name in (DATA, META_INFO):
        if not (path / name).is_file():
            raise DataError(where, f"{path} holds no {name}", _EXPECTED, _MAKE_HINT)
    stored = check_length(path, where)
    listed = len(read_meta_info(path, where))
    if listed == 0 or stored == 0:
        raise DataError(where, f"{path} is empty", "at least one image", _MAKE_HINT)
    if stored is not None and stored != listed:
        got = f"{path} stores {stored} images, its {META_INFO} lists {listed}"
        raise DataError(where, got, "the same number", _MAKE_AGAIN_HINT)


def check_length(path: str | os.PathLike, where: str) -> int | None:
    """Number of entries, 0 without data.mdb, None for a newer format; DataError if data.mdb is cut off or damaged."""
    data = Path(path) / DATA
    if not data.is_file() or data.stat().st_size == 0:
        return 0
    length = data.stat().st_size
    with data.open("rb") as file:
        first = _read_meta(file.read(_META_BYTES))
        if first is None:
            raise DataError(
                where, f"{data} is no LMDB file, or its beginning is damaged", "an LMDB file", _MAKE_AGAIN_HINT
            )
        if first.version != _VERSION:
            return None
        file.seek(first.page_size)
        second = _read_meta(file.read(_META_BYTES))
    newest = max(first, second or first, key=lambda meta: meta.transaction)
    needed = (newest.last_page + 1) * first.page_size
    if second is None or length < needed:
        got = f"{data} is truncated: {length:,} bytes"
        raise DataError(where, got, f"at least {max(needed, 2 * first.page_size):,} bytes", _MAKE_AGAIN_HINT)
    return newest.entries


class _Meta(NamedTuple):
    version: int
    page_size: int
    entries: int
    last_page: int
    transaction: int


def _read_meta(page: bytes) -> _Meta | None:
    """One of the two meta pages at the start of an LMDB file; None if it is not one."""
    # After the page's header: magic, version, address (8), map size (8), two trees of 48 bytes (the free pages, whose
    # first 4 bytes are the page size; the main one, whose entries are counted in the fifth of its six fields), last
    # page used, number of the transaction.
    if len(page) < _META_BYTES:
        return None
    magic, version = struct.unpack_from("<II", page, _PAGE_HEADER)
    if magic != _MAGIC:
        return None
    (page_size,) = struct.unpack_from("<I", page, _PAGE_HEADER + 24)
    (entries,) = struct.unpack_from("<Q", page, _PAGE_HEADER + 72 + 32)
    last_page, transaction = struct.unpack_from("<QQ", page, _PAGE_HEADER + 120)
    return _Meta(version, page_size, entries, last_page, transaction)
