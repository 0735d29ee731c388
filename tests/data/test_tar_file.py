"""Tars in WebDataset's layout: indexes, images and keys, several processes, remote tars, and damaged ones."""

import io
import multiprocessing
import os
import pickle
import tarfile
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
from helpers.forks import fork, wait
from helpers.training_images import color_image, write_faces

from gpen_plugin.data import image_source, tar_file
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.image_source import FolderSource, TarSource, open_source
from gpen_plugin.errors import DataError


def png(seed: int) -> bytes:
    return cv2.imencode(".png", color_image(seed))[1].tobytes()


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path):
    """A pattern for two tars of three faces each."""
    for number in range(2):
        members = {f"f{number}{i}.png": png(3 * number + i) for i in range(3)}
        write_tar(tmp_path / f"faces-{number:03d}.tar", members)
    return str(tmp_path / "faces-{000..001}.tar")


def read_all(source: TarSource) -> np.ndarray:
    return np.stack([source.read(key) for key in source.keys])


def test_index_is_that_of_wds2idx(tmp_path):
    write_tar(tmp_path / "a.tar", {"d/x.jpg": b"12345", "d/x.json": b"{}", "y z.seg.png": b"", ".h": b"", "none": b""})
    members, is_stored = tar_file.load_index(tmp_path / "a.tar", "here")
    assert is_stored
    text = "v1.2 2\njpg 512 5 d/x.jpg json 1536 2 d/x.json\nseg.png 2560 0 y%20z.seg.png\n"
    assert (tmp_path / "a.idx").read_text() == text
    assert tar_file.read_index(tmp_path / "a.idx") == members


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_each_format_have_the_folders_keys_and_images(tmp_path, form):
    names = ["./a.png", "sub/" + "x" * 90 + "/" + "y" * 60 + ".png", "Zoë 100%25.PNG"]
    images = {name: png(i) for i, name in enumerate(names)}
    for name, data in images.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name.replace("%25", "%")).write_bytes(data)
    write_tar(tmp_path / "a.tar", images, form)
    folder, tars = FolderSource(tmp_path / "folder", "here"), TarSource(tmp_path / "a.tar", "here")
    assert tars.keys == folder.keys
    for key in folder.keys:
        np.testing.assert_array_equal(tars.read(key), folder.read(key))
    assert tars.name("Zoë 100%") == "Zoë 100%.PNG"


def test_other_members_are_counted(tmp_path, caplog):
    members = {"a.png": png(0), "a.json": b"{}", "b.txt": b"", "._c.png": b"", "__MACOSX/d.png": b""}
    write_tar(tmp_path / "a.tar", members)
    with caplog.at_level("INFO", "basicsr"):
        assert TarSource(tmp_path / "a.tar", "here").keys == ["a"]
    assert "1 images; 3 other members (.json, .png, .txt) are ignored" in caplog.text


def test_ways_to_name_tars(shards, tmp_path):
    expected = read_all(TarSource(shards, "here"))
    listed = [str(tmp_path / f"faces-00{i}.tar") for i in range(2)]
    for root in (tmp_path, str(tmp_path / "faces-*.tar"), listed, [shards]):
        np.testing.assert_array_equal(read_all(TarSource(root, "here")), expected)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("faces-{000..003}.tar", r"here: .*faces-002\.tar is not there and 1 more; expected tar files"),
        ("none-*.tar", r"here: no tar at .*none-\*\.tar"),
        ("empty", "here: no tar at .*empty"),
    ],
)
def test_missing_tars_are_named(shards, tmp_path, root, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        TarSource(str(tmp_path / root), "here")


def test_a_folder_that_is_not_finished_is_refused(shards, tmp_path):
    (tmp_path / "building.json").write_text("{}")
    with pytest.raises(DataError, match=r"is not finished; .*make_tar\.py again"):
        TarSource(tmp_path, "here")


@pytest.mark.parametrize("age", [-10, 10])
def test_index_is_made_again_when_the_tar_changes(tmp_path, age):
    path = write_tar(tmp_path / "a.tar", {"a.png": png(0)})
    TarSource(path, "here")
    write_tar(path, {"first.json": b"{}" * 2000, "b.png": png(1)})
    now = os.stat(path).st_mtime
    os.utime(path, (now + age, now + age))
    source = TarSource(path, "here")
    assert source.keys == ["b"]
    np.testing.assert_array_equal(source.read("b"), color_image(1))
    if age < 0:  # the new index is used as it is
        before = (tmp_path / "a.idx").stat().st_mtime_ns
        TarSource(path, "here")
        assert (tmp_path / "a.idx").stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["", "v1.1 1\npng 512 9\n", "v1.2 1\npng 512 x a.png\n", "v1.2 1\npng 512\n"])
