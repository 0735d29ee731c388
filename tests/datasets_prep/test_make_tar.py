"""Making tars: what is stored, equal bytes, stopping and going on, unreadable images, and what --verify finds."""

import os
import signal
import tarfile
import time
import zipfile
from pathlib import Path

import make_lmdb
import make_tar
import numpy as np
import pytest
from helpers.forks import fork, wait
from helpers.training_images import write_faces

from gpen_plugin.data.image_source import FolderSource, TarSource, resize_square
from gpen_plugin.data.tar_file import member_name


@pytest.fixture
def faces(tmp_path):
    return write_faces(tmp_path / "faces", 7, side=40)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "made" / "shards"


def run(faces: object, output: Path, *more: str) -> int:
    sizes = ["--size", "32", "--shard-size", "3", "--workers", "2"]
    return make_tar.main(["--input", str(faces), "--output", str(output), *sizes, *more])


def contents(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["png", "bmp"])
def test_tars_equal_the_folder(faces, output, capsys, form):
    assert run(faces, output, "--format", form, "--verify") == 0
    assert "all 7 images verified" in capsys.readouterr().out
    made, source = TarSource(output, "here"), FolderSource(faces, "here")
    assert made.keys == source.keys
    for key in made.keys:
        np.testing.assert_array_equal(made.read(key), resize_square(source.read(key), 32))
    names = [f"shards-00000{i}.{suffix}" for i in range(3) for suffix in ("idx", "tar")]
    assert sorted(contents(output)) == ["made_from.json", *names]
    with tarfile.open(output / "shards-000002.tar") as tar:
        assert [(info.name, info.mtime, info.uid) for info in tar] == [(f"face_6.{form}", 0, 0)]


@pytest.mark.parametrize("kind", ["zip", "lmdb", "tar"])
def test_each_kind_of_input_gives_the_folders_bytes(faces, output, tmp_path, kind):
    source = tmp_path / f"source.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as file:
            for path in faces.iterdir():
                file.write(path, path.name)
    elif kind == "lmdb":
        assert make_lmdb.main(["-i", str(faces), "-o", str(source), "--size", "40"]) == 0
    else:
        with tarfile.open(source, "w") as file:
            file.add(faces, ".")
    assert run(faces, output) == 0
    assert run(source, tmp_path / "other" / "shards", "--workers", "3") == 0
    assert contents(output) == contents(tmp_path / "other" / "shards")


@pytest.mark.parametrize("key", ["a.b.c", "sub.v1/Zo\u00eb 100%2E", "x/y"])
def test_names_give_their_keys_again(faces, output, key):
    (faces / key).parent.mkdir(exist_ok=True)
    (faces / "face_0.png").rename(faces / f"{key}.png")
    assert run(faces, output) == 0
    assert TarSource(output, "here").keys == FolderSource(faces, "here").keys
    assert member_name(key, ".png").rpartition("/")[2].count(".") == 1


def test_unreadable_images_are_left_out(faces, output, capsys):
    for number in (1, 3, 4, 5):
        (faces / f"face_{number}.png").write_bytes(b"broken")
    assert run(faces, output, "--verify") == 0
    printed = capsys.readouterr()
    assert "3 images of 32 x 32, 4 left out" in printed.out
    assert "face_4.png: cannot be decoded" in printed.err
    assert [path.name for path in sorted(output.glob("*.tar"))] == ["shards-000000.tar", "shards-000002.tar"]
    assert run(faces, output) == 0
    assert "is finished: 3 images, 4 left out" in capsys.readouterr().out


def test_no_image_can_be_read(faces, output, capsys):
    for path in faces.iterdir():
        path.write_bytes(b"broken")
    assert run(faces, output) == 1
    assert "none of the 7 images" in capsys.readouterr().err


def test_killed_and_run_again(tmp_path, output, capsys):
    """Kill -9 after the first tar; then the result is that of a run that was not killed."""
    faces = write_faces(tmp_path / "many", 60, side=200)
    (faces / "face_0.png").write_bytes(b"broken")
    command = ["--input", str(faces), "--size", "200", "--shard-size", "10", "--workers", "1", "--output"]
    child = fork(lambda: make_tar.main([*command, str(output)]), tmp_path / "error.txt")
    while not (output / "shards-000000.tar").exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it could be killed"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL, "it ended before it could be killed"
    assert (output / "building.json").exists()
    assert make_tar.main([*command, str(output), "--verify"]) == 0
    assert "Going on with" in capsys.readouterr().out
    whole = tmp_path / "other" / "shards"
    assert make_tar.main([*command, str(whole)]) == 0
    assert contents(output) == contents(whole)


def test_verify_finds_damage(faces, output, capsys):
    run(faces, output)
    path = output / "shards-000000.tar"
    data = bytearray(path.read_bytes())
    data[560:580] = bytes(20)
    path.write_bytes(data)
    index = output / "shards-000001.idx"
    index.write_text(index.read_text().replace("face_4", "face_9"))
    (output / "shards-000002.tar").unlink()
    assert make_tar.main(["--verify", str(output)]) == 1
    printed = capsys.readouterr().err
    assert "damaged: face_0: cannot be decoded" in printed
    assert "shards-000001.idx is not the index of its tar" in printed
    assert "2 of 7 images are damaged, 1 are missing" in printed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shard-size", "4"], "was begun with shard_size 3, not 4"),
        (["--format", "bmp"], "was begun with format png, not bmp"),
    ],
)
def test_another_command_for_the_same_output(faces, output, capsys, more, words):
    run(faces, output)
    before = contents(output)
    assert run(faces, output, *more) == 1
    assert words in capsys.readouterr().err
    assert contents(output) == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--output", "a.tar"], "--output: got a.tar; expected the name of a folder"),
        (["--shard-size", "0"], "--shard-size: got 0; expected a number from 1"),
        (["--input", "/not/there-{0..1}.tar"], "--input: /not/there-0.tar is not there and 1 more"),
    ],
)
def test_wrong_arguments_make_nothing(faces, output, capsys, more, words):
    assert run(faces, output, *more) == 1
    assert words in capsys.readouterr().err
    assert not output.parent.exists()
