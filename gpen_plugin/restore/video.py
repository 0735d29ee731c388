"""Restore every face of a video in every frame, with smoothed landmarks; the sound is kept."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from gpen_plugin.images.color import is_monochrome
from gpen_plugin.images.grid import side_by_side
from gpen_plugin.images.photograph import Photograph
from gpen_plugin.restore.alignment import can_be_aligned
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.restorer import Restoration
from gpen_plugin.restore.tracking import CutFinder, FaceTracker, TrackedFace
from gpen_plugin.restore.video_reader import VideoSource
from gpen_plugin.restore.video_writer import VideoTarget


class FaceRestorer(Protocol):
    """The part of `Restorer` that `restore_video` needs."""

    def find(self, image: np.ndarray) -> list[DetectedFace]: ...

    def restore_all(
        self, images: Sequence[Photograph], *, faces: Sequence[Sequence[DetectedFace]]
    ) -> list[Restoration]: ...


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
    video, tracker = VideoSource(source), FaceTracker()
    frames = faces = 0
    with contextlib.ExitStack() as stack:
        written = stack.enter_context(VideoTarget(target, source, video.rate, video.aspect))
        beside = stack.enter_context(VideoTarget(compare, source, video.rate, video.aspect)) if compare else None
        for group in _groups(_track(video, restorer, tracker), batch):
            located = [[each.face for each in frame.faces] for frame in group]
            images = [Photograph(frame.image, monochrome=frame.monochrome) for frame in group]
            results = restorer.restore_all(images, faces=located)
            for frame, result in zip(group, results, strict=True):
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
