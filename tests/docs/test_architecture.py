import ast
import re
from functools import cache
from pathlib import Path

from helpers import REPOSITORY


def test_files_and_functions_exist():
    """``folder/file.py`` and ``folder/file.py:name`` are relative to gpen_plugin; ``Class.method`` is allowed."""
    text = (REPOSITORY / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    references = re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", text)
    assert len(references) > 20
    assert [f"{file}:{name}" for file, name in references if not _is_defined(file, name)] == []


def _is_defined(file: str, name: str) -> bool:
    folder = next((each for each in (REPOSITORY / "gpen_plugin", REPOSITORY) if (each / file).exists()), None)
    if folder is None:
        return False
    body = _body(folder / file)
    for part in filter(None, name.split(".")):
        found = [node for node in body if part in _names(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


@cache
def _body(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
