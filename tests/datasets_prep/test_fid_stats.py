"""Statistics of a set, with a stand-in for the network whose features are colors."""

import hashlib
import os
import re
import zipfile
from pathlib import Path

import cv2
import fid_stats
import make_lmdb
import numpy as np
import pytest

from gpen_plugin.data.image_source import FolderSource, resize_square
from gpen_plugin.metrics import fid
from gpen_plugin.metrics.fid import calculate_fid, read_statistics
from gpen_plugin.metrics.kid import calculate_kid
from gpen_plugin.metrics.precision_recall import calculate_precision
from gpen_plugin.nets import inception, vgg16


def colors(image: np.ndarray) -> np.ndarray:
    """Three means and three deviations, (6,) float32."""
    return np.concatenate([image.mean(axis=(0, 1)), image.std(axis=(0, 1))]).astype(np.float32)


@pytest.fixture(autouse=True)
def batches(monkeypatch) -> list[int]:
    """How many images the stand-in was shown at a time."""
    sizes = []

    def extract(images, device, weights=None):
        sizes.append(len(images))
        return np.stack([colors(image) for image in images])

    monkeypatch.setattr(inception, "extract_features", extract)
    for store in ("_restored", "_ground_truth"):
        monkeypatch.setattr(fid, store, fid.ContentCache(99))
    return sizes


@pytest.fixture
def faces(tmp_path) -> Path:
    """Twenty images of several sizes."""
    (tmp_path / "faces").mkdir()
    for i in range(20):
        rng = np.random.default_rng(i)
        image = rng.integers(0, 100 + 5 * i, (20 + i, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "faces" / f"{i:02d}.png"), image)
    return tmp_path / "faces"


def run(faces: Path, output: Path, *more: str) -> int:
    return fid_stats.main(["--input", str(faces), "--output", str(output), "--device", "cpu", *more])


def features_of(faces: Path, size: int | None = None) -> np.ndarray:
    source = FolderSource(faces, "")
    images = map(source.read, source.keys)
    return np.stack([colors(p if size is None else resize_square(p, size)) for p in images])


def test_what_is_written(faces, tmp_path, batches, capsys):
    output = tmp_path / "made" / "faces_20.npz"
    assert run(faces, output, "--features") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}: 20 images.\n"
    assert "20/20" in printed.err
    assert batches == [16, 4]
    expected, statistics = features_of(faces), read_statistics(output, with_features=True)
    np.testing.assert_allclose(statistics.mean, expected.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(expected, rowvar=False), rtol=1e-9)
    np.testing.assert_array_equal(statistics.features, expected)
    assert (statistics.name, statistics.count) == ("faces_20", 20)
    with np.load(output) as file:
        assert file["size"] == 0
        assert file["images"] == hashlib.sha256("\n".join(f"{i:02d}" for i in range(20)).encode()).hexdigest()
    assert os.listdir(output.parent) == ["faces_20.npz"]


def test_sized_and_limited(faces, tmp_path):
    assert run(faces, tmp_path / "a.npz", "--size", "16", "--limit", "7") == 0
    statistics = read_statistics(tmp_path / "a.npz")
    np.testing.assert_allclose(statistics.mean, features_of(faces, 16)[:7].mean(axis=0), rtol=1e-6)
    assert (statistics.count, statistics.features) == (7, None)
    with np.load(tmp_path / "a.npz") as file:
        assert file["size"] == 16


