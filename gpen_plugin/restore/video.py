"""Restore every face of a video in every frame, with smoothed landmarks; the sound is kept."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from gpen_plugin.images.color import is_monochrome
from gpen_plugin.images.grid import side_by_side
from gpen_plugin.images.photograph import Photograph
from gpen_plugin.restore.alignment import can_be_aligned
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.restorer import Restoration, RestoredFace, weigh
from gpen_plugin.restore.video_reader import VideoSource
from gpen_plugin.restore.video_writer import VideoTarget

LOOK_AHEAD = 8  # frames, in both directions
TIME_SIGMA = 4.0  # frames: standard deviation of the weights over time
FIRST_TIME_SIGMA = 1.0  # that of the first fit
NOISE_TOLERANCE = 3.0  # standard deviations of the noise after which a frame loses its weight
FIT_PASSES = 3
MIN_NOISE = 0.002  # of the distance from a landmark to the middle of all
MAX_STEP = 1.5  # mean distance of the landmarks between frames, in units of the face's `rms_radius`
MAX_GAP = 5  # consecutive frames in which a face may be missed
DETAIL_FRAMES = 20  # frames, about, over which a face's `added_detail` is averaged
MIN_DETECTIONS = 3  # in frames; fewer in the middle of a shot are a false positive
THUMBNAIL = (32, 32)
CUT_MIN_DIFFERENCE = 20.0  # mean difference of thumbnails at a cut, in gray levels
CUT_MIN_RATIO = 2.0  # to the difference one frame before: a quick pan is no cut


def smooth_landmarks(
    faces: Mapping[int, DetectedFace],  # detections of one face by frame number; `frame` itself may be missing
    frame: int,  # between the first and the last of `faces`
) -> DetectedFace:
    """Smooth landmarks and box in one frame over the frames around it; interpolate a face that was not detected."""
    frames = [number for number in sorted(faces) if abs(number - frame) <= LOOK_AHEAD]
    nearest = faces[min(faces, key=lambda number: abs(number - frame))]
    if len(frames) < 3:
        values = _interpolated(faces, frame)
    else:
        values = _fitted(np.array(frames) - frame, np.stack([_values(faces[number]) for number in frames]))
    return DetectedFace(values[10:], values[:10].reshape(5, 2), nearest.score, nearest.detector)


def rms_radius(landmarks: np.ndarray) -> float:
    """Size of a face: root mean square distance of its landmarks, (5, 2), to their mean."""
    return float(np.sqrt(((landmarks - landmarks.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _values(face: DetectedFace) -> np.ndarray:
    return np.concatenate([face.landmarks.ravel(), face.box])  # (14,)


def _interpolated(faces: Mapping[int, DetectedFace], frame: int) -> np.ndarray:
    before = max((number for number in faces if number <= frame), default=min(faces))
    after = min((number for number in faces if number >= frame), default=max(faces))
    weight = 0.0 if after == before else (frame - before) / (after - before)
    return (1 - weight) * _values(faces[before]) + weight * _values(faces[after])


def _fitted(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The parabola through the values at offset 0: (T,) and (T, 14) to (14,)."""
    powers = np.vander(offsets / LOOK_AHEAD, 3, increasing=True)  # (T, 3)
    tolerated = (NOISE_TOLERANCE * _noise(offsets, values[:, :10])) ** 2
    weights = np.exp(-0.5 * (offsets / FIRST_TIME_SIGMA) ** 2)
    near_in_time = np.exp(-0.5 * (offsets / TIME_SIGMA) ** 2)
    for _ in range(FIT_PASSES):
        missed = ((values - powers @ _least_squares(powers, values, weights))[:, :10] ** 2).mean(axis=1)  # (T,)
        weights = near_in_time * np.exp(-0.5 * (missed - missed.min()) / tolerated)
    return _least_squares(powers, values, weights)[0]


