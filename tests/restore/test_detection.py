"""The multi-scale detector with a synthetic backend, and `open_detector`."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin.errors import MissingFileError, OptionError, ShapeError
from gpen_plugin.restore import detection
from gpen_plugin.restore.alignment import invert_affine, scale_affine
from gpen_plugin.restore.detection import (
    DetectedFace,
    MultiScaleDetector,
    open_detector,
    resize,
    rotate,
    tiles,
)

GREEN, RED = (0, 255, 0), (0, 0, 255)


class Disc:
    """Finds synthetic faces: a green disc between 8 and 40 px with a red mouth below its middle when it is upright."""

    name = "disc"
    smallest, largest = 8.0, 40.0
    tile = 96
    max_pixels = 1_000_000
    rotations = (90.0, 180.0, 270.0)
    score = 0.9

    def __init__(self):
        self.shapes = []

    def __call__(self, image):
        self.shapes.append(image.shape)
        assert image.flags.c_contiguous
        assert max(image.shape[:2]) <= self.tile
        green = (image[..., 1] > 100).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(green)
        return [face for row in stats[1:count] for face in self._detect(image, *row[:4])]

    def _detect(self, image, left, top, width, height):
        if not self.smallest <= max(width, height) <= self.largest:
            return
        reds = np.argwhere(image[top : top + height, left : left + width, 2] > 100)
        if not len(reds) or (reds.mean(axis=0)[0] + 0.5) / height < 0.55:
            return
        box = np.array([left, top, left + width, top + height]) - 0.5
        fractions = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        yield DetectedFace(box, box[:2] + fractions * (width, height), self.score, self.name)


def draw(height, width, *discs, down=(0, 1)):
    """An image with discs: (x, y, radius)."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, radius in discs:
        cv2.circle(image, (x, y), radius, GREEN, -1)
        mouth = round(x + down[0] * 0.6 * radius), round(y + down[1] * 0.6 * radius)
        cv2.circle(image, mouth, max(radius // 4, 1), (0, 255, 255), -1)
    return image


def found(image, **settings):
    return MultiScaleDetector(Disc(), "discs", **settings)(image)


@pytest.mark.parametrize("height", [10, 37, 100, 250])
def test_resize_agrees_with_its_matrix(height):
    image = np.tile(np.arange(100, dtype=np.float32)[:, None], (1, 60))  # each pixel says its row
    matrix = scale_affine(np.eye(2, 3), target=(1, height / 100))
    rows = np.arange(height)[3:-3]
    # a mean over parts of pixels is off by up to 1/8 px of the smaller image, 0.05 for 37 of 100 rows
    assert np.allclose(resize(image, 60, height)[3:-3, 1], (rows - matrix[1, 2]) / matrix[1, 1], atol=0.15)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotate_moves_whole_pixels(degrees):
    image = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    turn, matrix = rotate(image, degrees)
    assert (turn == np.rot90(image, degrees // 90)).all()
    x, y = np.rint(matrix @ (6, 1, 1)).astype(int)
    assert (turn[y, x] == image[1, 6]).all()
    assert np.allclose(invert_affine(matrix) @ (x, y, 1), (6, 1))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (96, 96), (97, 300), (1000, 20)])
def test_tiles_cover_all_and_overlap(height, width):
    image = np.arange(height * width).reshape(height, width)
    seen = np.zeros(height * width, int)
    last = 0
    for (x, y), tile in tiles(image, 96, 30):
        assert (image[y : y + tile.shape[0], x : x + tile.shape[1]] == tile).all()
        assert max(tile.shape) <= 96
        assert np.shares_memory(tile, image)
        if y and y != last:
            assert y <= last + 96 - 30
        last = y
        seen[tile.ravel()] += 1
    assert seen.min() == 1


def test_small_and_large_faces_of_a_large_photograph():
    discs = [(30, 30, 8), (96, 100, 12), (185, 60, 10), (330, 200, 120), (60, 300, 40)]
    faces = found(draw(400, 500, *discs))
    assert len(faces) == len(discs)
    for x, y, radius in discs:
        near = min(faces, key=lambda face: np.linalg.norm(face.box.reshape(2, 2).mean(axis=0) - (x, y)))
        assert np.allclose(near.box, [x - radius, y - radius, x + radius, y + radius], atol=max(2, radius * 0.15))
        assert np.allclose(near.landmarks[0], (x - 0.4 * radius, y - 0.2 * radius), atol=max(1.5, radius * 0.1))
    assert faces == sorted(faces, key=lambda face: (-face.score, face.box[1]))


def test_a_small_image_is_enlarged():
    (face,) = found(draw(20, 20, (9, 10, 3)), min_size=4)
    assert np.allclose(face.box, [6, 7, 12, 13], atol=1.5)


def test_smaller_faces_are_dropped():
    image = draw(100, 100, (25, 25, 10), (70, 70, 15))
    assert len(found(image, min_size=16)) == 2
    assert len(found(image, min_size=25)) == 1
    assert found(image, min_size=101) == []


@pytest.mark.parametrize(("degrees", "down"), [(90, (-1, 0)), (180, (0, -1)), (270, (1, 0))])
def test_a_turned_face_has_its_left_eye_left_as_seen_upright(degrees, down):
    image = draw(150, 200, (60, 80, 20), down=down)
    (face,) = found(image)
    assert np.allclose(face.box, [40, 60, 100 - 20, 100], atol=2.5)
    below = face.landmarks[3:].mean(axis=0) - face.landmarks[:2].mean(axis=0)
    assert np.allclose(below / np.linalg.norm(below), down, atol=0.1)
    eyes = face.landmarks[1] - face.landmarks[0]
    assert np.allclose(eyes / np.linalg.norm(eyes), (down[1], -down[0]), atol=0.1)


def test_image_with_an_upright_face_is_not_rotated():
    image = np.hstack([draw(90, 48, (24, 40, 12)), draw(90, 48, (24, 40, 12), down=(0, -1))])
    assert len(found(image)) == 1


class Scored(Disc):
    """As certain of a disc as it is said to be of discs of its size."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def _detect(self, image, left, top, width, height):
        for face in super()._detect(image, left, top, width, height):
            radius = min(self.scores, key=lambda radius: abs(2 * radius - width))
            yield replace(face, score=self.scores[radius])


@pytest.mark.parametrize(("upright", "turned", "count"), [(0.7, 0.95, 3), (0.95, 0.95, 1), (0.7, 0.7, 1)])
def test_uncertain_upright_face_does_not_hide_turned_ones(upright, turned, count):
    """Three are upside down, one stands."""
    discs = [(25, 45, 9), (65, 45, 9), (105, 45, 9)]
    image = np.hstack([draw(90, 130, *discs, down=(0, -1)), draw(90, 48, (24, 45, 6))])
    faces = MultiScaleDetector(Scored({12: upright, 17: turned}), "", min_size=8)(image)  # enlarged 1.8 times
    assert len(faces) == count


def test_low_scores_in_a_rotated_image_are_dropped():
    assert MultiScaleDetector(Scored({20: 0.84}), "")(draw(150, 200, (60, 80, 20), down=(0, -1))) == []


def test_rotations_are_searched_at_low_resolution_first(monkeypatch):
    """The smaller of two faces that are upside down is seen only then; where there are none, no copy is large."""
    monkeypatch.setattr(detection, "ROTATION_CHECK_PIXELS", 25_000)
    backend = Disc()
    faces = MultiScaleDetector(backend, "", min_size=8)(draw(300, 400, (100, 80, 30), (300, 200, 7), down=(0, -1)))
    assert sorted(round(face.box[2] - face.box[0]) // 10 for face in faces) == [1, 6]
    searched = [height * width for height, width, _ in backend.shapes]
    backend.shapes.clear()
    assert MultiScaleDetector(backend, "", min_size=8)(draw(300, 400)) == []
    assert sum(height * width for height, width, _ in backend.shapes) < 0.7 * sum(searched)


class Fixed(Disc):
    """Finds the same faces in every image."""

    largest = tile = 4000

    def __init__(self, *faces):
        self.faces = faces

    def __call__(self, image):
        return list(self.faces)


def test_faces_at_the_border():
    """Of one face, the landmarks' middle is inside by a pixel; of the other, it is not."""
    points = np.array([[-8.0, 26], [8, 26], [0, 34], [-6, 42], [8, 42]])
    inside = DetectedFace(np.array([-20.0, 10, 20, 50]), points + np.array([0.6, 0]), 0.9, "fixed")
    outside = DetectedFace(np.array([380.0, 90, 420, 130]), points + np.array([400, 80]), 0.8, "fixed")
    upside_down = DetectedFace(np.array([100.0, 90, 140, 130]), points * [1, -1] + [120, 140], 0.8, "fixed")
    faces = MultiScaleDetector(Fixed(inside, outside, upside_down), "fixed", min_size=8)(
        np.zeros((400, 400, 3), np.uint8)
    )
    assert [face.score for face in faces] == [0.9]
    assert np.allclose(faces[0].box, inside.box)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (30, 20000), (5000, 7000)])
