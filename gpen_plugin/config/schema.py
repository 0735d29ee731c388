"""Read option files, and check them against signatures: parameters are the keys, annotations the types.

Parameters without a default are required keys. So a key cannot be documented in one file and read in another.
"""

import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path

import yaml

from gpen_plugin.config.imports import import_modules
from gpen_plugin.errors import GPENError, OptionError, join_errors

Built = typing.TypeVar("Built")

FEW = 5  # names that a message lists at most
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def validate(target: Callable, given: object, where: str = "", *, typed: bool = True) -> list[OptionError]:
    """Errors of calling ``target(**given)``: unknown keys (with the nearest known), missing keys, wrong types.

    `where` is the key path of the mapping, e.g. ``network_g``; empty for the top level. Without `typed`, for a class
    that is not ours, annotations are not checked.
    """
    if not isinstance(given, Mapping):
        return [OptionError(where or "the option file", f"got {_shown(given)}", "a mapping of keys to values")]
    of_all_kinds = inspect.signature(target).parameters
    parameters = {name: p for name, p in of_all_kinds.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in of_all_kinds.values())
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target) if typed else {}
    problems = [unknown_key(key, list(parameters), where) for key in given if key not in parameters and not takes_any]
    for name, parameter in parameters.items():
        path = f"{where}:{name}" if where else name
        if name not in given:
            if parameter.default is parameter.empty:
                problems.append(OptionError(path, "missing", describe(hints.get(name)), "Add the key."))
        elif name in hints and not matches_type(given[name], hints[name]):
            problems.append(wrong_type(path, given[name], hints[name], parameter.default))
    return problems


def check(target: Callable, given: object, where: str = "") -> None:
    """Raise one `OptionError` that lists every problem that `validate` finds."""
    problems = validate(target, given, where)
    if problems:
        raise join_errors(problems)


def build(target: type[Built], given: object, where: str = "") -> Built:
    """Check, then call ``target(**given)``; an `OptionError` that it raises gets the whole key path."""
    check(target, given, where)
    try:
        return target(**given)
    except OptionError as error:
        raise (error.under(where) if where else error) from None


def unknown_key(key: object, known: Sequence[str], where: str) -> OptionError:
    """The error for a key that nothing reads, with the nearest known one."""
    path = f"{where}:{key}" if where else str(key)
    return OptionError(path, "unknown key", "one of " + ", ".join(known), _nearest(key, known) or "Remove it.")


def unknown_name(name: object, known: Sequence[str], where: str) -> OptionError:
    """The error for a value that should name a registered class, with the nearest registered one."""
    advice = _nearest(name, known) or "python -m gpen_plugin.doctor lists what is registered."
    expected = "one of " + ", ".join(known) if len(known) <= FEW else "a registered name"
    return OptionError(where, f"got {_shown(name)}", expected, advice)


def _nearest(name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"Did you mean '{near[0]}'?" if near else ""


def matches_type(value: object, hint: object) -> bool:
    """Whether a YAML value can stand for a parameter annotated `hint`. Lists stand for tuples, ints for floats."""
    if hint is typing.Any or hint is object:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(matches_type(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return any(value == argument and type(value) is type(argument) for argument in arguments)
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or hint
    if kind in (tuple, list, Sequence):
        return isinstance(value, (list, tuple)) and _items_fit(value, kind, arguments)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _items_fit(value: Sequence, kind: type, arguments: tuple) -> bool:
    if not arguments:
        return True
    if kind is tuple and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(matches_type, value, arguments))
    return all(matches_type(item, arguments[0]) for item in value)


def describe(hint: object) -> str:
    """A type annotation in words for an error message."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if hint is None or hint is type(None):
        return "nothing (~)"
    kind = origin or hint
    if kind in (tuple, list, Sequence):
        if kind is tuple and arguments and arguments[-1] is not Ellipsis:
            return f"a list of {len(arguments)} values: " + ", ".join(map(describe, arguments))
        return f"a list of {describe(arguments[0])}" if arguments else "a list"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a mapping"}
    return names.get(kind, "a mapping" if kind is Mapping else getattr(kind, "__name__", "a value"))


def wrong_type(path: str, value: object, hint: object, default: object = None) -> OptionError:
    """The error for a value that does not fit the annotation `hint`."""
    return OptionError(path, f"got {_shown(value)}", describe(hint), _advice(value, hint, default))


def _advice(value: object, hint: object, default: object) -> str:
    """The hint for a wrong type: how to write the number in a text, or the default."""
    if isinstance(value, str):
        if value.lstrip("+-").isdigit() and matches_type(int(value), hint):
            return f"Write {value} without quotes."
        try:
            if matches_type(float(value), hint):
                return f"YAML reads {value} as a text here: write !!float {value} (--force_yml wants !!float{value})."
        except ValueError:
            return ""
    if default in (inspect.Parameter.empty, None) or not isinstance(default, (str, int, float, tuple)):
        return ""
    return f"The default is {list(default) if isinstance(default, tuple) else default}."


def _shown(value: object) -> str:
    """A value and its type, cut so that a message stays one line."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def numbers_as_text(section: Mapping, where: str) -> Iterator[GPENError]:
    """Numbers written as texts in a section of a BasicSR class, which would compute with them."""
    for key, value in section.items():
        if isinstance(value, str) and key != "type" and NUMBER.fullmatch(value):
            yield wrong_type(f"{where}:{key}", value, float)


def try_call(build: Callable[[], object], where: str) -> Iterator[GPENError]:
    """Call `build` and report any exception under the key path `where`."""
    try:
        build()
    except GPENError as error:
        yield error.under(where)
    except Exception as error:  # of any kind: BasicSR checks nothing
        yield OptionError(where, one_line(error), "values that it can use", "Change them.")


def one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def read_options(path: str | PathLike, forced: Sequence[str] = (), where: str = "-opt") -> dict:
    """Unchecked options of a YAML file, whose `imports` are imported. OptionError names `where`, the file and line, or
    the entry.

    `forced` are ``key=value`` or ``section:key=value`` of ``--force_yml``, values in YAML; missing sections are added.
    """
    options = _read(Path(path), where)
    for entry in forced:
        _force(options, entry)
    import_modules(options.get("imports"), Path(path).parent)
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