def test_an_index_that_cannot_be_used_is_made_again(tmp_path, text):
    path = write_tar(tmp_path / "a.tar", {"a.png": png(0)})
    (tmp_path / "a.idx").write_text(text)
    assert TarSource(path, "here").keys == ["a"]
    assert (tmp_path / "a.idx").read_text().startswith("v1.2 1\npng 512 ")


def test_an_index_that_cannot_be_written_stays_in_memory(shards, monkeypatch, caplog):
    def refuse(path, data):
        raise DataError(str(path), "cannot be written")

    monkeypatch.setattr(tar_file, "write_whole", refuse)
    assert len(TarSource(shards, "here").keys) == 6
    assert "faces-000.idx and 1 other indexes cannot be written. They are made again at every start." in caplog.text


def test_tar_that_is_changed_later_is_an_error(shards, tmp_path):
    source = TarSource(shards, "here")
    write_tar(tmp_path / "faces-000.tar", {"other.png": png(0) + b"1234", "f01.png": png(8)})
    with pytest.raises(DataError, match=r"faces-000\.tar: f00\.png: is not where the index says .*Remove the index"):
        source.read("f00")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:700], "is truncated: 700 bytes"),
        (lambda data: data[: -tarfile.RECORDSIZE], r"is truncated: [\d,]+ bytes; expected a tar with an end mark"),
        (
            lambda data: data[: -tarfile.RECORDSIZE] + b"\1" * 512 + data,
            "is damaged at byte 10,240; expected the header",
        ),
        (lambda data: b"", "is no tar, or a compressed one"),
        (lambda data: b"no tar" * 1000, r"is no tar, or a compressed one; .*Unpack \.tar\.gz"),
    ],
)
def test_damaged_tars_say_where(tmp_path, change, message):
    path = write_tar(tmp_path / "a.tar", {"a.png": b"x" * (tarfile.RECORDSIZE - 512)})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=rf"here: .*a\.tar {message}"):
        TarSource(path, "here")