def test_odd_sizes(shape, monkeypatch):
    monkeypatch.setattr(detection, "ROTATION_CHECK_PIXELS", 250_000)
    backend = Disc()
    image = np.broadcast_to(np.zeros(3, np.uint8), (*shape, 3))
    assert MultiScaleDetector(backend, "")(image) == []
    pixels = sum(height * width for height, width, _ in backend.shapes)
    assert pixels < 8 * backend.max_pixels


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.uint16), np.zeros((0, 9, 3), np.uint8)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ShapeError, match=r"image: got .* expected \(H, W, 3\) uint8"):
        found(image)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """No weights are here, and none can be had."""
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(detection, "_facexlib_folder", lambda: tmp_path)
    return tmp_path


def test_auto_takes_yunet_without_retinaface(bare):
    detector = open_detector()
    assert (detector.name, detector.notice) == ("yunet", "found by YuNet")


def test_named_detector_is_not_replaced(bare):
    with pytest.raises(MissingFileError, match="is not on this machine"):
        open_detector("retinaface")
    with pytest.raises(MissingFileError, match=r"detector_file: .* is not there"):
        open_detector(file=bare / "my.pth")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "haar"}, "detector: got 'haar'; expected one of auto, retinaface, yunet"),
        ({"threshold": 1.5}, "threshold: got 1.5"),
        ({"min_size": 0}, "min_size: got 0"),
        ({"name": "yunet", "file": "x.pth"}, "detector_file: got x.pth; expected a .pth file of RetinaFace"),
        ({"file": "x.onnx"}, "detector_file: got x.onnx; expected a .pth file of RetinaFace"),
    ],
)
def test_wrong_arguments(settings, message):
    with pytest.raises(OptionError, match=message.replace(".", r"\.")):
        open_detector(**settings)


def test_steps_between_scales_leave_no_gap():
    """A face that is too large for one scale is large enough for the next, and whole in one of its tiles."""
    for backend in (detection.YuNetBackend, detection.RetinaFaceBackend):
        assert backend.largest >= detection.SCALE_STEP * backend.smallest * detection.TILE_OVERLAP
        assert backend.tile > 2 * detection.TILE_OVERLAP * detection.SCALE_STEP * backend.smallest
