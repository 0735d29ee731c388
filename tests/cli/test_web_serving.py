"""``gpen-web`` as a process: login, upload limit, output, cleanup."""

import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from importlib.util import find_spec

import pytest
from helpers.forks import fork, wait
from helpers.restorer_parts import photograph

from gpen_plugin.cli.web import main
from gpen_plugin.images.photograph import Photograph, write_photograph

httpx = pytest.importorskip("httpx")  # comes with Gradio
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")

PATIENCE = 120  # seconds
LOGIN = ("ann", "se cret")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A page with a login and a small limit: the process, its address, its folder of temporary files and its output."""
    import gradio  # noqa: F401 - slow; other tests of this process need it too

    folder = tmp_path_factory.mktemp("temporary")
    options = ["--host", "0.0.0.0", "--login", LOGIN[0], "--max-upload", "0.5"]
    options += ["--device", "cpu", "--detector", "yunet"]

    def serve():
        os.environ |= {"TMPDIR": str(folder), "GPEN_WEB_PASSWORD": LOGIN[1]}
        tempfile.tempdir = None
        sys.stdout = sys.stderr = open(folder / "printed.txt", "w", buffering=1)  # noqa: SIM115 - to its end
        return main(options)

    (folder / "printed.txt").touch()
    process = fork(serve, folder / "error.txt")
    ends = time.monotonic() + PATIENCE
    while not (found := re.search(r"page: http://\S+?:(\d+)", (folder / "printed.txt").read_text())):
        assert not (folder / "error.txt").exists(), (folder / "error.txt").read_text()
        assert time.monotonic() < ends, (folder / "printed.txt").read_text()
        time.sleep(0.2)
    yield process, f"http://127.0.0.1:{found[1]}", folder
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has ended
        os.kill(process, signal.SIGKILL)
        wait(process)


def uploaded(client: httpx.Client, address: str, data: bytes) -> httpx.Response:
    return client.post(f"{address}/gradio_api/upload", files={"files": ("uncle.png", data)})


def test_login_is_required(served):
    _, address, _ = served
    with httpx.Client(timeout=PATIENCE) as client:
        assert uploaded(client, address, b"x").status_code == 401
        assert client.get(f"{address}/gradio_api/file=/etc/hostname").status_code == 401
        assert client.post(f"{address}/login", data={"username": LOGIN[0], "password": "guess"}).status_code == 400


def test_uploads_are_limited_and_deleted_at_the_end(served, tmp_path):
    """At the end by SIGTERM, as from a service manager."""
    process, address, folder = served
    write_photograph(tmp_path / "uncle.png", Photograph.of(photograph()))
    with httpx.Client(timeout=PATIENCE) as client:
        assert client.post(f"{address}/login", data={"username": LOGIN[0], "password": LOGIN[1]}).status_code == 200
        refused = uploaded(client, address, bytes(600_000))
        assert refused.status_code == 413
        assert "maximum allowed size of 500000 bytes" in refused.text
        (path,) = uploaded(client, address, (tmp_path / "uncle.png").read_bytes()).json()
        assert path.startswith(str(folder)), "uploads are not in the folder that is deleted"
        assert [each.name for each in folder.rglob("*") if each.is_file()] == ["printed.txt", "uncle.png"]
        os.kill(process, signal.SIGTERM)
        assert wait(process) == 0
    assert os.listdir(folder) == ["printed.txt"]
    printed = (folder / "printed.txt").read_text()
    assert "share" not in printed
    assert "Traceback" not in printed
