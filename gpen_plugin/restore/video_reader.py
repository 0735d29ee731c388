"""Read videos as frames: upright, progressive, in BT.709, each with its time."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gpen_plugin.errors import DataError, MissingFileError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

# Code points of ITU-T H.273, as FFmpeg numbers them.
BT2020, DCI_P3, DISPLAY_P3 = 9, 11, 12  # primaries
PQ, HLG = 16, 18  # transfer functions
SDR_WHITE, HDR_PEAK = 203.0, 1000.0  # cd/m2: reference white of ITU-R BT.2408; peak of the display that is assumed
SDR_GAMMA = 2.4  # ITU-R BT.1886

_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {  # x, y of red, green, blue and white
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),  # BT.709
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
_NAMES = {PQ: "PQ", HLG: "HLG", BT2020: "BT.2020", DCI_P3: "DCI-P3", DISPLAY_P3: "Display P3"}
_LEVELS = 1 << 16
_ROOTS = np.linspace(0, 1, 1 << 14)  # square roots of light: fine enough that no table adds a tenth of a gray level
_ENCODED = np.rint(_ROOTS ** (2 / SDR_GAMMA) * 255).astype(np.uint8)

DEFAULT_RATE = Fraction(25)  # frames per second of a file that does not say
MAX_ERRORS = 1000  # in a row; then the file is at its end
FORMATS_WITH_VIDEO_LENGTH = {"mov", "avi"}  # formats that give the length of the video
FORMATS_WITH_FILE_LENGTH = {"matroska", "asf", "flv"}  # formats that give the length of the whole file
LENGTH_SLACK = Fraction(2)  # seconds by which the video may end before such a file does
FORMATS_WITH_RESETS = {"mpegts", "mpeg"}  # formats whose clock may be reset: broadcasts, discs, joined recordings
# Seconds in one stream; beyond them the clock was reset.
MAX_TIME_STEP_BACK, MAX_TIME_STEP = Fraction(1), Fraction(600)
STILL_DISPOSITIONS = {"attached_pic", "timed_thumbnails"}  # what streams of a cover are marked with

_BT709, _BT601, _BT2020 = 1, 6, 9
_MATRICES = {0, _BT709, 4, 5, _BT601, 7, _BT2020, 10}  # that swscale converts; 0 is RGB
_UNSPECIFIED = 2
# Without accurate_rnd all colors come out up to three gray levels too green.
SCALING = "flags=bicubic+accurate_rnd+full_chroma_int"


@dataclass(frozen=True)
class WideColor:
    """Code points of primaries and transfer function that BT.709 does not cover."""

    primaries: int
    transfer: int

    @classmethod
    def of(cls, primaries: int, transfer: int) -> "WideColor | None":
        """None for colors of BT.709 or similar; HDR without primaries has those of BT.2020."""
        if transfer in (PQ, HLG):
            return cls(primaries if primaries in _CHROMATICITIES else BT2020, transfer)
        return cls(primaries, transfer) if primaries in (BT2020, DCI_P3, DISPLAY_P3) else None

    def __str__(self) -> str:
        names = [_NAMES[code] for code in (self.transfer, self.primaries) if code in _NAMES]
        return ", ".join(names)

    def to_bt709(self, frame: np.ndarray) -> np.ndarray:
        """Convert a frame, (H, W, 3) uint16 RGB, full range, to (H, W, 3) uint8 BGR.

        HDR is mapped with the diffuse white of BT.2408 as white; highlights are compressed by the curve of BT.2390,
        which leaves dark and middle tones unchanged. Colors outside the gamut are clipped.
        """
        light = _linear_light(self.transfer)[frame]  # [H, W, 3], 1 = SDR white
        light = cv2.transform(light, np.linalg.inv(_to_xyz(1)) @ _to_xyz(self.primaries))
        np.maximum(light, 0, out=light)
        if self.transfer in (PQ, HLG):
            brightest = cv2.max(cv2.max(light[..., 0], light[..., 1]), light[..., 2])
            light *= _look_up(_compression(), brightest * (SDR_WHITE / HDR_PEAK))[..., None]
        return _look_up(_ENCODED, light[..., ::-1])


@functools.cache
def _linear_light(transfer: int) -> np.ndarray:
    """Light of each 16 bit value, float32, 1 = SDR white.

    HLG's system gamma of 1.2 is applied to each channel, as the difference of BT.709's OETF and BT.1886 does in SDR.
    BT.2100 applies it to luminance; then colors would be paler than those of the same scene in SDR.
    """
    signal = np.arange(_LEVELS) / (_LEVELS - 1)
    if transfer == PQ:
        light = pq_to_nits(signal) / SDR_WHITE
    elif transfer == HLG:  # inverse OETF of BT.2100, Table 5
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = scene**1.2 * (HDR_PEAK / SDR_WHITE)
    else:
        light = signal**SDR_GAMMA
    return light.astype(np.float32)


def _look_up(table: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Read a table over evenly spaced square roots of light, from 0 to 1."""
    index = np.sqrt(np.minimum(light, 1)) * (len(table) - 1) + 0.5
    return table[index.astype(np.uint16)]


