"""GFRNet: its size, its warping against closed forms, and the losses of the warping."""

import pytest
import torch
from helpers.small_networks import built

from gpen_plugin.baselines.gfrnet_arch import GFRNet, identity_grid, sample
from gpen_plugin.errors import OptionError, ShapeError

SMALL = {"out_size": 32, "num_feat": 2}


def test_parameters_at_full_size():
    with torch.device("meta"):
        net = GFRNet()
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (net.warp_net, net.rec_net)]
    assert [round(count, 1) for count in counts] == [123.0, 54.4]
    assert (len(net.warp_net.encoder), len(net.rec_net.decoder)) == (8, 8)


def grid_of(x: float, y: float, height: int, width: int) -> torch.Tensor:
    """Positions that are shifted by a number of pixels."""
    whole = torch.zeros(1, height, width, 2, dtype=torch.float64)
    return identity_grid(whole) + torch.tensor([2 * x / (width - 1), 2 * y / (height - 1)], dtype=torch.float64) + whole


def test_identity_grid_returns_the_image():
    image = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(sample(image, grid_of(0, 0, 5, 7)), image)


def test_grid_of_whole_pixels_shifts_the_image_and_outside_is_zero():
    image = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    shifted = sample(image, grid_of(1, 0, 5, 7))
    torch.testing.assert_close(shifted[..., :-1], image[..., 1:])
    assert shifted[..., -1].abs().max() < 1e-12
    assert not sample(image, grid_of(0, 9, 5, 7)).any()
    half = sample(image, grid_of(0, 0.5, 5, 7))
    torch.testing.assert_close(half[:, :, :-1], (image[:, :, :-1] + image[:, :, 1:]) / 2)


def test_output_is_in_range_and_depends_on_the_reference():
    net = built(lambda: GFRNet(**SMALL)).eval()
    lq, ref = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 40, 40)
    image = net(lq, ref)
    assert image.shape == (2, 3, 32, 32)
    assert -1 <= image.min() < image.max() <= 1
    assert (image != net(lq, ref.flip(0))).any()


def test_restorer_sees_the_warped_reference():
    net = built(lambda: GFRNet(**SMALL))
    seen = []
    net.rec_net.register_forward_hook(lambda part, given, result: seen.append(given[0]))
    image, (warped, grid) = net(torch.zeros(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    assert image.shape == warped.shape == (1, 3, 32, 32)
    assert grid.shape == (1, 32, 32, 2)
    torch.testing.assert_close(seen[0], torch.cat((torch.full((1, 3, 32, 32), 0.5), warped), dim=1))


def test_losses_of_the_warping_are_their_formulas():
    net = GFRNet(**SMALL, warp_weight=3, tv_weight=5)
    warped, gt = torch.rand(2, 3, 4, 6), torch.rand(2, 3, 4, 6) * 2 - 1
    grid = identity_grid(torch.zeros(2, 4, 6, 2)).expand(2, 4, 6, 2)
    losses = net.auxiliary_losses((warped, grid), gt)
    torch.testing.assert_close(losses["l_g_warp"], 3 * (warped - (gt + 1) / 2).square().mean())
    assert losses["l_g_tv"] == 0
    # a flow that grows by 0.1 with each row and is constant within it
    steep = grid + 0.1 * torch.arange(4).view(1, 4, 1, 1)
    torch.testing.assert_close(net.auxiliary_losses((warped, steep), gt)["l_g_tv"], torch.tensor(5 * 0.01))


@pytest.mark.parametrize("end_to_end", [False, True])
def test_restored_face_trains_the_warping_only_end_to_end(end_to_end):
    net = built(lambda: GFRNet(**SMALL, end_to_end=end_to_end))
    lq, ref = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    image, outputs = net(lq, ref)
    image.sum().backward(retain_graph=True)
    first = net.warp_net.encoder[0][0].weight
    assert (first.grad is not None) == end_to_end
    sum(net.auxiliary_losses(outputs, torch.rand(2, 3, 32, 32)).values()).backward()
    assert first.grad.abs().sum() > 0


def test_wrong_sizes_are_an_error():
    with pytest.raises(OptionError, match="out_size: got 48; expected a power of two from 8"):
        GFRNet(48)
    with pytest.raises(ShapeError, match=r"GFRNet\(ref\)"):
        GFRNet(**SMALL)(torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 32, 32))
