"""Imports point one way: each package imports only what stands above it.

Read off the source, so that a breach in a branch that no test runs is found too.
"""

import ast
from pathlib import Path

import pytest
from helpers import REPOSITORY

PACKAGE = REPOSITORY / "gpen_plugin"
ORDER = (
    *("version", "errors", "config", "images", "ops", "host", "archs", "checkpoints"),
    *("nets", "data", "losses", "metrics", "models", "restore", "baselines", "evaluate", "export", "spandrel", "cli"),
    *("preflight", "registration"),
)
EXCEPTIONS = {
    ("cli/doctor.py", "registration"),  # tries what happens when BasicSR is imported
    ("archs/pretrained.py", "checkpoints"),  # in methods alone: a network in a folder or on the Hub
    ("restore/network.py", "export"),  # in a function alone: weights that onnxruntime runs
    ("host/registry.py", "registration"),  # without BasicSR, for the names of our own classes
}
WITHOUT_THE_HOST = ("errors.py", "config", "images", "ops", "checkpoints/download.py", "data/degradation.py")
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(path: Path) -> str:
    """The package or module under gpen_plugin that a file belongs to; empty for gpen_plugin itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").removesuffix("__init__")


def test_every_package_and_module_is_listed():
    assert {package_of(path) for path in MODULES} == {"", *ORDER}


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_up(package):
    above = ORDER[: ORDER.index(package) + 1]
    for path in MODULES:
        if package_of(path) != package or path.name == "__main__.py":  # which runs a command of cli/
            continue
        for name in imports(path):
            if name.startswith("gpen_plugin."):
                target, place = name.split(".")[1], str(path.relative_to(PACKAGE))
                assert target in above or (place, target) in EXCEPTIONS, f"{place} imports {name}"


@pytest.mark.parametrize("place", WITHOUT_THE_HOST)
def test_modules_that_know_no_host(place):
    files = [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py"))
    assert files
    for path in files:
        assert not [name for name in imports(path) if name.partition(".")[0] == "basicsr"], path


def test_facexlib_is_imported_only_where_faces_are_found():
    for path in MODULES:
        if "restore" not in path.parts and path.name != "awing.py":
            assert not [name for name in imports(path) if name.startswith("facexlib")], path
