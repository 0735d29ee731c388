"""A video from end to end, with a restorer that needs no network."""

from fractions import Fraction

import numpy as np
import pytest
from helpers.video_files import HEIGHT, WIDTH, FakeRestorer, codecs, where, write_avi, write_with_sound

from gpen_plugin.errors import DataError
from gpen_plugin.images.color import is_monochrome
from gpen_plugin.images.grid import GAP
from gpen_plugin.restore import video as video_module
from gpen_plugin.restore.restorer import RestoredFace, weigh
from gpen_plugin.restore.video import LOOK_AHEAD, FaceTracker, TrackedFace, restore_video
from gpen_plugin.restore.video_reader import VideoSource


def frames(path) -> np.ndarray:
    return np.stack([image for image, *_ in VideoSource(path)]).astype(int)


@pytest.mark.parametrize("batch", [5, 40])
def test_every_frame_is_restored_once_and_in_order(tmp_path, batch):
    source, restorer, done = write_avi(tmp_path / "in.avi", 22), FakeRestorer(), []
    report = restore_video(source, tmp_path / "out.mp4", restorer, batch=batch, progress=done.append)
    assert (report.frames, report.faces, report.tracks, sum(done)) == (22, 22, 1, 22)
    assert (
        [len(group) for group in restorer.batches] == done == [batch] * (22 // batch) + [22 % batch] * bool(22 % batch)
    )
    before, after = frames(source), frames(tmp_path / "out.mp4")
    assert np.abs(after - before - 20).mean() < 4
    for number, faces in enumerate(faces for group in restorer.batches for faces in group):
        np.testing.assert_allclose(faces[0].landmarks, where(number).landmarks, atol=1e-4)


def test_a_flicker_of_detection_is_no_flicker_of_restoration(tmp_path):
    source, restorer = write_avi(tmp_path / "in.avi", 20), FakeRestorer(blind=(3, 7, 8, 15))
    report = restore_video(source, tmp_path / "out.mkv", restorer)
    assert (report.faces, report.tracks) == (20, 1)
    given = [faces for group in restorer.batches for faces in group]
    np.testing.assert_allclose(given[8][0].landmarks, where(8).landmarks, atol=1e-4)


def test_frames_without_a_face_are_written(tmp_path):
    source, restorer = write_avi(tmp_path / "in.avi", 6), FakeRestorer(blind=tuple(range(6)))
    report = restore_video(source, tmp_path / "out.mp4", restorer)
    assert (report.frames, report.faces, report.tracks) == (6, 0, 0)
    assert len(frames(tmp_path / "out.mp4")) == 6


@pytest.mark.parametrize("scale", [1, 2])
def test_side_by_side(tmp_path, scale):
    source = write_avi(tmp_path / "in.avi", 4)
    restore_video(source, tmp_path / "out.mp4", FakeRestorer(scale=scale), compare=tmp_path / "both.mp4")
    assert frames(tmp_path / "out.mp4").shape == (4, HEIGHT * scale, WIDTH * scale, 3)
    images = frames(tmp_path / "both.mp4")
    assert images.shape == (4, HEIGHT * scale, 2 * WIDTH * scale + GAP, 3)
    left, right = images[:, :, : WIDTH * scale], images[:, :, WIDTH * scale + GAP :]
    assert (right - left).mean() == pytest.approx(20, abs=4)


def test_implausible_landmarks_skip_one_face(tmp_path):
    class Confused(FakeRestorer):
        def find(self, image):
            (face,) = super().find(image)
            return [face, type(face)(face.box, np.full((5, 2), 7.0), 0.5, "made")]

    report = restore_video(write_avi(tmp_path / "in.avi", 6), tmp_path / "out.mp4", Confused())
    assert (report.frames, report.faces) == (6, 6)


def test_dropped_tracks_are_reported(tmp_path):
    restorer = FakeRestorer(blind=tuple(number for number in range(24) if number != 11))
    report = restore_video(write_avi(tmp_path / "in.avi", 24), tmp_path / "out.mp4", restorer)
    assert report.faces == 0
    assert report.notes[-1] == "faces detected in too few frames, left unchanged: 1"


def test_few_frames_are_in_memory(tmp_path, monkeypatch):
    """Of 30 frames, the look-ahead and one batch are read before the first is written."""
    read = []
    monkeypatch.setattr(video_module.CutFinder, "__call__", lambda self, image: bool(read.append(1)))
    ahead = []

    class Watching(FakeRestorer):
        def restore_faces(self, images, *, faces):
            ahead.append(len(read) - sum(map(len, self.batches)))
            return super().restore_faces(images, faces=faces)

    restore_video(write_avi(tmp_path / "in.avi", 30), tmp_path / "out.mkv", Watching(), batch=4)
    assert max(ahead) == LOOK_AHEAD + 4


@pytest.mark.parametrize("error", [DataError("a frame"), KeyboardInterrupt("Ctrl-C")])
def test_nothing_is_left_of_a_video_that_failed(tmp_path, error):
    class Failing(FakeRestorer):
        def restore_faces(self, images, *, faces):
            if len(self.batches) == 2:
                raise error
            return super().restore_faces(images, faces=faces)

    source = write_avi(tmp_path / "in.avi", 20)
    with pytest.raises(type(error), match=str(error)):
        restore_video(source, tmp_path / "out.mp4", Failing(), batch=4)
    assert [path.name for path in tmp_path.iterdir()] == ["in.avi"]


def test_weights_of_a_face_do_not_flicker():
    """Each frame's detail alone would switch the face on and off."""
    crop = np.zeros((4, 4, 3), np.float32)
    steady = video_module._SteadyWeights()
    weights = []
    for number in range(60):
        face = RestoredFace(where(0), np.eye(2, 3), crop, crop)
        (found,) = steady([TrackedFace(7, where(0))], [weigh(face, 1.6 if number % 2 else 1.0)])
        weights.append(found.weight)
        assert (found.skip_reason is None) == (found.weight > 0)
    assert np.abs(np.diff(weights[20:])).max() < 0.1
    assert np.mean(weights[30:]) == pytest.approx(weigh(face, 1.3).weight, abs=0.05)


def test_sound_and_length_are_kept(tmp_path):
    source = write_with_sound(tmp_path / "in.mp4", count=20)
    report = restore_video(source, tmp_path / "out.mp4", FakeRestorer())
    assert report.notes == ()
    assert codecs(tmp_path / "out.mp4", "audio") == ["aac"]
    before, after = VideoSource(source), VideoSource(tmp_path / "out.mp4")
    assert (after.rate, after.expected) == (before.rate, before.expected) == (25, 20)


def test_one_frame_in_color_settles_it_for_the_rest_of_a_shot():
    rng = np.random.default_rng(0)
    gray = np.repeat(rng.integers(60, 200, (96, 128, 1), np.uint8), 3, axis=2)
    color = gray.copy()
    color[:40, :, 2] = 255
    other_shot = 255 - np.clip(gray // 4, 0, 255)
    shots = [gray, gray, color, gray, gray, other_shot, other_shot]
    video = [(image, Fraction(n, 25), Fraction(1, 25)) for n, image in enumerate(shots)]
    tracked = video_module._track(video, FakeRestorer(blind=tuple(range(9))), FaceTracker())
    assert [frame.monochrome for frame in tracked] == [True, True, False, False, False, True, True]


def test_restorer_gets_monochrome_flags(tmp_path):
    source, restorer = write_avi(tmp_path / "in.avi", 3), FakeRestorer()
    restore_video(source, tmp_path / "out.mp4", restorer)
    assert restorer.monochrome == [is_monochrome(image) for image, *_ in VideoSource(source)]
