"""A damaged LMDB is found out without being opened: opening it would kill the process."""

import os

import lmdb
import pytest
from helpers.training_images import color_image, write_lmdb

from gpen_plugin.data.lmdb_file import check_length, check_lmdb, key_of, lmdb_key
from gpen_plugin.errors import DataError


@pytest.fixture
def whole(tmp_path):
    return write_lmdb(tmp_path / "faces.lmdb", {f"{i}": color_image(i, 64, 64) for i in range(8)})


def test_whole_one_passes(whole):
    check_lmdb(whole, "here")
    assert check_length(whole, "here") == 8


def test_entries_are_those_of_the_newest_transaction(whole):
    with lmdb.open(str(whole)) as environment:
        for count in (7, 6, 5):
            with environment.begin(write=True) as transaction:
                transaction.delete(str(count).encode())
            assert check_length(whole, "here") == count


@pytest.mark.parametrize("keep", [0, 10, 4096, 5000, 9000, "half", "all but one byte"])
def test_truncated_anywhere(whole, keep):
    data = whole / "data.mdb"
    length = data.stat().st_size
    os.truncate(data, {"half": length // 2, "all but one byte": length - 1}.get(keep, keep))
    with pytest.raises(DataError, match=r"datasets:train:dataroot_gt: .*(truncated|damaged|empty).*make_lmdb"):
        check_lmdb(whole, "datasets:train:dataroot_gt")


def test_file_that_is_no_lmdb(whole):
    (whole / "data.mdb").write_bytes(b"x" * 10000)
    with pytest.raises(DataError, match="is no LMDB file"):
        check_lmdb(whole, "here")


@pytest.mark.parametrize("name", ["data.mdb", "meta_info.txt"])
def test_missing_file(whole, name):
    (whole / name).unlink()
    with pytest.raises(DataError, match=f"here: .*faces.lmdb holds no {name}"):
        check_lmdb(whole, "here")


def test_empty(tmp_path):
    with pytest.raises(DataError, match=r"none\.lmdb is empty; expected at least one image"):
        check_lmdb(write_lmdb(tmp_path / "none.lmdb", {}), "here")


def test_unfinished(whole):
    (whole / "building.json").write_text("{}")
    with pytest.raises(DataError, match=r"not finished.*it resumes"):
        check_lmdb(whole, "here")


def test_list_of_another_length(whole):
    with (whole / "meta_info.txt").open("a") as file:
        file.write("more.png (64,64,3) 1\n")
    with pytest.raises(DataError, match=r"stores 8 images, its meta_info\.txt lists 9"):
        check_lmdb(whole, "here")


def test_line_that_is_no_entry(whole):
    with (whole / "meta_info.txt").open("a") as file:
        file.write("more.jpg\n")
    with pytest.raises(DataError, match=r"meta_info\.txt, line 9 is 'more\.jpg'"):
        check_lmdb(whole, "here")


def test_folder_of_another_name(tmp_path, whole):
    with pytest.raises(DataError, match=r"ends in \.lmdb.*type: disk"):
        check_lmdb(whole.rename(tmp_path / "faces"), "here")


KEYS = ["plain", "a b/c.d", "ä", "100%", "%41", "A", "line\nbreak", "\udcff", "日本"]


def test_keys_are_ascii_different_and_come_back():
    written = [lmdb_key(key) for key in KEYS]
    assert all(key.isascii() and key.isprintable() for key in written)
    assert len(set(written)) == len(KEYS)
    assert [key_of(key) for key in written] == KEYS
    assert written[:2] == KEYS[:2]  # what was usual before stays as it was
