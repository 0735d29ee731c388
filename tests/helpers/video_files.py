"""Small videos, and a restorer that needs no network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic_faces import render_face

from gpen_plugin.images.photograph import Photograph
from gpen_plugin.restore.alignment import scale_template, template
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.restorer import Restoration, RestoredFace

av = pytest.importorskip("av", reason='videos need PyAV: pip install "gpen_plugin[video]"')

WIDTH, HEIGHT, SIDE = 96, 64, 48
RATE, SOUND_RATE = 25, 16000
EXACT = 0x4 | 0x40000 | 0x2000  # swscale's flags for bicubic, accurate rounding and full chroma


def frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A synthetic face that moves to the right by a pixel a frame."""
    image = np.full((height, width, 3), (90, 120, 70), np.uint8)
    left = 8 + number
    image[8 : 8 + SIDE, left : left + SIDE] = render_face(1, SIDE)[:, : width - left]
    return image


def where(number: int) -> DetectedFace:
    """The face of that frame."""
    landmarks = scale_template(template("ffhq"), SIDE) + np.array([8 + number, 8])
    return DetectedFace(np.array([8.0 + number, 8, 8 + number + SIDE, 8 + SIDE]), landmarks, 0.9, "made")


@dataclass
class Track:
    """A stream of video to be written.

    Attributes:
        images: (H, W, 3) uint8 BGR, or frames of PyAV.
        codec: its encoder.
        pixels: pixel format.
        times: when each is shown, in seconds; None for a constant rate.
        marks: disposition.
        options: of the encoder.
        settings: attributes of the codec context.
    """

    images: Sequence
    codec: str = "libx264"
    pixels: str = "yuv420p"
    times: Sequence[float] | None = None
    rate: Fraction = Fraction(RATE)
    marks: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)


@dataclass
class Tone:
    """A stream of sound to be written: silence, in which a tone starts and ends."""

    codec: str = "aac"
    rate: int = SOUND_RATE
    seconds: float = 0.48
    start: float = 0.0
    tone: tuple[float, float] = (0.1, 0.3)
    language: str | None = None
    marks: int | None = None


def write_video(
    path: Path,
    *tracks: Track,
    sound: Sequence[Tone] = (),
    subtitles: Sequence[tuple[float, float, str]] = (),
    title: str | None = None,
    prepare: Callable | None = None,
) -> Path:
    """Write a file with PyAV.

    Args:
        path: its suffix chooses the format.
        tracks: streams of video.
        sound: streams of sound.
        subtitles: start, end and text of each.
        title: of the file.
        prepare: called with the container before anything is written.
    """
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        packets = []
        for track in tracks:
            packets += _encode_track(container, track)
        for tone in sound:
            packets += _encode_tone(container, tone)
        if subtitles:
            packets += _encode_subtitles(container, subtitles)
        if prepare is not None:
            prepare(container)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        container.mux(packets)
    return path


