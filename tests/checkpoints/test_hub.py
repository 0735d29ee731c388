"""Folders of `save_pretrained`, and the Hugging Face Hub: a server on this machine in its place."""

import http.server
import json
import sys
import threading
from functools import partial
from hashlib import sha256

import pytest
import torch
from helpers.published_folders import lonely_machine
from helpers.small_networks import OF_D, SMALL, built, same

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.checkpoints import download, metadata
from gpen_plugin.checkpoints.checkpoint import report
from gpen_plugin.checkpoints.download import local_path
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.restore.network import load, open_network

hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    download._download_from_hub.cache_clear()
    return lonely_machine(tmp_path, monkeypatch)


def small(**arguments):
    return built(lambda: GPEN(16, **SMALL, **arguments))


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hub does for the files of one public repository, ``user/repo``."""

    def __init__(self, files, asked, *arguments):
        self.files, self.asked = files, asked
        super().__init__(*arguments)

    def do_GET(self):
        self.asked.append(self.path)
        prefix, _, rest = self.path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        content = self.files.get(file)
        known = prefix == "/user/repo" and revision in ("main", COMMIT)
        code = {not known: "RepoNotFound", known and content is None: "EntryNotFound"}.get(True)
        self.send_response(404 if code else 200)
        headers = (
            {"X-Error-Code": code} if code else {"ETag": f'"{sha256(content).hexdigest()}"', "Accept-Ranges": "none"}
        )
        body = b"" if code else content
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A repository with a saved network; and what the server was asked for."""
    net = small()
    net.save_pretrained(tmp_path / "saved", template="dlib", license="CC0-1.0", title="Served")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(FakeHub, files, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.delenv(download.OFFLINE)
    monkeypatch.setattr(hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    yield net, asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("cls", "build"),
    [
        (GPEN, lambda: GPEN(16, **SMALL, lr_mlp=0.1, value_range=(0, 1))),
        (GPENPrior, lambda: GPENPrior(16, **SMALL)),
        (GPENDiscriminator, lambda: GPENDiscriminator(16, **OF_D, stddev_group=2)),
    ],
)
def test_saved_network_is_loaded_again(cls, build, tmp_path):
    net = built(build)
    net.save_pretrained(tmp_path / "saved")
    again = cls.from_pretrained(tmp_path / "saved")
    assert same(again.state_dict(), net.state_dict())
    assert not again.training
    image = torch.rand(2, 3, 16, 16)
    inputs = net.mapping(torch.randn(2, 8)) if cls is GPENPrior else image
    options = {"input_is_latent": True, "noise": [None] * 3} if cls is GPENPrior else {}
    assert torch.equal(again(inputs, **options), net.eval()(inputs, **options))
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert (config["architecture"], config["out_size"]) == (cls.__name__, 16)


def test_facts_are_stated_and_survive_another_round(tmp_path):
    small().save_pretrained(
        tmp_path / "one", template="dlib", alpha=0.5, license="Apache-2.0", data="drawings", title="T"
    )
    GPEN.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two", alpha=0.25)
    stated = metadata.read(tmp_path / "two")
    assert (stated.license, stated.data, stated.title) == ("Apache-2.0", "drawings", "T")
    assert stated.conventions == {"value_range": (-1, 1), "task": "restore", "template": "dlib", "alpha": 0.25}
    card = (tmp_path / "two/README.md").read_text()
    for words in ("license: apache-2.0", "library_name: gpen_plugin", "# T", "drawings", "Not for identifying people"):
        assert words in card
    assert report(tmp_path / "two/model.safetensors")[1]
    network = open_network(tmp_path / "two", device="cpu")
    assert (network.template, network.alpha) == ("dlib", 0.25)


def test_wrong_facts_and_wrong_classes_are_refused(tmp_path):
    net = small()
    with pytest.raises(OptionError, match=r"licence: unknown key; .*license"):
        net.save_pretrained(tmp_path / "saved", licence="MIT")
    with pytest.raises(CheckpointError, match=r"gpen\.alpha: got 2; expected a number from 0 to 1"):
        net.save_pretrained(tmp_path / "saved", alpha=2)
    net.save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="holds a GPEN; expected a GPENPrior"):
        GPENPrior.from_pretrained(tmp_path / "saved")
    with pytest.raises(MissingFileError, match=r"\./nowhere is not there"):
        GPEN.from_pretrained("./nowhere")


def test_network_comes_from_a_repository(served, tmp_path, monkeypatch):
    net, asked = served
    assert same(GPEN.from_pretrained("user/repo").state_dict(), net.state_dict())
    network = open_network("hf:user/repo", device="cpu")
    assert (network.template, network.file.name) == ("dlib", "model.safetensors")
    assert same(load("hf:user/repo/model.safetensors@main").state_dict(), net.state_dict())
    assert same(load(f"hf:user/repo@{COMMIT}").state_dict(), net.state_dict())
    monkeypatch.setenv(download.OFFLINE, "1")
    download._download_from_hub.cache_clear()
    before = len(asked)
    assert local_path("hf:user/repo").is_file()
    assert same(GPEN.from_pretrained("user/repo").state_dict(), net.state_dict())
    assert len(asked) == before
    with pytest.raises(MissingFileError, match=r"hf:user/other.*is not in the cache.*\$GPEN_PLUGIN_OFFLINE forbids"):
        load("hf:user/other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:user/other", "is not on the Hub, or is private"),
        ("hf:user/repo/none.pth", r"has no such file \(default model.safetensors\)"),
        ("hf:user", "is not a file on the Hub"),
        ("hf:us er/repo", "is no name of a repository"),
    ],
)
def test_what_is_not_there_is_said(served, name, message):
    with pytest.raises(MissingFileError, match=f"^{name}: {message}"):
        open_network(name, device="cpu")


def test_upload_has_the_files_of_a_folder(tmp_path, monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token=None):
            sent["token"] = token

        def create_repo(self, repo_id, **arguments):
            sent["private"] = arguments["private"]
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, repo_id, folder_path, **arguments):
            sent["files"] = sorted(path.name for path in folder_path.iterdir())
            return f"address of {repo_id}"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert small().push_to_hub("user/repo", private=True, token="t", license="MIT") == "address of user/repo"
    assert sent == {"token": "t", "private": True, "files": ["README.md", "config.json", "model.safetensors"]}


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingFileError, match=r"huggingface_hub is not installed. Run: pip install .gpen_plugin.hub."):
        local_path("hf:user/repo")
