"""Frames of videos, their times and their colors."""

import re
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers.video_files import EXACT, HEIGHT, RATE, WIDTH, Tone, Track, av, frame, write_avi, write_video

from gpen_plugin.errors import DataError, MissingFileError
from gpen_plugin.restore.video_reader import VideoSource

FLAT = (32, 64, 224)  # BGR


def read(path) -> tuple[list[np.ndarray], list[float], list[str]]:
    """Frames, their times in seconds, and the notes."""
    video = VideoSource(path)
    read_frames = list(video)
    return [image for image, *_ in read_frames], [float(time) for _, time, _ in read_frames], video.notes


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return np.abs(one.astype(int) - other).mean()


def flat(color=FLAT, size=(32, 32)) -> np.ndarray:
    return np.full((*size, 3), color, np.uint8)


@pytest.mark.parametrize(
    ("rate", "exact"), [(25, Fraction(25)), (30000 / 1001, Fraction(30000, 1001)), (12.5, Fraction(25, 2))]
)
def test_reading(tmp_path, rate, exact):
    video = VideoSource(write_avi(tmp_path / "in.avi", 5, rate))
    assert (video.rate, video.expected, video.aspect) == (exact, 5, 1)
    read_frames = list(video)
    assert [time for _, time, _ in read_frames] == [number / exact for number in range(5)]
    assert [duration for _, _, duration in read_frames] == [1 / exact] * 5
    assert (video.notes, video.read) == ([], 5)
    for number, (image, *_) in enumerate(read_frames):
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert difference(image, frame(number)) < 6


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 40, b"RIFF\0\0\0\0AVI LIST"])
def test_other_files_are_refused_in_one_line(tmp_path, content, capfd):
    path = tmp_path / "shot_01.avi"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"shot_01.avi: cannot be read as a video") as error:
        VideoSource(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="is not a file"):
        VideoSource(tmp_path)
    with pytest.raises(DataError, match=r"nothing.mp4: is not there"):
        VideoSource(tmp_path / "nothing.mp4")


def test_audio_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="FFmpeg knows none of its video streams"):
        VideoSource(write_video(tmp_path / "in.mp4", sound=[Tone()]))


def test_missing_pyav_names_the_extra(tmp_path, monkeypatch):
    path = write_avi(tmp_path / "in.avi", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingFileError, match=r'in.avi: the package av .* Run: pip install "gpen_plugin\[video\]"'):
        VideoSource(path)


def test_name_with_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_avi(tmp_path / "in.avi", 2).rename("2021-05-01T12:30:15.avi")
    assert len(list(VideoSource("2021-05-01T12:30:15.avi"))) == 2


# Damage


def test_truncated_video_is_read_with_a_note(tmp_path):
    whole = write_avi(tmp_path / "in.avi", 12).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    images, _, notes = read(tmp_path / "cut.avi")
    assert 4 < len(images) < 12
    assert notes[-1] == f"the file should have 0.48 s of video, but {len(images) / RATE:.2f} s could be read"


@pytest.mark.parametrize("damaged", [(4, 5), (0,)])
def test_damaged_frame_does_not_stop_the_reader(tmp_path, damaged):
    content = bytearray(write_avi(tmp_path / "in.avi", 12).read_bytes())
    starts = [match.end() + 4 for match in re.finditer(b"00dc", content)]
    starts = [start for start in starts if content[start : start + 2] == b"\xff\xd8"]
    for number in damaged:
        length = int.from_bytes(content[starts[number] - 4 : starts[number]], "little")
        content[starts[number] : starts[number] + length] = bytes(length)
    (tmp_path / "in.avi").write_bytes(content)
    images, times, notes = read(tmp_path / "in.avi")
    assert times == pytest.approx([number / RATE for number in range(12) if number not in damaged])
    assert difference(images[-1], frame(11)) < 6
    assert notes == [f"damaged frames, replaced by the frame before: {len(damaged)}"]


