"""Videos in, videos out: every face restored in every frame, steady over time, with the sound kept."""

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
    """What `restore_video` needs of a `Restorer`."""

    def find(self, image: np.ndarray) -> list[DetectedFace]:
        """See `Restorer.find`."""

    def restore_all(
        self, images: Sequence[Photograph], *, faces: Sequence[Sequence[DetectedFace]]
    ) -> list[Restoration]:
        """See `Restorer.restore_all`."""


@dataclass(frozen=True)
class VideoReport:
    """What was done to a video.

    Attributes:
        frames: number of frames.
        faces: number of faces, summed over the frames.
        tracks: number of faces that were followed from frame to frame; at a cut, all of them are new.
        notes: what a person should know, a sentence each.
    """

    frames: int
    faces: int
    tracks: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame on its way: when and how long it is shown, in seconds, whether its shot had no colour yet, its faces."""

    image: np.ndarray
    time: Fraction
    duration: Fraction
    monochrome: bool
    faces: Sequence[TrackedFace] = ()


def restore_video(
    source: Path,
    target: Path,
    restorer: FaceRestorer,
    *,
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
    compare: Path | None = None,
) -> VideoReport:
    """Restore every face of a video. Only as many frames are held in memory as are looked ahead, and a batch.

    Args:
        source: a video that FFmpeg can read.
        target: the result, ``.mp4``, ``.mov`` or ``.mkv``; whole or not at all.
        restorer: finds and restores faces.
        batch: frames that are restored at once.
        progress: called with the number of frames that were done since the last call.
        compare: a second file, with the frames before and after side by side.
    Returns:
        The report.
    Raises:
        DataError: the source cannot be read, or the target cannot be written.
        OptionError: a kind of video that is not written, or the target is the source.
        MissingFileError: PyAV is not installed.
    """
    video, tracker = VideoSource(source), FaceTracker()
    frames = faces = 0
    with contextlib.ExitStack() as stack:
        written = stack.enter_context(VideoTarget(target, source, video.rate, video.aspect))
        beside = stack.enter_context(VideoTarget(compare, source, video.rate, video.aspect)) if compare else None
        for group in _groups(_tracked(video, restorer, tracker), batch):
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
        notes.append(f"seen too briefly for a face, and left as it was: {tracker.dropped}")
    return VideoReport(frames, faces, tracker.tracks, tuple(notes))


def _tracked(video: VideoSource, restorer: FaceRestorer, tracker: FaceTracker) -> Iterator[_Frame]:
    """Each frame, as soon as it is certain where its faces are."""
    starts_shot, waiting, monochrome = CutFinder(), deque(), True
    for image, time, duration in video:
        cut = starts_shot(image)
        # One frame in color settles it until the next cut: faces must not change between gray and color in a shot.
        monochrome = (monochrome or cut) and is_monochrome(image)
        found = [face for face in restorer.find(image) if can_be_aligned(face.landmarks)]
        certain = tracker.add(found, cut=cut)
        waiting.append(_Frame(image, time, duration, monochrome))
        yield from _with_faces(waiting, certain)
    yield from _with_faces(waiting, tracker.finish())


def _with_faces(waiting: deque[_Frame], certain: Sequence[Sequence[TrackedFace]]) -> Iterator[_Frame]:
    for faces in certain:
        frame = waiting.popleft()
        yield replace(frame, faces=[face for face in faces if can_be_aligned(face.face.landmarks)])


def _groups(frames: Iterator[_Frame], size: int) -> Iterator[list[_Frame]]:
    while group := list(itertools.islice(frames, size)):
        yield group