def _least_squares(powers: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(3, 14)."""
    root = np.sqrt(weights)[:, None]
    return np.linalg.lstsq(powers * root, values * root, rcond=None)[0]


def _noise(offsets: np.ndarray, values: np.ndarray) -> float:
    """Standard deviation of a coordinate's noise, from the distance of frames to the line between their neighbors."""
    whole, first, second = offsets[2:] - offsets[:-2], offsets[1:-1] - offsets[:-2], offsets[2:] - offsets[1:-1]
    before, after = (second / whole)[:, None], (first / whole)[:, None]  # (T - 2, 1)
    missed = (values[1:-1] - before * values[:-2] - after * values[2:]) / np.sqrt(1 + before**2 + after**2)
    typical = np.median(np.abs(missed)) / 0.6745  # of a normal distribution
    return max(float(typical), MIN_NOISE * rms_radius(values[len(values) // 2].reshape(5, 2)), 1e-6)


@dataclass(frozen=True, eq=False)
class TrackedFace:
    track: int  # number of the face, the same in all frames of a shot
    face: DetectedFace  # its smoothed position


@dataclass(eq=False)
class _Track:
    number: int  # of the track
    found: dict[int, DetectedFace]  # detections by frame number; those too old for smoothing are dropped
    first: int  # first frame
    times: int = 1  # number of detections

    @property
    def last(self) -> int:
        return max(self.found)

    def distance(self, face: DetectedFace, frame: int) -> float:
        """Distance of a face to the last or the extrapolated position, the smaller one, in units of `rms_radius`."""
        numbers = sorted(self.found)[-3:]
        last = self.found[numbers[-1]].landmarks
        positions = [last]
        if len(numbers) > 1:
            speed = (last - self.found[numbers[0]].landmarks).mean(axis=0) / (numbers[-1] - numbers[0])
            positions.append(last + speed * (frame - numbers[-1]))
        nearest = min(np.linalg.norm(face.landmarks - position, axis=1).mean() for position in positions)
        return float(nearest / max(rms_radius(last), rms_radius(face.landmarks), 1e-6))


class FaceTracker:
    """Takes the faces of each frame and returns them smoothed, up to `LOOK_AHEAD` frames later."""

    tracks: int  # number of faces returned so far; after a cut the count restarts
    dropped: int  # number of tracks with too few detections

    def __init__(self):
        self.tracks = self.dropped = 0
        self._open: list[_Track] = []
        self._given: set[int] = set()  # numbers of tracks of this shot
        self._numbered = 0
        self._shot = 0  # its first frame
        self._frame = -1  # number of the last frame added
        self._next = 0  # the next that goes out

    def add(
        self,
        faces: Sequence[DetectedFace],  # its detections
        *,
        cut: bool = False,  # whether a new shot starts with this frame
    ) -> list[list[TrackedFace]]:
        """Take the next frame; return the faces of each frame that is now complete, in order."""
        certain = self.finish() if cut else []
        self._frame += 1
        if cut:
            self._shot = self._frame
        self._match(faces)
        if self._frame - self._next >= LOOK_AHEAD:
            certain.append(self._release())
        return certain

    def finish(self) -> list[list[TrackedFace]]:
        """The faces of all remaining frames; ends the shot."""
        certain = []
        while self._next <= self._frame:
            certain.append(self._release())
        self._open.clear()
        self._given.clear()
        return certain

    def _match(self, faces: Sequence[DetectedFace]) -> None:
        """Assign faces to tracks with the least sum of distances; the others start new tracks."""
        alive = [track for track in self._open if self._frame - track.last <= MAX_GAP + 1]
        ways = np.array([[track.distance(face, self._frame) for face in faces] for track in alive])
        taken = set()
        if ways.size:
            from scipy.optimize import linear_sum_assignment  # photographs, which have no tracks, start without it

            # A step that is too long costs no more than any other: it must not push a good pair apart.
            for row, column in zip(*linear_sum_assignment(np.minimum(ways, MAX_STEP)), strict=True):
                if ways[row, column] < MAX_STEP:
                    alive[row].found[self._frame] = faces[column]
                    alive[row].times += 1
                    taken.add(column)
        for i, face in enumerate(faces):
            if i not in taken:
                self._open.append(_Track(self._numbered, {self._frame: face}, self._frame))
                self._numbered += 1

    def _release(self) -> list[TrackedFace]:
        frame = self._next
        self._next += 1
        present = [track for track in self._open if track.first <= frame <= track.last]
        result = [
            TrackedFace(track.number, smooth_landmarks(track.found, frame)) for track in present if self._is_face(track)
        ]
        self._count(result, present)
        self._forget(frame)
        return result

    def _is_face(self, track: _Track) -> bool:
        """Whether it has enough detections, or touches an end of the shot, where more may be missing."""
        return track.times >= MIN_DETECTIONS or track.first == self._shot or track.last == self._frame

    def _count(self, given: list[TrackedFace], present: list[_Track]) -> None:
        new = {face.track for face in given} - self._given
        self._given |= new
        self.tracks += len(new)
        self.dropped += sum(track.last == self._next - 1 and track.number not in self._given for track in present)

    def _forget(self, frame: int) -> None:
        self._open = [track for track in self._open if track.last > frame - LOOK_AHEAD]
        for track in self._open:
            for old in [number for number in track.found if number <= frame - LOOK_AHEAD and number != track.last]:
                del track.found[old]


class CutFinder:
    """Detects cuts: frames that differ much more from the one before than the last frame did."""

    def __init__(self):
        self._last: np.ndarray | None = None
        self._difference = 0.0

    def __call__(self, image: np.ndarray) -> bool:
        """Whether the next frame, (H, W, 3) uint8 BGR, starts a new shot."""
        thumbnail = cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._last = self._last, thumbnail
        if before is None:
            return False
        usual, self._difference = self._difference, float(np.abs(thumbnail - before).mean())
        return self._difference > max(CUT_MIN_DIFFERENCE, CUT_MIN_RATIO * usual)


class FaceRestorer(Protocol):
    """The part of `Restorer` that `restore_video` needs."""

    def find(self, image: np.ndarray) -> list[DetectedFace]: ...

    def restore_faces(
        self, images: Sequence[Photograph], *, faces: Sequence[Sequence[DetectedFace]]
    ) -> list[list[RestoredFace]]: ...

    def paste_back(self, image: Photograph, faces: Sequence[RestoredFace]) -> Restoration: ...


class _SteadyWeights:
    """Weighs a face by the mean of its `added_detail` over the frames so far: it must not flicker."""

    def __init__(self):
        self._means: dict[int, tuple[float, int]] = {}  # and the number of frames, by number of the track

    def __call__(self, tracked: Sequence[TrackedFace], restored: Sequence[RestoredFace]) -> list[RestoredFace]:
        before, self._means = self._means, {}
        return [self._weigh(face, each.track, before) for each, face in zip(tracked, restored, strict=True)]

    def _weigh(self, face: RestoredFace, track: int, before: Mapping[int, tuple[float, int]]) -> RestoredFace:
        if face.added_detail is None:
            return face
        mean, frames = before.get(track, (0.0, 0))
        frames = min(frames + 1, DETAIL_FRAMES)
        mean += (face.added_detail - mean) / frames
        self._means[track] = mean, frames
        return weigh(face, mean)


@dataclass(frozen=True)
class VideoReport:
    frames: int  # number of frames
    faces: int  # number of faces, summed over the frames
    tracks: int  # number of tracked faces; at a cut, all are new
    notes: tuple[str, ...]  # sentences for the user


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame, its time and duration in seconds, whether its shot is monochrome so far, and its faces."""

    image: np.ndarray
    time: Fraction
    duration: Fraction
    monochrome: bool
    faces: Sequence[TrackedFace] = ()


def restore_video(
    source: Path,  # a video that FFmpeg can read
    target: Path,  # the result, ``.mp4``, ``.mov`` or ``.mkv``; written completely or not at all
    restorer: FaceRestorer,  # detects and restores faces
    *,
    batch: int = 8,  # frames per batch
    progress: Callable[[int], None] | None = None,  # called with the number of frames finished since the last call
    compare: Path | None = None,  # a second file, with the frames before and after side by side
) -> VideoReport:
    """Restore every face of a video. Memory holds the frames of the look-ahead and of a batch.

    Raises:
        DataError: the source cannot be read, or the target cannot be written.
        OptionError: a kind of video that cannot be written, or the target is the source.
        MissingFileError: PyAV is not installed.
    """
    video, tracker, steady = VideoSource(source), FaceTracker(), _SteadyWeights()
    frames = faces = 0
    with contextlib.ExitStack() as stack:
        written = stack.enter_context(VideoTarget(target, source, video.rate, video.aspect))
        beside = stack.enter_context(VideoTarget(compare, source, video.rate, video.aspect)) if compare else None
        for group in _groups(_track(video, restorer, tracker), batch):
            located = [[each.face for each in frame.faces] for frame in group]
            images = [Photograph(frame.image, monochrome=frame.monochrome) for frame in group]
            found = restorer.restore_faces(images, faces=located)
            for frame, image, each in zip(group, images, found, strict=True):
                result = restorer.paste_back(image, steady(frame.faces, each))
                restored = result.photograph.pixels
                written.write(restored, frame.time, frame.duration)
                if beside is not None:
                    beside.write(side_by_side(frame.image, restored), frame.time, frame.duration)
                faces += len(result.faces)
            frames += len(group)
            if progress is not None:
                progress(len(group))
    notes = [*video.notes, *written.notes]
    if tracker.dropped:
        notes.append(f"faces detected in too few frames, left unchanged: {tracker.dropped}")
    return VideoReport(frames, faces, tracker.tracks, tuple(notes))


def _track(video: VideoSource, restorer: FaceRestorer, tracker: FaceTracker) -> Iterator[_Frame]:
    """Each frame as soon as its faces are known."""
    starts_shot, waiting, monochrome = CutFinder(), deque(), True
    for image, time, duration in video:
        cut = starts_shot(image)
        # One frame in color settles it until the next cut: faces must not change between gray and color in a shot.
        monochrome = (monochrome or cut) and is_monochrome(image)
        found = [face for face in restorer.find(image) if can_be_aligned(face.landmarks)]
        finished = tracker.add(found, cut=cut)
        waiting.append(_Frame(image, time, duration, monochrome))
        yield from _with_faces(waiting, finished)
    yield from _with_faces(waiting, tracker.finish())


def _with_faces(waiting: deque[_Frame], finished: Sequence[Sequence[TrackedFace]]) -> Iterator[_Frame]:
    for faces in finished:
        frame = waiting.popleft()
        yield replace(frame, faces=[face for face in faces if can_be_aligned(face.face.landmarks)])


def _groups(frames: Iterator[_Frame], size: int) -> Iterator[list[_Frame]]:
    while group := list(itertools.islice(frames, size)):
        yield group
