"""Which findings are of one face, and which are of none, in closed form."""

import numpy as np
import pytest

from gpen_plugin.restore.detection import DetectedFace, is_plausible, nms, transform_face

FRACTIONS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])  # of the box


def face(left: float, top: float, side: float, score: float = 0.9, fractions: np.ndarray = FRACTIONS) -> DetectedFace:
    box = np.array([left, top, left + side, top + side], float)
    return DetectedFace(box, box[:2] + fractions * side, score, "synthetic")


def test_a_face_that_is_found_twice_is_one():
    sure, unsure = face(10, 10, 40, 0.9), face(12, 9, 38, 0.8)
    assert nms([unsure, sure]) == [sure]


def test_a_head_before_another_is_a_second_one():
    """The intersection of the boxes is 0.29 of their union; the eyes are 24 px apart from each other's."""
    behind, before = face(0, 0, 40, 0.9), face(14, 12, 40, 0.8)
    shared, union = 26 * 28, 2 * 1600 - 26 * 28
    assert shared / union > 0.29
    assert nms([before, behind]) == [behind, before]


def test_box_inside_a_face_is_suppressed():
    assert len(nms([face(0, 0, 100, 0.9), face(30, 35, 45, 0.8)])) == 1  # about the nose
    assert len(nms([face(0, 0, 100, 0.8), face(30, 35, 45, 0.9)])) == 1
    assert len(nms([face(0, 0, 100, 0.9), face(0, 0, 25, 0.8)])) == 2  # on the hat


def test_order_does_not_depend_on_that_of_the_findings():
    faces = [face(100, 50, 20, 0.7), face(0, 50, 20, 0.7), face(50, 0, 20, 0.7), face(200, 0, 20, 0.8)]
    expected = [faces[3], faces[2], faces[1], faces[0]]
    for seed in range(6):
        shuffled = [faces[i] for i in np.random.default_rng(seed).permutation(4)]
        assert nms(shuffled) == expected


@pytest.mark.parametrize("degrees", [0, 45, 90, 180])
def test_a_tilted_face_is_plausible(degrees):
    radians = np.radians(degrees)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    assert is_plausible(face(0, 0, 40, fractions=(FRACTIONS - 0.5) @ turn + 0.5))


@pytest.mark.parametrize(
    "fractions",
    [
        FRACTIONS * [1, -1],  # the mouth above the eyes
        FRACTIONS[[1, 0, 2, 4, 3]],  # the left eye at the right
        np.vstack([FRACTIONS[[0, 0]], FRACTIONS[2:]]),  # one eye
        np.where(np.arange(10).reshape(5, 2) == 4, np.nan, FRACTIONS),
    ],
    ids=["upside down", "mirrored", "no distance", "nan"],
)
def test_implausible_landmarks(fractions):
    assert is_plausible(face(0, 0, 40))
    assert not is_plausible(face(0, 0, 40, fractions=fractions))


def test_empty_and_endless_boxes():
    assert not is_plausible(DetectedFace(np.array([10.0, 0, 10, 40]), face(0, 0, 40).landmarks, 0.9, "synthetic"))
    assert not is_plausible(DetectedFace(np.array([0.0, 0, np.inf, 40]), face(0, 0, 40).landmarks, 0.9, "synthetic"))


def test_moving_scales_and_turns():
    upright = DetectedFace(np.array([10.0, 10, 30, 50]), face(10, 10, 20).landmarks, 0.9, "synthetic")
    lying = transform_face(upright, np.array([[0.0, 2, 0], [-2, 0, 100]]))  # a quarter to the left, twice as large
    assert np.allclose(lying.box, [20, 40, 100, 80])
    assert np.allclose(lying.landmarks, np.stack([2 * upright.landmarks[:, 1], 100 - 2 * upright.landmarks[:, 0]], 1))
    assert lying.score == 0.9
