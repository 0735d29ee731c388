"""ONNX files as face networks: conventions of other tools, metadata of our files, and wrong files."""

import numpy as np
import pytest
from helpers.published_folders import lonely_machine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from helpers.onnx_face_networks import embedding, tiled

from gpen_plugin.errors import CheckpointError, DataError, OptionError, ShapeError
from gpen_plugin.restore import zoo
from gpen_plugin.restore.network import FaceNetwork, open_network


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return lonely_machine(tmp_path, monkeypatch)


def face(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def opened(path, **arguments) -> FaceNetwork:
    return open_network(path, device="cpu", **arguments)


def test_default_value_range_is_minus_1_to_1(tmp_path):
    network = opened(tiled(tmp_path / "someones.onnx", gains=(1, 0.5, 0)))
    assert isinstance(network, FaceNetwork)
    assert (network.in_size, network.out_size) == (8, 16)
    (restored,) = network([face(0)])
    blue, green, red = np.moveaxis(np.tile(face(0), (2, 2, 1)), 2, 0)
    np.testing.assert_allclose(restored, np.stack([0 * blue + 0.5, green / 2 + 0.25, red], axis=2), atol=1e-6)
    assert network.description == "ONNX network 16 px, someones.onnx; float32 on CPU"


def test_conventions_come_from_metadata(tmp_path):
    conventions = {"value_range": "[0, 1]", "task": "colorize", "template": "dlib", "alpha": "0.8", "precision": "fp16"}
    metadata = {"gpen.version": "1.0"} | {f"gpen.{name}": text for name, text in conventions.items()}
    network = opened(tiled(tmp_path / "ours.onnx", gains=(0.5,) * 3, metadata=metadata))
    assert (network.task, network.template, network.alpha) == ("colorize", "dlib", 0.8)
    assert network.description == "ONNX network 16 px, ours.onnx; fp16 on CPU"
    np.testing.assert_allclose(network([face(0)])[0], np.tile(face(0), (2, 2, 1)) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "side", "metadata", "conventions"),
    [
        ("someones", 256, {}, ("arcface", 1, "restore")),
        ("someones", 512, {}, ("ffhq", 1, "restore")),
        ("ours", 256, {"gpen.version": "1.0"}, ("ffhq", 1, "restore")),
        ("gpen_bfr_256", 128, {}, ("arcface", 1, "restore")),
        ("GPEN-BFR-2048", 64, {"gpen.version": "1.0"}, ("ffhq", 1, "restore")),
        ("GPEN-BFR-2048", 1024, {}, ("ffhq", 0.8, "restore")),
        ("GPEN-BFR-2048", 1024, {"gpen.template": "gpen"}, ("gpen", 0.8, "restore")),
        ("GPEN-BFR-2048", 1024, {"gpen.alpha": "1"}, ("ffhq", 1, "restore")),
        ("GPEN-Colorization-1024", 512, {}, ("ffhq", 1, "colorize")),
    ],
)
def test_conventions_by_name_and_size(name, side, metadata, conventions, tmp_path, capsys):
    shape, declared = (3, side, side), (3, 2 * side, 2 * side)
    network = opened(tiled(tmp_path / f"{name}.onnx", shape=shape, declared=declared, metadata=metadata))
    assert (network.template, network.alpha, network.task) == conventions
    is_released = zoo.get_released(name) is not None and "gpen.version" not in metadata
    assert (zoo.LICENSE in capsys.readouterr().err) == is_released


@pytest.mark.parametrize("batch", ["n", 1, 2, 3, 5])
def test_fixed_and_free_batches(batch, tmp_path):
    network = opened(tiled(tmp_path / "net.onnx", batch=batch))
    faces = [face(0), face(1, 3, 20), face(2)]
    restored = network(faces)
    assert len(restored) == 3
    for index in (0, 2):
        np.testing.assert_allclose(restored[index], np.tile(faces[index], (2, 2, 1)), atol=1e-6)
    assert network([]) == []


