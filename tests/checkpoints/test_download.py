"""Weight files: where they are found, and downloads from a server that this test runs on the loopback."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.weight_server import CONTENT, DIGEST, Server

from gpen_plugin.checkpoints import download
from gpen_plugin.checkpoints.download import WeightFile, add_search_dir, cache_folder, find_weights
from gpen_plugin.errors import MissingFileError, OptionError


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> dict[str, Path]:
    """The three kinds of folders, none of which exists yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    named = [tmp_path / "named", tmp_path / "also named"]
    monkeypatch.setenv(download.FOLDERS, os.pathsep.join(map(str, named)))
    monkeypatch.delenv(download.OFFLINE, raising=False)
    monkeypatch.setattr(download, "_failures", {})
    monkeypatch.setattr(download._network, "failure", None)
    torchs = tmp_path / "torch" / "hub" / "checkpoints"
    return {"first": named[0], "second": named[1], "cache": cache_folder(), "torch": torchs}


def leftovers() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir())


@pytest.mark.parametrize("place", ["first", "second", "cache", "torch"])
def test_found_in_each_folder_without_asking_the_server(folders, server, place):
    folders[place].mkdir(parents=True)
    (folders[place] / "weights.pth").write_bytes(b"whatever somebody put there")
    assert find_weights(server.file()) == folders[place] / "weights.pth"
    assert not server.asked


def test_the_order_of_the_folders(folders, server):
    for place in ("torch", "cache", "second", "first"):
        folders[place].mkdir(parents=True)
        (folders[place] / "weights.pth").write_bytes(b"x")
        assert find_weights(server.file()) == folders[place] / "weights.pth"


def test_other_names_that_people_have_it_under(folders):
    file = WeightFile("weights.pth", "a test's", None, None, ("model.pt", "model-2.pt"))
    expected = r"/cache/gpen_plugin/weights as weights\.pth or model\.pt or model-2\.pt, or name its folder"
    with pytest.raises(MissingFileError, match=expected):
        find_weights(file)
    for place, name in (("first", "model-2.pt"), ("cache", "model.pt"), ("torch", "weights.pth")):
        folders[place].mkdir(parents=True)
        (folders[place] / name).write_bytes(b"x")
        assert find_weights(file) == folders[place] / name


def test_a_given_path_is_the_only_one_that_counts(folders, server, tmp_path):
    folders["first"].mkdir()
    (folders["first"] / "weights.pth").write_bytes(b"x")
    (tmp_path / "mine.pth").write_bytes(b"y")
    assert find_weights(server.file(), str(tmp_path / "mine.pth")) == tmp_path / "mine.pth"
    expected = (
        r"val:metrics:fid:weights: /not/there.pth is not there; expected weights.pth \(a test's\). Check the path."
    )
    with pytest.raises(MissingFileError, match=expected):
        find_weights(server.file(), "/not/there.pth", "val:metrics:fid:weights")


def test_a_folder_in_its_place(folders, server):
    (folders["first"] / "weights.pth").mkdir(parents=True)
    assert find_weights(server.file()) == cache_folder() / "weights.pth"
    with pytest.raises(MissingFileError, match=r"named is a folder; expected weights\.pth"):
        find_weights(server.file(), str(folders["first"]))


def test_folders_that_cannot_be_looked_into_are_passed_by(server, monkeypatch):
    monkeypatch.setenv(download.FOLDERS, os.pathsep.join(["x" * 5000, "~nobody_of_this_name/weights"]))
    assert find_weights(server.file()) == cache_folder() / "weights.pth"


def test_a_folder_named_by_a_command_comes_first(folders, server, tmp_path):
    for folder in (folders["first"], tmp_path / "mine"):
        folder.mkdir()
        (folder / "weights.pth").write_bytes(b"x")
    add_search_dir(tmp_path / "mine")
    assert find_weights(server.file()) == tmp_path / "mine" / "weights.pth"
    with pytest.raises(OptionError, match=r"--weights-dir: .*nowhere is not there; expected a folder"):
        add_search_dir(tmp_path / "nowhere")


