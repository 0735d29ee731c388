"""From other framings of a face to that of ArcFace."""

import cv2
import numpy as np
import pytest

from gpen_plugin.errors import ShapeError
from gpen_plugin.nets.face_templates import ARCFACE, FFHQ, FRAMINGS, align_to_arcface, similarity, to_arcface


def test_a_similarity_is_found_again():
    points = np.random.default_rng(0).normal(size=(5, 2))
    a, b, right, down = 0.3, -1.2, 4, -5
    matrix = np.array([[a, -b, right], [b, a, down]])
    assert np.allclose(similarity(points, points @ matrix[:, :2].T + matrix[:, 2]), matrix)


def test_it_is_the_nearest_similarity():
    """OpenCV's own search from another start, by least squares too, finds nothing nearer."""

    def error(matrix):
        return np.square(FFHQ @ matrix[:, :2].T + matrix[:, 2] - ARCFACE).sum()

    found = similarity(FFHQ, ARCFACE)
    others = cv2.estimateAffinePartial2D(FFHQ, ARCFACE, ransacReprojThreshold=100, refineIters=100)[0]
    assert error(found) <= error(others) * (1 + 1e-9)
    assert np.allclose(found, others, atol=1e-3)
    assert np.sqrt(error(found) / 5) < 2  # pixels of 112: the two faces have the same shape, nearly


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("size", "side"), [(256, 112), (512, 112), (512, 224), (1024, 112)])
def test_to_arcface_maps_template_to_template(size, side, framing):
    points, of_side = FRAMINGS[framing]
    matrix = similarity(points, ARCFACE)
    for source, target in zip(points, ARCFACE, strict=True):
        y, x = np.mgrid[:size, :size] - ((source[::-1] + 0.5) * size / of_side - 0.5)[:, None, None]
        spot = np.exp(-(x**2 + y**2) / (2 * (size / 64) ** 2))
        aligned = to_arcface(np.repeat(spot[..., None], 3, axis=2).astype(np.float32), side, framing)[..., 0]
        middle = np.array([(aligned * places).sum() for places in np.mgrid[:side, :side][::-1]]) / aligned.sum()
        found = (middle + 0.5) * 112 / side - 0.5
        assert np.linalg.norm(found - target) < 2.6  # the most that one point is off
        assert np.allclose(found, matrix[:, :2] @ source + matrix[:, 2], atol=0.3)


def test_only_square_images():
    with pytest.raises(ShapeError, match="got 8 x 9 px for align: dlib"):
        to_arcface(np.zeros((8, 9, 3), np.uint8), 112, "dlib")


def test_landmarks_land_on_arcfaces_template():
    angle, scale = 0.2, 3.0
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = ARCFACE @ turn.T + (90, 40)
    image = np.zeros((512, 512), np.float32)
    rows, columns = np.indices(image.shape)
    for x, y in landmarks:
        image += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6**2)).astype(np.float32)
    aligned = align_to_arcface(image, 112, landmarks)
    for x, y in ARCFACE:
        patch = aligned[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5]
        down, right = np.unravel_index(patch.argmax(), patch.shape)
        assert max(abs(right - 4), abs(down - 4)) <= 1
