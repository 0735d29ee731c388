"""Videos that are written: quality, sound and subtitles, and that nothing half is left behind."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.video_files import (
    HEIGHT,
    RATE,
    WIDTH,
    Tone,
    Track,
    av,
    codecs,
    frame,
    packets_of,
    tone_in,
    write_avi,
    write_video,
    write_with_sound,
)

from gpen_plugin.errors import DataError, MissingFileError, OptionError
from gpen_plugin.restore.video_reader import VideoSource
from gpen_plugin.restore.video_writer import CONTAINERS, VideoTarget

STEP = Fraction(1, RATE)


def copied(source, target) -> list[str]:
    """Encode the frames of a video again; return the notes."""
    video = VideoSource(source)
    with VideoTarget(target, source, video.rate, video.aspect) as written:
        for frame_of_video in video:
            written.write(*frame_of_video)
    return [*video.notes, *written.notes]


def frames(path) -> list[np.ndarray]:
    return [image for image, *_ in VideoSource(path)]


def times(path) -> list[float]:
    return [float(time) for _, time, _ in VideoSource(path)]


def left_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


PREAMBLE = """
import os, resource, signal
from fractions import Fraction
import numpy as np
from gpen_plugin.restore.video_writer import VideoTarget

RATE = 25
"""


def run_program(program: str, folder: Path) -> subprocess.CompletedProcess:
    """Run it in a process of its own. A fork of this one could wait for ever for a lock that FFmpeg's threads held."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


def faces(count: int = 12, **more) -> Track:
    return Track([frame(number) for number in range(count)], options={"crf": "8"}, **more)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_frames_sound_and_title_are_kept(tmp_path, suffix):
    source = write_with_sound(tmp_path / "in.mp4")
    target = tmp_path / "out" / f"face{suffix}"
    assert copied(source, target) == []
    assert codecs(target, "audio") == ["aac"]
    assert packets_of(target) == packets_of(source)
    before, after = frames(source), frames(target)
    assert len(after) == 12
    differences = np.stack(after).astype(int) - np.stack(before)
    assert np.abs(differences).mean() < 4
    assert np.abs(differences.mean(axis=(0, 1, 2))).max() < 2
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "A face"
    assert left_in(tmp_path / "out") == [f"face{suffix}"]


def test_colors_are_marked_as_they_are(tmp_path):
    flat = np.full((64, 64, 3), (32, 64, 224), np.uint8)
    with VideoTarget(tmp_path / "out.mp4", None, Fraction(RATE)) as target:
        for number in range(3):
            target.write(flat, number * STEP, STEP)
    with av.open(str(tmp_path / "out.mp4")) as container:
        decoded = next(container.decode(video=0))
        assert (decoded.colorspace, decoded.color_primaries, decoded.color_trc, decoded.color_range) == (1, 1, 1, 1)
        assert decoded.format.name == "yuv420p"
    assert np.abs(frames(tmp_path / "out.mp4")[0].astype(int) - flat).max() <= 2


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_times_are_kept(tmp_path, suffix):
    expected = [0, 0.04, 0.08, 0.36, 0.4, 0.41, 0.44, 70.44, 70.48, 70.52]
    source = write_video(tmp_path / "in.mkv", faces(10, times=expected))
    assert copied(source, tmp_path / f"out{suffix}") == []
    assert times(tmp_path / f"out{suffix}") == pytest.approx(expected, abs=0.0011)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_last_frame_keeps_its_duration(tmp_path, suffix):
    with VideoTarget(tmp_path / f"out{suffix}", None, Fraction(RATE)) as target:
        for number in range(9):
            target.write(frame(number), number * STEP, STEP if number < 8 else Fraction(30))
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.duration / 1e6 == pytest.approx(8 / RATE + 30, abs=0.05)


def test_pixel_aspect_is_kept(tmp_path):
    source = write_video(tmp_path / "in.mp4", faces(settings={"sample_aspect_ratio": Fraction(4, 3)}))
    copied(source, tmp_path / "out.mp4")
    assert VideoSource(tmp_path / "out.mp4").aspect == Fraction(4, 3)
    assert frames(tmp_path / "out.mp4")[0].shape == (HEIGHT, WIDTH, 3)


def test_odd_sides_are_padded_with_a_note(tmp_path):
    images = [frame(number)[:63, :95] for number in range(3)]
    source = write_video(tmp_path / "in.mkv", Track(images, "ffv1", "yuv444p"))
    assert copied(source, tmp_path / "out.mp4") == ["95 x 63 became 96 x 64, as codecs need even sides"]
    assert frames(tmp_path / "out.mp4")[0].shape == (64, 96, 3)


# Audio, subtitles and other streams


