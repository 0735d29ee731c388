"""The LaTeX of every table: a small strict parser everywhere, and pdflatex where it is installed."""

import re
import shutil
import subprocess

import pytest
from helpers.results_for_report import LPIPS, PSNR, made_results, nasty_results

from gpen_plugin.evaluate.groups import GroupMeans, Labels
from gpen_plugin.evaluate.stats import Summary
from gpen_plugin.evaluate.tables import compare_latex, groups_latex, latex

# What the preamble of each file loads, and LaTeX itself.
COMMANDS = re.findall(
    "[a-z]+",
    "begin end centering caption label resizebox ifdim width linewidth else fi toprule midrule bottomrule cmidrule"
    " multicolumn textbf underline par smallskip medskip footnotesize raggedright textless textgreater textbackslash"
    " textasciitilde textasciicircum textasciigrave textbar dots dagger approx times pm circ uparrow downarrow"
    " blacktriangle blacktriangledown",
)
SPECIAL = re.compile(r"(?<!\\)[%#_~^]")  # of plain text; `&` and `$` are counted


def check_latex(text: str) -> None:
    """AssertionError unless the text is complete LaTeX of known commands, with the columns of its tabulars."""
    text = re.sub(r"(?m)(?<!\\)%.*\n?", "", text)  # comments
    known = set(re.findall(r"\\([A-Za-z]+)", text)) - set(COMMANDS)
    assert not known, f"commands that the file does not load: {known}"
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]+)\}", text):
        opened.append(name) if kind == "begin" else None
        assert kind == "begin" or opened.pop() == name
    assert not opened
    plain = text.replace(r"\\", "\n")
    assert len(re.findall(r"(?<!\\)\{", plain)) == len(re.findall(r"(?<!\\)\}", plain))
    assert len(re.findall(r"(?<!\\)\$", plain)) % 2 == 0
    assert not SPECIAL.search(re.sub(r"(?<!\\)\$[^$]*\$", "", plain))
    for alignment, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in (each for each in body.split(r"\\") if "&" in each):
            spans = [int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) == len(alignment), line


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Tables of names and labels that LaTeX would read as commands; many conditions, among them one without values."""
    awkward = Summary.of(nasty_results(), 100, 0)
    groups = ("50 % & more", "$x_1")
    labels = Labels(["<a_ge>"], {key: {"<a_ge>": groups[len(key) % 2]} for key in awkward.results.keys})
    results = made_results(
        {"a": [1, -2], "[b]": [3, 4]}, conditions=[f"{n}x" for n in range(2, 16)], columns=(PSNR, LPIPS)
    )
    for row in results.rows:
        del results.images[row.name]["3x"]
    many = Summary.of(results, 100, 0)
    return {
        "table": latex(awkward),
        "against": compare_latex(awkward, "plain"),
        "breakdown": groups_latex(GroupMeans.of(awkward, labels)),
        "scales": latex(many),
        "scales_against": compare_latex(many, "a"),
    }


def test_tables_are_valid_latex(texts):
    for text in texts.values():
        check_latex(text)
    assert "& 2x & 4x &" in texts["scales"]
    assert all(sign in texts["against"] for sign in (r"$\blacktriangledown$", r"$\approx$"))
    assert "50 \\% \\& more" in texts["breakdown"]


@pytest.mark.parametrize("fault", [r"\unknown", "{", "$", "50 %\n\\begin{x}", "a_b", r"& a \\"])
def test_parser_finds_a_fault(texts, fault):
    with pytest.raises((AssertionError, IndexError)):
        check_latex(texts["table"].replace(r"\bottomrule", f"{fault}\n\\bottomrule"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_tables_compile(texts, tmp_path):
    for name, text in texts.items():
        (tmp_path / f"{name}.tex").write_text(text, encoding="utf-8")
    packages = r"\usepackage[utf8]{inputenc}\usepackage{amssymb,booktabs,graphicx}"
    inputs = "\n".join(rf"\input{{{name}}}" for name in texts)
    (tmp_path / "all.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
