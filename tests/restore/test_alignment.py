"""Templates, the matrices between them and photographs, and looking through such a matrix."""

import math
import tracemalloc

import cv2
import numpy as np
import pytest

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.restore.alignment import (
    TEMPLATES,
    align,
    can_be_aligned,
    compose,
    invert_affine,
    normalize_template,
    parse_template,
    scale_affine,
    scale_of,
    scale_template,
    template,
    template_to_template,
    warp,
)

FFHQ = TEMPLATES["ffhq"]


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = math.radians(degrees)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def moved_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def smooth(height: int, width: int) -> np.ndarray:
    """An image without edges, uint8."""
    noise = np.random.default_rng(0).normal(0, 1, (height, width, 3))
    values = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.rint((values - values.min()) / np.ptp(values) * 255).astype(np.uint8)


# --- templates


@pytest.mark.parametrize(("name", "distance"), [("ffhq", 126), ("gpen", 107), ("arcface", 141), ("dlib", 186)])
def test_eye_distances_at_512(name, distance):
    left, right = scale_template(template(name), 512)[:2]
    assert np.linalg.norm(right - left) == pytest.approx(distance, abs=0.5)


def test_a_fraction_counts_from_the_corner():
    assert np.allclose(normalize_template(np.array([[-0.5, 99.5]]), 100), [[0, 1]])
    assert np.allclose(scale_template(normalize_template(np.array([[3.25, 7]]), 10), 10), [[3.25, 7]])
    assert np.allclose(scale_template(FFHQ, 512)[2], [256.63416, 314.01935])
    assert np.allclose(TEMPLATES["dlib"][0], (np.array([0.31599, 0.29604]) * 224 + 0.5) / 224, atol=1e-5)
    assert np.allclose(scale_template(TEMPLATES["arcface"], 128)[3], [41.5493 + 8, 92.3655])


def test_a_template_by_name_or_number():
    text = ",".join(map(str, FFHQ.reshape(-1)))
    assert np.array_equal(parse_template(text), FFHQ)
    assert np.array_equal(parse_template(" gpen "), TEMPLATES["gpen"])
    template("ffhq")[0] = 0  # a copy
    assert FFHQ[0, 0] > 0


@pytest.mark.parametrize(
    "text",
    [
        "fhq",
        "",
        "0.1,0.2",
        ",".join(["0.5"] * 9 + ["x"]),
        ",".join(["0.5"] * 9 + ["nan"]),
        ",".join(["192", "240"] * 5),
        "0.6,0.4,0.4,0.4,0.5,0.6,0.4,0.7,0.6,0.7",
        "0.4,0.7,0.6,0.7,0.5,0.6,0.4,0.4,0.6,0.4",
    ],
)
def test_no_template(text):
    with pytest.raises(OptionError, match="template: got"):
        parse_template(text)


def test_unknown_template_error_lists_the_names():
    with pytest.raises(OptionError, match="got 'FFHQ'; expected one of ffhq, gpen, arcface, dlib"):
        template("FFHQ")


# --- matrices


@pytest.mark.parametrize("degrees", [0, 45, -100, 180])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_turned_face_is_found_exactly(name, degrees):
    matrix = turned(degrees, 0.3, (40, -7))
    landmarks = moved_points(invert_affine(matrix), scale_template(template(name), 64))
    assert np.allclose(align(landmarks, template(name), 64), matrix)


def test_all_five_points_count():
    landmarks = scale_template(FFHQ, 100)
    landmarks[2] += (6, 0)
    found = moved_points(align(landmarks, FFHQ, 100), landmarks) - scale_template(FFHQ, 100)
    assert np.allclose(found.mean(axis=0), 0, atol=1e-9)
    assert np.abs(found[2]).max() < 6


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 7.0),
        scale_template(FFHQ, 100) * (-1, 1),
        scale_template(FFHQ, 100) * np.nan,
        scale_template(FFHQ, 100) * 1e-5,
        np.where(np.eye(5, 2, dtype=bool), np.inf, scale_template(FFHQ, 100)),
    ],
    ids=["one point", "mirrored", "nan", "no size", "infinite"],
)
def test_points_that_are_no_face(landmarks):
    with pytest.raises(DataError, match=r"landmarks: got .*Leave this face out"):
        align(landmarks, FFHQ, 64)
    assert not can_be_aligned(landmarks)
    assert can_be_aligned(scale_template(FFHQ, 100))


def test_four_points():
    with pytest.raises(ShapeError, match=r"landmarks: got shape \(4, 2\)"):
        align(np.zeros((4, 2)), FFHQ, 64)


def test_there_and_back():
    matrix, other = turned(30, 0.4, (5, 6)), turned(-10, 2, (1, 1))
    points = np.array([[0.0, 0], [10, -3]])
    assert np.allclose(moved_points(invert_affine(matrix), moved_points(matrix, points)), points)
    assert np.allclose(moved_points(compose(matrix, other), points), moved_points(other, moved_points(matrix, points)))
    assert scale_of(matrix) == pytest.approx(0.4)


