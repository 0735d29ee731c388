"""Strong noise is removed before the network, and leaves no dark spots on clean skin."""

import cv2
import numpy as np
import pytest
from dark_spots import find_spots
from helpers.restorer_parts import Detector, Network, face_at, photograph

from gpen_plugin.restore.noise import FULL, LEAST, noise_level, remove_noise
from gpen_plugin.restore.restorer import Restorer


def smooth(side=96):
    """Skin without spots: a slow gradient, (side, side, 3) float32."""
    ramp = np.linspace(0.45, 0.7, side, dtype=np.float32)
    return np.stack([ramp[:, None] + 0 * ramp, 0.8 * ramp + 0 * ramp[:, None], 0.5 + 0 * ramp * ramp[:, None]], axis=2)


def with_noise(face, level, seed=0):
    noise = np.random.default_rng(seed).normal(0, level / 255, face.shape)
    return (face + noise).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("level", [0, 5, 20])
def test_level_of_known_noise(level):
    """The median of some 10,000 values has a relative deviation of about 1 %."""
    assert noise_level(with_noise(smooth(), level)) == pytest.approx(level, rel=0.05, abs=1e-3)


def test_contours_are_no_noise():
    face = smooth()
    face[::8] = 0
    face[:, 40:44] = 1
    assert noise_level(face) < 1


def test_noise_is_removed_and_contours_stay():
    face = smooth()
    face[40:] *= 0.5
    noisy = with_noise(face, 20)
    clean = remove_noise(noisy, 20)
    inside = np.s_[8:-8, 8:-8]
    assert np.std((clean - face)[inside]) < 0.5 * np.std((noisy - face)[inside])
    step = clean[42:46].mean(axis=(0, 1)) - clean[34:38].mean(axis=(0, 1))
    np.testing.assert_allclose(step, face[42:46].mean(axis=(0, 1)) - face[34:38].mean(axis=(0, 1)), atol=0.02)


def test_removal_grows_without_a_step():
    noisy = with_noise(smooth(), LEAST)
    change = [float(np.abs(remove_noise(noisy, level) - noisy).mean()) for level in (LEAST, LEAST + 0.1, FULL)]
    assert change[0] == 0
    assert 0 < change[1] < 0.1 * change[2]


def spots_of(denoise, level):
    """Dark spots of a face of 85 px that a network without any rule of its own enlarges."""
    image = np.rint(with_noise(cv2.resize(smooth(), (320, 240)), level) * 255).astype(np.uint8)
    restorer = Restorer(Network(size=256), device="cpu", mask="soft", denoise=denoise)
    restorer._detector = Detector(face_at(150, 120, 85))
    (face,) = restorer.restore(image).faces
    return int(find_spots(face.restored)[10:-10, 10:-10].sum())


def test_no_dark_spots_on_clean_skin():
    assert [spots_of(denoise, 0) for denoise in (True, False)] == [0, 0]
    assert spots_of(False, 25) > 100
    assert spots_of(True, 25) < 10


@pytest.mark.parametrize("side", [40, 64, 100])  # smaller than the network's input, equal and larger
def test_weak_noise_leaves_the_input_as_it_is(side, monkeypatch):
    seen = []
    restorer = Restorer(Network(lambda face: seen.append(face) or face), device="cpu", mask="soft", denoise=True)
    restorer._detector = Detector(face_at(150, 120, side))
    image = photograph()
    (face,) = restorer.restore(image).faces
    np.testing.assert_array_equal(seen[0], face.crop)
    noisy = np.rint(with_noise(image.astype(np.float32) / 255, 4 * LEAST) * 255).astype(np.uint8)
    (face,) = restorer.restore(noisy).faces
    assert np.abs(seen[1] - face.crop).mean() > 0.01
    restorer.restore_faces([noisy[80:160, 80:160]], aligned=True)
    assert noise_level(seen[2]) < LEAST


def test_default_model_alone_removes_noise_by_itself():
    assert Restorer(device="cpu").denoise
    assert not Restorer(Network(), device="cpu").denoise


def test_spots_are_counted():
    face = smooth(256)
    for x, y in ((60, 80), (180, 120), (100, 200)):
        cv2.circle(face, (x, y), 2, (0.1, 0.1, 0.1), -1)
    found = np.argwhere(find_spots(face))
    assert sorted(map(tuple, found)) == [(80, 60), (120, 180), (200, 100)]
