"""The released models: what is known of them, how they are found, and what is said of their license."""

import dataclasses

import pytest
import torch
from helpers.published_folders import lonely_machine

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import to_authors
from gpen_plugin.checkpoints import download
from gpen_plugin.checkpoints.checkpoint import infer_spec, read
from gpen_plugin.checkpoints.download import cache_folder, find_local, find_weights
from gpen_plugin.errors import CheckpointError
from gpen_plugin.restore import zoo
from gpen_plugin.restore.zoo import RELEASED, get_released, print_license_once, suggest, weight_files

PUBLISHED_BYTES = {"GPEN-BFR-256": 75_573_183, "GPEN-BFR-512": 284_085_738}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return lonely_machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "name", ["GPEN-BFR-512", "gpen-bfr-512", "GPEN-BFR-512.pth", "gpen_bfr_512.onnx", "GPEN-BFR-512.safetensors"]
)
def test_spellings_of_names(name):
    assert get_released(name).name == "GPEN-BFR-512"


def test_modelscopes_names():
    assert get_released("pytorch_model-2048.pt").name == "GPEN-BFR-2048"
    assert get_released("pytorch_model.pt") is None  # its 512 px model is called so, too


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("GPEN-BFR-521", "GPEN-BFR-512"),
        ("gpen512", "GPEN-BFR-512"),
        ("GPEN-BRF-2048.pth", "GPEN-BFR-2048"),
        ("GPEN-Colourisation-1024", "GPEN-Colorization-1024"),
        ("seg2face", "GPEN-Seg2face-512"),
        ("net_g_latest.pth", None),
        ("", None),
    ],
)
def test_the_nearest_name(given, meant):
    assert get_released(given) is None
    assert suggest(given) == meant


def test_conventions_that_differ():
    conventions = {name: dataclasses.astuple(model.conventions) for name, model in RELEASED.items()}
    assert conventions["gpen-bfr-256"] == ((-1, 1), "restore", "arcface", 1)
    assert conventions["gpen-bfr-512"] == conventions["gpen-bfr-1024"] == ((-1, 1), "restore", "ffhq", 1)
    assert conventions["gpen-bfr-2048"] == ((-1, 1), "restore", "ffhq", 0.8)
    assert conventions["gpen-colorization-1024"] == ((-1, 1), "colorize", "ffhq", 1)
    assert conventions["gpen-inpainting-1024"] == ((-1, 1), "inpaint", "ffhq", 1)
    assert conventions["gpen-seg2face-512"] == ((0, 1), "seg2face", "ffhq", 1)


@pytest.mark.parametrize("name", RELEASED)
def test_models_have_their_sizes(name):
    """Built on the meta device, described by its shapes: what `check` will say of the true file."""
    model, other = RELEASED[name], RELEASED["gpen-bfr-2048" if "2048" not in name else "gpen-bfr-256"]
    with torch.device("meta"):
        widths = {"channel_multiplier": model.channel_multiplier, "narrow": model.narrow}
        if model.kind == "GPEN":
            net = GPEN(model.out_size, num_style_feat=model.num_style_feat, num_mlp=model.num_mlp, **widths)
        else:
            net = GPENDiscriminator(model.out_size, **widths)
    spec = infer_spec(net.state_dict())
    model.check(spec, "file")
    with pytest.raises(
        CheckpointError, match=f"^file: holds {model.kind} {model.out_size} px.* expected .*{other.name}"
    ):
        other.check(spec, "file")


@pytest.mark.parametrize("name", PUBLISHED_BYTES)
def test_published_files_have_the_right_size(name):
    """A file is its tensors and about 400 bytes for each of them."""
    model = get_released(name)
    with torch.device("meta"):
        net = GPEN(model.out_size, channel_multiplier=model.channel_multiplier, narrow=model.narrow)
    tensors = to_authors(net.state_dict(), (1, 3, 3, 1)).values()
    beyond = PUBLISHED_BYTES[name] - sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert 300 < beyond / len(tensors) < 500


@pytest.mark.parametrize("name", [name for name, model in RELEASED.items() if model.is_ours])
def test_included_weights_are_valid_and_small(name):
    """On a machine that has nothing else, and what a network's file may weigh in a repository."""
    model = RELEASED[name]
    path = find_weights(model.file)
    assert path.parent == download.PACKAGE
    assert path.stat().st_size < 16 * 2**20
    state = read(path)
    model.check(infer_spec(state), "file")
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}


def test_user_file_has_precedence(folder):
    file = RELEASED[zoo.DEFAULT.lower()].file
    (folder / file.name).write_bytes(b"x")
    assert find_local(file) == folder / file.name


def test_files_have_a_digest_or_are_not_downloaded():
    files = weight_files()
    assert len(files) == len({file.name for file in files}) == 9
    for file in files:
        assert file.sha256 is None or len(file.sha256) == 64
        assert file.url.startswith("https://")
        if zoo.PUBLISHED_AT in file.url:
            assert file.url == f"{zoo.PUBLISHED_AT}/{file.name}"


@pytest.mark.parametrize(
    ("name", "here"), [("GPEN-BFR-1024", "pytorch_model.pt"), ("GPEN-BFR-2048", "pytorch_model-2048.pt")]
)
def test_files_under_other_names_are_found(folder, name, here):
    file = get_released(name).file
    assert find_local(file) is None
    with pytest.raises(
        FileNotFoundError, match=rf"from {zoo.MODELSCOPE} and put it into \S+ as {file.name} or {here},"
    ):
        find_weights(file)
    (folder / here).write_bytes(b"x")
    assert find_local(file) == folder / here
    cache_folder().mkdir(parents=True)
    (cache_folder() / file.name).write_bytes(b"x")
    assert find_local(file) == cache_folder() / file.name  # its own name, though in a later folder


def test_license_note_is_printed_once(capsys):
    for _ in range(3):
        print_license_once()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{zoo.LICENSE}\n"
    assert [path.name for path in cache_folder().iterdir()] == [zoo.LICENSE_SHOWN]


def test_one_of_two_processes_prints_the_license_note(capsys, monkeypatch):
    print_license_once()
    monkeypatch.setattr(zoo.osp, "exists", lambda path: False)  # both checked before either had written
    print_license_once()
    assert capsys.readouterr().err.count(zoo.LICENSE) == 1


def test_license_note_is_repeated_without_a_cache(capsys, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    for _ in range(2):
        print_license_once()
    assert capsys.readouterr().err.count(zoo.LICENSE) == 2


def test_find_local_downloads_nothing(monkeypatch):
    monkeypatch.delenv(download.OFFLINE)
    monkeypatch.setattr(download, "_download", lambda *_: pytest.fail("downloaded"))
    assert [find_local(file) for file in weight_files()] == [None] * 9
