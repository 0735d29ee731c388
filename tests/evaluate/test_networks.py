"""Any network as a method."""

import json
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from helpers.faces_to_restore import degraded, method
from helpers.small_networks import NETWORKS, SMALL, built, saved
from torch import nn

from gpen_plugin.baselines.method import seeded
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.errors import CheckpointError, DataError, GPENError, OptionError, ShapeError


class Several(NamedTuple):
    features: torch.Tensor
    image: torch.Tensor


class Echo(nn.Module):
    """Gives back what it is given, wrapped as `answer` says, `scale` times as large, plus `bias`."""

    def __init__(self, answer: str = "tensor", scale: int = 1):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("calls", torch.zeros(()))
        self.answer, self.scale, self.seen = answer, scale, []

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> object:
        self.seen.append(x.clone())
        if self.training:
            self.calls += 1
        out = nn.functional.interpolate(x, scale_factor=self.scale) * gain + self.bias + self.calls
        return {
            "tensor": out,
            "noisy": out + torch.randn_like(out),
            "broken": out * float("nan"),
            "gray": out[:, :1],
            "tuple": (None, out),
            "dict": {"main_dec": out, "loss": 0.0},
            "named": Several(out[:, :1], out),
        }[self.answer]


ECHO = {"type": "arch", "network": {"type": f"{__name__}.Echo"}, "weights": "random", "value_range": [0, 1]}


def echo(answer: str = "tensor", scale: int = 1, **more):
    network = {"type": ECHO["network"]["type"], "answer": answer, "scale": scale}
    return method({**ECHO, "network": network, **more})