def test_half_precision_is_fed_halves(tmp_path):
    network = opened(tiled(tmp_path / "net.onnx", half=True))
    (restored,) = network([face(0)])
    assert restored.dtype == np.float32
    error = np.abs(restored - np.tile(face(0), (2, 2, 1))).max()
    assert 1e-6 < error < 1e-3
    assert network.description.endswith("float16 on CPU")


def test_half_precision_overflow_is_an_error(tmp_path):
    network = opened(
        tiled(tmp_path / "net.onnx", half=True, gains=(1, 6e4, 1), metadata={"gpen.value_range": "[0, 2]"})
    )
    with pytest.raises(DataError, match=r"net.onnx; float16 on CPU: gave values that are not finite for 2 of 2 faces"):
        network([face(0), face(1)])


@pytest.mark.parametrize("declared", [("c", "h", "w"), (3, "h", 16), (None, None, None)])
def test_unknown_output_size_is_measured(declared, tmp_path):
    assert opened(tiled(tmp_path / "net.onnx", declared=declared)).out_size == 16


@pytest.mark.parametrize(
    ("shape", "declared", "message"),
    [
        ((1, 8, 8), (1, 16, 16), r"takes images of shape \(1, 8, 8\); expected \(3, S, S\)"),
        ((3, 8, 6), (3, 16, 12), r"takes images of shape \(3, 8, 6\)"),
        ((3, "h", "w"), (3, "H", "W"), r"takes images of shape \(3, any, any\); .*Export it with a fixed"),
    ],
)
def test_networks_of_something_else(shape, declared, message, tmp_path):
    path = tiled(tmp_path / "net.onnx", shape=shape, declared=declared)
    with pytest.raises(CheckpointError, match=f"^{path}: {message}"):
        opened(path)


def test_a_network_that_gives_no_faces(tmp_path):
    with pytest.raises(CheckpointError, match=r"net.onnx: gives \(1, 3\); expected faces \(N, 3, S, S\)"):
        opened(embedding(tmp_path / "net.onnx"))


def test_a_network_that_takes_fewer_faces_than_its_file_says(tmp_path):
    network = opened(tiled(tmp_path / "net.onnx", inside=(1, 3, 8, 8)))
    assert len(network([face(0)])) == 1
    expected = r"net.onnx: does not take images of shape \(2, 3, 8, 8\) .*use a batch of 1"
    with pytest.raises(CheckpointError, match=expected):
        network([face(0), face(1)])


def test_wrong_onnx_files_are_refused(tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"damaged.onnx: cannot be opened"):
        opened(tmp_path / "damaged.onnx")
    with pytest.raises(CheckpointError, match=r"gives 16 px; expected 512 px, as GPEN-BFR-512\. Give the file"):
        opened(tiled(tmp_path / "GPEN-BFR-512.onnx"))
    for text in ("1", "[1, 0]", "[0, 1, 2]", "full", '["a", "b"]'):
        path = tiled(tmp_path / "net.onnx", metadata={"gpen.value_range": text})
        with pytest.raises(CheckpointError, match=r"net.onnx: gpen.value_range: got .*; expected two numbers such as"):
            opened(path)
    for text in ("all", "1.5", "-1", "nan", "[1]"):
        path = tiled(tmp_path / "net.onnx", metadata={"gpen.alpha": text})
        with pytest.raises(CheckpointError, match=r"net.onnx: gpen.alpha: got .*; expected a number from 0 to 1"):
            opened(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "params"}, "^key: got params, but an ONNX file has no entries"),
        ({"precision": "bf16"}, "^precision: got bf16, but an ONNX file has its own precision"),
    ],
)
def test_options_that_onnx_files_do_not_have(arguments, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        opened(tiled(tmp_path / "net.onnx"), **arguments)


def test_wrong_face_array_is_refused(tmp_path):
    with pytest.raises(ShapeError, match=r"faces: got \(8, 8\) float32"):
        opened(tiled(tmp_path / "net.onnx"))([face(0)[..., 0]])
