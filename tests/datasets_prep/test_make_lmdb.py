"""Making an LMDB: what is stored, stopping and going on, unreadable images, and every clear refusal."""

import json
import os
import signal
import time
import zipfile
from pathlib import Path

import cv2
import lmdb
import make_lmdb
import numpy as np
import pytest
from encoded_images import deblock, sharpen
from helpers.forks import fork, wait

from gpen_plugin.data.image_source import FolderSource, LmdbSource, resize_square
from gpen_plugin.data.lmdb_file import check_lmdb


def write_images(folder: Path, count: int, side: int = 40) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        image = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i:03d}.png"), image)
    return folder


@pytest.fixture
def faces(tmp_path):
    return write_images(tmp_path / "faces", 12)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "made" / "faces.lmdb"


def run(faces: Path, output: Path, *more: str) -> int:
    return make_lmdb.main(["--input", str(faces), "--output", str(output), "--size", "32", "--workers", "2", *more])


def contents(folder: Path) -> dict:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_lmdb_equals_folder(faces, output, capsys):
    assert run(faces, output, "--verify") == 0
    assert "all 12 images verified" in capsys.readouterr().out
    made, source = LmdbSource(output, "here"), FolderSource(faces, "here")
    assert made.keys == source.keys
    for key in made.keys:
        np.testing.assert_array_equal(made.read(key), resize_square(source.read(key), 32))
    assert (output / "meta_info.txt").read_text().splitlines()[3] == "003.png (32,32,3) 1"
    assert sorted(path.name for path in output.iterdir()) == ["data.mdb", "lock.mdb", "made_from.json", "meta_info.txt"]


@pytest.mark.parametrize("form", ["png", "bmp"])
def test_every_format_is_the_same_image(faces, output, form):
    """Of odd sizes too, whose rows a BMP file pads."""
    source = FolderSource(faces, "here")
    assert make_lmdb.main(["-i", str(faces), "-o", str(output), "--size", "31", "--format", form, "--verify"]) == 0
    made = LmdbSource(output, "here")
    assert made.keys == source.keys
    for key in made.keys:
        np.testing.assert_array_equal(made.read(key), resize_square(source.read(key), 31))
    assert {data[:2] for data in entries(output).values()} == {{"png": b"\x89P", "bmp": b"BM"}[form]}


def test_a_faster_format_keeps_the_hosts_list(faces, output):
    run(faces, output, "--format", "bmp")
    assert (output / "meta_info.txt").read_text().splitlines()[3] == "003.png (32,32,3) 0"


@pytest.mark.parametrize("form", ["png", "bmp"])
def test_the_hosts_own_dataset_reads_it(faces, output, form):
    from basicsr.data import build_dataset

    run(faces, output, "--format", form)
    roots = {"dataroot_gt": str(output), "dataroot_lq": str(output)}
    host = build_dataset(
        {"name": "x", "type": "PairedImageDataset", "phase": "val", "scale": 1, **roots, "io_backend": {"type": "lmdb"}}
    )
    rgb = resize_square(FolderSource(faces, "").read("005"), 32)[:, :, ::-1].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(host[5]["gt"].numpy(), rgb, atol=1e-6)


def test_one_begun_before_there_were_formats_goes_on(faces, output, capsys):
    run(faces, output)
    note = output / "made_from.json"
    noted = json.loads(note.read_text())
    assert noted.pop("format") == "png"
    note.write_text(json.dumps(noted))
    assert run(faces, output) == 0
    assert "is finished: 12 images" in capsys.readouterr().out
    assert run(faces, output, "--format", "bmp") == 1
    assert "was begun with format png, not bmp" in capsys.readouterr().err


def test_zip_with_names_of_other_languages(faces, output, tmp_path):
    (faces / "000.png").rename(faces / "Zoë 100%.png")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as file:
        for path in faces.iterdir():
            file.write(path, f"deep/{path.name}")
        file.writestr("labels.csv", "file,age")
        file.writestr("__MACOSX/deep/._001.png", "x")
    assert run(tmp_path / "faces.zip", output, "--verify") == 0
    assert "deep/Zo%C3%AB 100%25.png (32,32,3) 1" in (output / "meta_info.txt").read_text().splitlines()
    made = LmdbSource(output, "here")
    assert len(made.keys) == 12
    expected = resize_square(FolderSource(faces, "").read("Zoë 100%"), 32)
    np.testing.assert_array_equal(made.read("deep/Zoë 100%"), expected)


