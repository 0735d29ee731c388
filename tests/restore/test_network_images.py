"""Value ranges and orders of channels, there and back."""

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin.errors import DataError, ShapeError
from gpen_plugin.restore.network import faces_from_network, faces_to_network, from_network, to_network


def face(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


@pytest.mark.parametrize("rgb", [True, False])
@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (0, 255)])
def test_one_image_there_and_back(low, high, rgb):
    image = face(0, 4, 6)
    tensor = to_network(image, (low, high), rgb=rgb)
    assert tensor.shape == (3, 4, 6)
    blue = tensor[2 if rgb else 0]
    assert torch.allclose(blue, torch.from_numpy(image[..., 0] * (high - low) + low), atol=1e-4)
    back = from_network(tensor, (low, high), rgb=rgb)
    assert back.dtype == np.uint8
    assert np.abs(back - image * 255).max() <= 0.501


@pytest.mark.parametrize("value_range", [(-1, 1), (0, 1)])
def test_faces_there_and_back(value_range):
    faces = [face(0), face(1)]
    tensor = faces_to_network(faces, 8, value_range)
    assert torch.equal(tensor, torch.stack([to_network(each, value_range) for each in faces]))
    for back, before in zip(faces_from_network(tensor, value_range, "test"), faces, strict=True):
        assert (back.dtype, back.flags.c_contiguous) == (np.float32, True)
        assert np.abs(back - before).max() < 1e-6


def test_faces_of_another_size_are_resized_bilinearly():
    faces = [face(0), face(1, 5, 11), face(2, 1, 1)]
    tensor = faces_to_network(faces, 8, (0, 1))
    resized = [cv2.resize(each, (8, 8), interpolation=cv2.INTER_LINEAR) for each in faces]
    for back, expected in zip(faces_from_network(tensor, (0, 1), "test"), resized, strict=True):
        np.testing.assert_array_equal(back, expected)


def test_output_is_clipped():
    output = torch.tensor([-3, -1, 0, 1, 7.0]).expand(1, 3, 5, 5)
    (image,) = faces_from_network(output, (-1, 1), "test")
    np.testing.assert_array_equal(image[0, :, 0], [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_outputs_are_an_error(value):
    output = torch.zeros(3, 3, 4, 4)
    output[1, 2, 3, 3] = value
    with pytest.raises(DataError, match=r"net: gave values that are not finite for 1 of 3 faces; .*use fp32"):
        faces_from_network(output, (-1, 1), "net")


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((8, 8), np.float32), np.zeros((8, 8, 4), np.float32), np.zeros((8, 8, 3), np.uint8), face(0)[:0]],
)
def test_other_arrays_are_no_faces(wrong):
    with pytest.raises(ShapeError, match=r"faces: got \(.*expected \(H, W, 3\) float32"):
        faces_to_network([face(0), wrong], 8, (-1, 1))