def test_a_matrix_after_resizing():
    """A point p of an image is (p + 0.5) s - 0.5 of the image enlarged by s."""
    matrix, points = turned(20, 0.5, (3, 4)), np.array([[10.0, 20], [0, 0]])
    expected = (moved_points(matrix, points) + 0.5) * (3, 5) - 0.5
    found = moved_points(scale_affine(matrix, source=(2, 4), target=(3, 5)), (points + 0.5) * (2, 4) - 0.5)
    assert np.allclose(found, expected)
    assert np.allclose(scale_affine(matrix, source=2, target=2), scale_affine(matrix, (2.0, 2.0), (2.0, 2.0)))


def test_from_one_template_to_another():
    matrix = template_to_template(FFHQ, 512, FFHQ, 128)
    assert np.allclose(matrix, scale_affine(np.eye(2, 3), target=0.25))
    left, right = moved_points(template_to_template(FFHQ, 64, TEMPLATES["dlib"], 128), scale_template(FFHQ, 64))[:2]
    assert right[0] - left[0] == pytest.approx(46.5, rel=0.05)


# --- warping


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_nothing_changes_without_a_transform(dtype, white):
    image = (np.random.default_rng(0).random((20, 30, 3)) * white).astype(dtype)
    found = warp(image, np.eye(2, 3), (30, 20))
    assert found.dtype == np.float32
    assert np.allclose(found, image / white, atol=1e-6)
    assert np.allclose(warp(image[..., 0], np.eye(2, 3), (30, 20)), image[..., 0] / white, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 8, 16, 32])
def test_shrinking_averages_areas(factor):
    image = np.random.default_rng(1).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    side = 192 // factor
    expected = cv2.resize(image.astype(np.float32) / 255, (side, side), interpolation=cv2.INTER_AREA)
    found = warp(image, scale_affine(np.eye(2, 3), target=1 / factor), (side, side))
    assert np.abs(found - expected).max() < 1 / 255


def test_lines_do_not_alias_when_a_turned_image_shrinks():
    stripes = np.zeros((200, 200), np.uint8)
    stripes[:, ::2] = 255
    found = warp(stripes, turned(17, 0.2, (10, 0)), (30, 30))
    assert np.abs(found - 0.5).max() < 0.15
    plain = cv2.warpAffine(stripes, turned(17, 0.2, (10, 0)), (30, 30), borderMode=cv2.BORDER_REFLECT) / 255
    assert np.abs(plain - 0.5).max() > 0.4


@pytest.mark.parametrize("scale", [1, 1.7, 4])
def test_there_and_back_keeps_the_image(scale):
    image, side = smooth(40, 40), math.ceil(90 * scale)
    matrix = turned(25, scale, (30 * scale, 20 * scale))
    back = warp(warp(image, matrix, (side, side)), invert_affine(matrix), (40, 40))
    inner = (slice(8, 32), slice(8, 32))
    assert np.sqrt(np.mean((back - image / 255)[inner] ** 2)) < 0.6 / 255


def test_border_is_reflected():
    white = np.full((10, 12, 3), 255, np.uint8)
    for matrix in (turned(45, 3, (20, 20)), turned(0, 0.1, (5, 5)), turned(0, 1, (11, 9))):
        assert warp(white, matrix, (16, 16)).min() > 0.999
    ramp = np.tile(np.arange(12, dtype=np.uint8) * 20, (10, 1))
    assert np.allclose(warp(ramp, turned(0, 1, (3, 0)), (6, 10))[0] * 255, [40, 20, 0, 0, 20, 40], atol=1e-3)


def test_an_edge_does_not_overshoot():
    edge = np.zeros((10, 10, 3), np.uint8)
    edge[:, 5:] = 255
    found = warp(edge, turned(10, 7, (0, 0)), (70, 70))
    assert found.min() == 0
    assert found.max() == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (30, 20000, 3), (20000, 30, 3)])
def test_odd_photographs(shape):
    image = np.full(shape, 100, np.uint8)
    found = warp(image, turned(12, 0.8, (-7000, 3)), (32, 32))
    assert np.abs(found - 100 / 255).max() < 1e-3


def test_a_large_photograph_is_not_copied():
    image = np.broadcast_to(np.array([10, 20, 30], np.uint8), (10000, 10000, 3))
    tracemalloc.start()
    warp(image, turned(30, 0.5, (-4000, -1000)), (64, 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_a_huge_face_is_reduced_in_its_own_dtype():
    image = np.zeros((2000, 2000, 3), np.uint8)
    tracemalloc.start()
    warp(image, scale_affine(np.eye(2, 3), target=1 / 100), (20, 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * image.nbytes  # in float32 it is 4 times as large


@pytest.mark.parametrize("scale", [0.3, 1, 2.5])
def test_warp_reads_all_needed_pixels(scale):
    image = np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    matrix = turned(0, scale, (-100.4 * scale, -100.4 * scale))
    part = warp(image, matrix, (16, 16))
    whole = warp(image, compose(matrix, turned(0, 1, (20, 20))), (56, 56))
    assert np.abs(part - whole[20:36, 20:36]).max() < 0.06


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_cannot_be_warped(image):
    with pytest.raises(ShapeError, match="image: got"):
        warp(image, np.eye(2, 3), (4, 4))
