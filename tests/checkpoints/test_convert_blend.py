import pytest
import torch
from helpers.small_networks import NETWORKS, discriminator_weights, same, saved, weights

from gpen_plugin.cli.convert import main


def blend(one, other, target, *more):
    return main([str(one), "-o", str(target), "--to", "ours", "--blend", str(other), *map(str, more)])


def assert_between(blended, one, other, weight):
    """`blended` is (1 - weight) * one + weight * other.

    The roundings of torch.lerp add up to eps / 2 * (1 + 2 * weight) times the larger value, for weights up to 0.5;
    the bound is three times that, with the sum in place of the larger.
    """
    exact = (1 - weight) * one.double() + weight * other.double()
    bound = 3 * torch.finfo(torch.float32).eps * (one.abs() + other.abs())
    assert blended.dtype == torch.float32
    assert ((blended - exact).abs() <= bound).all()


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_blend_interpolates_two_states(tmp_path, build):
    one, other = (weights(build, seed) for seed in (1, 2))
    first, second = saved(tmp_path / "one.pth", one), saved(tmp_path / "other.pth", {"params": other})
    assert blend(first, second, tmp_path / "blend.pth", "--weight", 0.25) == 0
    blended = torch.load(tmp_path / "blend.pth")
    assert sorted(blended) == sorted(one)
    for name, tensor in blended.items():
        assert_between(tensor, one[name], other[name], 0.25)
    for weight, whole in ((0, one), (1, other)):
        assert blend(first, second, tmp_path / f"{weight}.pth", "--weight", weight) == 0
        assert same(torch.load(tmp_path / f"{weight}.pth"), whole)


def test_entries_are_blended_by_name(tmp_path):
    raw, averaged, other = (weights(NETWORKS["GPEN concat"], seed) for seed in (1, 2, 3))
    first = saved(tmp_path / "one.pth", {"params": raw, "params_ema": averaged})
    second = saved(tmp_path / "other.pth", {"params": other, "params_ema": averaged})
    assert main([str(first), "-o", str(tmp_path / "b.pth"), "--to", "basicsr", "--blend", str(second)]) == 0
    blended = torch.load(tmp_path / "b.pth")
    assert same(blended["params_ema"], averaged)
    for name, tensor in blended["params"].items():
        assert_between(tensor, raw[name], other[name], 0.5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (weights(NETWORKS["GPENPrior concat"]), "holds GPENPrior"),
        (weights(NETWORKS["GPEN without noise"]), "holds GPEN"),
        (discriminator_weights(32), "holds GPENDiscriminator"),
    ],
)
def test_different_networks_are_refused(tmp_path, capsys, other, message):
    first = saved(tmp_path / "one.pth", weights(NETWORKS["GPEN concat"]))
    assert blend(first, saved(tmp_path / "other.pth", other), tmp_path / "blend.pth") == 1
    assert f"--blend: {tmp_path / 'other.pth'}" in (error := capsys.readouterr().err)
    assert message in error
    assert not (tmp_path / "blend.pth").exists()


def test_weight_above_one_is_refused(tmp_path, capsys):
    first = saved(tmp_path / "one.pth", weights(NETWORKS["GPEN concat"]))
    assert blend(first, first, tmp_path / "blend.pth", "--weight", 2) == 1
    assert "--weight: got 2; expected a number from 0 to 1" in capsys.readouterr().err


def test_weight_without_blend_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["one.pth", "-o", str(tmp_path / "b.pth"), "--to", "ours", "--weight", "0.3"])
    assert "--weight needs --blend" in capsys.readouterr().err


def test_half_precision_is_blended_in_float32(tmp_path):
    """The package's weights are stored in half precision."""
    one, other = (weights(NETWORKS["GPEN concat"], seed) for seed in (1, 2))
    first = saved(tmp_path / "one.pth", {name: tensor.half() for name, tensor in one.items()})
    assert blend(first, saved(tmp_path / "other.pth", other), tmp_path / "blend.pth") == 0
    for name, tensor in torch.load(tmp_path / "blend.pth").items():
        assert_between(tensor, one[name].half().float(), other[name], 0.5)
