"""Faces followed from frame to frame: smoothed, filled in where one was overlooked, and forgotten at a cut."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gpen_plugin.restore.face import DetectedFace
from gpen_plugin.restore.smoothing import AHEAD, smoothed, spread

FARTHEST = 1.5  # mean way of a landmark from frame to frame, in units of the face's `spread`
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
        return float(way / max(spread(last), spread(face.landmarks), 1e-6))


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
        result = [TrackedFace(track.number, smoothed(track.found, frame)) for track in shown if self._is_face(track)]
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

    def __call__(self, picture: np.ndarray) -> bool:
        """Look at the next frame, (H, W, 3) uint8 BGR."""
        thumbnail = cv2.resize(picture, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._last = self._last, thumbnail
        if before is None:
            return False
        usual, self._difference = self._difference, float(np.abs(thumbnail - before).mean())
        return self._difference > max(CUT, CUT_FACTOR * usual)
