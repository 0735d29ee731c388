"""What README.md and docs/ refer to exists: links, anchors, files, commands."""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import generate
import pytest
from helpers import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), REPOSITORY / "gpen_plugin/weights/README.md"]
)
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
FOLDERS = "benchmarks|datasets_prep|docs|gpen_plugin|options|packaging|tests"


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def anchors_of(page: Path) -> set[str]:
    without_code = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {generate.anchor(re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?://", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        assert not fragment or fragment in anchors_of(target), (
            f"{name_of(page)} links to {link}, which has no such heading"
        )


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_named_files_exist(page):
    for path in re.findall(rf"(?<![\w/.$-])((?:{FOLDERS})/[\w./-]+\.\w+)", text_of(page)):
        assert (REPOSITORY / path).exists(), f"{name_of(page)} names {path}"


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_commands_exist(page):
    for module in re.findall(r"python -m (gpen_plugin[\w.]*)", text_of(page)):
        assert find_spec(module), f"{name_of(page)} runs python -m {module}"
    scripts = re.findall(r'"(gpen-\w+) = ', (REPOSITORY / "setup.py").read_text())
    for command in re.findall(r"(?<![\w/-])gpen-[a-z]+(?![\w-])", text_of(page)):
        assert command in scripts, f"{name_of(page)} names the command {command}"
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text_of(page), re.MULTILINE):
        assert target in targets, f"{name_of(page)} runs make {target}"


@pytest.mark.parametrize("page", [page for page in CURRENT if "```python" in text_of(page)], ids=name_of)
def test_imports_in_examples_work(page):
    for module, names in re.findall(r"^from (gpen_plugin[\w.]*) import (.+)$", text_of(page), re.MULTILINE):
        for name in names.split(", "):
            assert hasattr(import_module(module), name), f"{name_of(page)} imports {name} from {module}"
