"""HDR and wide colors against the figures that the standards print."""

import numpy as np
import pytest

from gpen_plugin.restore.video_reader import BT2020, DISPLAY_P3, HLG, PQ, WideColor, nits_to_pq, pq_to_nits


def converted(primaries: int, transfer: int, *signal: float) -> np.ndarray:
    """The BGR that an RGB signal in [0, 1] becomes."""
    frame = np.rint(np.array(signal) * 65535).astype(np.uint16)
    return WideColor.of(primaries, transfer).to_bt709(frame[None, None])[0, 0].astype(int)


def test_pq():
    """Values of ITU-R BT.2408, Table 1, and of BT.2100: 0.58 is 203 cd/m2, 0.7518 is 1000, 1 is 10000."""
    assert pq_to_nits(np.array([0, 0.5807, 0.7518, 1])) == pytest.approx([0, 203, 1000, 10000], rel=2e-3)
    # its powers, of 79 and 6.3, magnify the rounding of float64, 1e-16
    assert nits_to_pq(pq_to_nits(np.linspace(0.1, 1, 9))) == pytest.approx(np.linspace(0.1, 1, 9), rel=1e-12)
    assert nits_to_pq(np.zeros(1)) == pytest.approx([(3424 / 4096) ** (2523 / 32)])  # c1^m2: black is not quite 0


@pytest.mark.parametrize(("transfer", "middle", "white"), [(PQ, 0.38, 0.5807), (HLG, 0.38, 0.75)])
def test_gray_stays_gray_and_bright_light_is_compressed(transfer, middle, white):
    """Reference white, 203 cd/m2, is a little below the white of SDR, so that brighter light differs from it."""
    grays = [converted(BT2020, transfer, *(3 * (level,))) for level in (0, middle, white, (1 + white) / 2, 1)]
    assert all(np.ptp(gray) <= 1 for gray in grays)
    levels = [gray.mean() for gray in grays]
    assert levels == sorted(levels)
    assert levels[0] == 0
    assert 225 <= levels[2] <= 240 < levels[3]
    assert levels[4] >= (255 if transfer == HLG else 250)


def test_dark_and_middle_tones_are_those_of_sdr():
    """Light of 20 cd/m2 is a tenth of 203: 255 * 0.0985 ** (1 / 2.4) of SDR."""
    assert converted(BT2020, PQ, *(3 * (float(nits_to_pq(20)),))) == pytest.approx(255 * (20 / 203) ** (1 / 2.4), abs=1)


@pytest.mark.parametrize(
    ("primaries", "red"),
    [
        (BT2020, (0.6274, 0.0691, 0.0164)),  # ITU-R BT.2087, equation 2: of BT.709's red in BT.2020
        (DISPLAY_P3, (0.8225, 0.0332, 0.0171)),
    ],
)
def test_the_red_of_bt709_in_wider_primaries_becomes_itself(primaries, red):
    assert converted(primaries, 1, *(np.array(red) ** (1 / 2.4))) == pytest.approx([0, 0, 255], abs=5)


def test_a_red_beyond_bt709_is_its_own():
    assert converted(BT2020, 1, 1, 0, 0).tolist() == [0, 0, 255]


@pytest.mark.parametrize("codes", [(1, 1), (2, 2), (5, 6), (1, 13)])
def test_usual_colors_are_not_converted(codes):
    assert WideColor.of(*codes) is None


def test_the_name_is_that_of_the_standard():
    assert str(WideColor.of(2, HLG)) == "HLG, BT.2020"
    assert str(WideColor.of(DISPLAY_P3, 13)) == "Display P3"
