"""AdaFace's published layout: names and shapes of IR-50 and IR-101, and the forward pass against functions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpen_plugin.archs.adaface_arch import AdaFace
from gpen_plugin.checkpoints.download import read_weights
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.metrics.identity import calculate_identity
from gpen_plugin.nets import arcface
from gpen_plugin.nets.face_templates import FFHQ

TINY = {"num_layers": 18, "in_size": 16, "num_feat": 2, "num_embedding": 5}


def published_shapes(units: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes in adaface_ir50_ms1mv2.ckpt and its relatives, without prefix and running counts."""

    def norm(name: str, width: int, affine: bool = True) -> dict:
        parts = (["weight", "bias"] if affine else []) + ["running_mean", "running_var"]
        return {f"{name}.{part}": (width,) for part in parts}

    shapes = {"input_layer.0.weight": (64, 3, 3, 3), **norm("input_layer.1", 64), "input_layer.2.weight": (64,)}
    wide, number = 64, 0
    for wider, count in zip((64, 128, 256, 512), units, strict=True):
        for _ in range(count):
            body = f"body.{number}"
            if wide != wider:
                shapes |= {
                    f"{body}.shortcut_layer.0.weight": (wider, wide, 1, 1),
                    **norm(f"{body}.shortcut_layer.1", wider),
                }
            shapes |= {**norm(f"{body}.res_layer.0", wide), f"{body}.res_layer.1.weight": (wider, wide, 3, 3)}
            shapes |= {**norm(f"{body}.res_layer.2", wider), f"{body}.res_layer.3.weight": (wider,)}
            shapes |= {f"{body}.res_layer.4.weight": (wider, wider, 3, 3), **norm(f"{body}.res_layer.5", wider)}
            wide, number = wider, number + 1
    shapes |= {**norm("output_layer.0", 512), "output_layer.3.weight": (512, 512 * 49), "output_layer.3.bias": (512,)}
    return shapes | norm("output_layer.4", 512, affine=False)


@pytest.mark.parametrize(("layers", "units"), [(50, (3, 4, 14, 3)), (101, (3, 13, 30, 3))])
def test_layout_is_the_published_one(layers, units):
    with torch.device("meta"):
        state = AdaFace(layers).state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert found == published_shapes(units)


@pytest.fixture
def network() -> AdaFace:
    generator = torch.Generator().manual_seed(0)
    net = AdaFace(**TINY).eval()
    for name, tensor in net.state_dict().items():
        if tensor.ndim > 1:  # convolutions and the linear layer keep the variance
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
        elif tensor.is_floating_point():
            center = 0.0 if name.endswith(("bias", "mean")) else 1.0
            tensor.copy_(center + torch.rand(tensor.shape, generator=generator) / 4)
    return net


def reference(state: dict, x: torch.Tensor) -> torch.Tensor:
    """IR-18 as functions: each level halves in its first unit; a convolution is the shortcut where channels change."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state.get(f"{name}.weight"), state.get(f"{name}.bias"))

    x = norm("input_layer.1", F.conv2d(x, state["input_layer.0.weight"], padding=1))
    x = F.prelu(x, state["input_layer.2.weight"])
    for number in range(8):
        stride, body = 2 - number % 2, f"body.{number}"
        short = x[:, :, ::stride, ::stride]
        if f"{body}.shortcut_layer.0.weight" in state:
            short = norm(f"{body}.shortcut_layer.1", F.conv2d(short, state[f"{body}.shortcut_layer.0.weight"]))
        inner = F.conv2d(norm(f"{body}.res_layer.0", x), state[f"{body}.res_layer.1.weight"], padding=1)
        inner = F.prelu(norm(f"{body}.res_layer.2", inner), state[f"{body}.res_layer.3.weight"])
        inner = F.conv2d(inner, state[f"{body}.res_layer.4.weight"], stride=stride, padding=1)
        x = norm(f"{body}.res_layer.5", inner) + short
    x = F.linear(norm("output_layer.0", x).flatten(1), state["output_layer.3.weight"], state["output_layer.3.bias"])
    x = norm("output_layer.4", x)
    return x / x.norm(dim=1, keepdim=True)


def test_forward_is_that_of_the_functions(network):
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        found = network(x)
    assert found.shape == (2, 5)
    torch.testing.assert_close(found, reference(network.state_dict(), x), rtol=1e-4, atol=1e-5)


class Trainer:
    """Stands in a checkpoint for the objects of pytorch_lightning."""

    def __reduce__(self):
        return (_fail, ("this code must not run",))


def _fail(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def weights(network, tmp_path) -> str:
    """A file like the published ones: the network below `model.`, the head, and objects of the trainer."""
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    content = {"state_dict": {**state, "head.kernel": torch.zeros(5, 9)}, "callbacks": {Trainer: Trainer()}, "epoch": 1}
    torch.save(content, tmp_path / "adaface.ckpt")
    return str(tmp_path / "adaface.ckpt")


def test_published_file_loads_and_runs_no_code(weights):
    with pytest.raises(CheckpointError, match="not safe to read"):
        read_weights(weights)
    one, other = (np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8) for seed in range(2))
    options = {"network": {"type": "AdaFace", **TINY}, "weights": weights, "input_size": 16, "device": "cpu"}
    found = calculate_identity(one, other, **options)
    state = arcface.load_recognizer(options["network"], weights).state_dict()
    inputs = [torch.from_numpy(image.transpose(2, 0, 1)[None] / 127.5 - 1).float() for image in (one, other)]  # BGR
    expected = torch.cosine_similarity(*(reference(state, x) for x in inputs)).item()
    assert found == pytest.approx(expected, abs=1e-4)
    assert calculate_identity(one, other, **options, channels="rgb") != pytest.approx(expected, abs=1e-4)


def test_face_is_aligned_by_its_landmarks(weights):
    image, other = (np.random.default_rng(seed).integers(0, 256, (512, 512, 3), np.uint8) for seed in (2, 3))
    options = {"network": {"type": "AdaFace", **TINY}, "weights": weights, "input_size": 16, "device": "cpu"}
    options["align"] = "landmarks"
    assert calculate_identity(image, image, **options, landmarks=FFHQ) == pytest.approx(1)
    here, there = (calculate_identity(image, other, **options, landmarks=points) for points in (FFHQ, FFHQ + 60))
    assert here != pytest.approx(there, abs=1e-3)
    with pytest.raises(OptionError, match="align: got landmarks, and there are none for this face"):
        calculate_identity(image, image, **options)


@pytest.mark.parametrize(("options", "message"), [({"num_layers": 20}, "num_layers"), ({"in_size": 100}, "in_size")])
def test_wrong_sizes_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        AdaFace(**options)
