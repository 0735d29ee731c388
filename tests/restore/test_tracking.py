"""Faces over time: smoothing has no lag, overlooked faces are filled in, cuts end tracks."""

import cv2
import numpy as np
import pytest

from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.video import (
    CUT_MIN_DIFFERENCE,
    LOOK_AHEAD,
    MAX_GAP,
    CutFinder,
    FaceTracker,
    smooth_landmarks,
)

FACE = np.array([[-20.0, -15], [20, -15], [0, 5], [-16, 25], [16, 25]])
NOISE = 0.6  # pixels
FRAMES = 100


def face(x: float, y: float = 100.0, noise: np.ndarray | float = 0.0) -> DetectedFace:
    landmarks = FACE + np.array([x, y]) + noise
    return DetectedFace(np.array([x - 40, y - 50, x + 40, y + 50]), landmarks, 0.9, "made")


def track(frames: list[list[DetectedFace]], cuts: tuple[int, ...] = ()) -> tuple[list, FaceTracker]:
    tracker, given = FaceTracker(), []
    for number, faces in enumerate(frames):
        given += tracker.add(faces, cut=number in cuts)
    return given + tracker.finish(), tracker


def motion(kind: str) -> np.ndarray:
    """Where the face is in each frame, in x."""
    time = np.arange(FRAMES)
    turns = sum(sign * 60 / (1 + np.exp(-(time - middle) / 0.8)) for sign, middle in ((1, 30), (-1, 70)))
    return 200 + {"standing": 0 * time, "moving": 4.0 * time, "nodding": 10 * np.sin(time / 4), "turning": turns}[kind]


@pytest.mark.parametrize(("kind", "jitter"), [("standing", 0.1), ("moving", 0.1), ("nodding", 0.2), ("turning", 0.6)])
def test_less_jitter_and_no_lag(kind, jitter):
    """Jitter: of the error's change from frame to frame. Lag: of all delays, none fits better than zero."""
    x, rng = motion(kind), np.random.default_rng(0)
    given, tracker = track([[face(x_of_face, noise=rng.normal(0, NOISE, (5, 2)))] for x_of_face in x])
    assert tracker.tracks == 1
    found = np.stack([faces[0].face.landmarks for faces in given])
    errors = (found - FACE - np.stack([x, np.full(FRAMES, 100)], axis=1)[:, None])[LOOK_AHEAD:-LOOK_AHEAD]
    raw = np.sqrt(2) * NOISE
    assert np.sqrt((np.diff(errors, axis=0) ** 2).mean()) < jitter * raw
    assert np.sqrt((errors**2).mean()) < 0.8 * NOISE
    if kind != "standing":
        mean, time = found[:, :, 0].mean(axis=1), np.arange(FRAMES)
        delays = np.arange(-2, 2.01, 0.1)
        misses = [((np.interp(time - delay, time, x) - mean)[LOOK_AHEAD:-LOOK_AHEAD] ** 2).sum() for delay in delays]
        assert abs(delays[np.argmin(misses)]) < 0.11


def test_without_noise_nothing_changes_even_at_a_jump():
    x = np.where(np.arange(40) < 20, 100.0, 130.0)
    given, _ = track([[face(x_of_face)] for x_of_face in x])
    for x_of_face, faces in zip(x, given, strict=True):
        np.testing.assert_allclose(faces[0].face.landmarks, face(x_of_face).landmarks, atol=1e-4)
        np.testing.assert_allclose(faces[0].face.box, face(x_of_face).box, atol=1e-4)


def test_parabola_fills_a_missing_frame():
    found = {number: face(number**2 / 8) for number in range(16) if number not in (7, 8)}
    np.testing.assert_allclose(smooth_landmarks(found, 7).landmarks, face(49 / 8).landmarks, atol=1e-6)


def test_two_frames_are_interpolated():
    np.testing.assert_allclose(smooth_landmarks({0: face(10), 4: face(30)}, 1).landmarks, face(15).landmarks)


