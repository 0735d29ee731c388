"""Networks by name and by file: the right one, fed and read as it was trained, or a message that says what is wrong."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.published_folders import lonely_machine
from helpers.small_networks import NETWORKS, SMALL, built, saved, weights
from helpers.thread_counts import torch_threads

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import to_authors
from gpen_plugin.archs.stylegan1_prior_arch import StyleGAN1Prior
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.checkpoints.download import WeightFile
from gpen_plugin.checkpoints.metadata import Conventions
from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.errors import CheckpointError, DataError, MissingFileError, ShapeError
from gpen_plugin.restore import zoo
from gpen_plugin.restore.network import FaceNetwork, load, open_network
from gpen_plugin.restore.zoo import DEFAULT, ReleasedModel

GPENS = [name for name in NETWORKS if name.startswith("GPEN ")]
RELEASED_SMALL = ReleasedModel(
    WeightFile("GPEN-Small-64.pth", "a test's", "https://not.there", None, ("small.pt",)),
    64,
    channel_multiplier=1,
    narrow=0.04,
    conventions=Conventions((0, 1), "seg2face", "arcface", 0.5),
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return lonely_machine(tmp_path, monkeypatch)


@pytest.fixture
def small(monkeypatch) -> ReleasedModel:
    """A released model that is small."""
    monkeypatch.setitem(zoo.RELEASED, "gpen-small-64", RELEASED_SMALL)
    return RELEASED_SMALL


def face(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def by_hand(net: GPEN, image: np.ndarray, low: float = -1, high: float = 1) -> np.ndarray:
    """The network on one image of its input's size, without any code of the package but the network."""
    lq = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None] * (high - low) + low
    with torch.no_grad():
        out = ((net.eval()(lq)[0] - low) / (high - low)).clamp(0, 1)
    return out.permute(1, 2, 0).numpy()[..., ::-1]


def opened(path, **arguments) -> FaceNetwork:
    return open_network(path, device="cpu", **arguments)


@pytest.mark.parametrize("name", GPENS)
def test_default_is_the_averaged_network_on_rgb(name, tmp_path):
    net = built(NETWORKS[name])
    path = saved(tmp_path / "net_g.pth", {"params": weights(NETWORKS[name], 1), "params_ema": net.state_dict()})
    network, image = opened(path), face(0, net.in_size, net.in_size)
    (restored,) = network([image])
    assert restored.dtype == np.float32
    assert np.abs(restored - by_hand(net, image)).max() < 1e-5
    assert (network.in_size, network.out_size) == (net.in_size, net.out_size)
    assert (network.template, network.alpha, network.task) == ("ffhq", 1, "restore")
    assert network.description.startswith(f"GPEN {net.out_size} px")
    assert network.description.endswith("net_g.pth; fp32 on cpu")
    assert isinstance(network, FaceNetwork)
    assert not isinstance(str(path), FaceNetwork)


def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    """PyTorch computes some convolutions by other libraries in one thread than in several."""
    torch.manual_seed(0)
    net = GPEN(128, in_size=64, num_style_feat=16, num_mlp=2, narrow=0.25).eval()
    path = saved(tmp_path / "net_g.pth", {"params_ema": net.state_dict()})
    results = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            results.append(opened(path)([face(0, 64, 64)])[0])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_key_chooses(tmp_path):
    states = [weights(NETWORKS["GPEN concat"], seed) for seed in (1, 2)]
    path = saved(tmp_path / "net_g.pth", dict(zip(("params", "params_ema"), states, strict=True)))
    default, average, raw = (opened(path, key=key)([face(0)])[0] for key in (None, "params_ema", "params"))
    np.testing.assert_array_equal(default, average)
    assert np.abs(raw - average).max() > 0.01


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", GPENS)
def test_batch_equals_single_faces(name, threads, tmp_path):
    network = opened(saved(tmp_path / "net_g.pth", weights(NETWORKS[name])))
    faces = [face(0), face(1, 40, 20), face(2, 1, 1)]
    singly = [network([each])[0] for each in faces]
    with torch_threads(threads):
        batch = network(faces)
    for alone, together in zip(singly, batch, strict=True):
        assert together.shape == (network.out_size, network.out_size, 3)
        assert np.abs(alone - together).max() < 1e-5
    assert network([]) == []


