"""FAN: sizes and names of face-alignment's network, its block against facexlib's, and the loss of its heat maps."""

import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import saved

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.losses import HeatmapLoss
from gpen_plugin.nets.fan import FAN, FANBlock, load_fan


def test_parameters_are_as_many_as_the_published():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in FAN().parameters()) / 1e6 == pytest.approx(23.8, abs=0.05)


def block_shapes(name: str, wide: int, wider: int) -> dict[str, tuple[int, ...]]:
    widths = [wide, wider // 2, wider // 4, wider // 4]
    shapes = {}
    for number in (1, 2, 3):
        shapes |= norm_shapes(f"{name}.bn{number}", widths[number - 1])
        shapes[f"{name}.conv{number}.weight"] = (widths[number], widths[number - 1], 3, 3)
    if wide != wider:
        shapes |= norm_shapes(f"{name}.downsample.0", wide) | {f"{name}.downsample.2.weight": (wider, wide, 1, 1)}
    return shapes


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{key}": (width,) for key in ("weight", "bias", "running_mean", "running_var")}


def published(stacks: int = 2, width: int = 16) -> dict[str, torch.Tensor]:
    """A file as 2DFAN4, with narrow layers and without `num_batches_tracked`, as that old file."""
    shapes = {"conv1.weight": (width // 4, 3, 7, 7), "conv1.bias": (width // 4,)} | norm_shapes("bn1", width // 4)
    for name, wide, wider in (("conv2", width // 4, width // 2), ("conv3", width // 2, width // 2)):
        shapes |= block_shapes(name, wide, wider)
    shapes |= block_shapes("conv4", width // 2, width)
    for i in range(stacks):
        for part in [f"b{k}_{level}" for level in (1, 2, 3, 4) for k in (1, 2, 3)] + ["b2_plus_1"]:
            shapes |= block_shapes(f"m{i}.{part}", width, width)
        shapes |= block_shapes(f"top_m_{i}", width, width) | norm_shapes(f"bn_end{i}", width)
        heads = {"conv_last": (width, width), "l": (68, width)}
        heads |= {"bl": (width, width), "al": (width, 68)} if i < stacks - 1 else {}
        for name, (wide, narrow) in heads.items():
            shapes |= {f"{name}{i}.weight": (wide, narrow, 1, 1), f"{name}{i}.bias": (wide,)}
    return {name: torch.rand(shape) for name, shape in shapes.items()}


def test_published_names_load(tmp_path):
    content = published()
    net = load_fan(str(saved(tmp_path / "2DFAN4.pth.tar", content)))
    own = net.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in content.items())
    assert net.stacks == 2
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_other_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"holds x, y, \.\.\.; expected the weights of FAN"):
        load_fan(str(saved(tmp_path / "other.pth", {"x": torch.ones(1), "y": torch.ones(1)})))
    for name, value in (("GPEN_PLUGIN_OFFLINE", "1"), ("XDG_CACHE_HOME", str(tmp_path)), ("TORCH_HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    with pytest.raises(MissingFileError, match="weights: 2DFAN4-11f355bf06"):
        HeatmapLoss()


@pytest.mark.parametrize("widths", [(8, 8), (8, 16)])
def test_block_is_facexlibs(widths):
    awing = pytest.importorskip("facexlib.alignment.awing_arch")
    ours, theirs = FANBlock(*widths).eval(), awing.ConvBlock(*widths).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, widths[0], 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_heatmap_loss_is_the_mean_squared_difference(tmp_path):
    path = str(saved(tmp_path / "fan.pth", FAN(2, 16).state_dict()))
    fake, real = torch.rand(2, 1, 3, 256, 256)
    fake.requires_grad_()
    net = load_fan(path)
    pairs = list(zip(net(fake), net(real), strict=True))
    distances = [F.mse_loss(one, other).item() for one, other in pairs]
    for stacks, expected in (("all", sum(distances) / 2), ("first", distances[0]), ("last", distances[1])):
        loss = HeatmapLoss(3.0, path, stacks)(fake, real)
        assert loss.item() == pytest.approx(3 * expected, rel=1e-5)
    loss.backward()
    assert fake.grad.abs().sum() > 0
    assert HeatmapLoss(1.0, path)(real, real).item() == 0


def test_unknown_stacks_are_refused():
    with pytest.raises(OptionError, match="stacks: got 'none'; expected all, first or last"):
        HeatmapLoss(stacks="none")
