"""Videos on disk: what is read, what is written, and that nothing half is left behind."""

import re
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
from video_making import HEIGHT, WIDTH, ffmpeg, frame, needs_ffmpeg, write_avi, write_with_sound

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.restore import ffmpeg as ffmpeg_module
from gpen_plugin.restore import video_file
from gpen_plugin.restore.ffmpeg import CONTAINERS, contents, find_ffmpeg
from gpen_plugin.restore.video_file import VideoSource, VideoTarget


def copied(source, target) -> list[str]:
    """Write a video's frames anew; returns the notes."""
    video = VideoSource(source)
    with VideoTarget(target, source, video.rate, video.aspect) as written:
        for picture, times in video:
            written.write(picture, times)
    return [*video.notes, *written.notes]


def frames(path) -> list[np.ndarray]:
    return [picture for picture, _ in VideoSource(path)]


def left_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("rate", "exact"), [(25, Fraction(25)), (30000 / 1001, Fraction(30000, 1001)), (12.5, Fraction(25, 2))]
)
def test_reading(tmp_path, rate, exact):
    video = VideoSource(write_avi(tmp_path / "in.avi", 5, rate))
    assert (video.rate, video.expected, video.aspect) == (exact, 5, 1)
    pictures = list(video)
    assert [times for _, times in pictures] == [1] * 5
    assert video.notes == []
    for number, (picture, _) in enumerate(pictures):
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(picture.astype(int) - frame(number)).mean() < 6


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 40, b"RIFF\0\0\0\0AVI LIST"])
def test_what_is_no_video_is_one_line(tmp_path, content, capfd):
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


def test_of_a_file_that_was_cut_off_the_rest_is_kept_and_it_is_said(tmp_path):
    whole = write_avi(tmp_path / "in.avi", 12).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    video = VideoSource(tmp_path / "cut.avi")
    count = len(list(video))
    assert 4 < count < 12
    assert video.notes == [f"the file promises 12 pictures, {count} of them could be read"]


@pytest.mark.parametrize("damaged", [(4, 5), (0,)])
def test_after_a_damaged_picture_it_goes_on(tmp_path, damaged):
    content = bytearray(write_avi(tmp_path / "in.avi", 12).read_bytes())
    starts = [match.end() + 4 for match in re.finditer(b"00dc", content)][1:]  # the first is in the header
    for number in damaged:
        length = int.from_bytes(content[starts[number] - 4 : starts[number]], "little")
        content[starts[number] : starts[number] + length] = bytes(length)
    (tmp_path / "in.avi").write_bytes(content)
    video = VideoSource(tmp_path / "in.avi")
    pictures = list(video)
    assert [times for _, times in pictures] == ([1, 1, 1, 3, *[1] * 6] if 4 in damaged else [1] * 11)
    assert np.abs(pictures[-1][0].astype(int) - frame(11)).mean() < 6
    assert video.notes == [
        f"damaged pictures, in whose place the one before stands: {len(damaged)}",
        f"the file promises 12 pictures, {12 - len(damaged)} of them could be read",
    ]


@needs_ffmpeg
def test_rotated_and_with_oblong_pixels(tmp_path):
    source = write_with_sound(tmp_path / "in.mp4", "-vf", "setsar=4/3", "-pix_fmt", "yuv420p")
    ffmpeg("-display_rotation", "90", "-i", source, "-c", "copy", tmp_path / "turned.mp4")
    assert VideoSource(source).aspect == Fraction(4, 3)
    turned = VideoSource(tmp_path / "turned.mp4")
    copied(tmp_path / "turned.mp4", tmp_path / "out.mp4")
    straight = np.stack(frames(tmp_path / "out.mp4"))
    assert straight.shape == (12, WIDTH, HEIGHT, 3)  # and not turned once more
    upright = np.stack([picture for picture, _ in turned])
    assert np.abs(straight.astype(int) - upright).mean() < 3
    assert VideoSource(tmp_path / "out.mp4").aspect == turned.aspect


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_rate_that_varies_is_evened_out(tmp_path, suffix):
    chosen = ("-vf", "select='not(between(n,3,8))'", "-fps_mode", "vfr", "-pix_fmt", "yuv420p")
    source = write_with_sound(tmp_path / f"in{suffix}", *chosen, count=20)
    video = VideoSource(source)
    assert video.rate == 25
    assert [times for _, times in video] == [1, 1, 7, *[1] * 11]
    assert video.notes == ["its frame rate varies; now 25 a second: 6 pictures shown again, 0 left out"]
    copied(source, tmp_path / "out.mp4")
    assert len(frames(tmp_path / "out.mp4")) == 20