def test_a_face_of_another_size_is_resized_as_in_training(tmp_path):
    network = opened(saved(tmp_path / "net_g.pth", weights(NETWORKS["GPEN concat"])))
    np.testing.assert_array_equal(network([face(0, 50, 9)]), network([resize_bilinear(face(0, 50, 9), 32)]))


def test_wrong_face_array_is_refused(tmp_path):
    network = opened(saved(tmp_path / "net_g.pth", weights(NETWORKS["GPEN concat"])))
    with pytest.raises(ShapeError, match=r"got \(16, 16, 3\) uint8"):
        network([face(0), np.zeros((16, 16, 3), np.uint8)])


def test_output_is_clipped(tmp_path):
    net = built(NETWORKS["GPEN concat"])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "to_rgb" in name:
                parameter.mul_(50)
    (restored,) = opened(saved(tmp_path / "net_g.pth", net.state_dict()))([face(0)])
    assert (restored.min(), restored.max()) == (0, 1)


def test_released_layout(tmp_path):
    net = built(lambda: GPEN(32, narrow=0.03125))
    path = saved(tmp_path / "released.pth", to_authors(net.state_dict(), (1, 3, 3, 1)))
    image = face(0, 32, 32)
    assert np.abs(opened(path)([image])[0] - by_hand(net, image)).max() < 1e-5


def test_bf16_is_near_and_not_the_same(tmp_path):
    path = saved(tmp_path / "net_g.pth", weights(NETWORKS["GPEN concat"]))
    whole, half = opened(path), opened(path, precision="bf16")
    error = np.abs(whole([face(0)])[0] - half([face(0)])[0])
    assert 0 < error.mean() < 0.01
    assert half.description.endswith("bf16 on cpu")


def test_to_tensor_net_and_to_faces_equal_a_call(tmp_path):
    """What varies the network's inside needs the way in and the way out."""
    network = opened(saved(tmp_path / "net_g.pth", weights(NETWORKS["GPEN concat"])))
    faces = [face(0), face(1)]
    tensor = network.to_tensor(faces)
    assert tensor.shape == (2, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(network.to_faces(network.net(tensor)), network(faces), atol=1e-5)


def test_infinite_outputs_are_an_error(tmp_path):
    net = built(NETWORKS["GPEN concat"])
    with torch.no_grad():
        net.encoder.to_z.weight.fill_(float("inf"))
    network = opened(saved(tmp_path / "net_g.pth", net.state_dict()))
    with pytest.raises(
        DataError, match=r"^GPEN 32 px.*net_g.pth; fp32 on cpu: gave values that are not finite for 1 of"
    ):
        network([face(0)])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GPENPrior concat", "gpen-sample generates faces with it. To restore faces, name a net_g"),
        ("GPENDiscriminator", "It is for training only. To restore faces, name a net_g"),
    ],
)
def test_another_network_is_refused_by_name(name, hint, tmp_path):
    path = saved(tmp_path / "net.pth", weights(NETWORKS[name]))
    expected = rf"^{path}: holds {name.split()[0]} 32 px.*; expected a whole GPEN, encoder and decoder\. {hint}"
    with pytest.raises(CheckpointError, match=expected):
        opened(path)


def test_a_program_of_gpen_export_is_refused_by_its_suffix(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"whatever")
    with pytest.raises(
        CheckpointError, match=r"model.pt2: is a program .*; expected weights or ONNX\. Name the weights"
    ):
        opened(tmp_path / "model.pt2")


def test_missing_tensor_and_other_filter_are_errors(tmp_path):
    state = weights(NETWORKS["GPEN concat"])
    del state["decoder.blocks.8.conv0.bias"]
    with pytest.raises(CheckpointError, match=r"decoder.blocks.8.conv0.bias is missing"):
        opened(saved(tmp_path / "lacks.pth", state))
    net = GPEN(32, resample_kernel=(1, 2, 1), **SMALL)
    with pytest.raises(CheckpointError, match=r"another FIR filter"):
        opened(saved(tmp_path / "filter.pth", to_authors(net.state_dict(), (1, 2, 1))))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "nowhere/net_g.pth",
            r"^nowhere/net_g.pth: there is no such file; expected a weight file, or one of GPEN-Faces",
        ),
        ("GPEN-BFR-521", r"there is no such file; .*GPEN-Seg2face-512\. Did you mean GPEN-BFR-512\?"),
        ("models/GPEN-BFR-512.pth", r"there is no such file; .*Did you mean GPEN-BFR-512\?"),
        ("GPEN-BFR-512.onnx", r"^GPEN-BFR-512.onnx: there is no such file"),
        ("gpen-bfr-512-d", r"is a GPENDiscriminator 512 px.*; expected a whole GPEN.* It is for training only"),
        (".", r"^\.: is a folder"),
        ("x" * 5000, "there is no such file"),
    ],
)
def test_unknown_models_are_refused(model, message):
    with pytest.raises(CheckpointError, match=message):
        opened(model)


