"""Image files of each kind, read from a folder, LMDB or zip file; errors name the file."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from helpers.training_images import color_image, write_faces, write_lmdb
from PIL import Image
from torch.utils.data import DataLoader

from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.image_source import (
    FolderSource,
    LmdbSource,
    ZipSource,
    decode_image,
    open_folder_or_zip,
    resize_square,
)
from gpen_plugin.errors import DataError
from gpen_plugin.host.data_cursor import SampleIndex

COLOR = color_image(1, 24, 40)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def by_pillow(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_color_is_kept():
    np.testing.assert_array_equal(decode_image(encoded(COLOR), "a.png"), COLOR)


def test_gray_becomes_three_equal_channels():
    gray = COLOR[:, :, 0]
    np.testing.assert_array_equal(decode_image(encoded(gray), "a.png"), np.stack([gray] * 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_divided_by_257(channels):
    wide = COLOR[:, :, :channels].astype(np.uint16) * 257
    decoded = decode_image(encoded(wide + np.uint16(100) * (wide < 65000)), "a.png")
    np.testing.assert_array_equal(decoded, np.broadcast_to(COLOR[:, :, :channels], COLOR.shape))


@pytest.mark.parametrize("scale", [1, 257])
def test_transparency_is_put_on_white(scale):
    kind = np.uint8 if scale == 1 else np.uint16
    image = np.zeros((2, 3, 4), kind)
    image[:, :, 2] = 200 * scale
    image[:, 0, 3], image[:, 1, 3] = 255 * scale, 51 * scale
    decoded = decode_image(encoded(image), "a.png")
    assert decoded[0].tolist() == [[0, 0, 200], [204, 204, 244], [255, 255, 255]]


def test_palette():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "P")
    image.putpalette([channel for i in range(256) for channel in (i, 2 * i % 256, 255 - i)])
    expected = [[[255 - i, 2 * i, i] for i in range(row * 4, row * 4 + 4)] for row in range(3)]
    assert decode_image(by_pillow(image, "PNG"), "a.png").tolist() == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_whatever_the_format(kind):
    image = Image.fromarray(COLOR[:, :, ::-1])
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held upright
    data = by_pillow(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    decoded = decode_image(data, "a")
    assert decoded.shape == (40, 24, 3)
    if kind != "JPEG":
        np.testing.assert_array_equal(decoded, np.rot90(COLOR, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_infrared_is_no_transparency(dtype):
    samples = np.concatenate([COLOR, COLOR[:, :, :1]], axis=2).astype(dtype) * (257 if dtype == np.uint16 else 1)
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples[:, :, [2, 1, 0, 3]], photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(decode_image(stream.getvalue(), "a.tif"), COLOR)


def test_a_jpeg_that_is_cut_off_is_refused():
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded"):
        decode_image(encoded(color_image(0, 300, 200), ".jpg")[:-2000], "a.jpg")


@pytest.mark.parametrize(
    "data", [b"", b"no image", encoded(COLOR)[:200], encoded(COLOR, ".jpg")[:300], encoded(COLOR, ".jpg")[:-40]]
)
def test_damaged_files_are_named(data):
    with pytest.raises(DataError, match=r"some/face\.png: cannot be decoded"):
        decode_image(data, "some/face.png")


def test_floating_point_images_are_refused():
    with pytest.raises(DataError, match=r"a\.tif: cannot be decoded"):
        decode_image(encoded(COLOR.astype(np.float32) / 255, ".tif"), "a.tif")


def test_resize_square_takes_the_middle():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert resize_square(image, 10).min() == 200
    assert resize_square(image, 4).shape == resize_square(image, 4)[:, :, :3].shape == (4, 4, 3)
    assert resize_square(image, 25).min() == 200


def test_folder_keys_and_images(tmp_path):
    write_faces(tmp_path / "b", 2)
    write_faces(tmp_path, 1)
    (tmp_path / "b" / "face.with.dots.JPG").write_bytes(encoded(COLOR, ".jpg"))
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "._face_0.png").write_bytes(b"macOS")
    source = FolderSource(tmp_path, "here")
    assert source.keys == ["b/face.with.dots", "b/face_0", "b/face_1", "face_0"]
    np.testing.assert_array_equal(source.read("b/face_1"), color_image(1))
    assert source.name("b/face_1") == str(tmp_path / "b" / "face_1.png")


def test_a_link_that_leads_back_adds_nothing(tmp_path):
    """Neither to the folder itself nor to the one above it, with which the validation set would be trained on."""
    write_faces(tmp_path / "data/train", 2)
    write_faces(tmp_path / "data/train/sub", 2)
    write_faces(tmp_path / "data/val", 2)
    (tmp_path / "data/train/sub/up").symlink_to("..")
    (tmp_path / "data/train/parent").symlink_to("../")
    (tmp_path / "data/train/top").symlink_to(tmp_path)
    keys = ["face_0", "face_1", "sub/face_0", "sub/face_1"]
    assert FolderSource(tmp_path / "data/train", "it").keys == keys
    (tmp_path / "link").symlink_to("data/train")
    assert FolderSource(tmp_path / "link", "it").keys == keys


def test_linked_folders_are_read_once_under_their_own_path(tmp_path):
    write_faces(tmp_path / "disk/a", 1)
    write_faces(tmp_path / "disk/a/deep", 1)
    write_faces(tmp_path / "disk/b", 1)
    write_faces(tmp_path / "set/own", 1)
    (tmp_path / "disk/b/back").symlink_to("..")
    for name, target in {"again": "own", "first": "../disk/a", "whole": "../disk", "z": "../disk/a/deep"}.items():
        (tmp_path / "set" / name).symlink_to(target)
    (tmp_path / "set/one.png").symlink_to("own/face_0.png")  # links to files make subsets of data
    expected = ["first/deep/face_0", "first/face_0", "one", "own/face_0", "whole/b/face_0"]
    assert FolderSource(tmp_path / "set", "it").keys == expected


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_faces(tmp_path, 1)
    for name in ("closed", ".hidden", "lost+found"):
        (tmp_path / name).mkdir()
    scandir = os.scandir

    def refusing(folder):
        if Path(folder).name in ("closed", ".hidden", "lost+found"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)  # the tests may run as root, who may read everything
    with pytest.raises(DataError, match=r"it: .*closed cannot be read \(Permission denied\); expected a folder"):
        FolderSource(tmp_path, "it")
    (tmp_path / "closed").rmdir()
    assert FolderSource(tmp_path, "it").keys == ["face_0"]


def test_zip_and_folder_agree(tmp_path):
    write_faces(tmp_path / "in" / "deep", 3)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as file:
        for path in (tmp_path / "in").rglob("*.png"):
            file.write(path, path.relative_to(tmp_path / "in"))
        file.writestr("__MACOSX/deep/._face_0.png", b"x")
        file.writestr("labels.csv", "x")
        for outside in ("/tmp/outside.png", "../outside.png"):  # keys become names of files
            file.writestr(outside, encoded(COLOR, ".png"))
    folder, zipped = (open_folder_or_zip(tmp_path / name, "here") for name in ("in", "faces.zip"))
    assert isinstance(zipped, ZipSource)
    assert zipped.keys == folder.keys == ["deep/face_0", "deep/face_1", "deep/face_2"]
    np.testing.assert_array_equal(zipped.read("deep/face_2"), folder.read("deep/face_2"))


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(folder.glob("*.png")):
            file.write(image, image.name)
    return path


def test_each_process_opens_a_zip_itself(tmp_path, monkeypatch):
    source = ZipSource(zip_of(write_faces(tmp_path / "in", 2), tmp_path / "faces.zip"), "here")
    expected, opened = source.read("face_1"), source._opened[1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read("face_1"), expected)  # spawned
    monkeypatch.setattr("os.getpid", lambda: 1)  # forked
    np.testing.assert_array_equal(source.read("face_1"), expected)
    assert source._opened[1] is not opened


def test_pairs_from_zips_are_those_from_the_folders(tmp_path):
    folders = [write_faces(tmp_path / name, 3) for name in "ab"]
    zips = [zip_of(folder, folder.with_suffix(".zip")) for folder in folders]
    options = {"name": "x", "type": "GPENDegradationDataset", "phase": "train", "out_size": 32}
    sets = []
    for kind, (first, second) in (("disk", folders), ("zip", zips)):
        roots = [{"path": str(first), "weight": 1}, {"path": str(second), "weight": 2}]
        sets.append(GPENDegradationDataset({**options, "io_backend": {"type": kind}, "dataroot_gt": roots}))
    index = SampleIndex(7, 1, 5)
    assert len(sets[1]) == len(sets[0]) == 9
    assert sets[1][index]["lq"].equal(sets[0][index]["lq"])
    loaded = next(iter(DataLoader(sets[1], 2, sampler=[index, index], num_workers=1)))
    assert loaded["lq"][0].equal(sets[0][index]["lq"])
    with pytest.raises(DataError, match=r"a\.zip is a file; .*Use io_backend: type: zip"):
        FolderSource(zips[0], "here")


def test_lmdb_keys_with_dots_spaces_and_other_letters(tmp_path):
    stored = {"b/x.1": color_image(0), "a (1,2) c": color_image(1), "z%C3%A4": color_image(2)}
    source = LmdbSource(write_lmdb(tmp_path / "a.lmdb", stored), "here")
    assert source.keys == ["a (1,2) c", "b/x.1", "zä"]
    np.testing.assert_array_equal(source.read("zä"), color_image(2))
    assert source.name("b/x.1") == "b/x.1.png"


def test_open_lmdb_can_be_pickled(tmp_path):
    source = LmdbSource(write_lmdb(tmp_path / "a.lmdb", {"x": COLOR}), "here")
    source.read("x")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read("x"), COLOR)


def test_entry_that_is_listed_but_not_stored(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", {"x": COLOR, "y": COLOR})
    (path / "meta_info.txt").write_text("x.png (24,40,3) 1\nother.png (24,40,3) 1\n")
    with pytest.raises(DataError, match=r"a\.lmdb: the key 'other'"):
        LmdbSource(path, "here").read("other")


@pytest.mark.parametrize("kind", [FolderSource, ZipSource, LmdbSource])
def test_missing_sources(tmp_path, kind):
    with pytest.raises(DataError, match=r"datasets:train:dataroot_gt: .*nowhere"):
        kind(tmp_path / "nowhere", "datasets:train:dataroot_gt")


def empty_folder(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("no image")
    return path


def two_files_of_one_name(path: Path) -> Path:
    path.mkdir()
    for name in ("a.png", "a.jpg"):
        (path / name).write_bytes(b"x")
    return path


def zip_of_nothing(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("labels.csv", "x")
    return path


def no_zip(path: Path) -> Path:
    path.write_bytes(b"PK but no zip")
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (empty_folder, "holds no images"),
        (two_files_of_one_name, r"a\.(png|jpg) and a\.(png|jpg) in .* share the key 'a'"),
        (zip_of_nothing, "holds no images"),
        (no_zip, "cannot be read"),
    ],
)
def test_wrong_sources(tmp_path, make, words):
    with pytest.raises(DataError, match=f"--input: .*{words}"):
        open_folder_or_zip(make(tmp_path / "source"), "--input")


def test_lmdb_read_as_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"is an LMDB; .*io_backend: type: lmdb"):
        FolderSource(write_lmdb(tmp_path / "a.lmdb", {"x": COLOR}), "here")


def test_file_that_vanished(tmp_path):
    source = FolderSource(write_faces(tmp_path, 1), "here")
    (tmp_path / "face_0.png").unlink()
    with pytest.raises(DataError, match=r"face_0\.png: cannot be read \(No such file"):
        source.read("face_0")


def test_broken_zip_member_is_named(tmp_path):
    import zipfile

    path = tmp_path / "faces.zip"
    image = cv2.imencode(".bmp", np.full((32, 32, 3), 7, np.uint8))[1].tobytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", image)
        archive.writestr("b.bmp", image)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("a.bmp").header_offset + 30 + len("a.bmp")
    content = bytearray(path.read_bytes())
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    source = ZipSource(path, "--input")
    with pytest.raises(DataError, match=r"a\.bmp: cannot be read"):
        source.read("a")
    assert (source.read("b") == 7).all()
