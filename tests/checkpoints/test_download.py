"""Weight files: where they are found, and downloads from a server that this test runs on the loopback."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
def test_found_in_each_folder_without_a_request(folders, server, place):
    folders[place].mkdir(parents=True)
    (folders[place] / "weights.pth").write_bytes(b"whatever somebody put there")
    assert find_weights(server.file()) == folders[place] / "weights.pth"
    assert server.requests == 0


def test_the_order_of_the_folders(folders, server):
    for place in ("torch", "cache", "second", "first"):
        folders[place].mkdir(parents=True)
        (folders[place] / "weights.pth").write_bytes(b"x")
        assert find_weights(server.file()) == folders[place] / "weights.pth"


def test_alternative_names(folders):
    file = WeightFile("weights.pth", "a test's", None, None, ("model.pt", "model-2.pt"))
    expected = r"/cache/gpen_plugin/weights as weights\.pth or model\.pt or model-2\.pt, or name its folder"
    with pytest.raises(MissingFileError, match=expected):
        find_weights(file)
    for place, name in (("first", "model-2.pt"), ("cache", "model.pt"), ("torch", "weights.pth")):
        folders[place].mkdir(parents=True)
        (folders[place] / name).write_bytes(b"x")
        assert find_weights(file) == folders[place] / name


def test_given_path_is_the_only_one_searched(folders, server, tmp_path):
    folders["first"].mkdir()
    (folders["first"] / "weights.pth").write_bytes(b"x")
    (tmp_path / "mine.pth").write_bytes(b"y")
    assert find_weights(server.file(), str(tmp_path / "mine.pth")) == tmp_path / "mine.pth"
    expected = (
        r"val:metrics:fid:weights: /not/there.pth is not there; expected weights.pth \(a test's\). Check the path."
    )
    with pytest.raises(MissingFileError, match=expected):
        find_weights(server.file(), "/not/there.pth", "val:metrics:fid:weights")


def test_folder_of_the_files_name(folders, server):
    (folders["first"] / "weights.pth").mkdir(parents=True)
    assert find_weights(server.file()) == cache_folder() / "weights.pth"
    with pytest.raises(MissingFileError, match=r"named is a folder; expected weights\.pth"):
        find_weights(server.file(), str(folders["first"]))


def test_unreadable_folders_are_skipped(server, monkeypatch):
    monkeypatch.setenv(download.FOLDERS, os.pathsep.join(["x" * 5000, "~nobody_of_this_name/weights"]))
    assert find_weights(server.file()) == cache_folder() / "weights.pth"


def test_added_folder_comes_first(folders, server, tmp_path):
    for folder in (folders["first"], tmp_path / "mine"):
        folder.mkdir()
        (folder / "weights.pth").write_bytes(b"x")
    add_search_dir(tmp_path / "mine")
    assert find_weights(server.file()) == tmp_path / "mine" / "weights.pth"
    with pytest.raises(OptionError, match=r"--weights-dir: .*nowhere is not there; expected a folder"):
        add_search_dir(tmp_path / "nowhere")


@pytest.mark.parametrize("digits", [64, 8])
def test_downloaded_once(server, digits, capsys):
    path = find_weights(server.file(DIGEST[:digits].upper()))
    assert path == cache_folder() / "weights.pth"
    assert path.read_bytes() == CONTENT
    progress = capsys.readouterr().err
    assert "Downloading weights.pth from http://127.0.0.1" in progress
    assert "100%" in progress
    assert find_weights(server.file(DIGEST[:digits])) == path
    assert server.requests == 1
    assert leftovers() == [".lock", "weights.pth"]


def test_wrong_digest_is_not_kept(server):
    with pytest.raises(MissingFileError, match=r"downloading failed: it is incomplete or another version: .*00000000"):
        find_weights(server.file("0" * 64))
    assert leftovers() == [".lock"]


def test_incomplete_download_is_not_kept_and_not_repeated(server, monkeypatch):
    server.breaks_off_after = 99
    for _ in range(2):
        with pytest.raises(MissingFileError, match="downloading failed: it is incomplete or another version"):
            find_weights(server.file())
    assert server.requests == 1
    assert leftovers() == [".lock"]
    server.breaks_off_after = None
    monkeypatch.setattr(download, "_failures", {})  # as in another process
    assert find_weights(server.file()).read_bytes() == CONTENT
    assert leftovers() == [".lock", "weights.pth"]


def test_redirected(server):
    assert find_weights(server.file(path="redirected.pth")).read_bytes() == CONTENT
    assert server.requests == 2


def test_server_without_content_length(server):
    server.tells_length = False
    assert find_weights(server.file()).read_bytes() == CONTENT


def test_silent_server_times_out(server, monkeypatch):
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.1)
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
    monkeypatch.setattr(download, "CONNECT_TIMEOUT", 0.05)
    yield network
    network.over.set()


def test_network_that_drops_packets_is_tried_once_for_all_files(dropping):
    files = [WeightFile(f"{i}.pth", "a test's", f"https://host{i}.test/x.pth", DIGEST) for i in range(3)]
    for file in (*files, files[0]):
        with pytest.raises(MissingFileError, match=r"there is no network \(host0\.test was not reached"):
            find_weights(file)
    assert dropping.tried == [(("host0.test", 443), 0.05)]


def test_connect_timeout_is_two_seconds():
    assert download.CONNECT_TIMEOUT == 2


def test_proxy_is_tried_in_place_of_the_server(dropping, monkeypatch):
    monkeypatch.setattr(download.urllib.request, "getproxies", lambda: {"https": "http://proxy.test:3128"})
    monkeypatch.setattr(download.urllib.request, "proxy_bypass", lambda host: False)
    with pytest.raises(MissingFileError, match=r"proxy\.test was not reached"):
        find_weights(WeightFile("x.pth", "a test's", "https://host.test/x.pth", DIGEST))
    assert dropping.tried == [(("proxy.test", 3128), 0.05)]


def test_refusing_server_does_not_block_others(server):
    gone = WeightFile("gone.pth", "a test's", "http://127.0.0.1:9/gone.pth", DIGEST)
    with pytest.raises(MissingFileError, match="downloading failed: "):
        find_weights(gone)
    assert find_weights(server.file()).read_bytes() == CONTENT


def test_disk_without_locks(server, monkeypatch):
    def acquire(_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(download.FileLock, "acquire", acquire)
    assert find_weights(server.file()).read_bytes() == CONTENT


def test_unwritable_cache(server, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder would be")
    with pytest.raises(MissingFileError, match=r"downloading failed: \[Errno 20\] Not a directory"):
        find_weights(server.file())


def test_http_404(server):
    with pytest.raises(MissingFileError, match="downloading failed: HTTP Error 404"):
        find_weights(server.file(path="moved.pth"))


def test_no_network(server):
    server.server_close()
    file = server.file()
    begin = r"^weights: weights\.pth \(a test's\) is not on this machine, and downloading failed: "
    with pytest.raises(MissingFileError, match=begin) as caught:
        find_weights(file)
    message = str(caught.value)
    assert message.endswith(
        f". Get it from {file.url} and put it into {cache_folder()}, or name its folder in $GPEN_PLUGIN_WEIGHTS."
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "sha256", "reason"),
    [
        ("1", DIGEST, r"\$GPEN_PLUGIN_OFFLINE forbids downloading"),
        ("0", None, "no digest of it is published, so it is not downloaded"),
    ],
)
def test_offline_or_without_digest(server, monkeypatch, value, sha256, reason):
    monkeypatch.setenv(download.OFFLINE, value)
    with pytest.raises(MissingFileError, match=f"is not on this machine, and {reason}. Get it from http"):
        find_weights(server.file(sha256))
    assert server.requests == 0


def test_file_without_url():
    with pytest.raises(MissingFileError, match=r"and has to be downloaded by hand\. Get it and put it into"):
        find_weights(WeightFile("x.pth", "a test's", None, None))


def test_message_hides_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(MissingFileError, match=r"put it into ~/\.cache/gpen_plugin/weights, or name its folder in"):
        find_weights(WeightFile("x.pth", "a test's", None, None))


def test_parallel_downloads_are_one_request(server):
    """Threads here; the lock belongs to an open file, so it is the same between processes."""
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(find_weights, [server.file()] * 3))
    assert [path.read_bytes() == CONTENT for path in found] == [True] * 3
    assert server.requests == 1
    assert leftovers() == [".lock", "weights.pth"]


def test_error_is_a_missing_file_and_pickles():
    error = MissingFileError("weights", "not there", "a file", "Check the path.")
    assert isinstance(error, FileNotFoundError)
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error) == "weights: not there; expected a file. Check the path."
    assert str(error.under("val:metrics:fid")).startswith("val:metrics:fid:weights: not there")
