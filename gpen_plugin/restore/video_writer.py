"""Write a video with the sound, the subtitles and the metadata of another."""

import contextlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gpen_plugin.errors import DataError, MissingFileError, OptionError
from gpen_plugin.restore.video_reader import (
    SCALING,
    demux,
    error_reason,
    import_av,
    open_video,
    start_time,
    video_streams,
)

if TYPE_CHECKING:
    from av import AudioFrame, Packet, VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.stream import Stream

ENCODERS = {  # of frames, the best first, each with its options
    "libx264": {"crf": "16", "preset": "medium"},
    "libopenh264": {"b": "12M"},
    "mpeg4": {"qscale": "2", "flags": "+qscale"},
}
AUDIO_CODEC, AUDIO_BIT_RATE = "aac", 96_000  # encoder of sound that cannot be copied, and bits per second and channel
AUDIO_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)  # that it knows
DEFAULT_AUDIO_RATE = 48000
AUDIO_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # by number of channels
QUICKTIME_LANGUAGES = {"deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "fas": "per", "sqi": "alb"}
"""By ISO 639-2/T: under what other code FFmpeg can write a language into .mov; it would leave these out."""
TEXT_SUBTITLES = {"subrip", "ass", "ssa", "webvtt", "mov_text", "text"}  # codecs of subtitles that are no images
MIN_TICKS = 10_000  # ticks per second at least
KINDS = {"audio": "sound", "subtitle": "subtitles", "data": "data", "attachment": "attachments"}
STALE_METADATA = (
    "BPS",
    "DURATION",
    "NUMBER_OF",
    "_STATISTICS",
    "ENCODER",
    "MAJOR_BRAND",
    "MINOR_VERSION",
    "COMPATIBLE_BRANDS",
)
"""How metadata begin that the old file has of itself."""


@dataclass(frozen=True)
class Container:
    format: str  # FFmpeg's name
    subtitles: str  # encoder of texts that cannot be copied
    avoided: tuple[str, ...] = ()  # prefixes of codecs that it could hold, but few players support
    options: tuple[tuple[str, str], ...] = ()  # of the format


_FAST_START = (("movflags", "+faststart"),)
CONTAINERS = {
    ".mp4": Container("mp4", "mov_text", ("pcm_", "vorbis", "mp1", "mp2"), _FAST_START),
    ".mov": Container("mov", "mov_text", (), _FAST_START),
    ".mkv": Container("matroska", "srt"),
}
"""The files that can be written, by suffix."""


class VideoTarget:
    """A video to write; a context manager. The file exists completely after the context, or not at all.

    It is written under a temporary name in the same folder. Temporary files of killed processes are removed.

    Raises:
        OptionError: a suffix that cannot be written, or `path` is the source.
        MissingFileError: PyAV is not installed.
    """

    notes: list[str]  # for the user; complete after the context

    def __init__(
        self,
        path: Path,  # the file; its suffix determines the format. Its folder is created
        source: Path | None,  # video with the sound, subtitles and metadata; None for a silent one
        rate: Fraction,  # frames per second; frames may have other times
        aspect: Fraction = Fraction(1),  # width of a pixel by its height
    ):
        self._path, self._source, self._rate, self._aspect = Path(path), source, Fraction(rate), aspect
        suffix = self._path.suffix.lower()
        if suffix not in CONTAINERS:
            raise OptionError("video", f"got {self._path.name}", f"a name that ends in {', '.join(CONTAINERS)}")
        if source is not None and self._path.exists() and self._path.samefile(source):
            raise OptionError("video", f"{path} would replace its own source", "another name or folder")
        import_av(self._path)
        name = f".{zlib.crc32(self._path.name.encode(errors='surrogateescape')):08x}"
        self._temporary = self._path.with_name(f"{name}.{os.getpid()}.part{suffix}")
        self._left_over = f"{name}.*.part{suffix}"
        self._encoder: _Encoder | None = None
        self._size: tuple[int, int] | None = None
        self.notes = []

    def __enter__(self) -> "VideoTarget":
        return self

    def write(
        self,
        frame: np.ndarray,  # (H, W, 3) uint8 BGR, all of one size
        time: Fraction,  # in seconds from the start of the source; increasing
        duration: Fraction,  # in seconds
    ) -> None:
        """Add a frame. DataError if it cannot be written."""
        height, width = frame.shape[:2]
        if self._encoder is None:
            self._size = (width, height)
            self._encoder = self._opened(width + width % 2, height + height % 2)
        assert self._size == (width, height)
        if width % 2 or height % 2:  # 4:2:0 has even sides
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        with self._failing():
            self._encoder.write(frame, time, duration)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                assert self._encoder is not None, "a video without a frame"
                with self._failing():
                    self._encoder.finish()
                    self.notes += self._encoder.notes
                    os.replace(self._temporary, self._path)
        finally:
            if self._encoder is not None:
                self._encoder.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def _opened(self, width: int, height: int) -> "_Encoder":
        if self._size != (width, height):
            self.notes.append(f"{self._size[0]} x {self._size[1]} became {width} x {height}, as codecs need even sides")
        with self._failing():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _remove_left_over(self._path.parent, self._left_over)
            return _Encoder(self._temporary, self._source, (width, height), self._rate, self._aspect)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # FFmpeg's errors are among them
            if isinstance(error, OptionError | MissingFileError):
                raise
            expected = "a writable folder with space left"
            raise DataError(str(self._path), f"cannot be written ({error_reason(error)})", expected) from error


class _Encoder:
    """Encodes frames into a file and copies the other streams of another file."""

    def __init__(self, path: Path, source: Path | None, size: tuple[int, int], rate: Fraction, aspect: Fraction):
        import av

        container = CONTAINERS[path.suffix]
        ticks = rate.numerator  # of which one frame takes a whole number
        while ticks < MIN_TICKS:
            ticks *= 2
        self._time_base = Fraction(1, min(ticks, 1_000_000))
        self._last: int | None = None  # time of a frame in ticks
        self._end = self._damaged = 0
        self._held: Packet | None = None  # the last one, as its duration depends on whether another follows
        self._durations: dict[int, int] = {}  # by time, in ticks, of frames on their writer
        options = dict(container.options)
        self._output = av.open(str(path.absolute()), "w", format=container.format, container_options=options)
        self._source = None if source is None else open_video(Path(source))
        try:
            self._stream = self._add_video(size, rate, aspect)
            self._companions = None
            if self._source is not None:
                self._companions = _Companions(self._source, self._output, path.suffix, self._mux)
                self._copy_metadata()
            self._filters = _to_yuv(size, self._time_base, aspect)
            self._output.start_encoding()
        except BaseException:
            self.close()
            raise

    @property
    def notes(self) -> list[str]:
        notes = [] if self._companions is None else list(self._companions.notes)
        if self._damaged:
            notes.append(f"damaged parts of sound or subtitles left out: {self._damaged}")
        return notes

    def write(self, frame: np.ndarray, time: Fraction, duration: Fraction) -> None:
        import av

        ticks = round(time / self._time_base)
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
        self._last = ticks
        self._durations[ticks] = max(1, round(duration / self._time_base))
        self._end = ticks + self._durations[ticks]
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        image.pts, image.time_base = ticks, self._time_base
        self._filters.push(image)
        self._encode(self._filters.pull())
        if self._companions is not None:
            self._companions.copy(until=time)

    def finish(self) -> None:
        """Write the remaining packets, and close the file."""
        self._encode(None)
        # MP4 takes its length from the order of decoding, in which the last frame need not be the last one.
        self._held.duration = max(self._held.duration, self._end - (self._held.dts - self._first))
        self._mux([self._held])
        if self._companions is not None:
            self._companions.copy(until=None)
        self._output.close()

    def close(self) -> None:
        """Close the file; it is invalid unless finished."""
        with contextlib.suppress(OSError, ValueError):
            self._output.close()
        if self._source is not None:
            self._source.close()

    def _encode(self, image: "VideoFrame | None") -> None:
        for packet in self._stream.encode(image):
            packet.duration = self._durations.pop(packet.pts, packet.duration or 0)
            if self._held is None:
                self._first = packet.dts
            else:
                self._mux([self._held])
            self._held = packet

    def _mux(self, packets: Iterable["Packet"]) -> None:
        """Write packets; packets that the muxer refuses are counted as damaged, which may show later."""
        import av

        for packet in packets:
            try:
                self._output.mux_one(packet)
            except (av.error.InvalidDataError, av.error.ArgumentError):
                self._damaged += 1

    def _add_video(self, size: tuple[int, int], rate: Fraction, aspect: Fraction) -> "Stream":
        import av

        name = next((name for name in ENCODERS if name in av.codecs_available), None)
        if name is None:
            hint = 'Run: pip install "gpen_plugin[video]"'
            raise DataError("the package av", "has no encoder of video", " or ".join(ENCODERS), hint)
        stream = self._output.add_stream(name, rate=rate, options=ENCODERS[name])
        stream.time_base = self._time_base
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt, context.time_base, context.sample_aspect_ratio = "yuv420p", self._time_base, aspect
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # limited
        return stream

    def _copy_metadata(self) -> None:
        self._output.metadata.update(_current_metadata(self._source.metadata))
        original = video_streams(self._source)[0]
        self._stream.metadata.update(_current_metadata(original.metadata))
        self._stream.disposition = original.disposition
        start = start_time(self._source)
        chapters = [_shifted(chapter, start) for chapter in self._source.chapters()]
        if chapters:
            self._output.set_chapters(chapters)


_Mux = Callable[[Iterable["Packet"]], None]


class _Companions:
    """Copies the other streams of a video into another file, or encodes them again, or leaves them out."""

    notes: list[str]  # what was not copied

    def __init__(
        self,
        source: "InputContainer",  # the file
        output: "OutputContainer",  # the other, whose header is not written yet
        suffix: str,  # of the other
        mux: Callable[[Iterable["Packet"]], None],  # writes packets into it
    ):
        self.notes: list[str] = []
        self._mux, self._start = mux, start_time(source)
        self._packets = demux(source)
        self._next: Packet | None = None
        self._writers: dict[int, _StreamCopy | _AudioEncoder | _SubtitleEncoder] = {}
        encoded: dict[tuple[str, str], list[str]] = {}
        left_out: dict[str, list[str]] = {}
        moving = {stream.index for stream in video_streams(source)}
        for stream in source.streams:
            if stream.index in moving or stream.discard.name == "all":
                continue
            if stream.type == "video":
                self.notes.append("cover image left out")
                continue
            if stream.type == "data" and "timecode" in stream.metadata:  # the muxer makes it
                continue
            writer = _stream_writer(stream, output, suffix)
            if writer is None:
                left_out.setdefault(KINDS.get(stream.type, stream.type), []).append(_codec(stream))
                continue
            self._writers[stream.index] = writer
            if writer.encoder:
                encoded.setdefault((KINDS[stream.type], writer.encoder), []).append(_codec(stream))
        for (kind, encoder), codecs in encoded.items():
            self.notes.append(f"{kind} encoded again ({', '.join(codecs)} to {encoder})")
        for kind, codecs in left_out.items():
            self.notes.append(f"{kind} left out: {suffix} cannot hold {', '.join(codecs)}")

    def copy(self, until: Fraction | None) -> None:
        """Write all packets up to a time in seconds; with None to the end, once."""
        while True:
            packet = self._next or next(self._packets, None)
            self._next = None
            if packet is None:
                break
            ticks = packet.dts if packet.dts is not None else packet.pts
            if ticks is None:
                continue
            if until is not None and ticks * packet.time_base - self._start > until:
                self._next = packet
                return
            if packet.stream_index in self._writers:
                _shift(packet, self._start)
                self._mux(self._writers[packet.stream_index](packet))
        if until is None:
            for writer in self._writers.values():
                self._mux(writer.finish())


def _stream_writer(
    stream: "Stream", output: "OutputContainer", suffix: str
) -> "_StreamCopy | _AudioEncoder | _SubtitleEncoder | None":
    """The writer of a stream into another file; None if the file cannot hold it."""
    container, codec = CONTAINERS[suffix], _codec(stream)
    if stream.type == "data" and not stream.name:  # of a codec that FFmpeg does not know, it refuses files at their end
        return None
    if not codec.startswith(container.avoided) and _can_be_held(stream, suffix):
        writer = _StreamCopy(output.add_stream_from_template(stream))
    elif stream.type == "audio" and stream.codec_context is not None and stream.codec_context.sample_rate:
        writer = _AudioEncoder(stream, output)
    elif stream.type == "subtitle" and codec in TEXT_SUBTITLES:
        writer = _SubtitleEncoder(stream, output, container.subtitles)
    else:
        return None
    writer.stream.metadata.update(_current_metadata(stream.metadata))
    if suffix == ".mov" and stream.language in QUICKTIME_LANGUAGES:
        writer.stream.metadata["language"] = QUICKTIME_LANGUAGES[stream.language]
    writer.stream.disposition = stream.disposition
    return writer


def _can_be_held(stream: "Stream", suffix: str) -> bool:
    """Whether a format can hold a stream unchanged; tested by writing a header."""
    import av

    trial = av.open(io.BytesIO(), "w", format=CONTAINERS[suffix].format)
    try:
        trial.add_stream_from_template(stream)
        trial.start_encoding()
    except (OSError, ValueError):
        return False
    finally:
        with contextlib.suppress(OSError, ValueError):
            trial.close()
    return True


class _StreamCopy:
    encoder = None

    def __init__(self, stream: "Stream"):
        self.stream, self._last = stream, None

    def __call__(self, packet: "Packet") -> list["Packet"]:
        # Of what is to be skipped, decoders need the packet before the first that is played.
        if packet.is_discard and packet.pts is not None and packet.pts < -packet.duration:
            return []
        if self._last is not None and packet.dts is not None and packet.dts <= self._last:
            return []
        self._last = packet.dts if packet.dts is not None else self._last
        packet.stream = self.stream
        return [packet]

    def finish(self) -> list["Packet"]:
        return []


class _AudioEncoder:
    """Encodes a sound stream again; gaps become silence."""

    encoder = AUDIO_CODEC

    def __init__(self, source: "Stream", output: "OutputContainer"):
        context = source.codec_context
        self._rate = context.sample_rate if context.sample_rate in AUDIO_RATES else DEFAULT_AUDIO_RATE
        self.stream = output.add_stream(AUDIO_CODEC, rate=self._rate)
        layout = AUDIO_LAYOUTS.get(context.layout.nb_channels, "stereo" if context.layout.nb_channels < 6 else "5.1")
        self.stream.codec_context.layout = layout
        self.stream.codec_context.bit_rate = AUDIO_BIT_RATE * self.stream.codec_context.layout.nb_channels
        self._filters = None

    def __call__(self, packet: "Packet") -> Iterator["Packet"]:
        try:
            frames = packet.decode()
        except (OSError, ValueError):  # damaged: silence stands in its place
            return
        for frame in frames:
            if frame.pts is not None:
                yield from self._encoded(frame)

    def finish(self) -> Iterator["Packet"]:
        if self._filters is not None:
            yield from self._encoded(None)
            yield from self.stream.encode(None)

    def _encoded(self, frame: "AudioFrame | None") -> Iterator["Packet"]:
        if self._filters is None:
            self._filters = self._resampling(frame)
        self._filters.push(frame)
        while True:
            try:
                done = self._filters.pull()
            except (BlockingIOError, EOFError):
                return
            yield from self.stream.encode(done)

    def _resampling(self, frame: "AudioFrame") -> "Graph":
        import av

        graph = av.filter.Graph()
        layout = self.stream.codec_context.layout.name
        graph.link_nodes(
            graph.add_abuffer(None, frame.sample_rate, frame.format.name, frame.layout.name, time_base=frame.time_base),
            graph.add("aresample", "async=1"),
            graph.add("aformat", f"sample_fmts=fltp:sample_rates={self._rate}:channel_layouts={layout}"),
            graph.add("abuffersink"),
        ).configure()
        return graph


class _SubtitleEncoder:
    def __init__(self, source: "Stream", output: "OutputContainer", encoder: str):
        self.encoder, self._source = encoder, source
        source.codec_context.open(strict=False)
        self.stream = output.add_stream(encoder)
        self.stream.codec_context.subtitle_header = source.codec_context.subtitle_header

    def __call__(self, packet: "Packet") -> Iterator["Packet"]:
        from av.subtitles.subtitle import SubtitleSet

        try:
            events = packet.decode()
        except (OSError, ValueError):
            return
        if not events:
            return
        first, *others = (event.ass for event in events)  # number,layer,style,name,3 margins,effect,text
        text = b"\\N".join([first, *(other.split(b",", 8)[-1] for other in others)])
        milliseconds = round((packet.duration or 0) * packet.time_base * 1000)
        done = self.stream.codec_context.encode_subtitle(SubtitleSet.create(text, 0, milliseconds))
        done.pts = done.dts = packet.pts
        done.duration, done.time_base, done.stream = packet.duration, packet.time_base, self.stream
        yield done

    def finish(self) -> list["Packet"]:
        return []


def _to_yuv(size: tuple[int, int], time_base: Fraction, aspect: Fraction) -> "Graph":
    """Filters from BGR to 4:2:0 of BT.709."""
    import av

    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add("buffer", f"video_size={size[0]}x{size[1]}:pix_fmt=bgr24:time_base={time_base}:colorspace=0:range=2"),
        graph.add("scale", f"out_color_matrix=bt709:out_range=tv:{SCALING}"),
        graph.add("format", "yuv420p"),
        graph.add("setparams", "range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"),
        graph.add("setsar", f"{aspect.numerator}/{aspect.denominator}"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _shift(packet: "Packet", start: Fraction) -> None:
    """Count the times of a packet from the start of its file."""
    ticks = round(start / packet.time_base)
    packet.dts = None if packet.dts is None else packet.dts - ticks
    packet.pts = None if packet.pts is None else packet.pts - ticks


def _shifted(chapter: dict, start: Fraction) -> dict:
    ticks = round(start / chapter["time_base"])
    return {**chapter, "start": chapter["start"] - ticks, "end": chapter["end"] - ticks}


def _current_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata that also apply to the new file."""
    return {key: value for key, value in metadata.items() if not key.upper().startswith(STALE_METADATA)}


def _codec(stream: "Stream") -> str:
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return stream.name or stream.type


def _remove_left_over(folder: Path, pattern: str) -> None:
    """Remove temporary files of processes that do not run any more."""
    for path in folder.glob(pattern):
        number = path.name.split(".")[2]
        if number.isdecimal() and not _is_running(int(number)):
            with contextlib.suppress(OSError):  # Windows does not remove a file that is still being written
                path.unlink()


def _is_running(process: int) -> bool:
    if process == os.getpid() or sys.platform == "win32":  # where os.kill would end it
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
