"""Reading option files for commands that do not go through BasicSR."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path

import yaml

from gpen_plugin.errors import OptionError


def read_options(path: str | PathLike, forced: Sequence[str] = (), where: str = "-opt") -> dict:
    """Unchecked options of a YAML file. OptionError names `where` or the file and line, or the entry.

    `forced` are ``key=value`` or ``section:key=value`` of ``--force_yml``, values in YAML; missing sections are added.
    """
    options = _read(Path(path), where)
    for entry in forced:
        _force(options, entry)
    return options


def _read(path: Path, where: str) -> dict:
    try:
        options = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(where, f"{path} cannot be read ({error})", "a YAML file", "Check the path.") from error
    except yaml.YAMLError as error:
        raise OptionError(_location(path, error), _reason(error), "YAML", "Correct that line.") from error
    if not isinstance(options, dict):
        raise OptionError(str(path), f"holds {type(options).__name__}", "sections with keys")
    return options


class _Loader(yaml.SafeLoader):
    """Safe, and raises for a duplicate key, of which YAML would silently use the last."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key '{key.value}' is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


def _location(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}, line {mark.line + 1}" if mark else str(path)


def _reason(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())


def _force(options: dict, entry: str) -> None:
    """Write one entry of ``--force_yml`` into the options."""
    where = f"--force_yml {entry}"
    path, equals, value = entry.partition("=")
    *sections, key = (name.strip() for name in path.split(":"))
    if not equals or not all([*sections, key]):
        raise OptionError(where, "no key and value", "key=value or section:key=value")
    section = options
    for name in sections:
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, Mapping):
            raise OptionError(where, f"'{name}' is {section!r} in the option file", "a section with keys")
    try:
        section[key] = _value(value.strip())
    except yaml.YAMLError as error:
        raise OptionError(where, f"the value is no YAML: {_reason(error)}", "a value as in an option file") from error


def _value(text: str) -> object:
    """A value as BasicSR's ``--force_yml`` reads it here: YAML, ``!!float1e-4`` and ``1e-4``."""
    value = yaml.safe_load(re.sub(r"^!!float(?=\S)", "!!float ", text))
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value