@needs_ffmpeg
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_pictures_sound_and_title_are_kept(tmp_path, suffix):
    source = write_with_sound(tmp_path / "in.mp4", "-pix_fmt", "yuv420p", "-c:a", "aac")
    target = tmp_path / "out" / f"face{suffix}"
    assert copied(source, target) == []
    assert contents(find_ffmpeg(), target).sound == ("aac",)
    assert "A face" in ffmpeg("-i", target)
    before, after = frames(source), frames(target)
    assert len(after) == 12
    differences = np.stack(after).astype(int) - np.stack(before)
    assert np.abs(differences).mean() < 4
    assert np.abs(differences.mean(axis=(0, 1, 2))).max() < 2
    assert left_in(tmp_path / "out") == [f"face{suffix}"]


@needs_ffmpeg
def test_the_sound_is_copied_bit_for_bit(tmp_path):
    source = write_with_sound(tmp_path / "in.mkv", "-pix_fmt", "yuv420p", "-c:a", "aac")
    copied(source, tmp_path / "out.mkv")
    for name in ("in", "out"):
        ffmpeg("-i", tmp_path / f"{name}.mkv", "-map", "0:a", "-c", "copy", tmp_path / f"{name}.aac")
    assert (tmp_path / "in.aac").read_bytes() == (tmp_path / "out.aac").read_bytes() != b""


@needs_ffmpeg
@pytest.mark.parametrize(("suffix", "kept"), [(".mkv", "pcm_s16le"), (".mov", "pcm_s16le"), (".mp4", "aac")])
def test_sound_that_hardly_a_player_understands_is_encoded_anew(tmp_path, suffix, kept):
    source = write_with_sound(tmp_path / "in.mkv", "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le")
    notes = copied(source, tmp_path / f"out{suffix}")
    assert notes == (["sound encoded anew (pcm_s16le to aac)"] if kept == "aac" else [])
    assert contents(find_ffmpeg(), tmp_path / f"out{suffix}").sound == (kept,)


@needs_ffmpeg
def test_what_a_file_cannot_hold_is_left_out_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg_module, "_can_be_held", lambda *_: False)
    source = write_with_sound(tmp_path / "in.mkv", "-pix_fmt", "yuv420p", "-c:a", "aac")
    assert copied(source, tmp_path / "out.mp4") == ["sound left out: .mp4 cannot hold aac"]
    assert contents(find_ffmpeg(), tmp_path / "out.mp4").sound == ()


@needs_ffmpeg
@pytest.mark.parametrize(("suffix", "kept"), [(".mkv", "subrip"), (".mp4", "mov_text")])
def test_subtitles(tmp_path, suffix, kept):
    (tmp_path / "words.srt").write_text("1\n00:00:00,100 --> 00:00:00,300\nHello\n")
    spoken = write_with_sound(tmp_path / "spoken.mkv", "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le")
    source = tmp_path / "in.mkv"
    ffmpeg("-i", spoken, "-i", tmp_path / "words.srt", "-c", "copy", source)
    copied(source, tmp_path / f"out{suffix}")
    assert contents(find_ffmpeg(), tmp_path / f"out{suffix}").subtitles == (kept,)