def test_a_damaged_stream_is_bridged(tmp_path):
    source = write_video(tmp_path / "in.ts", Track([frame(number) for number in range(40)], options={"g": "5"}))
    content = bytearray(source.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    source.write_bytes(content)
    images, times, _ = read(source)
    assert len(images) > 30
    assert times == sorted(set(times))
    assert times[-1] - times[0] == pytest.approx(39 / RATE, abs=1e-3)
    assert difference(images[-1], frame(39)) < 6


def test_clock_reset_is_corrected(tmp_path):
    part = write_video(tmp_path / "part.ts", Track([frame(number) for number in range(12)]), sound=[Tone("mp2")])
    (tmp_path / "in.ts").write_bytes(part.read_bytes() * 2)
    images, times, notes = read(tmp_path / "in.ts")
    assert len(images) == 24
    assert times[-1] == pytest.approx(23 / RATE, abs=0.1)  # at the seam, sound and video need not end together
    assert notes == []


# Times


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_rate_that_varies_is_kept(tmp_path, suffix):
    times = [0, 0.04, 0.08, 0.36, 0.4, 0.41, 0.44]
    source = write_video(tmp_path / f"in{suffix}", Track([frame(number) for number in range(7)], times=times))
    _, read_times, notes = read(source)
    assert read_times == pytest.approx(times, abs=0.0011)
    assert notes == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_frame_may_last_more_than_a_minute(tmp_path, suffix):
    times = [0, 0.1, 0.2, 70.2, 70.3, 70.4]
    track = Track([frame(number) for number in range(6)], times=times, rate=Fraction(10))
    _, read_times, notes = read(write_video(tmp_path / f"in{suffix}", track))
    assert np.subtract(read_times, read_times[0]) == pytest.approx(times, abs=1e-3)
    assert notes == []


def test_a_single_wrong_time_is_replaced(tmp_path):
    times = [0, 0.04, 0.08, 5.0, 0.16, 0.2, 0.24]

    def damaged(source):
        for number, (image, _) in enumerate(VideoSource._frames(source)):
            yield image, Fraction(times[number])

    video = VideoSource(write_avi(tmp_path / "in.avi", 7))
    video._frames = lambda: damaged(video)
    found = [float(time) for _, time, _ in video]
    assert found == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24])


def test_milliseconds_of_matroska_become_the_exact_rate(tmp_path):
    rate = Fraction(30000, 1001)
    track = Track([frame(number) for number in range(9)], rate=rate)
    video = VideoSource(write_video(tmp_path / "in.mkv", track))
    assert [time for _, time, _ in video] == [number / rate for number in range(9)]