def test_zip_and_lmdb_equal_folder(faces, tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as file:
        for path in faces.iterdir():
            file.write(path, path.name)
    assert make_lmdb.main(["--input", str(faces), "--output", str(tmp_path / "faces.lmdb"), "--size", "16"]) == 0
    contents = []
    for name in ("faces", "faces.zip", "faces.lmdb"):
        output = tmp_path / f"of {name}.npz"
        assert run(tmp_path / name, output, "--size", "16") == 0
        with np.load(output) as file:
            contents.append([file[key].tobytes() for key in ("mu", "sigma", "count", "images")])
    assert contents[0] == contents[1] == contents[2]


def test_distances_to_the_set_itself(faces, tmp_path):
    run(faces, tmp_path / "a.npz", "--features")
    source = FolderSource(faces, "")
    images = [source.read(key) for key in source.keys]
    for metric, zero in ((calculate_fid, True), (calculate_kid, False)):
        same, other = (
            sum(metric(image // dim, statistics=str(tmp_path / "a.npz")) for image in images) / 20 for dim in (1, 2)
        )
        assert other > 10 * max(same, 1e-6)
        assert (abs(same) < 1e-6) == zero  # KID's estimate of 0 is not 0


def test_unreadable_images_are_reported_and_left_out(faces, tmp_path, capsys):
    (faces / "04.png").write_bytes(b"broken")
    assert run(faces, tmp_path / "a.npz") == 1
    printed = capsys.readouterr()
    assert "19 images, 1 left out" in printed.out
    assert "left out: " in printed.err
    assert "04.png: cannot be decoded" in printed.err
    assert read_statistics(tmp_path / "a.npz").count == 19


def test_stopped_leaves_nothing(faces, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inception, "extract_features", stop)
    assert run(faces, tmp_path / "made" / "a.npz") == 130
    assert "Nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_a_full_disk_leaves_nothing(faces, tmp_path, monkeypatch, capsys):
    def write_some(stream, **_):
        stream.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", write_some)
    assert run(faces, tmp_path / "made" / "a.npz") == 1
    assert "cannot be written ([Errno 28] No space left on device)" in capsys.readouterr().err
    assert os.listdir(tmp_path / "made") == []


def test_a_folder_that_is_gone_in_the_end(faces, tmp_path, monkeypatch, capsys):
    def extract(images, device):
        (tmp_path / "made").write_text("a file where the folder would be")
        return np.stack([colors(image) for image in images])

    monkeypatch.setattr(inception, "extract_features", extract)
    assert run(faces, tmp_path / "made" / "a.npz") == 1
    assert re.search(r"a\.npz: cannot be written \(.*\); expected a folder with enough space", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "a.txt"], "--output: got a.txt; expected a name that ends in .npz"),
        (["--output", "there.npz"], "--output: there.npz exists; expected a new name"),
        (["--output", "there.npz/a.npz"], "--output: nothing can be written into "),
        (["--size", "0"], "--size: got 0; expected a number from 1"),
        (["--limit", "1"], "--limit: got 1; expected a number from 2"),
        (["--input", "nowhere"], "--input: nowhere is not there"),
        (["--weights-dir", "nowhere"], "--weights-dir: nowhere is not there"),
        (["--input", "single"], "--input: single has 1 readable images; expected at least 2"),
    ],
)
def test_refusals(faces, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("there.npz").touch()
    Path("single").mkdir()
    (faces / "03.png").rename("single/03.png")
    assert run(faces, tmp_path / "a.npz", *arguments) == 1
    assert message in capsys.readouterr().err


def test_weights_folder_is_searched(faces, tmp_path, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", "/elsewhere")
    assert run(faces, tmp_path / "a.npz", "--weights-dir", str(faces)) == 0
    assert os.environ["GPEN_PLUGIN_WEIGHTS"] == f"{faces}{os.pathsep}/elsewhere"


def test_features_of_vgg16_are_for_precision_and_recall(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(vgg16, "extract_features", lambda images, *_: np.stack([colors(image) for image in images]))
    target = tmp_path / "vgg16.npz"
    assert fid_stats.main(["-i", str(faces), "-o", str(target), "--network", "vgg16", "--features"]) == 0
    images = [cv2.imread(str(path)) for path in sorted(faces.iterdir())]
    pairs = [calculate_precision(image, statistics=str(target)) for image in images]
    assert sum(pairs) / len(pairs) == 1
