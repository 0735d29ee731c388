"""Reads an option file before BasicSR does: which classes it names, and what BasicSR's parser misreads.

Only the structure of the YAML is read. Nothing in it is executed, whatever its tags say.
"""

import argparse
import locale
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from gpen_plugin.config.imports import import_modules
from gpen_plugin.errors import GPENError, OptionError, join_errors
from gpen_plugin.host.registry import is_ours, names_ours, names_unknown, resolve

MAX_SEED = 2**32 - 2**16  # NumPy takes less than 2**32; the host adds the numbers of ranks and workers
MAX_NAME_BYTES = 200  # BasicSR adds to it, and file names have at most 255: train_NAME_20261129_235959.log
OUTLINE_DEPTH = 3  # nested sections that `outline` reads: datasets, val_1, type
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class OptionText:
    """An option file and what the command line changes in it.

    Attributes:
        file: its path.
        root: its top level.
        forced: entries of ``--force_yml``.
        decode_error: of BasicSR's reading, if any.
    """

    file: str
    root: yaml.MappingNode
    forced: tuple[str, ...] = ()
    decode_error: UnicodeDecodeError | None = None

    def outline(self) -> dict:
        """The sections down to the types that they name; each value is the text of the file."""
        outline = _outline(self.root, OUTLINE_DEPTH)
        for entry in self.forced:
            path, _, value = entry.partition("=")
            *sections, key = (word.strip() for word in path.split(":"))
            section = outline
            for name in sections:
                section = section.get(name) if isinstance(section, Mapping) else None
            if isinstance(section, dict):
                section[key] = value.strip()
        return outline

    def import_modules(self) -> None:
        """Import what `imports` lists; OptionError if that fails.

        Does nothing if the run names classes of others only, and all are registered: then the key is not ours.
        """
        node, outline = _entries(self.root).get("imports"), self.outline()
        if node is not None and (names_ours(outline) or names_unknown(outline)):
            import_modules(_plain(node), Path(self.file).parent)

    def check(self) -> None:
        """Raise an `OptionError` that lists what BasicSR's parser would fail at or misread."""
        if self.decode_error:
            raise _not_decoded(self.file, self.decode_error)
        problems = [*_duplicates(self.root, self.file)] or [*self._values()]
        if problems:
            raise join_errors(problems)

    def check_forced(self) -> None:
        """Raise an `OptionError` for an entry of ``--force_yml`` that BasicSR cannot put into the option file."""
        for entry in self.forced:
            where = f"--force_yml {entry}"
            if entry.count("=") != 1:
                raise OptionError(where, f"{entry.count('=')} signs =", "key=value or section:key=value", "Write one.")
            section, path = self.root, []
            for key in entry.partition("=")[0].split(":")[:-1]:
                path.append(key)
                section = _entries(section).get(key.strip())
                if not isinstance(section, yaml.MappingNode):
                    got = f"the option file has no section {':'.join(path)}"
                    raise OptionError(where, got, "a key of a section that is there", "Write it into the option file.")

    def _values(self) -> Iterator[GPENError]:
        top = _entries(self.root)
        name, forced = top.get("name"), [entry.partition("=") for entry in self.forced]
        forced = [value.strip() for key, _, value in forced if key.strip() == "name"]
        if forced:
            yield from _bad_name(forced[-1])
        elif name is not None and _is_nothing(name):
            yield OptionError("name", "is empty", "a name for the folder of this experiment")
        elif name is not None and not isinstance(name, yaml.ScalarNode):
            yield OptionError("name", f"got {_shown(name)}", "a text")
        elif name is not None and not _is_text(name):
            got = f"got {_shown(name)}, which YAML reads as {_kind(name)}"
            yield OptionError("name", got, "a text", f'Write it in quotes: name: "{_shown(name)}"')
        elif name is not None:
            yield from _bad_name(name.value)
        yield from _bad_seed(top.get("manual_seed"))
        for section in ("datasets", "path"):
            if section in top and not isinstance(top[section], yaml.MappingNode):
                yield OptionError(section, f"got {_shown(top[section])}", "a section with keys")
        for phase, data in _entries(top.get("datasets")).items():
            where = f"datasets:{phase}"
            if not isinstance(data, yaml.MappingNode):
                yield OptionError(where, f"got {_shown(data)}", "a section with keys")
            kind = _entries(data).get("type")
            ours = kind is not None and is_ours(resolve("dataset", kind.value))  # which take lists, too
            for key in ("dataroot_gt", "dataroot_lq"):
                root = _entries(data).get(key)
                if ours and isinstance(root, yaml.SequenceNode):
                    continue
                if root is not None and not _is_text(root) and not _is_nothing(root):
                    hint = "" if ours else "BasicSR takes one a set."
                    yield OptionError(f"{where}:{key}", f"got {_shown(root)}", "a path" + " or a list" * ours, hint)


