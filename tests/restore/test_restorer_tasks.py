"""Tasks through a `Restorer`."""

import cv2
import numpy as np
import pytest
from helpers.restorer_parts import Network, brighter, face_at, photograph, restorer

from gpen_plugin.errors import OptionError
from gpen_plugin.restore.restorer import Restorer
from gpen_plugin.restore.tasks import Inpaint


@pytest.mark.parametrize("shape", [(64, 40), (30, 64), (64, 64), (5, 90)])
@pytest.mark.parametrize("task", ["restore", "inpaint"])
def test_color_is_kept_of_aligned_faces_of_any_shape(shape, task):
    image = photograph(*shape)
    made = restorer(lambda face: face + np.float32([0, 0, 0.3]), task=task, keep_color=True)
    result = made.restore(image, aligned=True).image
    assert result.shape == ((64, 64, 3) if task == "restore" else image.shape)
    means = [each.mean(axis=(0, 1)) for each in (result, image)]
    assert means[0] == pytest.approx(means[1], abs=4)


def test_colorize_gives_chroma_and_keeps_luminance_and_size():
    """What comes of a gray face is no longer gray."""
    gray = cv2.cvtColor(photograph(50, 80), cv2.COLOR_BGR2GRAY) // 2 + 60
    inputs = []

    def red(face):
        inputs.append(face)
        return face * 0.5 + np.float32([0, 0, 0.3])

    result = restorer(red, task="colorize").restore(gray, aligned=True).image
    assert result.shape == (50, 80, 3)
    assert np.abs(cv2.cvtColor(result, cv2.COLOR_BGR2GRAY).astype(int) - gray).max() <= 1
    assert result[..., 2].mean() > result[..., 0].mean() + 20
    assert (inputs[0][..., 0] == inputs[0][..., 2]).all()


@pytest.mark.parametrize("aligned", [True, False])
def test_inpaint_changes_only_hidden_pixels(aligned):
    mask = np.zeros((100, 100), bool)
    mask[45:55, 45:55] = True
    image = photograph(100, 100) // 2
    made = restorer(lambda face: face * 0, faces=[face_at(49.5, 49.5, 100)], task=Inpaint(mask=mask))
    result = made.restore(image, aligned=aligned).image
    assert result.shape == image.shape
    assert result[47:53, 47:53].mean() < 0.2 * image[47:53, 47:53].mean()
    far = np.ones((100, 100), bool)
    far[35:65, 35:65] = False
    assert np.abs(result.astype(int) - image)[far].max() <= 3


def test_seg2face_turns_a_map_into_a_face_in_color():
    labels = np.zeros((32, 32), np.uint8)
    labels[8:24, 8:24] = 1
    made = restorer(lambda face: face, task="seg2face")
    result = made.restore(labels, aligned=True).image
    assert result.shape == (64, 64, 3)
    assert len(np.unique(result.reshape(-1, 3), axis=0)) == 2


def test_aligned_only_task_refuses_photographs():
    made = Restorer(Network(task="seg2face"), device="cpu")
    with pytest.raises(OptionError, match="aligned"):
        made.restore(photograph())


def test_face_without_strokes_has_a_skip_reason():
    made = Restorer(Network(brighter, task="inpaint"), device="cpu", mask="soft")
    image = np.minimum(photograph(64, 64), 200)
    result = made.restore(image, aligned=True)
    assert (result.image == image).all()
    assert "white strokes" in result.faces[0].skip_reason
    cv2.line(image, (10, 40), (50, 44), (255, 255, 255), 4)
    result = made.restore(image, aligned=True)
    assert result.faces[0].skip_reason is None
