"""Modules that an option file names: those of `imports:`, whose classes are registered, and of ``module.Class``."""

import hashlib
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from gpen_plugin.errors import OptionError

# Results are stamped with the versions of these packages in place of their code.
STAMPED_BY_VERSION = ("gpen_plugin", "basicsr", "torch", "builtins")
EXPECTED = "installed modules, or paths from the folder of the option file such as ./my_losses.py"


def import_modules(names: object, folder: Path) -> None:
    """Import what an option file lists; ~ lists nothing.

    A path is a file or the folder of a package. Its folder is put on `sys.path`, so that its neighbors can be imported
    and that processes of a data loader find its classes.

    Args:
        names: names of modules, or paths relative to `folder`.
        folder: that of the option file.
    Raises:
        OptionError: this is no list of names, a module is not found, or an error occurs in it.
    """
    if names is None:
        return
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise OptionError("imports", f"got {names!r}", f"a list of {EXPECTED}")
    for name in names:
        _import(name, folder)


def import_module_of(module: str, where: str) -> ModuleType:
    """Import a module that an option names, as in ``module.Class``; OptionError if it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        hint = f"Run: pip install {module.partition('.')[0]}; or list its file in imports."
        raise OptionError(where, f"{module} cannot be imported ({error})", "an installed package", hint) from error


def code_digest(target: object) -> str | None:
    """A digest of the Python files of the package, or else of the file, that defines a class or a function.

    It changes when the code changes. None if it has no file, or belongs to `STAMPED_BY_VERSION`.
    """
    package = getattr(target, "__module__", None) or ""
    package = package.partition(".")[0]
    return None if package in STAMPED_BY_VERSION else _package_digest(package)


@cache
def _package_digest(package: str) -> str | None:
    module = sys.modules.get(package)
    file = getattr(module, "__file__", None)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    named = [(path.relative_to(folder).as_posix(), path) for folder in folders for path in sorted(folder.rglob("*.py"))]
    if not folders and file is not None and Path(file).is_file():
        named = [(Path(file).name, Path(file))]
    digest = hashlib.sha256()
    for name, path in named:
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16] if named else None


def _import(name: str, folder: Path) -> None:
    is_path = "/" in name or "\\" in name or name.endswith(".py")
    path = (folder / Path(name).expanduser()).resolve() if is_path else None
    if path is not None and not path.exists():
        raise OptionError("imports", f"{path} does not exist", EXPECTED, "Check the path.")
    if path is not None and str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        module = import_module(path.stem if path is not None else name)
    except Exception as error:
        raise _import_error(name, error) from error
    found = Path(getattr(module, "__file__", None) or "").resolve()
    if path is not None and path not in (found, found.parent):
        got = f"{path} has the name of another module: {found}"
        raise OptionError("imports", got, "a name of its own", "Rename the file.")


def _import_error(name: str, error: Exception) -> OptionError:
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        hint = "Install it (pip install -e FOLDER), or write its path, with a / in it."
        return OptionError("imports", f"there is no module {name}", EXPECTED, hint)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = error.lineno if isinstance(error, SyntaxError) else frame.lineno
    file = error.filename if isinstance(error, SyntaxError) else frame.filename
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return OptionError("imports", f"{name} cannot be imported ({what}, in {file}, line {line})")
