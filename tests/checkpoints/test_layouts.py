import pytest
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import detect_layout, filter_taps, from_authors, taps_equal, to_authors
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.errors import CheckpointError

WIDTHS = {"channel_multiplier": 1, "narrow": 0.04}
STYLE = {"num_style_feat": 8, "num_mlp": 2}
BUILDERS = {
    "GPEN concat": (lambda: GPEN(32, **STYLE, **WIDTHS), ["ours", "authors"]),
    "GPEN add": (lambda: GPEN(64, 16, **STYLE, **WIDTHS, noise_mode="add"), ["ours", "authors"]),
    "GPEN none": (lambda: GPEN(16, **STYLE, **WIDTHS, noise_mode="none"), ["ours", "authors"]),
    "prior concat": (lambda: GPENPrior(16, **STYLE, **WIDTHS), ["ours", "authors"]),
    "prior add": (lambda: GPENPrior(64, **STYLE, **WIDTHS, noise_mode="add"), ["ours", "authors", "stylegan2"]),
    "prior none": (lambda: GPENPrior(32, **STYLE, **WIDTHS, noise_mode="none"), ["ours", "authors"]),
    "discriminator": (lambda: GPENDiscriminator(64, **WIDTHS), ["ours", "authors", "stylegan2"]),
}
each_network = pytest.mark.parametrize(("build", "layouts"), BUILDERS.values(), ids=BUILDERS)


@each_network
def test_from_each_layout_to_each_other_and_back(build, layouts):
    ours = build().state_dict()
    for first in layouts:
        for second in layouts:
            state_dict = to_layout(to_layout(ours, first), second)
            assert detect_layout(state_dict)[1] == second
            back = from_authors(state_dict)
            assert sorted(back) == sorted(ours)
            assert all(torch.equal(back[key], ours[key]) and back[key].shape == ours[key].shape for key in ours)


@each_network
def test_stylegan2_layout_refuses_other_networks(build, layouts):
    if "stylegan2" in layouts:
        assert to_layout(build().state_dict(), "stylegan2")
        return
    with pytest.raises(CheckpointError, match=r"net\.pth: holds GPEN.*expected for StyleGAN2's names a GPENPrior with"):
        to_layout(build().state_dict(), "stylegan2", where="net.pth")


def test_stylegan2_layout_refuses_2048_px():
    with torch.device("meta"):
        prior = GPENPrior(2048, noise_mode="add", narrow=0.1)
    with pytest.raises(CheckpointError, match="at most 1024 px"):
        to_layout(prior.state_dict(), "stylegan2")


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1), (1, 2, 2, 1), (1, 1), (1, 4, 6, 4, 1), (2, 3, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_taps_are_read_from_the_filters(taps, dtype):
    state_dict = to_authors(GPENPrior(16, **STYLE, **WIDTHS).state_dict(), taps)
    found = filter_taps({key: tensor.to(dtype) for key, tensor in state_dict.items()})
    assert taps_equal(found, taps)
    if dtype is torch.float32:
        assert found == pytest.approx([tap / min(taps) for tap in taps], abs=1e-4)
    assert not taps_equal(found, (1, 5, 5, 1))


def test_taps_of_files_without_filters():
    assert filter_taps(GPENPrior(16, **STYLE, **WIDTHS).state_dict()) is None


@pytest.mark.parametrize("broken", [torch.zeros(4, 4), torch.ones(4, 4), torch.ones(3, 3), torch.tensor(1.0)])
@pytest.mark.parametrize("which", [0, -1])
def test_different_filters_are_refused(broken, which):
    state_dict = to_authors(GPENPrior(16, **STYLE, **WIDTHS).state_dict())
    state_dict[[key for key in state_dict if key.endswith(".kernel")][which]] = broken
    with pytest.raises(CheckpointError, match=r"net\.pth: its FIR filters differ among each other \("):
        filter_taps(state_dict, "net.pth")