def test_a_trimmed_video_is_whole(tmp_path):
    """An edit list that skips the first 6 of 20 frames, as editors on telephones write it."""
    source = write_video(tmp_path / "in.mp4", Track([frame(number) for number in range(20)], options={"bf": "0"}))
    content = bytearray(source.read_bytes())
    offset = content.index(b"elst") + 4 + 4 + 4  # version and flags, number of entries
    duration, start = (int.from_bytes(content[offset + at : offset + at + 4], "big") for at in (0, 4))
    with av.open(str(source)) as container:
        skipped = round(6 / RATE / container.streams.video[0].time_base)
    content[offset : offset + 4] = (duration * 14 // 20).to_bytes(4, "big")
    content[offset + 4 : offset + 8] = (start + skipped).to_bytes(4, "big")
    source.write_bytes(content)
    images, times, notes = read(source)
    assert (len(images), times[0], notes) == (14, 0, [])
    assert difference(images[0], frame(6)) < 6


# Interlaced


def interlaced(images: list[np.ndarray]) -> list[np.ndarray]:
    """Two images in a frame: the first in the even rows, the second in the odd ones."""
    woven = []
    for first, second in zip(images[::2], images[1::2], strict=True):
        both = first.copy()
        both[1::2] = second[1::2]
        woven.append(both)
    return woven


def moving(number: int) -> np.ndarray:
    """A bright square on gray that goes to the right by 4 pixels, (64, 96, 3)."""
    image = np.full((64, 96, 3), 80, np.uint8)
    image[16:48, 8 + 4 * number : 32 + 4 * number] = 200
    return image


@pytest.mark.parametrize("name", ["in.mp4", "in.mts", "in.mpg"])
def test_interlaced_frames_are_deinterlaced(tmp_path, name):
    progressive = [moving(number) for number in range(16)]
    mpeg2 = {"flags": "+ildct+ilme", "field_order": "tt", "qmin": "1", "qmax": "2"}
    codec = "mpeg2video" if name == "in.mpg" else "libx264"
    options = mpeg2 if name == "in.mpg" else {"crf": "4", "x264-params": "tff=1"}
    images, _, notes = read(write_video(tmp_path / name, Track(interlaced(progressive), codec, options=options)))
    assert notes == ["interlaced frames were deinterlaced"]
    assert len(images) == 8
    for number, image in enumerate(images):
        pair = progressive[2 * number : 2 * number + 2]
        woven = min(difference(interlaced(pair)[0], one) for one in pair)  # 2.5: half of the rows show the other
        assert min(difference(image, one) for one in pair) < woven / 2


@pytest.mark.parametrize("pixels", ["uyvy422", "yuv411p"])
def test_interlaced_frames_of_other_kinds(tmp_path, pixels):
    """Uncompressed video; and DV, whose encoder needs a whole frame of television."""
    if pixels == "yuv411p":
        still = np.full((480, 720, 3), (60, 120, 180), np.uint8)
        track = Track([still] * 3, "dvvideo", pixels, rate=Fraction(30000, 1001))
    else:
        track = Track([flat((60, 120, 180), (64, 64))] * 3, "rawvideo", pixels, options={"field_order": "tt"})
    images, _, notes = read(write_video(tmp_path / ("in.avi" if pixels == "yuv411p" else "in.mov"), track))
    assert len(images) == 3
    assert np.abs(images[1][20:-20, 20:-20].astype(int) - (60, 120, 180)).max() <= 4
    assert notes == ["interlaced frames were deinterlaced"]


# Colors


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_matrices_and_ranges_are_those_that_the_file_names(tmp_path, matrix, full):
    across = 2 if full else 1
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    b, g, r = np.array(FLAT) / 255
    y = red * r + (1 - red - blue) * g + blue * b
    values = np.array([y, (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)])
    values = values * (255 if full else (219, 224, 224)) + ((0, 128, 128) if full else (16, 128, 128))
    coded = av.VideoFrame(32, 32, "yuv444p")
    for plane, value in zip(coded.planes, values, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    settings = {"colorspace": matrix, "color_range": across, "color_primaries": 1, "color_trc": 1}
    source = write_video(tmp_path / "in.mp4", Track([coded], pixels="yuv444p", settings=settings, options={"crf": "1"}))
    images, _, notes = read(source)
    assert np.abs(images[0].astype(int) - FLAT).max() <= 3
    assert notes == []


@pytest.mark.parametrize(("size", "name"), [((64, 64), "ITU601"), ((720, 1280), "ITU709")])
def test_size_determines_the_default_matrix(tmp_path, size, name):
    coded = av.VideoFrame.from_ndarray(flat(size=size), format="bgr24").reformat(
        format="yuv420p", dst_colorspace=name, dst_color_range=1, interpolation=EXACT
    )
    settings = {"colorspace": 2, "color_primaries": 2, "color_trc": 2}
    options = {"crf": "4", "preset": "ultrafast"}
    images, _, _ = read(write_video(tmp_path / "in.mp4", Track([coded], settings=settings, options=options)))
    assert np.abs(images[0].astype(int) - FLAT).max() <= 3


def test_hdr_is_converted_with_one_note(tmp_path):
    """White of 203 cd/m2 in PQ: 0.5807 of the signal, ITU-R BT.2408; SDR shows it a little below white."""
    signal = round(64 + 0.5807 * 876)
    coded = av.VideoFrame(32, 32, "yuv420p10le")
    for plane, value in zip(coded.planes, (signal, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    settings = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    track = Track([coded] * 3, "libx265", "yuv420p10le", settings=settings, options={"x265-params": "log-level=none"})
    images, _, notes = read(write_video(tmp_path / "in.mp4", track))
    assert notes == ["colors of PQ, BT.2020 converted to BT.709 with 8 bits"]
    assert np.ptp(images[0]) <= 3
    assert 225 <= images[0].mean() <= 240


def test_more_than_8_bits_are_reported(tmp_path):
    track = Track([frame(0)] * 2, "ffv1", "yuv420p10le")
    assert read(write_video(tmp_path / "in.mkv", track))[2] == ["colors of more than 8 bits reduced to 8 bits"]


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"), [("qtrle", "argb", ".mov"), ("prores_ks", "yuva444p10le", ".mov")]
)
def test_transparency_is_reported(tmp_path, codec, pixels, suffix):
    notes = read(write_video(tmp_path / f"in{suffix}", Track([frame(0)] * 2, codec, pixels)))[2]
    assert notes[0] == "transparency left out"


def test_transparency_in_another_stream_is_reported(tmp_path):
    def mark(container):
        container.streams.video[0].metadata["alpha_mode"] = "1"

    source = write_video(tmp_path / "in.webm", Track([frame(0)] * 2, "libvpx-vp9"), prepare=mark)
    assert read(source)[2] == ["transparency left out"]


# Shape and streams


def display_matrix(path, numbers: tuple[int, int, int, int]):
    """Write the first four numbers of the matrix into the header of the track of an MP4."""
    content = bytearray(path.read_bytes())
    offset = content.index(b"tkhd") + 4 + 40  # of version 0
    for at, number in zip((0, 4, 12, 16), numbers, strict=True):
        content[offset + at : offset + at + 4] = (number << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    ],
)
def test_rotated_frames_become_upright(tmp_path, matrix, upright):
    settings = {"sample_aspect_ratio": Fraction(4, 3)}
    track = Track([frame(number) for number in range(3)], options={"crf": "4"}, settings=settings)
    source = write_video(tmp_path / "in.mp4", track)
    assert VideoSource(source).aspect == Fraction(4, 3)
    display_matrix(source, matrix)
    assert VideoSource(source).aspect == (Fraction(3, 4) if matrix[0] == 0 else Fraction(4, 3))
    images, _, _ = read(source)
    assert images[0].shape == upright(frame(0)).shape
    assert difference(images[0], upright(frame(0))) < 4


def test_a_size_that_changes_is_scaled_to_the_first(tmp_path):
    one = write_video(tmp_path / "one.ts", Track([frame(number) for number in range(6)]))
    two = write_video(tmp_path / "two.ts", Track([frame(number, 128, 80) for number in range(6)]))
    (tmp_path / "in.ts").write_bytes(one.read_bytes() + two.read_bytes())
    images, _, notes = read(tmp_path / "in.ts")
    assert {image.shape for image in images} == {(HEIGHT, WIDTH, 3)}
    assert "the frame size changes; frames of 128 x 80 were scaled to 96 x 64" in notes


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_default_track_is_read(tmp_path, suffix):
    others = [
        Track([flat(size=(32, 48))] * 8, marks=0),
        Track([frame(number) for number in range(8)], marks=1),
    ]
    source = write_video(tmp_path / f"in{suffix}", *others)
    if suffix == ".mp4":  # whose tracks are all enabled by the muxer
        content = bytearray(source.read_bytes())
        content[content.index(b"tkhd") + 7] &= 0xFE
        source.write_bytes(content)
    images, _, notes = read(source)
    assert len(images) == 8
    assert images[0].shape == (HEIGHT, WIDTH, 3)
    assert notes == ["video track 1 (h264, 96 x 64) is restored; left out: 0 (h264, 48 x 32)"]


def test_video_that_starts_late_still_does(tmp_path):
    track = Track([frame(number) for number in range(6)], times=[0.4 + number / RATE for number in range(6)])
    _, times, _ = read(write_video(tmp_path / "in.mkv", track, sound=[Tone("pcm_s16le")]))
    assert times[0] == pytest.approx(0.4, abs=0.002)