def test_skip_and_limit_part_the_images(faces, tmp_path):
    run(faces, tmp_path / "val.lmdb", "--limit", "4")
    run(faces, tmp_path / "train.lmdb", "--skip", "4")
    val, train = (LmdbSource(tmp_path / f"{name}.lmdb", "").keys for name in ("val", "train"))
    assert (len(val), len(train)) == (4, 8)
    assert sorted(val + train) == FolderSource(faces, "").keys


def test_unreadable_images_are_reported_and_left_out(faces, output, capsys):
    (faces / "004.png").write_bytes(b"broken")
    (faces / "007.png").write_bytes((faces / "007.png").read_bytes()[:100])
    assert run(faces, output) == 0
    printed = capsys.readouterr()
    assert "10 images of 32 x 32, 2 left out" in printed.out
    assert "004.png: cannot be decoded" in printed.err
    assert "007.png: cannot be decoded" in printed.err
    assert len(LmdbSource(output, "").keys) == 10
    assert run(faces, output) == 0
    assert "is finished: 10 images, 2 left out" in capsys.readouterr().out


def test_finished_is_left_alone(faces, output):
    run(faces, output)
    before = contents(output)
    assert run(faces, output) == 0
    assert contents(output) == before


def test_killed_and_run_again(tmp_path, output, monkeypatch, capsys):
    """Kill -9 in the middle, as soon as something is stored; then the result is that of a run that was not killed."""
    monkeypatch.setattr(make_lmdb, "BATCH", 10)
    faces = write_images(tmp_path / "many", 120, side=100)
    options = ["--input", str(faces), "--size", "96", "--output"]
    child = fork(lambda: make_lmdb.main([*options, str(output), "--workers", "1"]), tmp_path / "error.txt")
    while not stored(output):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it could be killed"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL, "it ended before it could be killed"
    assert 0 < stored(output) < 120
    assert not (output / "meta_info.txt").exists()
    assert make_lmdb.main([*options, str(output), "--verify"]) == 0
    assert "Going on with" in capsys.readouterr().out
    assert make_lmdb.main([*options, str(tmp_path / "whole.lmdb")]) == 0
    assert entries(output) == entries(tmp_path / "whole.lmdb")
    check_lmdb(output, "here")


def stored(output: Path) -> int:
    if not (output / "data.mdb").is_file() or (output / "data.mdb").stat().st_size < 8192:
        return 0
    with lmdb.open(str(output), readonly=True, lock=False) as environment:
        return environment.stat()["entries"]


def entries(output: Path) -> dict:
    with lmdb.open(str(output), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def test_map_grows(faces, output, monkeypatch):
    monkeypatch.setattr(make_lmdb, "MAP_SIZE", 16384)
    monkeypatch.setattr(make_lmdb, "BATCH", 5)
    assert run(faces, output, "--verify") == 0
    assert (output / "data.mdb").stat().st_size > 16384


def test_verify_finds_damage(faces, output, capsys):
    run(faces, output)
    with lmdb.open(str(output)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"003", b"broken")
        transaction.put(b"004", cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    assert make_lmdb.main(["--output", str(output), "--verify"]) == 1
    printed = capsys.readouterr().err
    assert "damaged: 003" in printed
    assert "damaged: 004: has shape (8, 8, 3), not (32, 32, 3)" in printed
    assert "2 of 12 images are damaged" in printed


def test_verify_without_input(faces, output, capsys):
    run(faces, output)
    assert make_lmdb.main(["--verify", str(output)]) == 0
    assert "all 12 images verified" in capsys.readouterr().out
    with lmdb.open(str(output)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"003", b"broken")
    assert make_lmdb.main(["--verify", str(output)]) == 1
    assert "1 of 12 images are damaged" in capsys.readouterr().err
    assert make_lmdb.main(["--verify", str(faces)]) == 1
    assert f"--verify: got {faces}; expected a name that ends in .lmdb" in capsys.readouterr().err
    assert make_lmdb.main(["--verify", "not/there.lmdb"]) == 1
    assert "--verify: not/there.lmdb is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verify"], "name the LMDB: --output LMDB, or --verify LMDB"),
        (["--input", "faces"], "name the LMDB: --output LMDB"),
        (["--verify", "a.lmdb", "--output", "a.lmdb"], "--verify: got a.lmdb; expected nothing after it"),
        (["--verify", "a.lmdb", "--input", "faces"], "--verify: got a.lmdb; expected nothing after it"),
    ],
)
def test_the_lmdb_is_named_once(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        make_lmdb.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--size", "48"], "was begun with size 32, not 48"),
        (["--limit", "3"], "was begun with images 12, not 3"),
        (["--compress-level", "4"], "was begun with compress_level 1, not 4"),
        (["--format", "bmp"], "was begun with format png, not bmp"),
    ],
)
def test_another_command_for_the_same_output(faces, output, capsys, more, words):
    run(faces, output)
    before = contents(output)
    assert run(faces, output, *more) == 1
    assert words in capsys.readouterr().err
    assert contents(output) == before


