"""Accessibility of a page by axe-core, the rules that accessibility tools share."""

from importlib.util import find_spec
from pathlib import Path

import pytest

CALL = "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done)"


def accessibility_problems(browser) -> list[str]:
    """Every rule that the page in the browser violates, with the elements."""
    package = find_spec("axe_core_python")
    if package is None:
        pytest.skip("axe-core-python is not installed")
    browser.execute_script((Path(package.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    violations = browser.execute_async_script(CALL)["violations"]
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in violations]
