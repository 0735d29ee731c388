import ast
import re

from helpers import REPOSITORY


def test_functions_exist():
    """``folder/file.py:name`` stands for a class or function of gpen_plugin; ``Class.method`` is allowed."""
    references = re.findall(
        r"`([\w/]+\.py):([\w.]+)`", (REPOSITORY / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    )
    assert references
    for file, name in references:
        path = REPOSITORY / ("" if file == "gpen_plugin_hook.py" else "gpen_plugin") / file
        assert path.exists(), file
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for part in name.split("."):
            found = [node for node in body if part in _names(node)]
            assert found, f"{file} does not define {name}"
            body = getattr(found[0], "body", [])


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
