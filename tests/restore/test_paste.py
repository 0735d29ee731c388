"""Putting faces back: nothing changes where the network changed nothing, and no edge shows where it did."""

import math

import cv2
import numpy as np
import pytest
from helpers.thread_counts import torch_threads

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.restore import paste as paste_module
from gpen_plugin.restore.alignment import TEMPLATES, align, invert_affine, scale_affine, scale_template, warp
from gpen_plugin.restore.paste import Piece, normalize_overlaps, paste, paste_all, soft_mask

FFHQ = TEMPLATES["ffhq"]
WHITE = {np.uint8: 255, np.uint16: 65535}


def face_at(x: float, y: float, size: float, degrees: float = 0, name: str = "ffhq") -> np.ndarray:
    """Landmarks of a face whose frame of `size` pixels has its middle there."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (TEMPLATES[name] - 0.5) * size @ turn.T + (x, y)


def photograph(dtype: type = np.uint8, side: int = 120) -> np.ndarray:
    """Texture of all frequencies."""
    rng = np.random.default_rng(3)
    values = sum(cv2.GaussianBlur(rng.normal(0, 1, (side, side, 3)), (0, 0), sigma) * sigma for sigma in (0.5, 3, 12))
    values = (values - values.min()) / np.ptp(values)
    return np.rint(values * WHITE[dtype]).astype(dtype)


def put(canvas, landmarks, network, size=64, name="ffhq", source=None, enlarged=1.0, alpha=1.0):
    """The whole way of a face: cut out, changed, pasted."""
    matrix = align(landmarks, TEMPLATES[name], size)
    crop = warp(canvas if source is None else source, matrix, (size, size))
    larger = scale_affine(matrix, source=enlarged)
    paste(canvas, Piece(crop, network(crop), larger, soft_mask(TEMPLATES[name], size)), alpha)
    return matrix


def brighter(crop: np.ndarray) -> np.ndarray:
    return (crop + 0.1).clip(0, 1)


def grain(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    return image - cv2.GaussianBlur(image, (0, 0), 1)


# --- a network that changes nothing


@pytest.mark.parametrize("dtype", WHITE)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize(("x", "y", "frame", "degrees"), [(60, 55, 80, 0), (8, 110, 100, 45), (70, 60, 20, -160)])
def test_unchanged_crop_gives_the_photograph_bit_for_bit(dtype, name, size, x, y, frame, degrees):
    before = photograph(dtype)
    canvas = before.copy()
    put(canvas, face_at(x, y, frame, degrees, name), np.copy, size, name)
    assert np.array_equal(canvas, before)


@pytest.mark.parametrize("size", [32, 128])
def test_an_unchanged_crop_on_an_enlarged_photograph(size):
    small = photograph()
    before = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    canvas = before.copy()
    put(canvas, face_at(60, 60, 80, 20), np.copy, size, source=small, enlarged=2)
    difference = np.abs(canvas.astype(int) - before)
    assert difference.mean() < 0.5
    assert difference.max() < 20


def test_change_is_proportional_to_alpha():
    before = photograph(np.uint16)
    none, half, whole = before.copy(), before.copy(), before.copy()
    for canvas, alpha in ((none, 0), (half, 0.5), (whole, 1)):
        put(canvas, face_at(60, 60, 80), brighter, alpha=alpha)
    assert np.array_equal(none, before)
    assert np.abs((whole.astype(int) - before) / 2 - (half.astype(int) - before)).max() <= 1
    assert np.abs(whole.astype(int) - before).max() > 6000


# --- one that changes much


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(("x", "y", "degrees"), [(60, 60, 0), (60, 60, 45), (5, 100, 10)])
def test_a_brighter_face_has_no_edge(name, x, y, degrees):
    before = np.full((120, 120, 3), 30000, np.uint16)
    canvas = before.copy()
    matrix = put(canvas, face_at(x, y, 80, degrees, name), brighter, 64, name)
    change = (canvas.astype(float) - before)[..., 0] / 65535
    steps = max(np.abs(np.diff(change, axis=axis)).max() for axis in (0, 1))
    assert steps < 0.1 * 1.5 / (80 * 0.15 / 2) * 1.1  # a smooth step of 0.1 over the narrowest fade
    rows, columns = np.indices(change.shape)
    inside = matrix[:, :2] @ np.stack([columns.ravel(), rows.ravel()]) + matrix[:, 2:]
    outside = (np.abs(inside - 31.5) > 33).any(axis=0).reshape(change.shape)
    assert outside.any()
    assert not change[outside].any()
    across, down = np.rint(invert_affine(matrix) @ (*scale_template(TEMPLATES[name], 64)[2], 1)).astype(int)
    assert change[down, across] == pytest.approx(0.1, abs=1e-3)


def test_output_replaces_the_crop():
    canvas = photograph(side=100)
    matrix = align(face_at(50, 50, 64), FFHQ, 64)
    crop = warp(canvas, matrix, (64, 64))
    other = warp(photograph()[::-1, ::-1].copy(), matrix, (64, 64))
    paste(canvas, Piece(crop, other, matrix, np.ones((64, 64), np.float32)))
    found = warp(canvas, matrix, (64, 64))
    inner = (slice(12, 52), slice(12, 52))
    assert np.abs(found - other)[inner].mean() < 0.25 * np.abs(crop - other)[inner].mean()


def test_fine_detail_stays_if_the_network_keeps_detail():
    before = photograph(side=240)
    canvas = before.copy()
    put(canvas, face_at(120, 120, 200), lambda crop: crop * np.float32(0.8), 32)
    inner = (slice(90, 150), slice(90, 150))
    kept = (grain(canvas)[inner] * grain(before)[inner]).sum() / (grain(before)[inner] ** 2).sum()
    assert 0.75 < kept < 1.05


def test_fine_noise_goes_if_the_network_removes_noise():
    truth = cv2.GaussianBlur(photograph(side=240), (0, 0), 6)
    noise = np.random.default_rng(5).normal(0, 15, truth.shape)
    canvas = (truth + noise).clip(0, 255).astype(np.uint8)
    before = canvas.copy()
    put(canvas, face_at(120, 120, 200), lambda crop: cv2.GaussianBlur(crop, (0, 0), 3), 128)
    inner = (slice(90, 150), slice(90, 150))
    assert grain(canvas)[inner].std() < 0.3 * grain(before)[inner].std()


def test_larger_output_adds_detail():
    """A network that doubles the size: its stripes of one pixel are seen on a canvas that is large enough."""
    small = np.full((64, 64, 3), 128, np.uint8)
    canvas = cv2.resize(small, None, fx=2, fy=2)
    matrix = align(face_at(31.5, 31.5, 64), FFHQ, 64)
    stripes = np.full((128, 128, 3), 0.5, np.float32)
    stripes[:, ::4] = stripes[:, 1::4] = 0.7
    crop = warp(small, matrix, (64, 64))
    paste(canvas, Piece(crop, stripes, scale_affine(matrix, source=2), soft_mask(FFHQ, 64)))
    expected = np.rint(stripes[64, 40:90, 0] * 255 + 0.5)
    assert np.abs(canvas[64, 40:90, 0] - expected).max() <= 3


def test_gray_stays_gray():
    gray = np.repeat(photograph()[..., :1], 3, axis=2)
    put(gray, face_at(60, 60, 90, 30), lambda crop: np.sqrt(crop), 64)
    assert np.array_equal(gray[..., 0], gray[..., 1])
    assert np.array_equal(gray[..., 0], gray[..., 2])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_overlapping_faces_blend(order):
    canvas = np.full((100, 160, 3), 30000, np.uint16)
    before = canvas.copy()
    matrices = [align(face_at(x, 50, 80), FFHQ, 64) for x in (60, 100)]
    matrices = [matrices[i] for i in order]
    signs = [(0.1, -0.1)[i] for i in order]
    masks = normalize_overlaps([soft_mask(FFHQ, 64)] * 2, matrices)
    for matrix, sign, mask in zip(matrices, signs, masks, strict=True):
        crop = warp(before, matrix, (64, 64))
        paste(canvas, Piece(crop, crop + np.float32(sign), matrix, mask))
    change = (canvas.astype(float) - before)[50, :, 0] / 65535
    assert change[50] == pytest.approx(0.1, abs=0.005)  # the middles of the faces are wholly theirs
    assert change[110] == pytest.approx(-0.1, abs=0.005)
    assert abs(change[80]) < 0.01  # halfway they are equal
    assert np.abs(np.diff(change)).max() < 0.04  # of 0.2 from one face to the other


@pytest.mark.parametrize("threads", [1, 4])
def test_parallel_pasting_equals_sequential_pasting(threads):
    """Some of them lie over others, where the order counts."""
    rng = np.random.default_rng(4)
    before, pieces = photograph(np.uint16, side=400), []
    for x, y in rng.uniform(40, 360, (14, 2)):
        matrix = align(face_at(x, y, 70, rng.uniform(-40, 40)), FFHQ, 32)
        crop = warp(before, matrix, (32, 32))
        pieces.append(Piece(crop, (crop + rng.uniform(-0.2, 0.2)).clip(0, 1).astype("f4"), matrix, soft_mask(FFHQ, 32)))
    in_turn, backwards, at_once = before.copy(), before.copy(), before.copy()
    for piece in pieces:
        paste(in_turn, piece, 0.8)
    for piece in pieces[::-1]:
        paste(backwards, piece, 0.8)
    with torch_threads(threads):
        paste_all(at_once, pieces, 0.8)
    assert not np.array_equal(in_turn, backwards)
    assert np.array_equal(in_turn, at_once)
    assert 1 < len(paste_module._rounds(before, pieces)) < len(pieces)


def test_huge_face_is_pasted_in_bands(monkeypatch):
    whole, bands = photograph(), photograph()
    put(whole, face_at(60, 60, 90, 30), brighter)
    monkeypatch.setattr(paste_module, "BAND_ROWS", 7)
    put(bands, face_at(60, 60, 90, 30), brighter)
    assert np.abs(whole.astype(int) - bands).max() <= 1


def test_mask_may_have_another_size():
    one, other = photograph(np.uint16), photograph(np.uint16)
    matrix = align(face_at(60, 60, 90, 30), FFHQ, 64)
    crop = warp(one, matrix, (64, 64))
    paste(one, Piece(crop, brighter(crop), matrix, soft_mask(FFHQ, 64)))
    paste(other, Piece(crop, brighter(crop), matrix, soft_mask(FFHQ, 256)))
    assert np.abs(one.astype(int) - other).max() < 0.006 * 65535


def test_a_photograph_of_one_pixel():
    canvas = np.full((1, 1, 3), 100, np.uint8)
    put(canvas, face_at(0, 0, 4), brighter)
    assert abs(int(canvas[0, 0, 0]) - 125) <= 1


CROP, MASK = np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.float32)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"canvas": np.zeros((9, 9, 3), np.float32)}, r"canvas: got \(9, 9, 3\) float32"),
        ({"canvas": np.zeros((9, 9), np.uint8)}, r"canvas: got \(9, 9\) uint8"),
        ({"crop": CROP[:4]}, r"crop: got shape \(4, 8, 3\)"),
        ({"restored": CROP[..., 0]}, r"restored: got shape \(8, 8\)"),
        ({"mask": CROP}, r"mask: got shape \(8, 8, 3\); expected \(S, S\) float32"),
    ],
)
def test_wrong_images(changed, words):
    given = {"canvas": np.zeros((9, 9, 3), np.uint8), "crop": CROP, "restored": CROP, "mask": MASK, **changed}
    with pytest.raises(ShapeError, match=words):
        paste(given.pop("canvas"), Piece(matrix=np.eye(2, 3), **given))


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_wrong_strength(alpha):
    with pytest.raises(OptionError, match="alpha: got"):
        paste(np.zeros((9, 9, 3), np.uint8), Piece(CROP, CROP, np.eye(2, 3), MASK), alpha)