@pytest.mark.parametrize("digits", [64, 8])
def test_downloaded_whole_once(server, digits, capsys):
    path = find_weights(server.file(DIGEST[:digits].upper()))
    assert path == cache_folder() / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert "weights.pth: 100%" in capsys.readouterr().err
    assert find_weights(server.file(DIGEST[:digits])) == path
    assert server.asked == [None]
    assert leftovers() == [".lock", "weights.pth"]


def test_another_content_is_not_kept(server):
    with pytest.raises(MissingFileError, match="downloading failed: its SHA-256 does not begin with 00000000"):
        find_weights(server.file("0" * 64))
    assert leftovers() == [".lock"]


def test_broken_off_and_resumed(server, monkeypatch):
    server.breaks_off_after = download.CHUNK + 99
    with pytest.raises(MissingFileError, match=f"it broke off after 1,048,675 of {len(CONTENT):,} bytes"):
        find_weights(server.file())
    assert (cache_folder() / "weights.pth.part").read_bytes() == CONTENT[: download.CHUNK + 99]
    assert not (cache_folder() / "weights.pth").exists()
    server.breaks_off_after = None
    with pytest.raises(MissingFileError, match="broke off"):  # not tried again by this process
        find_weights(server.file())
    monkeypatch.setattr(download, "_failures", {})  # another process
    assert find_weights(server.file()).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={download.CHUNK + 99}-"]
    assert leftovers() == [".lock", "weights.pth"]


@pytest.mark.parametrize(
    ("part", "knows_ranges", "requests"),
    [
        (CONTENT[:999], False, ["bytes=999-"]),  # the server sends all of it again
        (b"another version", True, ["bytes=15-", None]),
        (CONTENT, True, [f"bytes={len(CONTENT)}-"]),  # killed before the renaming
        (CONTENT + b"more", True, [f"bytes={len(CONTENT) + 4}-", None]),
    ],
)
def test_whatever_lies_there_the_file_comes_out_right(server, part, knows_ranges, requests):
    server.knows_ranges = knows_ranges
    cache_folder().mkdir(parents=True)
    (cache_folder() / "weights.pth.part").write_bytes(part)
    assert find_weights(server.file()).read_bytes() == CONTENT
    assert server.asked == requests
    assert leftovers() == [".lock", "weights.pth"]


def test_redirected_and_resumed(server):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "weights.pth.part").write_bytes(CONTENT[:999])
    assert find_weights(server.file(path="redirected.pth")).read_bytes() == CONTENT
    assert server.asked == ["bytes=999-"] * 2


@pytest.mark.parametrize("part", [b"", CONTENT[:999]])
def test_a_server_that_does_not_say_how_much_comes(server, part):
    server.tells_length = False
    cache_folder().mkdir(parents=True)
    (cache_folder() / "weights.pth.part").write_bytes(part)
    assert find_weights(server.file()).read_bytes() == CONTENT


def test_a_silent_server_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.1)
    server.silent_for = 0.5
    with pytest.raises(MissingFileError, match="downloading failed: timed out"):
        find_weights(server.file())


class DroppingNetwork:
    """Looking up a name and connecting take longer than anybody waits."""

    def __init__(self):
        self.tried, self.over = [], threading.Event()

    def create_connection(self, address, timeout):
        self.tried.append((address, timeout))
        self.over.wait(10)
        raise OSError


@pytest.fixture
def dropping(monkeypatch):
    network = DroppingNetwork()
    monkeypatch.setattr(download.socket, "create_connection", network.create_connection)
    monkeypatch.setattr(download.urllib.request, "getproxies", dict)
    monkeypatch.setattr(download, "TO_CONNECT", 0.05)
    yield network
    network.over.set()