@needs_ffmpeg
def test_pictures_that_start_late_still_do(tmp_path):
    spoken = write_with_sound(tmp_path / "spoken.mkv", "-pix_fmt", "yuv420p")
    late = tmp_path / "late.mkv"
    ffmpeg("-itsoffset", "0.4", "-i", spoken, "-i", spoken, "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    assert contents(find_ffmpeg(), late).delay == pytest.approx(0.4, abs=0.03)
    copied(late, tmp_path / "out.mkv")
    assert contents(find_ffmpeg(), tmp_path / "out.mkv").delay == pytest.approx(0.4, abs=0.03)


@needs_ffmpeg
def test_odd_sides_and_deep_colours_are_told(tmp_path):
    odd = tmp_path / "odd.mkv"
    ffmpeg("-i", write_avi(tmp_path / "in.avi", 4), "-vf", "format=yuv444p,crop=95:63", "-pix_fmt", "yuv444p", odd)
    assert copied(odd, tmp_path / "odd.mp4") == ["95 x 63 became 96 x 64: codecs want even sides"]
    assert frames(tmp_path / "odd.mp4")[0].shape == (64, 96, 3)
    ffmpeg("-i", odd, "-vf", "scale=96:64", "-pix_fmt", "yuv420p10le", tmp_path / "deep.mkv")
    assert copied(tmp_path / "deep.mkv", tmp_path / "deep.mp4") == ["colours of more than 8 bits became 8 bits"]


@needs_ffmpeg
def test_colours_are_marked_as_they_are(tmp_path):
    flat = np.full((64, 64, 3), (32, 64, 224), np.uint8)
    source = write_avi(tmp_path / "in.avi", 2)
    with VideoTarget(tmp_path / "out.mp4", source, Fraction(25)) as target:
        target.write(flat, 3)
    assert "yuv420p(tv, bt709" in ffmpeg("-i", tmp_path / "out.mp4")
    # By ffmpeg, as OpenCV before 4.13 takes all colours for those of standard definition.
    ffmpeg("-i", tmp_path / "out.mp4", "-frames:v", "1", tmp_path / "out.png")
    assert np.abs(cv2.imread(str(tmp_path / "out.png")).astype(int) - flat).max() <= 2


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_without_ffmpeg_opencv_writes_and_says_so(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(video_file, "find_ffmpeg", lambda: None)
    source = write_avi(tmp_path / "in.avi")
    notes = copied(source, tmp_path / f"out{suffix}")
    assert notes == ["written by OpenCV, without sound: ffmpeg is not there; install it, or imageio-ffmpeg"]
    assert np.abs(np.stack(frames(tmp_path / f"out{suffix}")).astype(int) - np.stack(frames(source))).mean() < 8
    assert left_in(tmp_path) == ["in.avi", f"out{suffix}"]


def write_and_raise(video: VideoTarget, error: BaseException) -> None:
    with video as target:
        target.write(frame(0))
        raise error


@pytest.mark.parametrize("error", [DataError("a frame"), KeyboardInterrupt()])
@pytest.mark.parametrize("with_ffmpeg", [True, False])
def test_an_interruption_leaves_what_was_there(tmp_path, monkeypatch, error, with_ffmpeg):
    if not with_ffmpeg:
        monkeypatch.setattr(video_file, "find_ffmpeg", lambda: None)
    source = write_avi(tmp_path / "in.avi")
    (tmp_path / "out.mp4").write_bytes(b"an older result")
    with pytest.raises(type(error)):
        write_and_raise(VideoTarget(tmp_path / "out.mp4", source, Fraction(25)), error)
    assert (tmp_path / "out.mp4").read_bytes() == b"an older result"
    assert left_in(tmp_path) == ["in.avi", "out.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for ffmpeg")
@pytest.mark.parametrize("early", [True, False])
def test_where_ffmpeg_fails_its_last_line_is_told_and_nothing_is_left(tmp_path, monkeypatch, early):
    """Early: it ends before it has read all. Else it fails at the end, when the disk is full."""
    source, program = write_avi(tmp_path / "in.avi"), tmp_path / "ffmpeg"
    (tmp_path / "out").mkdir()
    reading = "" if early else "cat > /dev/null; "
    asked = 'case "$*" in *-encoders*) echo " V....D libx264 H.264"; exit 0;; *rawvideo*) ;; *) exit 0;; esac'
    failing = f'{reading}for i in $(seq 9999); do echo "line $i" >&2; done; echo "No space left" >&2; exit 1'
    program.write_text(f"#!/bin/sh\n{asked}\n{failing}\n")
    program.chmod(0o755)
    monkeypatch.setattr(video_file, "find_ffmpeg", lambda: str(program))
    with pytest.raises(DataError, match=r"ffmpeg could not write it \(No space left\)"):
        copied(source, tmp_path / "out" / "out.mp4")
    assert left_in(tmp_path / "out") == []


def test_names_that_are_refused(tmp_path):
    source = write_avi(tmp_path / "in.avi")
    with pytest.raises(OptionError, match=r"got out.gif; expected a name that ends in .mp4"):
        VideoTarget(tmp_path / "out.gif", source, Fraction(25))
    film = source.rename(tmp_path / "in.mp4")
    with pytest.raises(OptionError, match="would be written over itself"):
        VideoTarget(film, film, Fraction(25))


def test_a_target_that_cannot_be(tmp_path):
    source = write_avi(tmp_path / "in.avi")
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(DataError, match="cannot be written"),
        VideoTarget(tmp_path / "file" / "out.mp4", source, Fraction(25)) as target,
    ):
        target.write(frame(0))


@needs_ffmpeg
def test_names_with_signs_that_ffmpeg_reads_otherwise(tmp_path):
    source = write_with_sound(tmp_path / "a:b %03d 'é.mkv", "-pix_fmt", "yuv420p")
    assert copied(source, tmp_path / "-out:%d.mkv") == []
    assert len(frames(tmp_path / "-out:%d.mkv")) == 12
