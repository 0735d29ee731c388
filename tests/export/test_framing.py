"""Resampling between alignments, against closed forms: linear interpolation keeps ramps."""

import numpy as np
import pytest
import torch
from helpers.small_networks import SMALL, built

from gpen_plugin import GPEN
from gpen_plugin.export.exporter import FileNetwork
from gpen_plugin.export.framing import Frame, fading, fit_frame, resampling_matrix
from gpen_plugin.restore.alignment import TEMPLATES, scale_template


@pytest.mark.parametrize(("own", "side"), [("dlib", 256), ("ffhq", 64)])
def test_the_points_of_one_template_lie_on_those_of_the_other(own, side):
    frame = fit_frame(TEMPLATES["arcface"], 128, TEMPLATES[own], side, side)
    seen = frame.scale * scale_template(TEMPLATES["arcface"], 128) + frame.shift
    eye_to_eye = TEMPLATES[own][1, 0] - TEMPLATES[own][0, 0]
    assert np.abs(seen / side - TEMPLATES[own]).max() < 0.1 * eye_to_eye  # the templates' faces differ


def test_one_alignment_and_size_needs_no_frame():
    assert fit_frame(TEMPLATES["ffhq"], 64, TEMPLATES["ffhq"], 64, 64) is None
    for sizes in ((128, 64, 64), (64, 32, 64), (64, 64, 128)):
        outer, inner, result = sizes
        frame = fit_frame(TEMPLATES["ffhq"], outer, TEMPLATES["ffhq"], inner, result)
        assert frame == Frame(outer, pytest.approx(inner / outer), pytest.approx((inner / outer / 2 - 0.5,) * 2))


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_ramps_stay_ramps(scale):
    matrix = resampling_matrix(20, 100, scale, -40 * scale)
    assert matrix.dtype == np.float32
    assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-6
    positions = np.arange(20) / scale + 40
    inside = positions < 95
    # a tent that is not centered on a sample is a little off when it averages
    tolerance = 1e-4 if scale >= 1 else 0.1
    assert np.abs(matrix @ np.arange(100) - positions)[inside].max() < tolerance


def test_positions_outside_take_the_nearest_sample():
    ends = resampling_matrix(10, 4, 1.0, 3.0) @ np.arange(4.0)
    assert ends.tolist() == [0, 0, 0, 0, 1, 2, 3, 3, 3, 3]


def test_the_result_fades_out_inside_the_crop_only():
    frame = Frame(64, 1.0, (-16.0, 8.0))  # the square of 32 px begins at x = 16, and 8 px above the crop
    rows, columns = fading(frame, 32)
    assert columns[15:19].tolist() == [0, 0.25, 0.75, 1]  # over 2 px, a sixteenth
    assert columns[45:49].tolist() == [1, 0.75, 0.25, 0]
    assert rows[:22].min() == 1
    assert rows[22:].tolist() == [0.75, 0.25, *[0] * 40]


@torch.no_grad()
def test_outside_its_square_the_input_stays_as_it_is():
    net = built(lambda: GPEN(16, **SMALL)).eval()
    file = FileNetwork(net, Frame(64, 0.5, (-8.0, -8.0)))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = file(images)
    assert torch.equal(result[..., :15], images[..., :15])
    assert torch.equal(result[:, :, 49:], images[:, :, 49:])
    assert (result - images)[..., 20:44, 20:44].abs().mean() > 0.1


@torch.no_grad()
def test_an_enlarging_network_keeps_its_place():
    class Doubled(torch.nn.Module):
        in_size, out_size = 16, 32

        def forward(self, lq):
            return torch.nn.functional.interpolate(lq, scale_factor=2, mode="bilinear")

    file = FileNetwork(Doubled(), Frame(64, 0.25, (-0.375, -0.375)))  # the whole crop
    ramp = torch.arange(64.0).expand(1, 3, 64, 64).contiguous()
    assert (file(ramp) - ramp)[..., 8:-8].abs().max() < 1e-3
