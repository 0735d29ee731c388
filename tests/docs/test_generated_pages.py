from functools import cache

import generate
import pytest

pages = cache(generate.pages)


@pytest.mark.parametrize("name", ["OPTIONS.md", "API.md"])
def test_page_matches_the_docstrings(name):
    (path, text) = next((path, text) for path, text in pages().items() if path.name == name)
    assert path.read_text(encoding="utf-8") == text, f"docs/{name} is not up to date. Run: make docs"


def test_every_option_has_a_meaning():
    assert generate.missing_meanings() == [], "add a line for each to Args or Attributes of the class"