@pytest.mark.parametrize("value_range", [[0, 1], [-1, 1], [0, 255]])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_value_range_and_channel_order_are_applied(value_range, channels):
    restore, sample = echo(value_range=value_range, channels=channels, input_size="native"), degraded(size=12)
    np.testing.assert_array_equal(restore(sample), sample.lq)
    (seen,) = restore.net.seen
    low, high = value_range
    planes = sample.lq if channels == "bgr" else sample.lq[..., ::-1]
    expected = torch.from_numpy(planes.transpose(2, 0, 1) / 255 * (high - low) + low).float()
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize(("input_size", "side"), [(None, 64), (32, 32), ("native", 12)])
@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_input_size_and_interpolation(input_size, side, resize):
    restore, sample = echo(input_size=input_size, resize=resize), degraded()
    assert restore(sample).shape == (64, 64, 3)
    flag = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[resize]
    expected = cv2.resize(sample.lq / np.float32(255), (side, side), interpolation=flag).clip(0, 1)[..., ::-1]
    np.testing.assert_allclose(restore.net.seen[0][0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_native_input_output_is_resized_to_ground_truth():
    restore = echo(scale=4, input_size="native")
    assert restore(degraded(size=64)).shape == (64, 64, 3)
    assert "resized where the results are of another size" in restore.description
    sample = degraded(size=24)
    expected = cv2.resize(sample.lq.repeat(4, 0).repeat(4, 1), (24, 24), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(echo(scale=4, input_size="native")(sample), expected)


@pytest.mark.parametrize(
    ("answer", "output"), [("tuple", 1), ("tuple", -1), ("dict", "main_dec"), ("named", "image"), ("named", 1)]
)
def test_output_leads_to_the_image(answer, output):
    sample = degraded(size=12)
    np.testing.assert_array_equal(echo(answer, output=output)(sample), sample.lq)


@pytest.mark.parametrize(
    ("answer", "output", "message"),
    [
        ("tuple", None, r"a tuple of 0: NoneType, 1: tensor \(1, 3, 12, 12\); expected the index, key or attribute"),
        ("tuple", 2, r"and output is 2"),
        ("dict", None, r"a dict of main_dec: tensor \(1, 3, 12, 12\), loss: float"),
        ("dict", "loss", r"and output is loss"),
        ("dict", "main", r"and output is main"),
        ("named", None, r"a Several of features: tensor \(1, 1, 12, 12\), image: tensor"),
        ("tensor", "shape", r"a tensor \(1, 3, 12, 12\), and output is shape"),
    ],
)
def test_output_that_is_no_image_is_described(answer, output, message):
    with pytest.raises(OptionError, match=message):
        echo(answer, output=output)(degraded(size=12))


def test_gray_and_broken_results_are_failures():
    with pytest.raises(ShapeError, match=r"a tensor \(1, 1, 12, 12\); expected an image"):
        echo("gray")(degraded(size=12))
    with pytest.raises(DataError, match=r"folder/0: .*no numbers"):
        echo("broken")(degraded(size=12))


def test_random_numbers_depend_on_seed_key_and_condition():
    restore = echo("noisy")
    first = restore(degraded(0))
    torch.manual_seed(123)
    np.testing.assert_array_equal(restore(degraded(0)), first)
    np.testing.assert_array_equal(echo("noisy")(degraded(0)), first)
    for sample in (degraded(1), degraded(0, condition="8x")):
        sample.lq[:] = degraded(0).lq
        assert (restore(sample) != first).any()
    assert (echo("noisy", seed=1)(degraded(0)) != first).any()


def test_training_mode_leaves_no_trace():
    restore, sample = echo(mode="train", value_range=[0, 255]), degraded(size=12)
    expected = np.minimum(sample.lq.astype(int) + 1, 255)  # one call in training mode
    for _ in range(2):
        np.testing.assert_array_equal(restore(sample), expected)
    assert restore.net.calls == 0
    np.testing.assert_array_equal(echo(value_range=[0, 255])(sample), sample.lq)


def test_arguments_reach_forward():
    sample = degraded(size=12)
    np.testing.assert_array_equal(echo(arguments={"gain": 0.0})(sample), np.zeros_like(sample.lq))
    with pytest.raises(OptionError, match=r"methods:M:arguments:gian: unknown key.*Did you mean 'gain'\?"):
        echo(arguments={"gian": 0.0})


@pytest.mark.parametrize("entry", ["params_ema", "params", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_found_under_the_usual_keys(tmp_path, entry, prefix):
    state = {f"{prefix}bias": torch.full((1,), 0.2), f"{prefix}calls": torch.zeros(())}
    path = saved(tmp_path / "net.pth", state if entry is None else {entry: state})
    sample = degraded(size=12)
    expected = np.rint((sample.lq / 255 + 0.2).clip(0, 1) * 255)
    restore = echo(weights=str(path))
    assert np.abs(restore(sample) - expected).max() <= 1
    assert "net.pth (sha256 " in restore.description
    assert len(restore.identity["weights"]) == 64


def test_strict_load_lists_differing_tensors(tmp_path):
    path = str(saved(tmp_path / "net.pth", {"params": {"bias": torch.ones(1), "weight": torch.ones(2, 3)}}))
    with pytest.raises(CheckpointError, match=r"methods:M:weights: .*calls is missing; weight is not of this network"):
        echo(weights=path)
    restore = echo(weights=path, strict_load=False)
    assert restore.net.bias == 1
    assert "lacks 1 of the network's tensors" in restore.description
    saved(tmp_path / "net.pth", {"params": {"bias": torch.ones(2)}})
    with pytest.raises(CheckpointError, match=r"bias is \(2,\), not \(1,\)"):
        echo(weights=path, strict_load=False)


class Harmful:
    def __reduce__(self):
        return print, ("code ran",)


def test_files_with_code_are_refused(tmp_path, capsys):
    path = saved(tmp_path / "net.pth", {"params": Harmful()})
    with pytest.raises(CheckpointError, match="holds code besides weights"):
        echo(weights=str(path))
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"network": {"type": "GPENN"}}, r"methods:M:network:type: got 'GPENN'.*Did you mean 'GPEN'\?.*imports"),
        ({"network": {}}, r"methods:M:network:type: missing"),
        ({"network": {"type": "no_such_package.Net"}}, r"network:type: .*Run: pip install no_such_package"),
        ({"network": {"type": "gpen_plugin.archs.Nothing"}}, r"gpen_plugin\.archs has no network Nothing"),
        ({"network": {"type": "collections.OrderedDict"}}, r"network:type: collections has no network OrderedDict"),
        ({"imports": ["no_such_package"]}, r"methods:M:imports: .*Run: pip install no_such_package"),
        ({"network": {**ECHO["network"], "anwser": 1}}, r"network:anwser: unknown key.*Did you mean 'answer'\?"),
        ({"network": {**ECHO["network"], "scale": "x"}}, r"network:scale: got 'x'"),
        ({"network": {"type": "MSRResNet", "upscale": 0, "num_feat": "a"}}, r"MSRResNet cannot be built \(TypeError"),
        ({"value_range": [1, 0]}, r"methods:M:value_range: got \[1, 0\]"),
        ({"value_range": [0, float("inf")]}, r"methods:M:value_range: got \[0, inf\]"),
        ({"arguments": {"x": 1}}, r"methods:M:arguments:x: unknown key.*one of gain"),
        ({"network": {"type": "MSRResNet"}, "arguments": {"w": 1}}, r"arguments:w: MSRResNet takes the image alone"),
        ({"value_range": None}, r"methods:M:value_range: got None"),
        ({"input_size": 0}, r"methods:M:input_size: got 0"),
        ({"input_size": "natve"}, r"methods:M:input_size: got 'natve'"),
        ({"mode": "test"}, r"methods:M:mode: got 'test'"),
        ({"channel": "bgr"}, r"methods:M:channel: unknown key.*Did you mean 'channels'\?"),
    ],
)
def test_wrong_arch_entries_are_reported_by_key(more, message):
    with pytest.raises(GPENError, match=message):
        method({**ECHO, **more})


def test_host_arch_that_enlarges_by_itself():
    network = {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 4}
    restore = method({**ECHO, "network": network, "input_size": "native"})
    assert restore(degraded(size=48)).shape == (48, 48, 3)
    assert "MSRResNet (num_feat 4, num_block 1, upscale 4)" in restore.description
    assert "RANDOM WEIGHTS" in restore.description


def test_arch_loads_the_authors_layout(tmp_path):
    net = built(NETWORKS["GPEN concat"])
    path = saved(tmp_path / "released.pth", to_layout(net.state_dict(), "authors"))
    entry = {"type": "arch", "network": {"type": "GPEN", "out_size": 32, **SMALL}, "value_range": [-1, 1]}
    sample = degraded(size=32)
    same = method({"type": "gpen", "weights": str(path)})(sample)
    np.testing.assert_array_equal(method({**entry, "weights": str(path)})(sample), same)


def test_identity_contains_all_options_and_no_path(tmp_path):
    first = echo()
    for more in ({"seed": 1}, {"resize": "bicubic"}, {"output": 1}, {"arguments": {"gain": 2.0}}, {"mode": "train"}):
        assert echo(**more).identity != first.identity
    path = saved(tmp_path / "net.pth", {"bias": torch.zeros(1), "calls": torch.zeros(())})
    found = echo(weights=str(path)).identity
    assert str(tmp_path) not in json.dumps(found)
    saved(tmp_path / "net.pth", {"bias": torch.ones(1), "calls": torch.zeros(())})
    assert echo(weights=str(path)).identity != found


def test_seeded_restores_settings_and_rng():
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    state = torch.get_rng_state()
    draws = []
    for parts in ((0, "a"), (0, "a"), (0, "b")):
        with seeded(torch.device("cpu"), *parts):
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cuda.matmul.allow_tf32
            draws.append(float(torch.rand(())))
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), state)
    after = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    assert after == before


def test_basicsr_suffix_is_found():
    """`register(suffix='basicsr')`: BasicSR finds SRVGGNetCompact_basicsr under the shorter name, too."""
    section = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 1}
    restored = method({**ECHO, "network": section})(degraded(size=8))
    assert restored.shape == (8, 8, 3)
