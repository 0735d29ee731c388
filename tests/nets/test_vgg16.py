import numpy as np
import pytest
import torch
from torchvision.models import vgg16 as torchvision_vgg16

from gpen_plugin.errors import CheckpointError
from gpen_plugin.nets import vgg16


def test_resizing_is_tensorflows():
    image = torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 1, 2, 6)
    assert vgg16.resize_as_tensorflow(image, 3)[0, 0, 0].tolist() == [0, 2, 4]  # no half pixel, no antialiasing
    assert vgg16.resize_as_tensorflow(image, 8)[0, 0, 0].tolist() == [0, 0.75, 1.5, 2.25, 3, 3.75, 4.5, 5]


def test_input_is_normalized_rgb(monkeypatch, tmp_path):
    monkeypatch.setattr(vgg16, "_load_network", lambda *_: lambda images: images.mean((2, 3)))
    (tmp_path / "vgg16.pth").touch()
    image = np.zeros((9, 9, 3), np.uint8)
    image[..., 2] = 255  # red
    found = vgg16.extract_features([image, image], "cpu", str(tmp_path / "vgg16.pth"))
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-5)


def test_features_follow_the_second_relu():
    with torch.device("meta"):
        network = vgg16.to_second_relu(torchvision_vgg16(weights=None))
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 4096)
    assert [type(layer).__name__ for layer in network.classifier] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU"]


def test_other_weights_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not those of VGG"):
        vgg16.extract_features([np.zeros((8, 8, 3), np.uint8)], "cpu", str(tmp_path / "other.pth"))
