"""Each task: the input of the network, and what of the image stays."""

from functools import cache

import cv2
import numpy as np
import pytest
from synthetic_faces import render_face

from gpen_plugin.data.gpen_task_dataset import BrushRanges, brush_mask
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.data.segmentation_labels import LABELS, colorize_labels
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.images.color import luminance, to_gray
from gpen_plugin.restore.tasks import TASKS, Colorize, Inpaint, Seg2face, get_task, read_strokes

SIDE = 128


@cache
def face(seed: int, side: int = SIDE) -> np.ndarray:
    image = render_face(seed, side).astype(np.float32) / 255
    image.flags.writeable = False
    return image


def scribbled(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A face under white strokes, and where they are."""
    ranges = BrushRanges(strokes=(1, 1), width=(0.03, 0.05), covered=(0.08, 0.3))
    mask = brush_mask(ranges, rng_from_key(seed), side) == 1
    return np.where(mask[:, :, None], np.float32(1), face(seed, side)), mask


def label_map(side: int = 64) -> np.ndarray:
    labels = np.zeros((side, side), np.uint8)
    cv2.ellipse(labels, (side // 2, side // 2), (side // 4, side // 3), 0, 0, 360, LABELS.index("skin"), -1)
    cv2.circle(labels, (side // 2 - 8, side // 2 - 6), 3, LABELS.index("left eye"), -1)
    return labels


def as_crop(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_found_by_its_name(name):
    task = get_task(name)
    assert task.name == name
    assert task.released.startswith("GPEN-")


def test_unknown_task_is_refused():
    with pytest.raises(OptionError, match="task: got 'colorise'; expected one of restore, colorize, inpaint, seg2face"):
        get_task("colorise")


def test_conventions():
    assert [task.name for task in TASKS.values() if task.aligned_only] == ["colorize", "seg2face"]
    assert [task.name for task in TASKS.values() if task.keeps_gray] == ["restore", "inpaint"]


def test_restoration_changes_nothing():
    crop, output = face(0), face(1)
    task = get_task("restore")
    assert task.preprocess(crop, 64) is crop
    assert task.postprocess(crop, output) is output


# --- colorize


def test_colorization_keeps_the_luminance():
    crop, output = face(0), face(1, 64)
    np.testing.assert_array_equal(Colorize().preprocess(crop, 64), to_gray(crop))
    result = Colorize().postprocess(crop, output)
    assert result.shape == crop.shape
    np.testing.assert_allclose(luminance(result), luminance(crop), atol=1e-6)
    assert np.ptp(result, axis=2).max() > 0.1  # it has colors


def test_true_colors_give_the_photograph_back():
    crop = face(2)
    np.testing.assert_allclose(Colorize().postprocess(to_gray(crop), crop), crop, atol=1e-5)


def test_colorization_keeps_the_shape():
    crop = face(0)[:, :100]
    assert Colorize().postprocess(crop, face(0, 64)).shape == (SIDE, 100, 3)


# --- inpaint


@pytest.mark.parametrize("seed", range(2))
def test_only_strokes_are_filled(seed):
    crop, mask = scribbled(seed)
    whole, task = face(seed), Inpaint()
    assert task.preprocess(crop, SIDE) is crop
    np.testing.assert_array_equal(task.hidden(crop), mask)
    result = task.postprocess(crop, 1 - whole)  # a network that gets all wrong
    np.testing.assert_allclose(result[mask], (1 - whole)[mask], atol=1e-6)
    far = cv2.dilate(mask.astype(np.uint8), np.ones((11, 11))) == 0
    assert far.mean() > 0.3
    np.testing.assert_array_equal(result[far], crop[far])


def test_strokes_of_training_are_found():
    for seed in range(100):
        mask = brush_mask(BrushRanges(), np.random.default_rng(seed), SIDE) == 1
        found = read_strokes(np.where(mask[:, :, None], np.float32(1), np.full((SIDE, SIDE, 3), 0.5, np.float32)))
        assert (found & mask).sum() > 0.98 * mask.sum(), seed
        assert not (found & ~mask).any()


@pytest.mark.parametrize(("quality", "seed"), [(95, 3), (75, 4)])
def test_strokes_are_found_in_jpeg_files(quality, seed):
    crop, mask = scribbled(seed, 256)
    stored = cv2.imencode(".jpg", np.rint(crop * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    crop = as_crop(cv2.imdecode(stored, cv2.IMREAD_COLOR))
    found = Inpaint().hidden(crop)
    assert (found & mask).sum() > 0.85 * mask.sum()
    assert not (found & ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))).astype(bool)).any()
    result = Inpaint().postprocess(crop, face(seed, 256))
    assert not (result.min(axis=2)[mask] > 0.97).any()  # their edges, too, are gone


def test_rotated_strokes_are_found():
    crop, mask = scribbled(1, 256)
    matrix = cv2.getRotationMatrix2D((128, 128), 20, 0.8)
    turned, where = (cv2.warpAffine(each, matrix, (256, 256)) for each in (crop, mask.astype(np.float32)))
    found = Inpaint().hidden(turned)
    assert found[where > 0.99].mean() > 0.98
    assert not found[where == 0].any()


@pytest.mark.parametrize("seed", range(3))
def test_a_face_without_strokes_stays_as_it_is(seed):
    crop = face(seed)
    assert not Inpaint().hidden(crop).any()
    np.testing.assert_array_equal(Inpaint().postprocess(crop, face(seed + 1)), crop)


def test_other_white_areas_are_no_strokes():
    crop = np.full((SIDE, SIDE, 3), 0.4, np.float32)
    cv2.circle(crop, (30, 30), 1, (1, 1, 1), -1)  # the light in an eye
    cv2.circle(crop, (90, 30), 8, (1, 1, 1), -1)  # a button, with a thread
    crop[30, 90] = 0.97
    crop[90:] = 1  # a wall
    ramp = np.linspace(0.9, 0.99, 60, dtype=np.float32)
    crop[60:66, 10:70] = ramp[None, :, None]  # a collar: long, but not quite white
    assert not read_strokes(crop).any()
    cv2.line(crop, (10, 45), (110, 45), (1, 1, 1), 5)
    found = read_strokes(crop)
    assert found[45, 10:110].all()
    assert not found[80:].any()
    assert not found[58:70].any()


def test_mask_sets_hidden_pixels():
    crop = face(3)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    task = Inpaint(mask=mask)
    painted = task.preprocess(crop, SIDE)
    assert (painted[40:80, 40:80] == 1).all()
    np.testing.assert_array_equal(painted[:38], crop[:38])
    result = task.postprocess(crop, np.zeros((64, 64, 3), np.float32))
    assert (result[40:80, 40:80] == 0).all()
    np.testing.assert_array_equal(result[:35], crop[:35])


def test_the_seam_is_soft():
    crop = np.ones((SIDE, SIDE, 3), np.float32) * 0.5
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, 60:] = True
    row = Inpaint(mask=mask, feather=0.1).postprocess(crop, np.zeros_like(crop))[64, :, 0]
    assert np.abs(np.diff(row)).max() <= 0.5 / 12
    assert (np.diff(row) <= 0).all()


# --- seg2face


def test_indices_are_colored():
    labels = label_map()
    crop = as_crop(cv2.cvtColor(labels, cv2.COLOR_GRAY2BGR))
    np.testing.assert_array_equal(Seg2face().preprocess(crop, 64), as_crop(colorize_labels(labels)))
    half = Seg2face().preprocess(crop, 32)
    assert half.shape == (32, 32, 3)
    colors = {tuple(color) for color in np.unique(as_crop(colorize_labels(labels)).reshape(-1, 3), axis=0)}
    assert {tuple(color) for color in np.unique(half.reshape(-1, 3), axis=0)} <= colors


def test_colored_maps_are_unchanged():
    palette = [[10 * i, 7, 255 - i] for i in range(19)]
    crop = as_crop(colorize_labels(label_map(), palette))
    np.testing.assert_array_equal(Seg2face().preprocess(crop, 64), crop)
    indexed = as_crop(cv2.cvtColor(label_map(), cv2.COLOR_GRAY2BGR))
    np.testing.assert_array_equal(Seg2face(palette=palette).preprocess(indexed, 64), crop)
    output = face(0, 32)
    assert Seg2face().postprocess(crop, output) is output


@pytest.mark.parametrize(
    ("crop", "words"),
    [
        (lambda: np.random.default_rng(0).random((32, 32, 3), np.float32), "the map: has .* colors; expected a map"),
        (lambda: np.zeros((32, 32, 3), np.float32), "the map: is background everywhere"),
    ],
)
def test_images_that_are_no_map_are_refused(crop, words):
    with pytest.raises(DataError, match=words):
        Seg2face().preprocess(crop(), 32)