def test_two_images_of_a_key_are_refused(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.png": png(0), "a.seg.png": png(1)})
    with pytest.raises(DataError, match=r"a\.png and .*a\.seg\.png share a key, 'a'; .*ends at the first dot"):
        TarSource(tmp_path / "a.tar", "here")


def test_a_damaged_image_is_named(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.png": png(0)[:60], "b.png": png(1)})
    with pytest.raises(DataError, match=r"a\.tar: a\.png: cannot be decoded"):
        TarSource(tmp_path / "a.tar", "here").read("a")


def test_a_tar_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.tar holds no images"):
        TarSource(write_tar(tmp_path / "a.tar", {"a.txt": b""}), "here")


def test_a_forked_process_has_files_of_its_own(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(image_source, "MAX_OPEN_TARS", 1)
    source = TarSource(shards, "here")
    expected = read_all(source)

    def same() -> int:
        return int(not all(np.array_equal(read_all(source), expected) for _ in range(30)))

    child = fork(same, tmp_path / "error.txt")
    assert same() == 0
    assert wait(child) == 0


def test_a_spawned_process_opens_its_own_files(shards):
    source = TarSource(shards, "here")
    expected = read_all(source)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(source.read, ("f11",)), expected[4])


def test_pairs_from_tars_are_those_from_the_folder(tmp_path):
    folder = write_faces(tmp_path / "folder", 4)
    write_tar(tmp_path / "a.tar", {path.name: path.read_bytes() for path in folder.iterdir()})
    opt = {"name": "x", "type": "GPENDegradationDataset", "phase": "val", "out_size": 32}
    from_folder = GPENDegradationDataset({**opt, "dataroot_gt": str(folder)})
    roots = {"dataroot_gt": str(tmp_path / "a.tar"), "io_backend": {"type": "tar"}}
    from_tar = pickle.loads(pickle.dumps(GPENDegradationDataset({**opt, **roots})))
    assert from_tar.keys == from_folder.keys
    for index in range(4):
        assert from_tar[index]["lq"].equal(from_folder[index]["lq"])
    assert from_tar[2]["gt_path"] == "face_2.png"


@pytest.fixture
def remote(shards, tmp_path):
    """The two tars in fsspec's memory, without their indexes."""
    files = fsspec.filesystem("memory")
    for path in tmp_path.glob("*.tar"):
        files.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    yield files
    files.rm("/bucket", recursive=True)


@pytest.mark.parametrize("root", ["faces-{000..001}.tar", "*.tar", ""])
def test_remote_tars_are_copied_once(remote, shards, tmp_path, monkeypatch, root):
    cache = tmp_path / "cache"
    source = TarSource(f"memory://bucket/{root}", "here", str(cache))
    np.testing.assert_array_equal(read_all(source), read_all(TarSource(shards, "here")))
    copies = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.tar")}
    assert len(copies) == 2
    TarSource(f"memory://bucket/{root}", "here", str(cache)).read("f00")
    assert {path.name: path.stat().st_mtime_ns for path in cache.glob("*.tar")} == copies


def test_a_remote_tar_with_an_index_is_copied_when_it_is_read(remote, shards, tmp_path):
    TarSource(shards, "here")
    for path in tmp_path.glob("*.idx"):
        remote.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    source = TarSource("memory://bucket/faces-*.tar", "here", str(tmp_path / "cache"))
    assert len(source.keys) == 6
    assert not [*(tmp_path / "cache").glob("*.tar")]
    np.testing.assert_array_equal(source.read("f11"), color_image(4))
    assert len([*(tmp_path / "cache").glob("*.tar")]) == 1


def test_a_changed_remote_tar_is_copied_again(remote, tmp_path):
    url, cache = "memory://bucket/faces-000.tar", str(tmp_path / "cache")
    TarSource(url, "here", cache)
    remote.pipe_file("/bucket/faces-000.tar", write_tar(tmp_path / "new.tar", {"new.png": png(9)}).read_bytes())
    np.testing.assert_array_equal(TarSource(url, "here", cache).read("new"), color_image(9))


def test_a_copy_that_was_interrupted_is_not_used(remote, tmp_path, monkeypatch):
    def interrupt(self, source, target):
        Path(target).write_bytes(b"a part")
        raise ConnectionError("reset by peer")

    url, cache = "memory://bucket/faces-000.tar", str(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(type(remote), "get_file", interrupt)
        with pytest.raises(DataError, match=r"here: memory://.* cannot be read \(ConnectionError: reset by peer\)"):
            TarSource(url, "here", cache)
    assert TarSource(url, "here", cache).keys == ["f00", "f01", "f02"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none.tar", r"here: memory://bucket/none\.tar is not there"),
        ("memory://none/*.tar", r"here: no tar at memory://none/\*\.tar"),
        ("nosuch://bucket/a.tar", r"here: nosuch://bucket/a\.tar cannot be opened .*gpen_plugin\[remote\]"),
    ],
)
def test_remote_errors_name_the_url(url, message, tmp_path):
    with pytest.raises(DataError, match=message):
        TarSource(url, "here", str(tmp_path))


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    def fail(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(DataError, match=r"s3://b/a\.tar cannot be opened \(Install s3fs to access S3\).*remote"):
        TarSource("s3://b/a.tar", "here", str(tmp_path))


def test_a_name_that_ends_in_tar_is_opened_as_tars(shards):
    np.testing.assert_array_equal(read_all(open_source(shards, "here")), read_all(TarSource(shards, "here")))