def pq_to_nits(signal: np.ndarray) -> np.ndarray:
    """EOTF of PQ, BT.2100 Table 4: [0, 1] to cd/m2."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    powered = np.power(signal, 1 / m2)
    return 10000 * np.power(np.maximum(powered - c1, 0) / (c2 - c3 * powered), 1 / m1)


def nits_to_pq(nits: np.ndarray | float) -> np.ndarray:
    """Inverse of `pq_to_nits`."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    powered = np.power(np.maximum(nits, 0) / 10000, m1)
    return np.power((c1 + c2 * powered) / (1 + c3 * powered), m2)


@functools.cache
def _compression() -> np.ndarray:
    """Factors by which BT.2390's EETF (section 5.4.1) brings HDR to SDR white, for `_look_up`: 1 is the HDR peak."""
    nits = _ROOTS**2 * HDR_PEAK
    source = nits_to_pq(HDR_PEAK)
    signal, largest = nits_to_pq(nits) / source, nits_to_pq(SDR_WHITE) / source
    knee = 1.5 * largest - 0.5
    t = np.clip((signal - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * largest
    reduced = np.where(signal < knee, nits, pq_to_nits(spline * source))
    return np.divide(reduced, nits, out=np.ones_like(nits), where=nits > 0).astype(np.float32)


def _to_xyz(primaries: int) -> np.ndarray:
    """Matrix from linear RGB to XYZ, with white adapted to D65 by scaling, (3, 3)."""
    *colors, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in _CHROMATICITIES[primaries])
    columns = np.stack(colors, axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    d65 = np.array([_D65[0] / _D65[1], 1, (1 - sum(_D65)) / _D65[1]])
    return matrix * (d65 / white)[:, None]


def import_av(where: str | Path) -> ModuleType:
    """PyAV. MissingFileError without it."""
    try:
        import av
    except ImportError as error:
        got = "the package av (PyAV), which reads and writes videos, is not installed"
        raise MissingFileError(str(where), got, hint='Run: pip install "gpen_plugin[video]"') from error
    return av


def open_video(path: Path) -> "InputContainer":
    """Open a file for reading. DataError if it does not exist or is not a video, MissingFileError without PyAV."""
    av = import_av(path)
    if not path.is_file():
        raise DataError(str(path), "is not there" if not path.exists() else "is not a file", "a video")
    try:
        # By its absolute path: FFmpeg takes what stands before a colon for a protocol.
        return av.open(str(path.absolute()), metadata_errors="replace")
    except (OSError, ValueError) as error:  # FFmpeg's errors are among them
        raise _unreadable(path, error_reason(error)) from error


def demux(container: "InputContainer") -> Iterator["Packet"]:
    """Undamaged packets of all streams in file order, with continuous time; the same for each reader of a file."""
    clock = _Clock() if FORMATS_WITH_RESETS & _formats(container) else None
    errors = 0
    while errors < MAX_ERRORS:
        try:
            for packet in container.demux():
                errors = 0
                if clock is not None:
                    clock.correct(packet)
                yield packet
        except (OSError, ValueError):
            errors += 1
        else:
            return


def video_streams(container: "InputContainer") -> list["VideoStream"]:
    """All streams of moving images; the first is the one that players show, preferably a default one."""
    streams = [stream for stream in container.streams.video if not STILL_DISPOSITIONS & dispositions(stream)]
    return sorted(streams, key=lambda stream: "default" not in dispositions(stream))


def dispositions(stream: "Stream") -> set[str]:
    """Names of a stream's dispositions: default, forced, attached_pic ..."""
    return {mark.name for mark in stream.disposition}


def start_time(container: "InputContainer") -> Fraction:
    """Start of the file in seconds, from which times are counted; 0 if sound starts earlier, which is skipped."""
    streams = [*container.streams.video, *container.streams.audio]
    starts = [stream.start_time * stream.time_base for stream in streams if stream.start_time is not None]
    return max(min(starts, default=Fraction(0)), Fraction(0))


_TimedFrame = tuple[np.ndarray, Fraction | None]  # a frame and its time in seconds, None if the file does not say it


class VideoSource:
    """A video file; iterate over it for its frames, once.

    Yields (frame, time, duration): (H, W, 3) uint8 BGR, upright and progressive; the time in seconds from the start of
    the file, strictly increasing; the duration in seconds. A frame before a damaged part lasts until the next readable
    one.

    Raises:
        DataError: it does not exist, is not a video, or has no frame.
        MissingFileError: PyAV is not installed.
    """

    rate: Fraction  # frames per second according to the file; the frames' times may differ
    expected: int  # number of frames according to the file
    aspect: Fraction  # width of a pixel by its height
    read: int  # number of frames read so far
    notes: list[str]  # for the user; complete after the last frame

    def __init__(self, path: Path):
        self._path = Path(path)
        self._container = open_video(self._path)
        streams = [stream for stream in video_streams(self._container) if stream.codec_context is not None]
        if not streams:
            self._container.close()
            raise _unreadable(self._path, "FFmpeg knows none of its video streams")
        self._stream, *others = streams
        self._start = start_time(self._container)
        self.rate = _rate(self._stream)
        self._promised = self._promise()
        self.expected = self._stream.frames if self._promised is None else round(self._promised * self.rate)
        self.read = self._damaged = self._unclean = 0
        self._end = Fraction(0)
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            self._container.close()
            raise _unreadable(self._path, "none of its frames can be decoded")
        if self._stream.start_time is None and first.pts is not None:  # a stream without a container
            self._start = first.pts * first.time_base
            self._end -= self._start
        self._first, self._orientation = first, _Orientation.of(first)
        self.aspect = self._orientation.turned(self._stream.sample_aspect_ratio)
        self.notes: list[str] = []
        if others:
            left_out = ", ".join(_described(stream) for stream in others)
            self.notes.append(f"video track {_described(self._stream)} is restored; left out: {left_out}")
        tags = {key.lower(): value for key, value in self._stream.metadata.items()}
        if tags.get("alpha_mode") == "1" or any(part.is_alpha for part in first.format.components):
            self.notes.append("transparency left out")

    def __iter__(self) -> Iterator[tuple[np.ndarray, Fraction, Fraction]]:
        try:
            last = None
            for frame, time in self._in_order():
                if last is not None:
                    yield (*last, time - last[1])
                last = frame, time
            if last is not None:
                yield (*last, self._last_duration(last[1]))
        finally:
            self._container.close()
        self._note_damage()

    def _last_duration(self, time: Fraction) -> Fraction:
        # Where frames are stored in another order, a duration in the file need not be that of its own frame.
        end = self._end if self._promised is None else min(self._end, self._promised)
        return end - time if end > time else 1 / self.rate

    def _in_order(self) -> Iterator[tuple[np.ndarray, Fraction]]:
        """Frames with increasing times. A time that contradicts the next one is replaced."""
        last, waiting = None, None
        for frame, time in self._frames():
            if waiting is not None:
                last = self._confirmed(last, waiting[1], time)
                yield waiting[0], last
            waiting = frame, time
        if waiting is not None:
            yield waiting[0], self._confirmed(last, waiting[1], None)

    def _confirmed(self, last: Fraction | None, time: Fraction | None, following: Fraction | None) -> Fraction:
        """The time of a frame, from that of the frame before, which is certain, and of the one after."""
        if time is not None and (last is None or last < time) and (following is None or time < following):
            return time
        usual = 1 / self.rate
        if last is None:
            return following - usual if following is not None else time or Fraction(0)
        if following is not None and last < following <= last + usual:
            return (last + following) / 2
        return last + usual

    def _frames(self) -> Iterator[_TimedFrame]:
        size, filters = (self._first.width, self._first.height), None
        for frame in self._decoded_from_first():
            properties = _Properties.of(frame, deinterlace=filters is not None and filters.properties.deinterlace)
            if filters is None or filters.properties != properties:
                if filters is not None:
                    yield from self._finished(filters(None))
                filters = _Filters(properties, self._stream.time_base, size)
                self._note_once(*filters.notes)
            yield from self._finished(filters(frame))
        if filters is not None:
            yield from self._finished(filters(None))

    def _decoded_from_first(self) -> Iterator["VideoFrame"]:
        yield self._first
        del self._first
        yield from self._decoded

    def _finished(self, images: Iterator[_TimedFrame]) -> Iterator[_TimedFrame]:
        for image, time in images:
            self.read += 1
            yield self._orientation.upright(image), None if time is None else self._regular(time - self._start)

    def _regular(self, time: Fraction) -> Fraction:
        """The time at a constant rate if the file has it rounded to milliseconds."""
        regular = round(time * self.rate) / self.rate
        return regular if abs(time - regular) <= min(self._stream.time_base, Fraction(1, 500)) else time

    def _decode(self) -> Iterator["VideoFrame"]:
        for packet in demux(self._container):
            if packet.stream.index != self._stream.index:  # at the end `stream_index` is 0 in all packets
                continue
            try:
                frames = packet.decode()
            except EOFError:
                continue
            except (OSError, ValueError):
                self._damaged += 1
                continue
            for frame in frames:
                self._unclean += frame.is_corrupt
                if frame.pts is None:
                    frame.pts = frame.dts
                if frame.pts is not None:
                    end = (
                        frame.pts * frame.time_base - self._start + (frame.duration * frame.time_base or 1 / self.rate)
                    )
                    self._end = max(self._end, end)
                yield frame

    def _promise(self) -> Fraction | None:
        """End of the video in seconds according to the file."""
        formats, stream = _formats(self._container), self._stream
        if formats & FORMATS_WITH_VIDEO_LENGTH and stream.duration:
            # AVI counts its frames; its duration is of what is there.
            length = max(stream.duration, stream.frames) if "avi" in formats else stream.duration
            return ((stream.start_time or 0) + length) * stream.time_base - self._start
        if formats & FORMATS_WITH_FILE_LENGTH and self._container.duration:
            return Fraction(self._container.duration, 1_000_000)
        return None

    def _note_once(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _note_damage(self) -> None:
        if self._damaged:
            self.notes.append(f"damaged frames, replaced by the frame before: {self._damaged}")
        if self._unclean:
            self.notes.append(f"damaged frames, partly decoded: {self._unclean}")
        slack = Fraction(3, 2) / self.rate if _formats(self._container) & FORMATS_WITH_VIDEO_LENGTH else LENGTH_SLACK
        if self._promised is not None and self._end < self._promised - slack:
            got = f"{float(self._end):.2f} s could be read"
            self.notes.append(f"the file should have {float(self._promised):.2f} s of video, but {got}")


class _Clock:
    """Makes time continuous where a file's clock was reset: all streams are shifted alike.

    A single damaged time shifts its own packet only, as the next ones fit the previous clock.
    """

    def __init__(self):
        self._shift = self._shift_before = Fraction(0)
        self._last: dict[int, Fraction] = {}

    def correct(self, packet: "Packet") -> None:
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:
            return
        time, last = ticks * packet.time_base, self._last.get(packet.stream_index)
        if last is not None:
            shifts = (self._shift, self._shift_before)
            shift = min(shifts, key=lambda shift: abs(time + shift - last))
            if not -MAX_TIME_STEP_BACK <= time + shift - last <= MAX_TIME_STEP:
                shift = max(self._last.values()) - time
            if shift != self._shift:
                self._shift, self._shift_before = shift, self._shift
        self._last[packet.stream_index] = time + self._shift
        shift = round(self._shift / packet.time_base)
        packet.dts = None if packet.dts is None else packet.dts + shift
        packet.pts = None if packet.pts is None else packet.pts + shift


@dataclass(frozen=True)
class _Properties:
    width: int
    height: int
    pixel_format: str
    bits: int
    matrix: int
    range: int
    wide: WideColor | None
    deinterlace: bool

    @classmethod
    def of(cls, frame: "VideoFrame", *, deinterlace: bool) -> "_Properties":
        """`deinterlace`: whether an earlier frame was interlaced."""
        rgb = frame.format.is_rgb or frame.format.has_palette
        return cls(
            frame.width,
            frame.height,
            frame.format.name,
            max(part.bits for part in frame.format.components),
            0 if rgb else _matrix(frame),
            frame.color_range,
            WideColor.of(frame.color_primaries, frame.color_trc),
            deinterlace or frame.interlaced_frame,
        )


class _Filters:
    """Deinterlaces and converts frames of the same properties."""

    def __init__(
        self,
        properties: _Properties,  # of all frames
        time_base: Fraction,  # of their times
        size: tuple[int, int],  # width and height of the results
    ):
        import av

        self.properties = properties
        self._graph = av.filter.Graph()
        source = self._graph.add(
            "buffer",
            f"video_size={properties.width}x{properties.height}:pix_fmt={properties.pixel_format}"
            f":time_base={time_base}:colorspace={properties.matrix}:range={properties.range}",
        )
        chain = [source]
        if properties.deinterlace:
            chain.append(self._graph.add("bwdif", "mode=send_frame:deint=interlaced"))
        chain.append(self._graph.add("scale", f"{size[0]}:{size[1]}:{SCALING}"))
        chain.append(self._graph.add("format", "bgr24" if properties.wide is None else "rgb48le"))
        self._graph.link_nodes(*chain, self._graph.add("buffersink")).configure()
        self.notes = []
        if properties.deinterlace:
            self.notes.append("interlaced frames were deinterlaced")
        if properties.wide is not None:
            self.notes.append(f"colors of {properties.wide} converted to BT.709 with 8 bits")
        elif properties.bits > 8:
            self.notes.append("colors of more than 8 bits reduced to 8 bits")
        if (properties.width, properties.height) != size:
            got = f"{properties.width} x {properties.height}"
            self.notes.append(f"the frame size changes; frames of {got} were scaled to {size[0]} x {size[1]}")

    def __call__(self, frame: "VideoFrame | None") -> Iterator[_TimedFrame]:
        """Take a frame, None after the last; yield finished ones, (H, W, 3) uint8 BGR, and their times."""
        if frame is not None:
            frame.colorspace = self.properties.matrix
        self._graph.push(frame)
        while True:
            try:
                done = self._graph.pull()
            except (BlockingIOError, EOFError):
                return
            image = done.to_ndarray()
            if self.properties.wide is not None:
                image = self.properties.wide.to_bt709(image)
            yield image, None if done.pts is None else done.pts * done.time_base


@dataclass(frozen=True)
class _Orientation:
    """Exchange of the axes, followed by mirroring, that makes frames upright."""

    exchange: bool = False
    reverse_x: bool = False
    reverse_y: bool = False

    @classmethod
    def of(cls, frame: "VideoFrame") -> "_Orientation":
        """From the display matrix of a frame: x' = a x + c y, y' = b x + d y, of a, b, u, c, d, ..."""
        try:
            a, b, _, c, d, *_ = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).tolist()
        except KeyError:
            return cls()
        exchange = abs(b) > abs(a)
        across, down = (c, b) if exchange else (a, d)
        return cls(exchange, across < 0, down < 0)

    def upright(self, image: np.ndarray) -> np.ndarray:
        image = image.swapaxes(0, 1) if self.exchange else image
        return np.ascontiguousarray(image[:: -1 if self.reverse_y else 1, :: -1 if self.reverse_x else 1])

    def turned(self, aspect: Fraction | None) -> Fraction:
        """Aspect of a pixel after turning; 1 if unknown."""
        if aspect is None or aspect <= 0:
            return Fraction(1)
        return 1 / aspect if self.exchange else aspect


def _matrix(frame: "VideoFrame") -> int:
    """Code point of the matrix to RGB; if unknown, the usual one of the size, as in players."""
    if frame.colorspace in _MATRICES:
        return frame.colorspace
    if frame.color_primaries == BT2020:
        return _BT2020
    return _BT709 if frame.width >= 1280 or frame.height >= 720 else _BT601


def _rate(stream: "VideoStream") -> Fraction:
    rate = stream.guessed_rate or stream.average_rate
    return rate if rate and 0 < rate <= 1000 else DEFAULT_RATE


def _described(stream: "VideoStream") -> str:
    context = stream.codec_context
    return f"{stream.index} ({context.name}, {context.width} x {context.height})"


def _formats(container: "InputContainer") -> set[str]:
    return set(container.format.name.split(","))


def _unreadable(path: Path, error_reason: str) -> DataError:
    return DataError(
        str(path), f"cannot be read as a video ({error_reason})", "a video with a frame in it", "Is it damaged?"
    )


def error_reason(error: Exception) -> str:
    """The message of an error without number and path."""
    return getattr(error, "strerror", None) or str(error)