@pytest.mark.parametrize("model", ["GPEN-BFR-512", "gpen-bfr-512.pth"])
def test_a_released_model_that_is_not_here(model):
    expected = r"GPEN-BFR-512.pth \(restores faces, 512 px\) is not on this machine, and .*Get it from https://.* into "
    with pytest.raises(MissingFileError, match=expected):
        opened(model)


@pytest.mark.parametrize(("here", "model"), [("GPEN-Small-64.pth", "GPEN-Small-64"), ("small.pt", "gpen_small_64.pth")])
def test_released_model_has_its_conventions(here, model, small, folder, capsys):
    net = built(lambda: GPEN(64, channel_multiplier=1, narrow=0.04))
    saved(folder / here, to_authors(net.state_dict(), (1, 3, 3, 1)))
    network, image = opened(model), face(0, 64, 64)
    assert (network.template, network.alpha, network.task) == ("arcface", 0.5, "seg2face")
    assert np.abs(network([image])[0] - by_hand(net, image, 0, 1)).max() < 1e-5
    assert capsys.readouterr().err == f"{zoo.LICENSE}\n"
    opened(folder / here)
    assert capsys.readouterr().err == ""


def test_path_with_a_released_name_has_its_conventions(small, tmp_path, capsys):
    net = built(lambda: GPEN(64, channel_multiplier=1, narrow=0.04))
    assert opened(saved(tmp_path / "gpen-small-64.pth", net.state_dict())).task == "seg2face"
    assert zoo.LICENSE in capsys.readouterr().err
    assert opened(saved(tmp_path / "mine.pth", net.state_dict())).task == "restore"
    assert capsys.readouterr().err == ""


def test_a_released_name_on_something_else(small, folder, capsys):
    path = saved(folder / "GPEN-Small-64.pth", weights(lambda: GPEN(16, **SMALL)))
    expected = rf"^{path}: holds GPEN 16 px.*; expected GPEN 64 px.*, as GPEN-Small-64 is\..*rename it"
    with pytest.raises(CheckpointError, match=expected):
        opened("GPEN-Small-64")
    assert zoo.LICENSE not in capsys.readouterr().err


def test_the_true_architecture(folder):
    """GPEN-BFR-256 as it was released, but for what its tensors hold."""
    net = GPEN(256, channel_multiplier=1, narrow=0.5)
    saved(folder / "GPEN-BFR-256.pth", to_authors(net.state_dict(), (1, 3, 3, 1)))
    network, image = opened("GPEN-BFR-256"), face(0, 256, 256)
    assert network.template == "arcface"
    assert np.abs(network([image])[0] - by_hand(net, image)).max() < 1e-4


CODES = {"num_style_feat": 16, "num_mlp": 2}


@pytest.mark.parametrize(
    ("make", "layout"),
    [
        (partial(GPEN, **CODES), "authors"),
        (partial(GPENPrior, noise_mode="add", **CODES), "stylegan2"),
        (GPENDiscriminator, "authors"),
        (partial(StyleGAN1Prior, **CODES), "ours"),
    ],
)
def test_load_gives_any_network_of_any_layout(tmp_path, make, layout):
    net = make(32, narrow=0.0625)
    torch.save({"params_ema": to_layout(net.state_dict(), layout)}, tmp_path / "net.pth")
    loaded = load(tmp_path / "net.pth")
    assert type(loaded) is type(net)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.state_dict().keys() == net.state_dict().keys()
    for key, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_load_takes_released_names():
    assert isinstance(load(f"{DEFAULT}-D"), GPENDiscriminator)
    with pytest.raises(CheckpointError, match=r"GPEN-BFR-521: there is no such file; .*GPEN-BFR-512-D"):
        load("GPEN-BFR-521")
