"""The figure for flicker, against cases that have a known answer."""

import itertools

import cv2
import numpy as np
import pytest
from flicker import SIDE, FlickerMeter, measure
from helpers.video_files import FakeRestorer, write_avi
from synthetic_faces import render_face

from gpen_plugin.restore.alignment import scale_template, template
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.video import TrackedFace, restore_video

GRAY = np.full((SIDE, SIDE, 3), 128, np.uint8)


def tracked(number: int = 0, shift: tuple[float, float] = (0, 0)) -> TrackedFace:
    """A face that fills an image of `SIDE` as aligned faces do: cutting it out changes no pixel."""
    landmarks = scale_template(template("ffhq"), SIDE) + shift
    return TrackedFace(number, DetectedFace(np.array([0.0, 0, SIDE, SIDE]), landmarks, 1.0, "made"))


def noisy(image: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return np.rint(np.clip(image + noise, 0, 255)).astype(np.uint8)


def test_a_still_video_does_not_flicker():
    meter, face = FlickerMeter(), render_face(1, SIDE)
    for _ in range(3):
        meter.add(face, face, [tracked()])
    assert meter.before == meter.after == 0


@pytest.mark.parametrize("deviation", [2.0, 8.0])
def test_noise_gives_its_own_deviation(deviation):
    meter = FlickerMeter()
    for seed in range(6):
        meter.add(GRAY, noisy(GRAY, deviation, seed), [tracked()])
    rounding = 1 / 12  # variance
    assert meter.before == 0
    assert meter.after == pytest.approx(np.sqrt(deviation**2 + rounding), rel=0.02)


def test_a_brightness_that_goes_up_and_down_gives_its_step_over_root_two():
    meter = FlickerMeter()
    for number in range(5):
        meter.add(GRAY, GRAY + np.uint8(6 * (number % 2)), [tracked()])
    assert meter.after == pytest.approx(6 / np.sqrt(2), rel=1e-4)


def test_a_larger_result_is_compared_at_the_same_size():
    meter, face = FlickerMeter(), render_face(2, SIDE)
    larger = cv2.resize(face, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    for number in range(3):
        meter.add(face, larger + np.uint8(0), [tracked()])
        assert (meter.before is None) == (number == 0)
    assert meter.after == 0


def test_motion_that_landmarks_missed_is_no_flicker():
    """The face moves by two pixels a frame under landmarks that stand still; the flow finds it."""
    wide = cv2.copyMakeBorder(render_face(3, SIDE), 20, 20, 20, 20, cv2.BORDER_REFLECT)
    meter = FlickerMeter()
    frames = [np.ascontiguousarray(wide[20 : 20 + SIDE, left : left + SIDE]) for left in range(12, 28, 2)]
    for seed, frame in enumerate(frames):
        meter.add(frame, noisy(frame, 4, seed), [tracked()])
    assert np.abs(frames[0].astype(float) - frames[1]).mean() > 3
    assert meter.before < 0.1
    assert meter.after == pytest.approx(4, rel=0.03)


def test_what_was_hidden_is_left_out():
    """A bar that sweeps over the face covers and uncovers what no motion explains; it counts for little."""
    face, swept, hidden = render_face(4, SIDE), FlickerMeter(), []
    for left in range(20, 100, 10):
        frame = face.copy()
        frame[:, left : left + 8] = 0
        swept.add(frame, frame, [tracked()])
        hidden.append(frame.astype(float))
    plain = np.sqrt(np.mean([(one - other) ** 2 for one, other in itertools.pairwise(hidden)]) / 2)
    assert swept.before < 0.5 * plain


def test_only_the_same_face_in_frames_that_follow_each_other_is_compared():
    meter = FlickerMeter()
    for number, faces in enumerate([[tracked(0)], [tracked(1)], [], [tracked(1)]]):
        meter.add(GRAY, GRAY + np.uint8(20 * number), faces)
    assert meter.before is None
    assert meter.after is None
    meter.add(GRAY, GRAY + np.uint8(60), [tracked(1), tracked(0, (3, 0))])
    assert meter.after == 0


class FlickeringRestorer(FakeRestorer):
    """Makes every second frame brighter."""

    frames = 0

    def brightened(self, image):
        self.frames += 1
        return image + np.uint8(10 * (self.frames % 2))


def test_flicker_of_video_files(tmp_path):
    source, found = write_avi(tmp_path / "in.avi", 12), []
    for restorer in (FakeRestorer(), FlickeringRestorer()):
        restore_video(source, tmp_path / "out.mp4", restorer)
        found.append(measure(source, tmp_path / "out.mp4", FakeRestorer().find))
    steady, flickering = found
    assert 0 < steady.after < 1.1 * steady.before  # the encoder of the result removes noise
    assert flickering.before == steady.before
    assert flickering.after == pytest.approx(np.hypot(steady.after, 10 / np.sqrt(2)), rel=0.1)
