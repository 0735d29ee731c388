"""Super-FAN: the generator in jzijin's names, and its critic."""

import re

import pytest
import torch
from helpers.small_networks import built, same, saved
from helpers.tiny_training import tiny_training

from gpen_plugin.baselines.superfan_arch import SuperFAN, SuperFANDiscriminator, reduce
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.nets.fan import FAN


def published_generator(width: int = 4) -> dict[str, torch.Tensor]:
    """A file as jzijin's, with narrow layers: a flat state dict, blocks [12, 3, 0]."""
    shapes = {"block1.0.weight": (width, 3, 9, 9), "block1.0.bias": (width,), "block1.1.weight": (1,)}
    norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,)) | {"num_batches_tracked": ()}
    for stage, count in (("res1", 12), ("res2", 3)):
        for block in range(count):
            for number in (1, 2):
                shapes |= {f"{stage}.{block}.conv{number}.weight": (width, width, 3, 3)}
                shapes |= {f"{stage}.{block}.conv{number}.bias": (width,)}
                shapes |= {f"{stage}.{block}.bn{number}.{name}": shape for name, shape in norm.items()}
    for stage in ("up1", "up2"):
        shapes |= {f"{stage}.0.{name}": shape for name, shape in norm.items()}
        shapes |= {f"{stage}.2.weight": (width, width, 4, 4), f"{stage}.2.bias": (width,)}
    shapes |= {"end.0.weight": (width, width, 3, 3), "end.0.bias": (width,)}
    shapes |= {"end.2.weight": (3, width, 3, 3), "end.2.bias": (3,)}
    return {name: torch.rand(shape) if shape else torch.tensor(7) for name, shape in shapes.items()}


def test_parameters_are_as_many_as_jzijins():
    with torch.device("meta"):
        nets = SuperFAN(blocks=[12, 3, 0]), SuperFANDiscriminator()
    counts = [sum(parameter.numel() for parameter in net.parameters()) / 1e6 for net in nets]
    assert counts == pytest.approx([1.30, 2.76], abs=0.005)


def test_published_file_loads_and_others_are_refused(tmp_path):
    content = published_generator()
    path = saved(tmp_path / "FAN_GAN_X4.pth", content)
    net = SuperFAN(num_feat=4, blocks=[12, 3, 0])
    assert checkpoint.load_into(net, path) == []
    assert same(net.state_dict(), content)
    with pytest.raises(CheckpointError, match=r"holds Super-FAN's generator of jzijin, blocks \[12, 3, 0\]; exp"):
        checkpoint.load_into(SuperFAN(num_feat=4), path)
    other = saved(tmp_path / "fan.pth", FAN(1, 16).state_dict())
    with pytest.raises(CheckpointError, match=re.escape("holds FAN, the landmark network; expected all tensors of")):
        checkpoint.load_into(net, other)


def test_result_is_four_times_the_input_or_out_size():
    with torch.no_grad():
        assert SuperFAN(num_feat=2, blocks=[1, 1, 1])(torch.rand(1, 3, 5, 7)).shape == (1, 3, 20, 28)
        assert SuperFAN(32, num_feat=2, blocks=[1, 1, 1])(torch.rand(1, 3, 5, 7)).shape == (1, 3, 32, 32)


def test_native_size_and_out_size_are_the_same_network():
    net = built(lambda: SuperFAN(32, num_feat=2, blocks=[1, 1, 1])).eval()
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    resized = net(image)
    net.out_size = None
    torch.testing.assert_close(net(reduce(image, 8)), resized)


def test_reduction_is_by_area():
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(reduce(image, 2), image.reshape(1, 3, 2, 4, 2, 4).mean((3, 5)))


def test_value_range_is_only_a_change_of_scale():
    nets = [
        built(lambda bounds=bounds: SuperFAN(value_range=bounds, num_feat=2, blocks=[1, 1, 1])).eval()
        for bounds in ((-1, 1), (0, 1))
    ]
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(nets[1](image), (nets[0](image * 2 - 1) + 1) / 2)


def test_critic_of_64_px_gives_one_value():
    assert SuperFANDiscriminator(2)(torch.rand(2, 3, 64, 64)).shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_size": 30}, "out_size: got 30; expected a multiple of 4"),
        ({"blocks": [12, 3]}, r"blocks: got \[12, 3\]; expected three numbers"),
        ({"num_feat": 0}, "num_feat: got 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(OptionError, match=message):
        SuperFAN(**arguments)


def test_tiny_training_with_heat_maps_and_gradient_penalty(rival_options, tmp_path):
    path = saved(tmp_path / "fan.pth", FAN(1, 16).state_dict())
    rival_options["network_g"] = {"type": "SuperFAN", "out_size": 64, "num_feat": 2, "blocks": [1, 1, 1]}
    rival_options["network_d"] = {"type": "SuperFANDiscriminator", "num_feat": 2}
    del rival_options["train"]["feature_matching_opt"]
    rival_options["train"] |= {
        "conditional_d": False,
        "content_only_iter": 1,
        "gp_weight": 10,
        "gan_opt": {"type": "GANLoss", "gan_type": "wgan", "loss_weight": 0.01},
        "pixel_opt": {"type": "MSELoss"},
        "heatmap_opt": {"type": "HeatmapLoss", "loss_weight": 0.005, "weights": str(path)},
    }
    model = tiny_training(rival_options, size=64)
    assert {"l_g_pix", "l_g_heatmap", "l_g_gan", "l_d_gp"} <= set(model.losses)
    low, high = (model.output.detach() + 1) / 2, (model.gt + 1) / 2
    assert model.loss_terms["heatmap"].loss(low, high) > 0