@pytest.mark.parametrize(("missing", "filled"), [(1, True), (MAX_GAP, True), (MAX_GAP + 1, False)])
def test_short_gaps_are_filled(missing, filled):
    gone = range(12, 12 + missing)
    given, tracker = track([[] if number in gone else [face(100 + number)] for number in range(30)])
    assert [len(faces) for faces in given] == [int(filled or number not in gone) for number in range(30)]
    assert tracker.tracks == (1 if filled else 2)
    if filled:
        for number in gone:
            np.testing.assert_allclose(given[number][0].face.landmarks, face(100 + number).landmarks, atol=1e-6)


def test_brief_tracks_are_dropped_inside_a_shot():
    one, ghost = [face(100)], [face(100), face(300)]
    given, tracker = track([ghost, *[one] * 10, ghost, ghost, *[one] * 10, ghost])
    assert [len(faces) for faces in given] == [2, *[1] * 22, 2]
    assert (tracker.tracks, tracker.dropped) == (3, 1)


def test_crossing_faces_keep_their_tracks():
    frames = []
    for number in range(40):
        faces = [face(100 + 6 * number), face(340 - 6 * number, y=112)]
        frames.append(faces[:: -1 if number % 2 else 1])
    given, tracker = track(frames)
    assert tracker.tracks == 2
    for number, faces in enumerate(given):
        positions = {found.track: found.face.landmarks[:, 0].mean() for found in faces}
        assert positions == pytest.approx({0: 100 + 6 * number, 1: 340 - 6 * number}, abs=1)


def test_a_far_find_does_not_push_a_near_pair_apart():
    """One face goes and another comes: the sum of the ways would be less if the one that stays were mistaken."""
    given, tracker = track([[face(100), face(180)]] * 12 + [[face(179), face(400)]] * 12)
    assert tracker.tracks == 3
    assert {found.track for found in given[20] if found.face.landmarks[:, 0].mean() < 200} == {1}


def test_a_face_that_gets_quicker_is_followed():
    x = np.cumsum(10 * np.arange(9))
    _, tracker = track([[face(x_of_face)] for x_of_face in x])
    assert tracker.tracks == 1


def test_tracks_end_at_a_cut():
    given, tracker = track([[face(100)]] * 12 + [[face(110)]] * 12, cuts=(12,))
    assert tracker.tracks == 2
    np.testing.assert_allclose(given[11][0].face.landmarks, face(100).landmarks, atol=1e-6)
    np.testing.assert_allclose(given[12][0].face.landmarks, face(110).landmarks, atol=1e-6)
    gap = [[face(100)]] * 10 + [[]] * 2 + [[]] + [[face(100)]] * 9
    assert [len(faces) for faces in track(gap, cuts=(12,))[0]] == [1] * 10 + [0] * 3 + [1] * 9


def test_frames_are_returned_after_the_look_ahead():
    tracker = FaceTracker()
    counts = [len(tracker.add([face(100)], cut=number == 20)) for number in range(24)]
    assert counts == [0] * LOOK_AHEAD + [1] * (20 - LOOK_AHEAD) + [LOOK_AHEAD] + [0] * 3
    assert len(tracker.finish()) == 4
    assert tracker.finish() == []


def texture(seed: int, width: int = 128) -> np.ndarray:
    """Blots of color, (128, width, 3)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, width // 16, 3), dtype=np.uint8)
    return cv2.resize(blocks, (width, 128), interpolation=cv2.INTER_CUBIC)


def test_cuts_are_found():
    wide, rng = texture(0, 640), np.random.default_rng(1)
    pan = [wide[:, left : left + 128] for left in np.cumsum(np.arange(20))]  # quicker and quicker
    still = [np.clip(texture(2) + rng.normal(0, 12, (128, 128, 3)), 0, 255).astype(np.uint8) for _ in range(10)]
    fade = [(texture(3) * (1 - step / 10)).astype(np.uint8) for step in range(10)]
    assert np.abs(pan[-1].astype(float) - pan[-2]).mean() > CUT_MIN_DIFFERENCE
    finder = CutFinder()
    assert [number for number, frame in enumerate([*still, *fade, *pan]) if finder(frame)] == [10, 20]
