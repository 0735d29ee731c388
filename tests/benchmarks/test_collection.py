"""The check after the runs finds results that are missing, left over or recorded twice."""

import argparse
import json

import pytest
from collection import check, make_album


@pytest.fixture
def work(tmp_path, faces):
    """An album of three photographs, with results as a run would leave them."""
    make_album(str(faces), tmp_path / "album", count=3, seed=0)
    (tmp_path / "restored" / "000").mkdir(parents=True)
    with (tmp_path / "restored" / "manifest.jsonl").open("w") as file:
        for path in sorted((tmp_path / "album").rglob("*.jpg")):
            (tmp_path / "restored" / "000" / f"{path.stem}.png").touch()
            for status in ("started", "done"):
                print(json.dumps({"source": str(path), "status": status}), file=file)
    return tmp_path


def problems(work) -> list[str]:
    return check(work / "album", work / "restored", argparse.Namespace(work=work, sample=0, seed=0))


def test_a_whole_collection_has_no_problem(work):
    assert problems(work) == []


def test_results_and_lines_that_are_wrong_are_found(work):
    restored = work / "restored"
    (restored / "000" / "000000.png").unlink()
    (restored / "000" / "other.png").touch()
    (restored / "000" / "000001.tmp").touch()
    lines = (restored / "manifest.jsonl").read_text().splitlines()
    (restored / "manifest.jsonl").write_text("\n".join([*lines, lines[-1], lines[0]]) + "\n")
    assert [problem.split(" ", 1)[1] for problem in problems(work)] == [
        "photographs have no result",
        "results have no photograph",
        "files were left: ['000001.tmp']",
        "manifest ends with {'started': 1, 'done': 2}",
        "photographs are recorded as done more than once",
    ]


def test_photographs_are_a_function_of_the_seed(faces, tmp_path):
    for folder in ("a", "b"):
        make_album(str(faces), tmp_path / folder, count=2, seed=1)
    one, other = ([path.read_bytes() for path in sorted((tmp_path / name).rglob("*.jpg"))] for name in ("a", "b"))
    assert one == other
    assert one[0] != one[1]
