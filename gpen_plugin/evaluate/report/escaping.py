"""Plain text as Markdown and LaTeX take it."""

import re

MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$])")
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "[": "{[}",  # a line that begins so would be taken for the length of the break before it
    "]": "{]}",
    "*": "{*}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "†": r"$^\dagger$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "°": r"$^\circ$",
}


def markdown_text(text: str) -> str:
    """Text that no Markdown reader takes for a mark, nor for a tag."""
    escaped = MARKDOWN.sub(r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it reads, and that is no option of the command before it."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))
