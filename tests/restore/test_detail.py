import itertools

import cv2
import numpy as np
import pytest

from gpen_plugin.restore.detail import ALL_FROM, MIN_CONTRAST, NONE_BELOW, added_detail, detail_contrast, weight_of


def face(side: int = 128, blur: float = 0, seed: int = 0) -> np.ndarray:
    """Edges at all scales on a smooth ground, (S, S, 3) float32, blurred by `blur` pixels."""
    rng = np.random.default_rng(seed)
    image = np.full((256, 256), 128, np.uint8)
    for radius in (40, 20, 10, 5):
        for x, y in rng.integers(70, 186, (3, 2)):
            cv2.circle(image, (int(x), int(y)), radius, int(rng.integers(40, 216)), 2)
    gray = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    gray = cv2.GaussianBlur(gray, (0, 0), blur) if blur else gray
    return np.repeat(gray[:, :, None], 3, axis=2)


def gray(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, :, 0])


def test_blur_lowers_the_contrast_of_detail():
    contrasts = [detail_contrast(gray(face(blur=blur)), octaves=2) for blur in (0, 1, 2, 4)]
    assert all(sharper > 1.3 * softer for sharper, softer in itertools.pairwise(contrasts))


@pytest.mark.parametrize("sigma", [2, 8, 20])
def test_noise_is_not_detail(sigma):
    noise = np.random.default_rng(0).normal(0, sigma / 255, (128, 128)).astype(np.float32)
    assert detail_contrast(0.5 + noise) == MIN_CONTRAST
    blurred = gray(face(blur=4))
    sharp = detail_contrast(gray(face()))
    assert detail_contrast(blurred + noise) < sharp / 2


def test_a_flat_face_has_the_least_contrast():
    assert detail_contrast(np.full((64, 64), 0.3, np.float32)) == MIN_CONTRAST


def test_a_network_that_changes_nothing_adds_nothing():
    assert added_detail(face(), face(), 128) == 1
    assert weight_of(1) == 0


def test_the_sharper_of_both_wins():
    assert weight_of(added_detail(face(blur=3), face(), 128)) == 1
    assert weight_of(added_detail(face(), face(blur=3), 128)) == 0


def test_a_face_is_measured_at_the_size_at_which_it_is_shown():
    """Blur of 2 px at 128 px is half a pixel at 32 px."""
    blurred, sharp = face(blur=2), face()
    ratios = [added_detail(blurred, sharp, side) for side in (128, 64, 32)]
    assert ratios[0] > ratios[1] > ratios[2]
    assert ratios[0] > 2 * ratios[2]
    assert added_detail(blurred, sharp, 1000) == ratios[0]  # the network gives no more


@pytest.mark.parametrize("side", [64, 256])
def test_networks_may_enlarge(side):
    assert added_detail(face(64, blur=2), face(side), 64) > ALL_FROM


def test_the_weight_rises_from_none_to_all():
    assert [weight_of(ratio) for ratio in (0, NONE_BELOW, ALL_FROM, 9)] == [0, 0, 1, 1]
    assert weight_of((NONE_BELOW + ALL_FROM) / 2) == pytest.approx(0.5)
