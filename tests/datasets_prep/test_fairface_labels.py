"""Labels of faces: what is copied, what is measured, what was seen."""

import csv
from zipfile import ZipFile

import cv2
import fairface_labels
import numpy as np
import pytest
from helpers import REPOSITORY

HEAD = "file,source_id,age,gender,race," + ",".join(f"{p}_{a}" for p in fairface_labels.POINTS for a in "xy")
# the nose at the height of the eyes, 6 px from one and 14 from the other: turned by 0.4
TURNED = "b.jpg,x,30-39,Male,East_Asian,20,20,40,20,26,20,24,30,36,30"
FRONTAL = "a.jpg,x,20-29,Female,White,20,20,40,20,30,24,24,30,36,30"


BESIDE = "a.jpg,x,20-29,Female,White" + ",200" * 10
UNKNOWN = "a.jpg,x,20-29,Female,White," + ",20" * 9


@pytest.fixture
def faces(tmp_path):
    """A folder of two faces, black but for the square that holds the points."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        face = np.zeros((64, 64, 3), np.uint8)
        face[20:31, 20:41] = 100
        cv2.imwrite(str(folder / name.replace(".jpg", ".png")), face)  # found by its key, whatever its format
    (folder / "labels.csv").write_text("\n".join([HEAD, FRONTAL, TURNED]))
    return folder


def made(source, target, *more):
    status = fairface_labels.main(["-i", str(source), "-o", str(target), *map(str, more)])
    return status, list(csv.DictReader(target.open())) if target.exists() else []


def test_labels_are_copied_and_measured(faces, tmp_path):
    status, (frontal, turned) = made(faces, tmp_path / "out" / "labels.csv")
    assert status == 0
    assert frontal == {
        "file": "a.jpg", "race": "White", "gender": "Female", "age": "20-29", "turned": "0.000", "brightness": "100.0"
    }  # fmt: skip
    assert (turned["race"], turned["turned"]) == ("East Asian", "0.400")


def test_zip_with_seen_columns(faces, tmp_path):
    with ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in faces.iterdir():
            archive.write(path, path.name)
    seen = tmp_path / "seen.csv"
    seen.write_text("file,before the face\nb.jpg,glasses\n")
    status, rows = made(tmp_path / "faces.zip", tmp_path / "labels.csv", "--seen", seen)
    assert status == 0
    assert [row["before the face"] for row in rows] == ["nothing", "glasses"]


def test_seen_image_must_exist(faces, tmp_path, capsys):
    seen = tmp_path / "seen.csv"
    seen.write_text("file,before the face\nc.jpg,glasses\n")
    assert made(faces, tmp_path / "labels.csv", "--seen", seen) == (1, [])
    assert "--seen: names c.jpg; expected images of" in capsys.readouterr().err


def test_missing_labels_are_an_error(faces, tmp_path, capsys):
    (faces / "labels.csv").write_text("file,age\na.jpg,20-29\n")
    assert made(faces, tmp_path / "labels.csv") == (1, [])
    assert "has no column race" in capsys.readouterr().err
    (faces / "labels.csv").unlink()
    assert made(faces, tmp_path / "labels.csv") == (1, [])
    assert "has no labels.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (BESIDE, "a.jpg: its landmarks lie outside of the image, 64 x 64 px"),
        (UNKNOWN, "a.jpg: a landmark is no number"),
        (FRONTAL.replace("a.jpg", "c.jpg"), "its labels.csv names c.jpg, of which there is no image"),
        (f"{FRONTAL}\n{FRONTAL}", "names an image twice"),
        (f"{FRONTAL},7", "a line of another length"),
    ],
)
def test_invalid_lines_are_an_error(faces, tmp_path, capsys, line, message):
    (faces / "labels.csv").write_text(f"{HEAD}\n{line}\n")
    assert made(faces, tmp_path / "labels.csv") == (1, [])
    assert message in capsys.readouterr().err


def test_missing_list_of_seen_columns(faces, tmp_path, capsys):
    assert made(faces, tmp_path / "labels.csv", "--seen", tmp_path / "none.csv") == (1, [])
    assert "--seen: " in capsys.readouterr().err


def test_the_list_of_what_was_seen_is_sound():
    rows = list(csv.DictReader((REPOSITORY / "datasets_prep" / "fairface_val_seen.csv").open()))
    assert len({row["file"] for row in rows}) == len(rows) > 100
    assert {row["before the face"] for row in rows} == {"glasses", "sunglasses", "hand or object"}