@pytest.mark.parametrize(
    ("codec", "suffix", "kept"),
    [
        ("pcm_s16le", ".mkv", "pcm_s16le"),
        ("pcm_s16le", ".mov", "pcm_s16le"),
        ("pcm_s16le", ".mp4", "aac"),
        ("libmp3lame", ".mp4", "mp3"),
        ("ac3", ".mp4", "ac3"),
    ],
)
def test_rare_audio_codecs_are_encoded_again(tmp_path, codec, suffix, kept):
    rate = 48000 if codec == "ac3" else 16000
    source = write_video(tmp_path / "in.mkv", faces(), sound=[Tone(codec, rate=rate)])
    notes = copied(source, tmp_path / f"out{suffix}")
    assert notes == ([f"sound encoded again ({codec} to aac)"] if kept == "aac" else [])
    assert codecs(tmp_path / f"out{suffix}", "audio") == [kept]


@pytest.mark.parametrize(
    ("codec", "suffix", "start"),
    [
        ("aac", ".mp4", 0.0),
        ("aac", ".mp4", 0.2),
        ("pcm_s16le", ".mp4", 0.2),
        ("mp2", ".mp4", 0.2),
        ("aac", ".mkv", 0.2),
    ],
)
def test_sound_stays_with_the_frames(tmp_path, codec, suffix, start):
    """Within 10 ms, copied or encoded again, also if it starts late."""
    source = write_video(tmp_path / "in.mkv", faces(), sound=[Tone(codec, start=start)])
    copied(source, tmp_path / f"out{suffix}")
    offset = times(tmp_path / f"out{suffix}")[0] - times(source)[0]
    after, before = tone_in(tmp_path / f"out{suffix}"), tone_in(source)
    assert np.subtract(after, before) == pytest.approx([offset, offset], abs=0.01)
    assert before == pytest.approx((0.1 + start, 0.3 + start), abs=0.07)


def test_audio_offset_of_a_transport_stream_is_kept(tmp_path):
    source = write_video(tmp_path / "in.ts", faces(), sound=[Tone("mp2", start=0.2)])
    copied(source, tmp_path / "out.mp4")
    between = [tone_in(path)[0] - first_time(path) for path in (source, tmp_path / "out.mp4")]
    assert between[1] == pytest.approx(between[0], abs=0.01)


