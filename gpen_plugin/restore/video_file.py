"""Videos on disk: read one picture at a time, written whole or not at all."""

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.restore.ffmpeg import CONTAINERS, FFmpegPipe, find_ffmpeg

# FFmpeg inside OpenCV writes a line to the terminal for every damaged packet; our notes say it once.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

USUAL_RATES = (
    *map(Fraction, (24, 25, 30, 48, 50, 60, 120)),
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
)
RATE_OF_NONE = Fraction(25)  # pictures per second of a file that does not say
LOOKED_AT = 64  # pictures whose times tell the rate
LONGEST = 60.0  # seconds that one picture may stand; a longer gap is taken for a damaged time
DAMAGED = 1000  # pictures in a row that cannot be read; then the file is at its end
COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # files that count their pictures; others give their length
SHORTER = 2.0  # seconds by which pictures may end before such a file does


class VideoSource:
    """A video file, opened; iterate over it for its pictures, upright, (H, W, 3) uint8 BGR, once.

    With each comes how often it is to be shown at a constant `rate`: 1, where the video has one itself. Else a picture
    that stands longer is shown again, so that the sound still fits.

    Args:
        path: the file.
    Raises:
        DataError: it is not there, or no video, or has no picture.

    Attributes:
        rate: pictures per second.
        expected: number of pictures that the file promises; not always right.
        aspect: width of a pixel by its height.
        read: number of pictures that were read so far.
        notes: what a person should know about the reading; complete after the last picture.
    """

    def __init__(self, path: Path):
        self._path = Path(path)
        if not self._path.is_file():
            raise DataError(str(path), "is not there" if not self._path.exists() else "is not a file", "a video")
        times = _first_times(self._path)
        if not times:
            raise DataError(str(path), "cannot be read as a video", "a video with a picture in it", "Is it damaged?")
        self._capture = _open(self._path)
        self.rate, self._varies = _rate(self._capture.get(cv2.CAP_PROP_FPS), times)
        self.expected = max(0, round(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.aspect = _aspect(self._capture)
        self.read = self._damaged = 0
        self.notes: list[str] = []

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        try:
            yield from self._timed()
        finally:
            self._capture.release()
        slack = 0.0 if self._path.suffix.lower() in COUNTED else SHORTER * self.rate
        if not self._varies and self.read < self.expected - slack:
            self.notes.append(f"the file promises {self.expected} pictures, {self.read} of them could be read")

    def _timed(self) -> Iterator[tuple[np.ndarray, int]]:
        """Each picture, when the time of the next is known."""
        shown = left_out = again = 0
        waiting = None
        for picture, seconds in self._pictures():
            if waiting is not None:
                due = round(seconds * self.rate)
                times = due - shown if 0 <= due - shown <= LONGEST * self.rate else 1
                left_out, again = left_out + (times == 0), again + max(0, times - 1)
                yield waiting, times
                shown = due if times == due - shown else shown + times
            waiting = picture
        if waiting is not None:
            yield waiting, 1
        if self._damaged:
            self.notes.append(f"damaged pictures, in whose place the one before stands: {self._damaged}")
        elif again or left_out:
            rate = f"{float(self.rate):.6g} a second"
            self._varies = True
            self.notes.append(f"its frame rate varies; now {rate}: {again} pictures shown again, {left_out} left out")

    def _pictures(self) -> Iterator[tuple[np.ndarray, float]]:
        """Each picture and its time in seconds after the first."""
        first = None
        for damaged in _grabbed(self._capture):
            there, picture = self._capture.retrieve()
            if not there or picture is None:
                break
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            first = seconds if first is None else first
            self.read += 1
            self._damaged += damaged
            yield _as_colour(picture), seconds - first


class VideoTarget:
    """A video that is being written; a context manager. It stands there whole after the context, or not at all.

    Args:
        path: the file; its suffix chooses the kind. Its folder is made.
        source: the video that sound, subtitles and metadata are taken from.
        rate: pictures per second.
        aspect: width of a pixel by its height.
    Raises:
        OptionError: a suffix that is not written, or `path` is the source itself.

    Attributes:
        notes: what a person should know about the writing; complete after the context.
    """

    def __init__(self, path: Path, source: Path, rate: Fraction, aspect: Fraction = Fraction(1)):
        self._path, self._source, self._rate, self._aspect = Path(path), Path(source), rate, aspect
        suffix = self._path.suffix.lower()
        if suffix not in CONTAINERS:
            raise OptionError("video", f"got {self._path.name}", f"a name that ends in {', '.join(CONTAINERS)}")
        if self._path.exists() and self._path.samefile(self._source):
            raise OptionError("video", f"{path} would be written over itself", "another name or folder")
        unique = f".{os.getpid()}.{threading.get_ident()}.{id(self)}"  # two may be written at once
        self._temporary = self._path.with_name(f"{unique}.part{suffix}")
        self._writer: FFmpegPipe | OpenCVWriter | None = None
        self._size: tuple[int, int] | None = None
        self.notes: list[str] = []

    def __enter__(self) -> "VideoTarget":
        return self

    def write(self, picture: np.ndarray, times: int = 1) -> None:
        """Add a picture.

        Args:
            picture: (H, W, 3) uint8 BGR, all of one size.
            times: how often it is shown, from 0.
        Raises:
            DataError: it cannot be written.
        """
        height, width = picture.shape[:2]
        if self._writer is None:
            self._size = (width, height)
            self._writer = self._opened(width + width % 2, height + height % 2)
        assert self._size == (width, height)
        if width % 2 or height % 2:  # what is 4:2:0 has even sides
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        for _ in range(times):
            self._writer.write(picture)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._keep()
        finally:
            if self._writer is not None:
                self._writer.stop()
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def _opened(self, width: int, height: int) -> "FFmpegPipe | OpenCVWriter":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(str(self._path), f"cannot be written ({error})", "a writable folder") from error
        if self._size != (width, height):
            self.notes.append(f"{self._size[0]} x {self._size[1]} became {width} x {height}: codecs want even sides")
        ffmpeg = find_ffmpeg()
        if ffmpeg is None:
            self.notes.append("written by OpenCV, without sound: ffmpeg is not there; install it, or imageio-ffmpeg")
            return OpenCVWriter(self._temporary, (width, height), self._rate)
        writer = FFmpegPipe(ffmpeg, self._temporary, self._source, (width, height), self._rate, self._aspect)
        self.notes += writer.notes
        return writer

    def _keep(self) -> None:
        assert self._writer is not None, "a video without a picture"
        try:
            self._writer.finish()
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise DataError(str(self._path), f"cannot be written ({error})", "a writable folder") from error


class OpenCVWriter:
    """Encodes pictures into a file by what OpenCV brings, which knows no sound.

    Args:
        path: what is written.
        size: width and height of the pictures.
        rate: pictures per second.
    Raises:
        DataError: OpenCV cannot write such a file, or not there.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction):
        self._path, self._written = path, 0
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), code, float(rate), size)
        if not self._writer.isOpened():
            raise DataError(str(path), "OpenCV cannot write it", "a writable folder", "Install ffmpeg.")

    def write(self, picture: np.ndarray) -> None:
        """Add a picture, (H, W, 3) uint8 BGR."""
        self._writer.write(picture)
        self._written += 1

    def finish(self) -> None:
        """Close the file. DataError if not all pictures are in it: OpenCV says nothing of a full disk."""
        self._writer.release()
        count = len(_first_times(self._path, self._written))
        if count < self._written:
            came = f"holds {count} of {self._written} pictures"
            raise DataError(str(self._path), came, "all of them", "Is there space left?")

    def stop(self) -> None:
        """Close the file as it is; unless finished, it is worth nothing."""
        self._writer.release()


def _open(path: Path) -> cv2.VideoCapture:
    """By FFmpeg, where OpenCV has it: others take a name with digits for a row of pictures. Without its warnings."""
    backends = cv2.videoio_registry.getBackends()
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in backends else cv2.CAP_ANY)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _first_times(path: Path, most: int = LOOKED_AT) -> list[float]:
    """When the first pictures are shown, in seconds; as many as can be read."""
    capture = _open(path)
    times = [capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 for _ in itertools.islice(_grabbed(capture), most)]
    capture.release()
    return times


def _grabbed(capture: cv2.VideoCapture) -> Iterator[int]:
    """Go to picture after picture; of each, how many damaged ones stand before it."""
    damaged = 0
    while damaged < DAMAGED:
        if capture.grab():
            yield damaged
            damaged = 0
        else:
            damaged += 1


def _rate(claimed: float, times: list[float]) -> tuple[Fraction, bool]:
    """Pictures per second, and whether that is other than what the file claims.

    Args:
        claimed: by the file: a mean, or the unit that its times are counted in.
        times: of the first pictures, in seconds.
    """
    steps = [after - before for before, after in itertools.pairwise(times) if after > before]
    claims = 0 < claimed < 1000
    usual = median(steps) if steps else (1 / claimed if claims else float(1 / RATE_OF_NONE))
    varies = not claims or abs(claimed * usual - 1) > 0.1  # Matroska counts in whole milliseconds
    return _nearest(1 / usual if varies else claimed, 0.02 if varies else 1e-4), varies


def _nearest(rate: float, tolerance: float) -> Fraction:
    """The usual rate that is as near as that, relatively, or else the rate as it is."""
    best = min(USUAL_RATES, key=lambda usual: abs(rate - usual))
    return best if abs(rate / best - 1) <= tolerance else Fraction(rate).limit_denominator(1001)


def _aspect(capture: cv2.VideoCapture) -> Fraction:
    across, down = (int(capture.get(key)) for key in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
    if across < 1 or down < 1:
        return Fraction(1)
    lying = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90  # it is turned as it is read
    return Fraction(down, across) if lying else Fraction(across, down)


def _as_colour(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
