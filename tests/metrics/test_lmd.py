"""The distance in closed form, with detectors that the test makes up."""

import inspect
import math

import numpy as np
import pytest
from basicsr.metrics import calculate_metric

from gpen_plugin.errors import MissingFileError, OptionError, ShapeError
from gpen_plugin.metrics import lmd
from gpen_plugin.metrics.lmd import calculate_lmd, mean_distance, open_landmark_detector
from gpen_plugin.nets.awing import AWing


def spot(x: int, y: int, side: int = 256, width: int | None = None) -> np.ndarray:
    image = np.zeros((side, width or side, 3), np.uint8)
    image[y, x] = 255
    return image


@pytest.fixture
def seen(monkeypatch) -> list:
    """A detector that finds two landmarks, 5 px apart, at the one bright pixel; black shows no face."""
    images = []

    def detector(image):
        images.append(image)
        if not image.any():
            return None
        y, x = np.argwhere(image[..., 0])[0]
        return np.array([[x, y], [x + 5, y]], float)

    monkeypatch.setattr(lmd, "open_landmark_detector", lambda *options: detector)
    return images


@pytest.mark.parametrize(
    ("side", "at_size", "expected"), [(256, 512, 10), (512, 512, 5), (1024, 512, 2.5), (256, 256, 5), (64, 512, 40)]
)
def test_a_shift_by_3_and_4(seen, side, at_size, expected):
    assert calculate_lmd(spot(10, 10, side), spot(13, 14, side), at_size=at_size) == pytest.approx(expected)


def test_the_longer_side_is_brought_to_the_size(seen):
    assert calculate_lmd(spot(10, 10, 64, 128), spot(13, 14, 64, 128)) == pytest.approx(20)


def test_the_mean_is_over_landmarks():
    one = np.zeros((3, 2))
    assert mean_distance(one, np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])) == pytest.approx(2)


def test_no_face_has_no_value(seen):
    black = np.zeros((256, 256, 3), np.uint8)
    assert math.isnan(calculate_lmd(black, spot(1, 1)))
    assert math.isnan(calculate_lmd(spot(1, 1), black))
    assert calculate_lmd(spot(1, 1), spot(1, 1)) == 0


def test_ground_truth_is_measured_once(seen):
    for x in (1, 2, 3):
        calculate_lmd(spot(x, 1), spot(9, 9))
    assert len(seen) == 4


def test_in_the_hosts_loop(seen):
    options = {"type": "calculate_lmd", "detector": "yunet", "better": "lower"}
    assert calculate_metric({"img": spot(10, 10), "img2": spot(13, 14)}, options) == pytest.approx(10)


def test_options(seen):
    with pytest.raises(OptionError, match="at_size: got 0"):
        calculate_lmd(spot(1, 1), spot(1, 1), at_size=0)
    with pytest.raises(OptionError, match="better: got 'higher'"):
        calculate_lmd(spot(1, 1), spot(1, 1), better="higher")
    with pytest.raises(ShapeError, match="got 256 x 256 px beside 64 x 64 px"):
        calculate_lmd(spot(1, 1), spot(1, 1, 64))
    with pytest.raises(OptionError, match="detector: got 'dlib'; expected awing or yunet"):
        open_landmark_detector("dlib")


def test_a_detector_is_built_once(monkeypatch):
    built = []
    monkeypatch.setitem(lmd.DETECTORS, "awing", lambda *options: built.append(options) or "detector")
    open_landmark_detector.cache_clear()
    try:
        assert [open_landmark_detector("awing", "a.pth", "cpu") for _ in range(2)] == ["detector"] * 2
        open_landmark_detector("awing", "b.pth", "cpu")
        assert built == [("a.pth", "cpu"), ("b.pth", "cpu")]
    finally:
        open_landmark_detector.cache_clear()


def test_papers_count_98_landmarks(tmp_path, monkeypatch):
    assert lmd.DETECTORS[inspect.signature(calculate_lmd).parameters["detector"].default] is AWing
    gone = str(tmp_path / "gone.pth")
    assert math.isnan(calculate_lmd(spot(1, 1), spot(1, 1), model=gone))
    with pytest.raises(MissingFileError, match=r"model: .*gone.pth is not there"):
        inspect.unwrap(calculate_lmd)(spot(1, 1), spot(1, 1), model=gone)
