"""How much the faces of a video flicker before and after restoration: what changes between frames beyond motion.

    python benchmarks/flicker.py film.mp4 restored/film.mp4

The warping error of Lai et al. 2018 (Learning Blind Video Temporal Consistency, Eq. 9), on faces only: each frame is
warped to the one before by the motion of the unrestored video, and the difference that remains is flicker. The result
is a standard deviation in gray levels from 0 to 255: independent noise of that deviation in each frame gives the same
number, and 0 is perfectly steady. A sharper face flickers more at the same motion: steady results reached 1.7 times the
flicker of the input, results from landmarks that were not smoothed twice.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.restore.alignment import align, can_be_aligned, scale_affine, template, warp
from gpen_plugin.restore.detection import open_detector
from gpen_plugin.restore.video import CutFinder, FaceTracker, TrackedFace
from gpen_plugin.restore.video_reader import VideoSource

SIDE = 128  # pixels of the faces that are compared
BLUR = 2.0  # pixels: standard deviation; motion is sought where noise was blurred away
MIDDLE, AXES = (0.5, 0.56), (0.34, 0.42)  # of the ellipse that is looked at, as fractions of the side
HIDDEN = 0.01, 0.5  # as in Sundaram et al. 2010: how far motion there and back may disagree, in pixels squared


class FlickerMeter:
    """Adds up the flicker of a video's faces, frame by frame."""

    def __init__(self):
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._region = _ellipse()
        self._last: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._squares = np.zeros(2)  # sums over pixels, before and after
        self._pixels = 0

    @property
    def before(self) -> float | None:
        """Flicker of the video as it was, from 0 to 255; None if no face was in two frames in a row."""
        return self._deviation(0)

    @property
    def after(self) -> float | None:
        """Flicker of the restored video."""
        return self._deviation(1)

    def add(self, before: np.ndarray, after: np.ndarray, faces: Sequence[TrackedFace]) -> None:
        """Take the next frame.

        Args:
            before: (H, W, 3) uint8 BGR.
            after: the same restored, of the same size or another.
            faces: in pixels of `before`.
        """
        now = {face.track: _cut_out(before, after, face) for face in faces}
        for track in now.keys() & self._last.keys():
            self._compare(*self._last[track], *now[track])
        self._last = now

    def _compare(self, before: np.ndarray, after: np.ndarray, next_before: np.ndarray, next_after: np.ndarray) -> None:
        there = self._motion(before, next_before)
        back = _moved(self._motion(next_before, before), there)
        disagreement = ((there + back) ** 2).sum(axis=2)
        seen = disagreement <= HIDDEN[0] * ((there**2) + (back**2)).sum(axis=2) + HIDDEN[1]
        looked_at = self._region & seen
        for place, (one, other) in enumerate(((before, next_before), (after, next_after))):
            differences = (_moved(other, there) - one)[looked_at]
            self._squares[place] += float((differences.astype(np.float64) ** 2).mean(axis=1).sum())
        self._pixels += int(looked_at.sum())

    def _motion(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Where each pixel of one face is in the other, as a way, (SIDE, SIDE, 2) in x and y."""
        gray = [cv2.cvtColor(cv2.GaussianBlur(face, (0, 0), BLUR), cv2.COLOR_BGR2GRAY) for face in (one, other)]
        return self._flow.calc(*(np.rint(face).clip(0, 255).astype(np.uint8) for face in gray), None)

    def _deviation(self, place: int) -> float | None:
        # The difference of two draws has twice the variance of one.
        return math.sqrt(self._squares[place] / self._pixels / 2) if self._pixels else None


def measure(before: Path, after: Path, detect) -> FlickerMeter:
    """Measure the flicker of a video and of its restoration, whose faces are those that `detect` finds in the first."""
    meter, tracker, starts_shot, waiting = FlickerMeter(), FaceTracker(), CutFinder(), []

    def add(certain: Sequence[Sequence[TrackedFace]]) -> None:
        for faces in certain:
            meter.add(*waiting.pop(0), [face for face in faces if can_be_aligned(face.face.landmarks)])

    for (image, *_), (restored, *_) in zip(VideoSource(before), VideoSource(after), strict=True):
        cut = starts_shot(image)
        faces = tracker.add([face for face in detect(image) if can_be_aligned(face.landmarks)], cut=cut)
        waiting.append((image, restored))
        add(faces)
    add(tracker.finish())
    return meter


def _cut_out(before: np.ndarray, after: np.ndarray, face: TrackedFace) -> tuple[np.ndarray, np.ndarray]:
    """The face aligned, before and after: (SIDE, SIDE, 3) float32 in [0, 255]."""
    matrix = align(face.face.landmarks, template("ffhq"), SIDE)
    larger = scale_affine(matrix, source=(after.shape[1] / before.shape[1], after.shape[0] / before.shape[0]))
    return tuple(warp(image, way, (SIDE, SIDE)) * 255 for image, way in ((before, matrix), (after, larger)))


def _moved(values: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """What stands where the motion leads, (SIDE, SIDE, C) float32."""
    rows, columns = np.indices(motion.shape[:2], np.float32)
    return cv2.remap(values, columns + motion[..., 0], rows + motion[..., 1], cv2.INTER_LINEAR)


def _ellipse() -> np.ndarray:
    """Where the face is in an aligned crop, (SIDE, SIDE) bool: what lies around it hardly changes."""
    rows, columns = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    return ((columns - MIDDLE[0]) / AXES[0]) ** 2 + ((rows - MIDDLE[1]) / AXES[1]) ** 2 <= 1


def main() -> None:
    """Measure two videos and print both numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="the video")
    parser.add_argument("after", type=Path, help="its restoration")
    options = parser.parse_args()
    meter = measure(options.before, options.after, open_detector())
    if meter.before is None:
        print("no face is in two consecutive frames")
    else:
        print(f"flicker of faces: {meter.before:.2f} before, {meter.after:.2f} after")


if __name__ == "__main__":
    main()
