"""The demo's faces: as many as asked for, the same every time, and none of val in train."""

import zipfile
from pathlib import Path

import cv2
import make_demo_faces
import numpy as np
import pytest


def run(output: Path, *more: str) -> int:
    return make_demo_faces.main(
        ["--output", str(output), "--size", "16", "--train", "8", "--val", "3", *map(str, more)]
    )


def images(folder: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(folder).as_posix(): cv2.imread(str(path)) for path in sorted(folder.rglob("*.png"))}


def test_synthetic_faces_and_portrait(tmp_path):
    assert run(tmp_path / "a") == 0
    train, val = (images(tmp_path / "a" / name) for name in ("train", "val"))
    assert [name.split("_")[0] for name in train] == ["drawn"] * 6 + ["portrait"] * 2
    assert [name.split("_")[0] for name in val] == ["drawn"] * 3
    assert {image.shape for image in [*train.values(), *val.values()]} == {(16, 16, 3)}
    assert len({image.tobytes() for image in [*train.values(), *val.values()]}) == 11
    assert list((tmp_path).iterdir()) == [tmp_path / "a"]


def test_same_seed_same_faces(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, "--seed", seed)
    one, same, other = (images(tmp_path / name) for name in "abc")
    assert all((one[name] == same[name]).all() for name in one)
    assert all((one[name] != other[name]).any() for name in one)


@pytest.fixture
def own_faces(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as file:
        for i in range(20):
            image = np.full((20, 30, 3), 10 * i, np.uint8)
            file.writestr(f"deep/{i}.png", cv2.imencode(".png", image)[1].tobytes())
    return tmp_path / "own.zip"


def test_own_faces_are_split(tmp_path, own_faces):
    assert run(tmp_path / "a", "--input", own_faces, "--train", 100) == 0
    train, val = (images(tmp_path / "a" / name) for name in ("train", "val"))
    assert (len(train), len(val)) == (17, 3)
    assert not set(train) & set(val)
    assert all((image == 10 * int(Path(name).stem)).all() for name, image in (train | val).items())
    run(tmp_path / "b", "--input", own_faces, "--train", 100)
    assert set(images(tmp_path / "b" / "val")) == set(val)


def test_few_faces_leave_enough_to_train_on(tmp_path, own_faces):
    run(tmp_path / "a", "--input", own_faces, "--val", 19, "--train", 100)
    assert len(images(tmp_path / "a" / "val")) == 4
    assert len(images(tmp_path / "a" / "train")) == 16


def test_unreadable_faces_are_skipped(tmp_path, own_faces, capsys):
    with zipfile.ZipFile(own_faces, "a") as file:
        file.writestr("broken.png", b"x")
    assert run(tmp_path / "a", "--input", own_faces, "--train", 100) == 0
    assert "skipped: " in capsys.readouterr().err
    assert len(images(tmp_path / "a")) == 20


def test_interrupted_run_restarts(tmp_path):
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "half").write_text("x")
    assert run(tmp_path / "a") == 0
    assert not (tmp_path / "a" / "half").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--size", 0], "--size: got 0"),
        (["--train", 0], "--train: got 0"),
        (["--input", "/not/there"], "--input: /not/there is not there"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, more, words):
    assert run(tmp_path / "a", *more) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_existing_output_is_not_changed(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("precious")
    assert run(tmp_path / "a") == 1
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine.txt"]