def test_a_network_that_drops_packets_is_tried_once_for_all_files(dropping):
    files = [WeightFile(f"{i}.pth", "a test's", f"https://host{i}.test/x.pth", DIGEST) for i in range(3)]
    for file in (*files, files[0]):
        with pytest.raises(MissingFileError, match=r"there is no network \(host0\.test was not reached"):
            find_weights(file)
    assert dropping.tried == [(("host0.test", 443), 0.05)]


def test_two_seconds_are_what_it_takes():
    assert download.TO_CONNECT == 2


def test_a_proxy_is_what_has_to_answer(dropping, monkeypatch):
    monkeypatch.setattr(download.urllib.request, "getproxies", lambda: {"https": "http://proxy.test:3128"})
    monkeypatch.setattr(download.urllib.request, "proxy_bypass", lambda host: False)
    with pytest.raises(MissingFileError, match=r"proxy\.test was not reached"):
        find_weights(WeightFile("x.pth", "a test's", "https://host.test/x.pth", DIGEST))
    assert dropping.tried == [(("proxy.test", 3128), 0.05)]


def test_a_server_that_refuses_says_nothing_of_the_others(server):
    gone = WeightFile("gone.pth", "a test's", "http://127.0.0.1:9/gone.pth", DIGEST)
    with pytest.raises(MissingFileError, match="downloading failed: "):
        find_weights(gone)
    assert find_weights(server.file()).read_bytes() == CONTENT


def test_a_disk_without_locks(server, monkeypatch):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(download, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=2))
    assert find_weights(server.file()).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder would be")
    with pytest.raises(MissingFileError, match=r"downloading failed: \[Errno 20\] Not a directory"):
        find_weights(server.file())


def test_the_server_has_no_such_file(server):
    with pytest.raises(MissingFileError, match="downloading failed: HTTP Error 404"):
        find_weights(server.file(path="moved.pth"))


def test_no_network(server):
    server.server_close()
    file = server.file()
    begin = r"^weights: weights\.pth \(a test's\) is not on this machine, and downloading failed: "
    with pytest.raises(MissingFileError, match=begin) as caught:
        find_weights(file)
    told = str(caught.value)
    assert told.endswith(
        f". Get it from {file.url} and put it into {cache_folder()}, or name its folder in $GPEN_PLUGIN_WEIGHTS."
    )
    assert "\n" not in told


@pytest.mark.parametrize(
    ("value", "sha256", "reason"),
    [
        ("1", DIGEST, r"\$GPEN_PLUGIN_OFFLINE forbids downloading"),
        ("0", None, "no digest of it is published, so it is not downloaded"),
    ],
)
def test_what_is_never_downloaded(server, monkeypatch, value, sha256, reason):
    monkeypatch.setenv(download.OFFLINE, value)
    with pytest.raises(MissingFileError, match=f"is not on this machine, and {reason}. Get it from http"):
        find_weights(server.file(sha256))
    assert not server.asked


def test_what_is_published_nowhere_for_programs():
    with pytest.raises(MissingFileError, match=r"and has to be fetched by hand\. Get it and put it into"):
        find_weights(WeightFile("x.pth", "a test's", None, None))


def test_the_users_name_is_not_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(MissingFileError, match=r"put it into ~/\.cache/gpen_plugin/weights, or name its folder in"):
        find_weights(WeightFile("x.pth", "a test's", None, None))


def test_several_at_once(server):
    """Threads here; the lock belongs to an open file, so it is the same between processes."""
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(find_weights, [server.file()] * 3))
    assert [path.read_bytes() == CONTENT for path in found] == [True] * 3
    assert server.asked == [None]
    assert leftovers() == [".lock", "weights.pth"]


def test_the_error_is_a_missing_file_and_survives_a_process_border():
    error = MissingFileError("weights", "not there", "a file", "Mend it.")
    assert isinstance(error, FileNotFoundError)
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error) == "weights: not there; expected a file. Mend it."
    assert str(error.under("val:metrics:fid")).startswith("val:metrics:fid:weights: not there")
