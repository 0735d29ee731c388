"""The choice of faces: by size, number and place, and by a photograph of the person."""

import numpy as np
import pytest
from helpers.restorer_parts import Detector, Network, face_at, photograph

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.restore import restorer as restorer_module
from gpen_plugin.restore.restorer import Restorer
from gpen_plugin.restore.selection import parse_selection

LEFT, MIDDLE, RIGHT = face_at(60, 60, 40), face_at(150, 80, 60), face_at(250, 60, 50)
FOUND = [RIGHT, LEFT, MIDDLE]  # by score


@pytest.mark.parametrize(
    ("text", "picked"),
    [
        (None, FOUND),
        ("all", FOUND),
        ("largest", [MIDDLE]),
        ("1", [LEFT]),
        ("3,1", [RIGHT, LEFT]),
        ("4", []),
        ("box:40,40,160,90", [LEFT, MIDDLE]),
        ("box:0,0,10.5,10", []),
    ],
)
def test_faces_are_picked_in_their_order(text, picked):
    assert parse_selection(text)(FOUND) == picked
    assert parse_selection(text)([]) == []


@pytest.mark.parametrize("text", ["", "smallest", "0", "1,", "-1", "1.5", "box:1,2,3", "box:5,0,5,9", "box:0,9,5,1"])
def test_other_texts_are_errors(text):
    with pytest.raises(OptionError, match=r"only: got .*; expected largest, numbers .* or box:LEFT,TOP"):
        parse_selection(text)


class ColorEmbedding:
    """The mean color of a face, as a unit vector."""

    def __init__(self, settings):
        self.settings = settings

    def __call__(self, face, template):
        color = face.mean(axis=(0, 1)).astype(np.float64)
        return color / np.linalg.norm(color)


@pytest.fixture
def two_people(monkeypatch, tmp_path):
    """A photograph with a blue and a red face, and a restorer of the person with the given color."""
    import cv2

    monkeypatch.setattr("gpen_plugin.restore.identity_gate.FaceEmbedding", ColorEmbedding)
    image = photograph()
    image[20:110, 20:110] = (200, 20, 20)
    image[20:110, 200:300] = (20, 20, 200)

    def of(color, **options):
        person = np.full((100, 100, 3), color, np.uint8)
        cv2.imwrite(str(tmp_path / "person.png"), person)
        found = Detector(face_at(50, 50, 40))
        monkeypatch.setattr(restorer_module, "open_detector", lambda *_, **__: found)
        restorer = Restorer(Network(), device="cpu", mask="soft", like=tmp_path / "person.png", **options)
        restorer.detector.faces = [face_at(65, 65, 40), face_at(250, 65, 40, score=0.8)]
        return restorer.find(image)

    return of


def test_only_the_face_of_the_person_is_found(two_people):
    (blue,), (red,) = two_people((220, 30, 30)), two_people((30, 30, 220))
    assert (blue.box[0] < 100, red.box[0] > 200) == (True, True)
    assert two_people((30, 30, 220), only="1", likeness=0.9) == []
    assert len(two_people((30, 30, 220), only="2", likeness=0.9)) == 1
    assert two_people((20, 220, 20), likeness=0.9) == []


def test_photograph_without_the_person_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(restorer_module, "open_detector", lambda *_, **__: Detector())
    with pytest.raises(DataError, match="like: no face was found; expected a photograph of one face"):
        Restorer(Network(), device="cpu", like=photograph())
    with pytest.raises(OptionError, match="likeness: got 2"):
        Restorer(Network(), device="cpu", like=photograph(), likeness=2)
