"""Imports point one way. Read off the source, so that a breach in a branch that no test runs is found too."""

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "gpen_plugin"

# What may be imported beside the own package or module.
ALLOWED = {
    "errors": set(),
    "version": set(),
    "schema": {"errors"},
    "option_file": {"errors"},
    "picture_file": {"errors"},
    "fetch": {"errors"},
    "sheet": set(),
    "late_names": {"errors"},
    "folder_name": set(),
    "training_log": set(),
    "wrapper_prefixes": set(),
    "ops": {"errors"},
    "host": {"errors", "ops", "data.sample_index"},
    "data": {"errors", "schema", "host", "late_names", "restore.photo_decoding"},  # the one reader of image files
    "losses": {"errors", "host"},
    "metrics": {"errors", "schema", "host", "fetch", "late_names", "wrapper_prefixes"},
    "archs": {"errors", "host", "ops", "wrapper_prefixes"},
    "checkpoint": {"errors", "archs", "wrapper_prefixes"},
    "models": {"errors", "host", "data", "losses", "checkpoint", "sheet", "metrics", "archs"},
}
MAY_IMPORT_ALL = {
    "",  # gpen_plugin itself
    *(
        "checkout",
        "conversion",
        "conversion_targets",
        "convert",
        "demo",
        "doctor",
        "evaluate",
        "export",
        "grow",
        "growth",
        "preflight",
    ),
    *(
        "preflight_agreement",
        "preflight_machine",
        "preflight_trials",
        "metric_keys",
        "prior_sampler",
        "registering",
        "restore",
        "run_options",
        "sample",
    ),
    *("study", "sweep", "test", "train", "web_demo", "weight_file"),
}
WITHOUT_THE_HOST = (
    "errors.py",
    "schema.py",
    "fetch.py",
    "ops",
    "data/degradation.py",
    "data/blur_kernels.py",
    "data/sparse_blur.py",
    "data/drawn_faces",
)
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


def test_there_is_something_to_read():
    assert len(MODULES) > 40


def room_of(path: Path) -> str:
    """The package or module under gpen_plugin that a file belongs to; empty for gpen_plugin itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").removesuffix("__init__")


def test_every_package_and_module_is_listed():
    assert {room_of(path) for path in MODULES} == ALLOWED.keys() | MAY_IMPORT_ALL


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if room_of(path) in ALLOWED],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_direction(path):
    allowed = {room_of(path), *ALLOWED[room_of(path)]}
    for name in imports(path):
        if name.startswith("gpen_plugin."):
            target = name.removeprefix("gpen_plugin.")
            assert any(f"{target}.".startswith(f"{other}.") for other in allowed), f"{path} imports {name}"


@pytest.mark.parametrize("place", WITHOUT_THE_HOST)
def test_rooms_that_know_no_host(place):
    files = [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py"))
    assert files
    for path in files:
        assert not [name for name in imports(path) if name.partition(".")[0] == "basicsr"], path


def test_facexlib_is_imported_only_where_faces_are_found():
    for path in MODULES:
        if "restore" not in path.parts and path.name != "awing.py":
            assert not [name for name in imports(path) if name.startswith("facexlib")], path