def first_time(path) -> float:
    """Of the first frame, as the file has it."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).time


def test_audio_tracks_keep_language_and_disposition(tmp_path):
    tones = [Tone(language="eng", marks=0), Tone(language="deu", marks=1)]
    source = write_video(tmp_path / "in.mkv", faces(), sound=tones)
    for suffix in CONTAINERS:
        assert copied(source, tmp_path / f"out{suffix}") == []
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            german = "ger" if suffix == ".mov" else "deu"
            assert [stream.language for stream in container.streams.audio] == ["eng", german]
            assert [bool(stream.disposition & 1) for stream in container.streams.audio] == [False, True]


@pytest.mark.parametrize(("suffix", "kept"), [(".mkv", "subrip"), (".mp4", "mov_text"), (".mov", "mov_text")])
def test_subtitles(tmp_path, suffix, kept):
    words = [(0.1, 0.3, "Hello"), (0.35, 0.45, r"two\Nlines")]
    source = write_video(tmp_path / "in.mkv", faces(), subtitles=words)
    notes = copied(source, tmp_path / f"out{suffix}")
    assert notes == ([] if kept == "subrip" else [f"subtitles encoded again (subrip to {kept})"])
    assert codecs(tmp_path / f"out{suffix}", "subtitle") == [kept]
    read = []
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        for packet in container.demux(container.streams.subtitles[0]):
            events = packet.decode() if packet.size else []
            texts = [re.sub(r"\{.*?\}", "", event.dialogue.decode()) for event in events]  # without styles
            read += [(float(packet.pts * packet.time_base), text) for text in texts if text]
    assert [text for _, text in read] == ["Hello", "two\nlines"]
    assert [time for time, _ in read] == pytest.approx([0.1, 0.35], abs=0.002)


def test_unsupported_streams_are_left_out_with_a_note(tmp_path):
    def attach(container):
        container.add_attachment("font.ttf", "font/ttf", b"not really a font")

    source = write_video(tmp_path / "in.mkv", faces(), prepare=attach)
    (note,) = copied(source, tmp_path / "out.mp4")
    assert note.startswith("attachments left out: .mp4 cannot hold")
    assert copied(source, tmp_path / "out.mkv") == []


def test_a_time_code_is_kept(tmp_path):
    def mark(container):
        container.streams.video[0].metadata["timecode"] = "01:00:00:00"

    source = write_video(tmp_path / "in.mov", faces(), prepare=mark)
    assert copied(source, tmp_path / "out.mov") == []
    with av.open(str(tmp_path / "out.mov")) as container:
        assert [stream.metadata["timecode"] for stream in container.streams.data] == ["01:00:00:00"]


def test_chapters_are_kept(tmp_path):
    def mark(container):
        parts = [{"id": 0, "start": 0, "end": 240, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
        container.set_chapters(parts)

    source = write_video(tmp_path / "in.mkv", faces(), prepare=mark)
    copied(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        (chapter,) = container.chapters()
        assert chapter["metadata"]["title"] == "One"
        assert chapter["end"] * chapter["time_base"] == Fraction(240, 1000)


def test_damaged_audio_does_not_stop_the_video(tmp_path):
    source = write_video(tmp_path / "in.ts", faces(40), sound=[Tone("aac", seconds=1.6), Tone("mp2", seconds=1.6)])
    content = bytearray(source.read_bytes())
    rng = np.random.default_rng(0)
    for start in rng.integers(8000, len(content) - 400, 20):
        content[start : start + 150] = rng.integers(0, 256, 150, dtype=np.uint8).tobytes()
    source.write_bytes(content)
    notes = copied(source, tmp_path / "out.mp4")
    assert any("damaged" in note for note in notes)
    assert len(frames(tmp_path / "out.mp4")) > 30


# Whole or not at all


def write_and_raise(video: VideoTarget, error: BaseException) -> None:
    with video as target:
        target.write(frame(0), Fraction(0), STEP)
        raise error


def test_interruption_keeps_an_earlier_file(tmp_path):
    source = write_avi(tmp_path / "in.avi")
    (tmp_path / "out.mp4").write_bytes(b"an older result")
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        write_and_raise(VideoTarget(tmp_path / "out.mp4", source, Fraction(RATE)), KeyboardInterrupt("Ctrl-C"))
    assert (tmp_path / "out.mp4").read_bytes() == b"an older result"
    assert left_in(tmp_path) == ["in.avi", "out.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_temporary_file_of_a_killed_run_is_removed(tmp_path):
    for name in ("out.mp4", "other.mp4"):
        program = f"""
            with VideoTarget({name!r}, None, Fraction(RATE)) as target:
                target.write(np.zeros((64, 96, 3), np.uint8), Fraction(0), 1 / Fraction(RATE))
                os.kill(os.getpid(), signal.SIGKILL)
            """
        assert run_program(program, tmp_path).returncode == -signal.SIGKILL
    assert len(left_in(tmp_path)) == 2
    copied(write_avi(tmp_path / "in.avi"), tmp_path / "out.mp4")
    assert len(left_in(tmp_path)) == 3  # the input, the result, and what was left of the other one


def test_temporary_file_of_a_running_process_stays(tmp_path):
    target = VideoTarget(tmp_path / "out.mp4", None, Fraction(RATE))
    parent = target._temporary.name.replace(f".{os.getpid()}.", f".{os.getppid()}.")
    (tmp_path / parent).write_bytes(b"of another process")
    with target:
        target.write(frame(0), Fraction(0), STEP)
    assert left_in(tmp_path) == sorted([parent, "out.mp4"])


@pytest.mark.skipif(sys.platform == "win32", reason="the size of files cannot be limited")
def test_full_disk_leaves_no_file(tmp_path):
    program = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with VideoTarget("out.mp4", None, Fraction(RATE)) as target:
            for number in range(30):
                noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
                target.write(noise, number / Fraction(RATE), 1 / Fraction(RATE))
        """
    ended = run_program(program, tmp_path)
    assert ended.returncode == 1
    assert "DataError: " in ended.stderr
    assert "out.mp4: cannot be written (" in ended.stderr
    assert left_in(tmp_path) == []


def test_names_that_are_refused(tmp_path):
    source = write_avi(tmp_path / "in.avi")
    with pytest.raises(OptionError, match=r"got out.gif; expected a name that ends in .mp4"):
        VideoTarget(tmp_path / "out.gif", source, Fraction(RATE))
    film = source.rename(tmp_path / "in.mp4")
    with pytest.raises(OptionError, match="would replace its own source"):
        VideoTarget(film, film, Fraction(RATE))


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingFileError, match=r'Run: pip install "gpen_plugin\[video\]"'):
        VideoTarget(tmp_path / "out.mp4", None, Fraction(RATE))


def test_unwritable_target_is_an_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(DataError, match="cannot be written"),
        VideoTarget(tmp_path / "file" / "out.mp4", None, Fraction(RATE)) as target,
    ):
        target.write(frame(0), Fraction(0), STEP)


@pytest.mark.parametrize("name", ["-out:%d.mkv", "2021-05-01T12:30:15.mp4", "é" * 120 + ".mp4"])
def test_names_with_special_characters(tmp_path, monkeypatch, name):
    source = write_with_sound(tmp_path / "a:b %03d 'é.mkv", count=3)
    monkeypatch.chdir(tmp_path)
    assert copied(source, Path("c:d") / name) == []
    assert len(frames(Path("c:d") / name)) == 3