def read_command_line() -> OptionText | None:
    """The option file that the command line of the host names; None where it names none.

    Raises:
        OptionError: there is no such file, or it is not YAML with sections.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-opt")
    parser.add_argument("--force_yml", nargs="+", default=[])
    try:
        given, _ = parser.parse_known_args()
    except (argparse.ArgumentError, SystemExit):
        return None  # BasicSR reports it
    if given.opt is None:
        return None
    try:
        data = Path(given.opt).read_bytes()
    except OSError as error:
        raise OptionError("-opt", str(error), "an option file", "Check the path.") from error
    text, decode_error = _decoded(data)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        got = " ".join(str(error).split())  # YAML's messages have lines
        raise OptionError("-opt", f"is not YAML: {got}", "an option file", "Correct that line.") from error
    if not isinstance(root, yaml.MappingNode):
        expected = "sections with keys, as in options/gpen_finetune.yml"
        raise OptionError("-opt", f"{given.opt} holds {'nothing' if root is None else 'no keys'}", expected)
    return OptionText(given.opt, root, tuple(given.force_yml), decode_error)


def _decoded(data: bytes) -> tuple[str, UnicodeDecodeError | None]:
    """The text of a file as Python opens it, and the error if that fails; then the text serves for names only."""
    try:
        return data.decode(locale.getpreferredencoding(False)), None
    except UnicodeDecodeError as error:
        of_16_bits = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        return data.decode("utf-16" if of_16_bits else "utf-8", errors="replace"), error


def _not_decoded(file: str, error: UnicodeDecodeError) -> OptionError:
    line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
    got = f"line {line} of {file} is not {error.encoding} (byte 0x{byte:02x})"
    hint = "Save the file as UTF-8."
    if error.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        hint = "Set PYTHONUTF8=1 if it is UTF-8."
    return OptionError("-opt", got, f"text in {error.encoding}", hint)


def _outline(node: yaml.Node, depth: int) -> object:
    if isinstance(node, yaml.ScalarNode):
        return node.value
    return {key: _outline(value, depth - 1) for key, value in _entries(node).items()} if depth else None


def _plain(node: yaml.Node) -> object:
    """A list of texts; what is shown of anything else."""
    if _is_nothing(node):
        return None
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    return [item.value for item in items] if items and all(map(_is_text, items)) else _shown(node)


def _entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """The entries of a mapping by the texts of their keys; none for anything else."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}


def _duplicates(root: yaml.MappingNode, file: str) -> Iterator[OptionError]:
    """Keys that are written twice in one section: BasicSR would silently use the last."""
    waiting, seen = [("", root)], set()
    for path, node in waiting:
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(path, item) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            first: dict[tuple, int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                where, line = f"{path}:{key.value}" if path else key.value, key.start_mark.line + 1
                if (key.tag, key.value) in first:
                    got = f"is written twice, in lines {first[key.tag, key.value]} and {line} of {file}"
                    yield OptionError(where, got, "each key once", "Remove one of them.")
                first.setdefault((key.tag, key.value), line)
                waiting.append((where, value))


def _bad_name(name: str) -> Iterator[OptionError]:
    """A name that cannot be that of a folder and a log."""
    separators = [mark for mark in (os.sep, os.altsep, "\0", "\n") if mark and mark in name]
    if separators or name.strip() in ("", ".", ".."):
        expected = "a name for one folder, without / in it"
        yield OptionError("name", f"got {name!r}", expected, "The folder of the experiment and its log have this name.")
    elif len(os.fsencode(name)) > MAX_NAME_BYTES:
        got = f"got {len(os.fsencode(name))} bytes, {name[:20]}..."
        yield OptionError("name", got, f"at most {MAX_NAME_BYTES} bytes", "File names contain it.")


def _bad_seed(node: yaml.Node | None) -> Iterator[OptionError]:
    """A seed of the file, which BasicSR uses even where ``--force_yml`` gives another."""
    if node is None or _is_nothing(node):
        return
    value = None
    if isinstance(node, yaml.ScalarNode) and _kind(node) == "a number":
        value = yaml.safe_load(node.value)
    if not is_seed(value):
        yield seed_error(_shown(node))


def is_seed(value: object) -> bool:
    """Whether BasicSR can seed every generator of a run with it."""
    return isinstance(value, int) and 0 <= value <= MAX_SEED


def seed_error(got: object) -> OptionError:
    """The error for a value that is not a seed."""
    expected = f"a whole number from 0 to {MAX_SEED}"
    return OptionError("manual_seed", f"got {got}", expected, "Write ~ for a random one.")


def _is_text(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:str" and isinstance(node, yaml.ScalarNode)


def _is_nothing(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _shown(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return _kind(node)
    return "nothing" if _is_nothing(node) else node.value


def _kind(node: yaml.Node) -> str:
    """The type that YAML gives a value, in words."""
    kinds = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a section with keys"
    return kinds.get(node.tag.rpartition(":")[2], "a value of its own kind")
