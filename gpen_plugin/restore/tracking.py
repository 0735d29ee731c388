"""Follow faces from frame to frame and smooth their landmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gpen_plugin.restore.detection import DetectedFace

AHEAD = 8  # frames that are looked ahead, and back
REACH = 4.0  # frames: standard deviation of the weights over time
NEAR = 1.0  # the same of the first, narrow guess
TOLERANCE = 3.0  # standard deviations of the noise after which a frame loses its weight
PASSES = 3
LEAST_NOISE = 0.002  # of the distance from a landmark to the middle of all


def smooth_landmarks(faces: Mapping[int, DetectedFace], frame: int) -> DetectedFace:
    """Where a face is in one frame, judged by the frames around it.

    Args:
        faces: one face as it was found, by the number of the frame; `frame` itself may be missing.
        frame: number of the frame, between the first and the last of `faces`.
    Returns:
        The face with landmarks and box smoothed, or interpolated where it was not found.
    """
    frames = [number for number in sorted(faces) if abs(number - frame) <= AHEAD]
    nearest = faces[min(faces, key=lambda number: abs(number - frame))]
    if len(frames) < 3:
        values = _interpolated(faces, frame)
    else:
        values = _fitted(np.array(frames) - frame, np.stack([_values(faces[number]) for number in frames]))
    return DetectedFace(values[10:], values[:10].reshape(5, 2), nearest.score, nearest.detector)


def rms_radius(landmarks: np.ndarray) -> float:
    """Size of a face, from the front or from the side: root mean square distance of its landmarks to their middle.

    Args:
        landmarks: (5, 2).
    """
    return float(np.sqrt(((landmarks - landmarks.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _values(face: DetectedFace) -> np.ndarray:
    return np.concatenate([face.landmarks.ravel(), face.box])  # (14,)


def _interpolated(faces: Mapping[int, DetectedFace], frame: int) -> np.ndarray:
    before = max((number for number in faces if number <= frame), default=min(faces))
    after = min((number for number in faces if number >= frame), default=max(faces))
    share = 0.0 if after == before else (frame - before) / (after - before)
    return (1 - share) * _values(faces[before]) + share * _values(faces[after])


def _fitted(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The parabola through the values, at offset 0: (T,) and (T, 14) to (14,)."""
    powers = np.vander(offsets / AHEAD, 3, increasing=True)  # (T, 3)
    tolerated = (TOLERANCE * _noise(offsets, values[:, :10])) ** 2
    weights = np.exp(-0.5 * (offsets / NEAR) ** 2)
    near_in_time = np.exp(-0.5 * (offsets / REACH) ** 2)
    for _ in range(PASSES):
        missed = ((values - powers @ _least_squares(powers, values, weights))[:, :10] ** 2).mean(axis=1)  # (T,)
        weights = near_in_time * np.exp(-0.5 * (missed - missed.min()) / tolerated)
    return _least_squares(powers, values, weights)[0]