def write_avi(path: Path, count: int = 12, rate: float = RATE, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Motion JPEG without sound."""
    images = [frame(number, *size) for number in range(count)]
    rate = Fraction(rate).limit_denominator(1001)
    return write_video(path, Track(images, "mjpeg", "yuvj420p", rate=rate, options={"qmin": "2", "qmax": "3"}))


def write_with_sound(path: Path, codec: str = "aac", count: int = 12) -> Path:
    """H.264 with sound of the same length, and a title."""
    track = Track([frame(number) for number in range(count)], options={"crf": "8"})
    return write_video(path, track, sound=[Tone(codec, seconds=count / RATE)], title="A face")


def codecs(path: Path, kind: str) -> list[str]:
    """Names of the codecs of all streams of a kind."""
    with av.open(str(path)) as container:
        return [stream.codec_context.codec.canonical_name for stream in container.streams if stream.type == kind]


def packets_of(path: Path, kind: str = "audio", number: int = 0) -> list[bytes]:
    """What is in the packets of a stream."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[number]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def tone_in(path: Path, number: int = 0) -> tuple[float, float]:
    """When the tone starts and ends, in seconds."""
    loud = []
    with av.open(str(path)) as container:
        for part in container.decode(container.streams.audio[number]):
            values = part.to_ndarray().astype(float)
            values = values.reshape(-1, part.layout.nb_channels)[:, 0] if not part.format.is_planar else values[0]
            values /= 32768 if part.format.name.startswith("s16") else 1
            start = float(part.pts * part.time_base)
            loud += [start + index / part.sample_rate for index in np.flatnonzero(np.abs(values) > 0.1)]
    return min(loud), max(loud)


def _encode_track(container, track: Track) -> list:
    stream = container.add_stream(track.codec, rate=track.rate, options=track.options)
    first = track.images[0]
    height, width = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
    stream.width, stream.height, stream.pix_fmt = width, height, track.pixels
    stream.codec_context.time_base = 1 / track.rate if track.times is None else Fraction(1, 1000)
    for name, value in track.settings.items():
        setattr(stream.codec_context, name, value)
    if track.marks is not None:
        stream.disposition = track.marks
    packets = []
    for number, image in enumerate(track.images):
        encoded = image
        if isinstance(image, np.ndarray):
            encoded = av.VideoFrame.from_ndarray(image, format="bgr24")
            if track.pixels != "bgr24":
                encoded = encoded.reformat(format=track.pixels, interpolation=EXACT)
        encoded.pts = number if track.times is None else round(track.times[number] * 1000)
        encoded.time_base = stream.codec_context.time_base
        packets += stream.encode(encoded)
    return packets + stream.encode(None)


def _encode_tone(container, tone: Tone) -> list:
    stream = container.add_stream(tone.codec, rate=tone.rate)
    stream.layout = "mono"
    if tone.language:
        stream.metadata["language"] = tone.language
    if tone.marks is not None:
        stream.disposition = tone.marks
    seconds = np.arange(round(tone.seconds * tone.rate)) / tone.rate
    audible = (seconds >= tone.tone[0]) & (seconds < tone.tone[1])
    values = (np.sin(seconds * 2 * np.pi * 2000) * audible * 20000).astype(np.int16)
    packets, length = [], 160
    for start in range(0, len(values), length):
        part = av.AudioFrame.from_ndarray(values[None, start : start + length], format="s16", layout="mono")
        part.sample_rate, part.time_base = tone.rate, Fraction(1, tone.rate)
        part.pts = start + round(tone.start * tone.rate)
        packets += stream.encode(part)
    return packets + stream.encode(None)


def _encode_subtitles(container, subtitles: Sequence[tuple[float, float, str]]) -> list:
    from av.subtitles.subtitle import SubtitleSet

    stream = container.add_stream("srt")
    stream.codec_context.subtitle_header = (
        b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n"
        b"Style: Default,Arial,16\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, "
        b"Effect, Text\n"
    )
    packets = []
    for number, (start, end, text) in enumerate(subtitles):
        line = f"{number},0,Default,,0,0,0,,{text}".encode()
        packet = stream.codec_context.encode_subtitle(SubtitleSet.create(line, 0, round((end - start) * 1000)))
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = round(start * 1000)
        packet.duration = round((end - start) * 1000)
        packets.append(packet)
    return packets


class FakeRestorer:
    """Finds the face of `frame`, and restores by making all brighter. It overlooks the face in some frames.

    Args:
        blind: numbers of the frames in which it finds nothing.
        scale: of the result.
    """

    def __init__(self, blind: tuple[int, ...] = (), scale: int = 1):
        self.blind, self.scale = blind, scale
        self.searched = 0
        self.batches: list[list[list[DetectedFace]]] = []
        self.monochrome: list[bool] = []  # of each frame, as it was asked for

    def find(self, image: np.ndarray) -> list[DetectedFace]:
        """The face, by the number of frames searched so far."""
        number = self.searched
        self.searched += 1
        return [] if number in self.blind else [where(number)]

    def restore_faces(self, images, *, faces) -> list[list[RestoredFace]]:
        """The same faces."""
        assert all(image.pixels.dtype == np.uint8 for image in images)
        self.monochrome += [image.monochrome for image in images]
        self.batches.append([list(each) for each in faces])
        return [_restored(each) for each in faces]

    def paste_back(self, image, faces) -> Restoration:
        """The image 20 gray levels brighter."""
        return Restoration(Photograph.of(self.brightened(image.pixels)), faces)

    def brightened(self, image: np.ndarray) -> np.ndarray:
        """What it makes of an image."""
        return cv2.resize(cv2.add(image, (20,) * 4), None, fx=self.scale, fy=self.scale)


def _restored(faces: list[DetectedFace]) -> list[RestoredFace]:
    crop = np.zeros((4, 4, 3), np.float32)
    return [RestoredFace(face, np.eye(2, 3), crop, crop) for face in faces]
