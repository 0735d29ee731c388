"""HiFaceGAN: the paper's generator against BasicSR's parts, and the authors' files in BasicSR's class."""

import pytest
import torch
from basicsr.archs.hifacegan_arch import HiFaceGAN
from basicsr.archs.hifacegan_util import SimplifiedLIP, SPADEResnetBlock
from helpers.small_networks import built, saved
from helpers.tiny_training import tiny_training

from gpen_plugin.baselines.hifacegan_arch import HiFaceGANPaper, LocalImportancePool, SPADEBlock
from gpen_plugin.errors import CheckpointError, ShapeError
from gpen_plugin.restore.network import load_network_weights

LIPSPADE = {"num_feat": 4, "norm_g": "spectralspadebatch3x3", "is_train": False}


def test_parameters_are_as_many_as_the_papers():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in HiFaceGANPaper().parameters())
    unused = sum(3 * 9 * level * 64 + 3 for level in (8, 4, 2))  # layers to RGB that the authors build and do not use
    assert (count + unused) / 1e6 == pytest.approx(130.6, abs=0.05)


@pytest.mark.parametrize(("widths"), [(6, 6), (6, 4)])
def test_block_is_the_hosts(widths):
    ours, theirs = SPADEBlock(*widths, 5), SPADEResnetBlock(*widths, "spectralspadebatch3x3", 5)
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert all("running" in name or "num_batches" in name for name in missing.missing_keys)
    assert missing.unexpected_keys == []
    x, condition = torch.randn(2, widths[0], 8, 8), torch.randn(2, 5, 8, 8)
    torch.testing.assert_close(ours(x, condition), theirs(x, condition))


def test_pooling_is_the_hosts():
    ours, theirs = LocalImportancePool(3), SimplifiedLIP(3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_levels_halve_and_guide_blocks_of_their_size():
    net = HiFaceGANPaper(num_feat=2)
    features = net.encoder(torch.rand(1, 3, 64, 64))
    assert [tuple(each.shape[1:3]) for each in features] == [(2, 64), (4, 32), (8, 16), (16, 8), (32, 4), (32, 2)]


def test_training_and_evaluation_compute_the_same():
    net = built(lambda: HiFaceGANPaper(num_feat=2))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        net.train()(image)  # a power iteration of the spectral norm
        evaluated = net.eval()(image)
        for _ in range(50):
            net.train()(image[:1])
        torch.testing.assert_close(net.eval()(image), net.train()(image), atol=1e-4, rtol=0)
    assert evaluated.shape == (2, 3, 64, 64)


def test_image_is_the_tanh_unshifted():
    """In [0, 1] the result has values below 0, which a shifted tanh has not."""
    net = built(lambda: HiFaceGANPaper(num_feat=2, value_range=(0, 1)))
    with torch.no_grad():
        net.to_rgb.weight.zero_()
        net.to_rgb.bias.fill_(-0.5)
    expected = torch.full((1, 3, 64, 64), -0.5).tanh()
    torch.testing.assert_close(net(torch.rand(1, 3, 64, 64)), expected)


def test_sides_are_multiples_of_32():
    for sides in ((48, 64), (32, 32)):
        with pytest.raises(ShapeError, match=r"lq: .* px; expected sides that are multiples of 32, from 64"):
            HiFaceGANPaper(num_feat=2)(torch.zeros(1, 3, *sides))


def test_tiny_training(rival_options):
    rival_options["network_g"] = {"type": "HiFaceGANPaper", "num_feat": 2, "value_range": [0, 1]}
    rival_options["network_d"] |= {"spectral_norm": True}
    assert "l_g_feat" in tiny_training(rival_options, size=64).losses


def published_lipspade() -> dict[str, torch.Tensor]:
    """The authors' layout of a small lipspade: their names, and no `fc.bias`."""
    state = built(lambda: HiFaceGAN(**LIPSPADE)).state_dict()
    named = {name.replace("g_middle_", "G_middle_"): tensor for name, tensor in state.items()}
    del named["fc.bias"]
    return named


def test_authors_file_loads_into_the_hosts_class(tmp_path):
    content = published_lipspade()
    net = HiFaceGAN(**LIPSPADE)
    assert load_network_weights(net, str(saved(tmp_path / "latest_net_G.pth", content)), None, "weights") == 0
    own = net.state_dict()
    assert all(torch.equal(own[name.replace("G_middle_", "g_middle_")], tensor) for name, tensor in content.items())


def test_files_of_other_networks_are_refused_by_name(tmp_path):
    content = published_lipspade()
    spade = {name: tensor for name, tensor in content.items() if not name.startswith("lip_encoder")}
    with pytest.raises(CheckpointError, match=r"weights: .*holds SPADE's generator, which HiFaceGAN's authors use"):
        load_network_weights(HiFaceGAN(**LIPSPADE), str(saved(tmp_path / "4xsr.pth", spade)), None, "weights")
    path = str(saved(tmp_path / "lipspade.pth", content))
    with pytest.raises(CheckpointError, match="holds HiFaceGAN's lipspade, of its authors; expected"):
        load_network_weights(HiFaceGANPaper(num_feat=4), path, None, "weights")