def _least_squares(powers: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients of the parabola, (3, 14)."""
    root = np.sqrt(weights)[:, None]
    return np.linalg.lstsq(powers * root, values * root, rcond=None)[0]


def _noise(offsets: np.ndarray, values: np.ndarray) -> float:
    """Standard deviation of a coordinate's noise: by how much frames miss the line between their neighbours."""
    whole, first, second = offsets[2:] - offsets[:-2], offsets[1:-1] - offsets[:-2], offsets[2:] - offsets[1:-1]
    before, after = (second / whole)[:, None], (first / whole)[:, None]  # (T - 2, 1)
    missed = (values[1:-1] - before * values[:-2] - after * values[2:]) / np.sqrt(1 + before**2 + after**2)
    typical = np.median(np.abs(missed)) / 0.6745  # of a normal distribution
    return max(float(typical), LEAST_NOISE * rms_radius(values[len(values) // 2].reshape(5, 2)), 1e-6)


FARTHEST = 1.5  # mean way of a landmark from frame to frame, in units of the face's `rms_radius`
LONGEST_GAP = 5  # frames in a row in which a face may be overlooked
SHORTEST = 3  # frames; what is found less often in the middle of a shot is not a face
THUMBNAIL = (32, 32)
CUT = 20.0  # grey levels by which thumbnails differ on average at a cut
CUT_FACTOR = 2.0  # by which that is more than one frame before: a quick pan is no cut


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """A face in a frame.

    Attributes:
        track: number of the face; the same in all frames of a shot.
        face: where it is, smoothed.
    """

    track: int
    face: DetectedFace


@dataclass(eq=False)
class _Track:
    """One face as it was found.

    Attributes:
        number: of the track.
        found: by the number of the frame; what is too old for smoothing is forgotten.
        first: number of the first frame.
        times: number of frames in which it was found.
    """

    number: int
    found: dict[int, DetectedFace]
    first: int
    times: int = 1

    @property
    def last(self) -> int:
        return max(self.found)

    def distance(self, face: DetectedFace, frame: int) -> float:
        """How far a face is from where this one was, or from where it would have moved to, whichever is nearer."""
        numbers = sorted(self.found)[-3:]
        last = self.found[numbers[-1]].landmarks
        places = [last]
        if len(numbers) > 1:
            speed = (last - self.found[numbers[0]].landmarks).mean(axis=0) / (numbers[-1] - numbers[0])
            places.append(last + speed * (frame - numbers[-1]))
        way = min(np.linalg.norm(face.landmarks - place, axis=1).mean() for place in places)
        return float(way / max(rms_radius(last), rms_radius(face.landmarks), 1e-6))


class FaceTracker:
    """Takes the faces of frame after frame, and gives them back smoothed, up to `AHEAD` frames later.

    Attributes:
        tracks: number of faces that were given back so far; one that is back after a cut is another.
        dropped: number of those that were found too seldom to be faces.
    """

    def __init__(self):
        self.tracks = self.dropped = 0
        self._open: list[_Track] = []
        self._given: set[int] = set()  # numbers of tracks of this shot
        self._numbered = 0
        self._shot = 0  # its first frame
        self._frame = -1  # the last that came in
        self._next = 0  # the next that goes out

    def add(self, faces: Sequence[DetectedFace], *, cut: bool = False) -> list[list[TrackedFace]]:
        """Take the next frame.

        Args:
            faces: as they were found.
            cut: whether a new shot starts with this frame.
        Returns:
            The faces of each frame that is now certain, in the order of the frames: of none, one or several.
        """
        certain = self.finish() if cut else []
        self._frame += 1
        if cut:
            self._shot = self._frame
        self._match(faces)
        if self._frame - self._next >= AHEAD:
            certain.append(self._release())
        return certain

    def finish(self) -> list[list[TrackedFace]]:
        """The faces of all frames that were not given back yet; ends the shot."""
        certain = []
        while self._next <= self._frame:
            certain.append(self._release())
        self._open.clear()
        self._given.clear()
        return certain

    def _match(self, faces: Sequence[DetectedFace]) -> None:
        """Give each face to the track that it continues, so that the sum of all ways is least, or to a new one."""
        alive = [track for track in self._open if self._frame - track.last <= LONGEST_GAP + 1]
        ways = np.array([[track.distance(face, self._frame) for face in faces] for track in alive])
        taken = set()
        if ways.size:
            from scipy.optimize import linear_sum_assignment  # photographs, which have no tracks, start without it

            # A way that is too long costs no more than any other: it must not push a good pair apart.
            for row, column in zip(*linear_sum_assignment(np.minimum(ways, FARTHEST)), strict=True):
                if ways[row, column] < FARTHEST:
                    alive[row].found[self._frame] = faces[column]
                    alive[row].times += 1
                    taken.add(column)
        for place, face in enumerate(faces):
            if place not in taken:
                self._open.append(_Track(self._numbered, {self._frame: face}, self._frame))
                self._numbered += 1

    def _release(self) -> list[TrackedFace]:
        frame = self._next
        self._next += 1
        shown = [track for track in self._open if track.first <= frame <= track.last]
        result = [
            TrackedFace(track.number, smooth_landmarks(track.found, frame)) for track in shown if self._is_face(track)
        ]
        self._count(result, shown)
        self._forget(frame)
        return result

    def _is_face(self, track: _Track) -> bool:
        """Whether it was found often enough, or might have been at either end of the shot."""
        return track.times >= SHORTEST or track.first == self._shot or track.last == self._frame

    def _count(self, given: list[TrackedFace], shown: list[_Track]) -> None:
        new = {face.track for face in given} - self._given
        self._given |= new
        self.tracks += len(new)
        self.dropped += sum(track.last == self._next - 1 and track.number not in self._given for track in shown)

    def _forget(self, frame: int) -> None:
        """Drop what no later frame needs."""
        self._open = [track for track in self._open if track.last > frame - AHEAD]
        for track in self._open:
            for old in [number for number in track.found if number <= frame - AHEAD and number != track.last]:
                del track.found[old]


class CutFinder:
    """Says of frame after frame whether it starts a new shot: it differs from the one before much, and suddenly."""

    def __init__(self):
        self._last: np.ndarray | None = None
        self._difference = 0.0

    def __call__(self, image: np.ndarray) -> bool:
        """Look at the next frame, (H, W, 3) uint8 BGR."""
        thumbnail = cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._last = self._last, thumbnail
        if before is None:
            return False
        usual, self._difference = self._difference, float(np.abs(thumbnail - before).mean())
        return self._difference > max(CUT, CUT_FACTOR * usual)
