"""The node of contrib/comfyui, imported and called as ComfyUI does."""

import importlib.util
import inspect
import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import REPOSITORY
from helpers.restorer_parts import Detector, Network, face_at, photograph

from gpen_plugin.restore.restorer import Restorer

FOLDER = REPOSITORY / "contrib" / "comfyui"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="contrib/ is in the repository alone")


@pytest.fixture
def folder_paths(monkeypatch, tmp_path):
    """ComfyUI's module of model folders, as far as nodes use it."""
    module = ModuleType("folder_paths")
    module.models_dir, module.folder_names_and_paths = str(tmp_path), {}

    def add(name, path):
        module.folder_names_and_paths[name] = ([path], set())

    module.add_model_folder_path = add
    module.get_filename_list = lambda name: ["GPEN-BFR-512.pth", "notes.txt", "faces.onnx"]
    module.get_full_path_or_raise = lambda name, file: f"{module.folder_names_and_paths[name][0][0]}/{file}"
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return module


@pytest.fixture
def extension(folder_paths, monkeypatch):
    spec = importlib.util.spec_from_file_location("gpen_node", FOLDER / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpen_node", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("gpen_node.nodes", None)


@pytest.fixture
def opened(extension, monkeypatch):
    """The arguments with which restorers were opened; they brighten the two faces of `photograph`."""
    calls = []

    def open_restorer(model, **options):
        calls.append((model, options))
        restorer = Restorer(Network(lambda face: face + 0.2), device="cpu", mask="soft", only=options["only"])
        restorer._detector = Detector(face_at(90, 110, 100), face_at(230, 120, 70, score=0.7))
        return restorer

    monkeypatch.setattr(sys.modules["gpen_node.nodes"], "Restorer", open_restorer)
    return calls


def test_node_has_the_documented_interface(extension):
    assert extension.NODE_CLASS_MAPPINGS.keys() == extension.NODE_DISPLAY_NAME_MAPPINGS.keys()
    (node,) = extension.NODE_CLASS_MAPPINGS.values()
    inputs = node.INPUT_TYPES()["required"]
    assert list(inspect.signature(getattr(node, node.FUNCTION)).parameters) == ["self", *inputs]
    assert inputs["model"][0] == ["GPEN-Faces-256", "GPEN-BFR-512.pth", "faces.onnx"]
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS) == 4
    assert node.VALIDATE_INPUTS(faces="largest") is True
    assert "expected largest, numbers" in node.VALIDATE_INPUTS(faces="smallest")


def restored(extension, image, **changed):
    (node,) = extension.NODE_CLASS_MAPPINGS.values()
    given = {"model": "GPEN-Faces-256", "alpha": 1.0, "sharp_faces": "restore", "detector": "yunet", "faces": "all"}
    return node().restore(image, **{**given, **changed})


def test_faces_are_restored_and_all_else_is_the_input(extension, opened):
    rgb = torch.from_numpy(photograph()[..., ::-1].astype(np.float32) / 255)
    images = torch.stack([rgb, rgb.flip(0)]) * 0.9 + 0.01 / 65535  # between the values of 16 bits
    image, mask, faces, report = restored(extension, images)
    assert (image.shape, image.dtype) == (images.shape, torch.float32)
    assert (mask.shape, mask.dtype) == (images.shape[:3], torch.float32)
    assert torch.equal(image[mask == 0], images[mask == 0])
    change = (image - images).mean(dim=-1)
    assert change[0, 105:115, 85:95].mean() == pytest.approx(0.2, abs=0.02)
    assert mask[:, 105:115, 85:95].min() > 0.99
    assert 0.02 < mask.mean() < 0.2
    assert faces.shape == (4, 64, 128, 3)
    assert (faces[0, :, 64:] - faces[0, :, :64]).mean() == pytest.approx(0.2, abs=0.02)
    listed = json.loads(report)
    assert [len(each) for each in listed] == [2, 2]
    assert listed[0][0]["left_as_it_is"] is None
    assert restored(extension, images, alpha=0.5)[1].max() == pytest.approx(0.5, abs=1e-3)
    assert opened == [(None, {"skip_sharp": False, "detector": "yunet", "only": "all"})]


def test_image_without_faces_stays(extension, opened, folder_paths):
    images = torch.rand(1, 40, 50, 3)
    image, mask, faces, report = restored(extension, images, faces="5", model="faces.onnx", sharp_faces="keep")
    assert torch.equal(image, images)
    assert not mask.any()
    assert not faces.any()
    assert json.loads(report) == [[]]
    path = f"{folder_paths.models_dir}/facerestore_models/faces.onnx"
    assert opened == [(path, {"skip_sharp": True, "detector": "yunet", "only": "5"})]