def test_other_images_for_the_same_output(faces, output, capsys):
    run(faces, output)
    (faces / "000.png").rename(faces / "other.png")
    assert run(faces, output) == 1
    assert "was begun with other images" in capsys.readouterr().err


def test_other_files_are_not_changed(faces, output, capsys):
    output.mkdir(parents=True)
    (output / "data.mdb").write_bytes(b"precious")
    before = contents(output)
    assert run(faces, output) == 1
    assert "was not made by this script" in capsys.readouterr().err
    assert contents(output) == before


def test_truncated_half_made_one_does_not_kill_the_process(faces, output, capsys):
    run(faces, output)
    (output / "made_from.json").rename(output / "building.json")
    noted = json.loads((output / "building.json").read_text())
    assert noted["images"] == 12
    os.truncate(output / "data.mdb", 12288)
    assert run(faces, output) == 1
    assert "truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--output", "faces"], "--output: got faces; expected a name that ends in .lmdb"),
        (["--size", "0"], "--size: got 0; expected a number from 1"),
        (["--workers", "0"], "--workers: got 0"),
        (["--compress-level", "12"], "--compress-level: got 12; expected a number from 0 to 9"),
        (["--format", "bmp", "--compress-level", "1"], "--compress-level: got 1 together with --format bmp; expected"),
        (["--skip", "12"], "--skip: got 12; expected fewer than the 12 images"),
        (["--input", "/not/there"], "--input: /not/there is not there"),
    ],
)
def test_wrong_arguments_make_nothing(faces, output, capsys, more, words):
    assert run(faces, output, *more) == 1
    assert words in capsys.readouterr().err
    assert not output.parent.exists()


def test_no_image_can_be_read(faces, output, capsys):
    for path in faces.iterdir():
        path.write_bytes(b"broken")
    assert run(faces, output) == 1
    assert "none of the 12 images" in capsys.readouterr().err


def test_name_that_is_too_long(faces, output, capsys, tmp_path):
    (faces / "000.png").rename(faces / f"{'ä' * 100}.png")
    assert run(faces, output) == 0
    assert "its name is too long for LMDB" in capsys.readouterr().err
    assert len(LmdbSource(output, "").keys) == 11


def test_deblocking_lowers_the_grid_and_keeps_the_face():
    smooth = cv2.GaussianBlur(np.random.default_rng(0).normal(128, 300, (96, 96, 3)), (0, 0), 6)
    truth = np.clip(smooth, 0, 255).astype(np.uint8)
    blocked = cv2.imdecode(cv2.imencode(".jpg", truth, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_COLOR)
    deblocked = deblock(blocked, 20)

    def grid(image):
        """Mean step across the edges of the blocks, over the mean step elsewhere."""
        steps = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=(0, 2))
        edge = np.arange(1, len(steps) + 1) % 8 == 0
        return steps[edge].mean() / steps[~edge].mean()

    def error(image):
        return np.square(image.astype(float) - truth).mean()

    assert grid(blocked) > 1.5
    assert grid(deblocked) < 1 + (grid(blocked) - 1) / 2
    assert error(deblocked) < error(blocked)


def test_sharpening_raises_contrast_only_at_an_edge():
    edge = np.full((16, 16, 3), 100, np.uint8)
    edge[:, 8:] = 150
    sharp = sharpen(edge, 0.8)
    assert sharp[8, 7, 0] < 100
    assert sharp[8, 8, 0] > 150
    np.testing.assert_array_equal(sharp[:, [0, -1]], edge[:, [0, -1]])


def test_deblocking_and_sharpening_are_recorded(faces, output, capsys):
    assert run(faces, output, "--deblock", "75", "--sharpen", "0.5") == 0
    made, source = LmdbSource(output, "here"), FolderSource(faces, "here")
    expected = sharpen(resize_square(deblock(source.read("000"), 75), 32), 0.5)
    np.testing.assert_array_equal(made.read("000"), expected)
    assert run(faces, output) == 1
    assert "deblock 75, not None" in capsys.readouterr().err
