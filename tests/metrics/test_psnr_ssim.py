"""PSNR and SSIM of this package are those of BasicSR, in whose place they stand where it is not installed."""

import math

import numpy as np
import pytest
from basicsr.metrics import psnr_ssim as hosts

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.host import registered
from gpen_plugin.metrics import psnr_ssim as ours


def pair(height=40, width=33):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    noisy = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    return noisy, image


@pytest.mark.parametrize("name", ["calculate_psnr", "calculate_ssim"])
@pytest.mark.parametrize("settings", [{}, {"crop_border": 4}, {"test_y_channel": True}])
def test_equal_to_the_hosts(name, settings):
    settings = {"crop_border": 0, **settings}
    expected = getattr(hosts, name)(*pair(), **settings)
    assert getattr(ours, name)(*pair(), **settings) == pytest.approx(expected, rel=1e-9)


def test_equal_images():
    image = pair()[0]
    assert ours.calculate_psnr(image, image, 0) == math.inf
    assert ours.calculate_ssim(image, image, 0) == pytest.approx(1)


def test_the_hosts_stay_where_they_are():
    assert registered("metric")["calculate_psnr"] is hosts.calculate_psnr
    assert registered("metric")["calculate_ssim"] is hosts.calculate_ssim


def test_wrong_arguments():
    with pytest.raises(OptionError, match="crop_border: got -1"):
        ours.calculate_psnr(*pair(), crop_border=-1)
    with pytest.raises(OptionError, match="better: got 'lower'"):
        ours.calculate_ssim(*pair(), crop_border=0, better="lower")
    with pytest.raises(ShapeError, match="got 18 x 33 px; expected at least 19 px"):
        ours.calculate_ssim(*pair(18), crop_border=4)
