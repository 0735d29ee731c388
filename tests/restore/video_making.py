"""Small videos, and a restorer that needs no network."""

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from gpen_plugin.data.drawn_faces import draw_face
from gpen_plugin.restore.face import DetectedFace, Restoration, RestoredFace
from gpen_plugin.restore.ffmpeg import find_ffmpeg
from gpen_plugin.restore.photograph import Photograph
from gpen_plugin.restore.templates import pixels, template

WIDTH, HEIGHT, SIDE = 96, 64, 48
FFMPEG = find_ffmpeg()
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not there; pip install imageio-ffmpeg")


def frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A drawn face that goes to the right by a pixel a frame."""
    picture = np.full((height, width, 3), (90, 120, 70), np.uint8)
    left = 8 + number
    picture[8 : 8 + SIDE, left : left + SIDE] = draw_face(1, SIDE)[:, : width - left]
    return picture


def where(number: int) -> DetectedFace:
    """The face of that frame."""
    landmarks = pixels(template("ffhq"), SIDE) + np.array([8 + number, 8])
    return DetectedFace(np.array([8.0 + number, 8, 8 + number + SIDE, 8 + SIDE]), landmarks, 0.9, "made")


def write_avi(path: Path, count: int = 12, rate: float = 25, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Motion JPEG, which every OpenCV writes, without sound."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size)
    for number in range(count):
        writer.write(frame(number, *size))
    writer.release()
    return path


def ffmpeg(*arguments: str | Path) -> str:
    """Run it; returns what it says, which with `-i` alone is what a file holds."""
    done = subprocess.run([FFMPEG, "-hide_banner", "-y", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0 or len(arguments) == 2, done.stderr
    return done.stderr


def write_with_sound(path: Path, *options: str, count: int = 12) -> Path:
    """The frames with a tone of the same length; `options` choose the codecs."""
    silent = write_avi(path.with_name("silent.avi"), count)
    tone = ("-f", "lavfi", "-i", f"sine=440:duration={count / 25}")
    ffmpeg("-i", silent, *tone, "-metadata", "title=A face", *options, path)
    return path


class FakeRestorer:
    """Finds the face of `frame`, and restores by making all brighter. It overlooks the face in some frames.

    Args:
        blind: numbers of the frames in which it finds nothing.
        scale: of the result.
    """

    def __init__(self, blind: tuple[int, ...] = (), scale: int = 1):
        self.blind, self.scale = blind, scale
        self.looked_at = 0
        self.batches: list[list[list[DetectedFace]]] = []

    def find(self, image: np.ndarray) -> list[DetectedFace]:
        """The face, from how many frames were looked at."""
        number = self.looked_at
        self.looked_at += 1
        return [] if number in self.blind else [where(number)]

    def restore_all(self, images, *, faces) -> list[Restoration]:
        """Each picture 20 grey levels brighter."""
        assert all(image.dtype == np.uint8 for image in images)
        self.batches.append([list(each) for each in faces])
        return [
            Restoration(Photograph.of(self.brightened(image)), _restored(each))
            for image, each in zip(images, faces, strict=True)
        ]

    def brightened(self, image: np.ndarray) -> np.ndarray:
        """What it makes of a picture."""
        return cv2.resize(cv2.add(image, (20,) * 4), None, fx=self.scale, fy=self.scale)


def _restored(faces: list[DetectedFace]) -> list[RestoredFace]:
    crop = np.zeros((4, 4, 3), np.float32)
    return [RestoredFace(face, np.eye(2, 3), crop, crop) for face in faces]
