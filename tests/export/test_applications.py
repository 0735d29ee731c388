"""Exported files in the hands of the applications: each part below feeds a file as that program does.

Crop, channel order, normalization, call and conversion of the output follow the programs' sources, which are named.
"""

import zlib

import cv2
import numpy as np
import pytest
import torch
from helpers.onnx_graphs import assert_runs_everywhere
from helpers.small_networks import SMALL, built, rounding_error

from gpen_plugin import GPEN
from gpen_plugin.cli.export import main
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.export.applications import APPLICATIONS
from gpen_plugin.export.exporter import FileNetwork
from gpen_plugin.restore.alignment import TEMPLATES, parse_template, scale_template
from gpen_plugin.restore.network import open_network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxslim")

FFHQ_512 = np.array([[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043]])
FFHQ_512 = np.concatenate([FFHQ_512, [[313.08905, 371.15118]]])
ARCFACE_128 = np.array(
    [[46.2946, 51.6963], [81.5318, 51.5014], [64.0252, 71.7366], [49.5493, 92.3655], [78.7299, 92.2041]]
)
WEIGHT = 0.35  # of facefusion's slider; ReActor always feeds 1


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def to_input(crop):
    """(S, S, 3) BGR uint8 -> (1, 3, S, S) RGB float32 in [-1, 1], as facefusion, ReActor and Deep-Live-Cam do."""
    return ((crop[:, :, ::-1] / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)


def by_facefusion(path, photograph, landmarks, size):
    """facefusion 3.8.1: face_helper.py, and forward() of processors/modules/face_enhancer/core.py."""
    template = (ARCFACE_128 / 128 if size == 256 else FFHQ_512 / 512) * size
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, template, method=cv2.RANSAC, ransacReprojThreshold=100)
    crop = cv2.warpAffine(photograph, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_AREA)
    session, fed = session_of(path), {}
    for each in session.get_inputs():
        if each.name == "input":
            fed["input"] = to_input(crop)
        if each.name == "weight":
            fed["weight"] = np.array([WEIGHT]).astype(np.double)
    output = np.clip(session.run(None, fed)[0][0], -1, 1)
    result = ((output + 1) / 2 * 255).transpose(1, 2, 0).round().astype(np.uint8)[:, :, ::-1]
    content = path.with_suffix(".hash").read_text()  # download.py: another content has the file downloaded anew
    assert content == format(zlib.crc32(path.read_bytes()), "08x")
    return matrix, crop, result


def by_reactor(path, photograph, landmarks, size):
    """ReActor 0.7.0-a2: nodes.py, reactor_utils.py, and align_warp_face() of r_facelib."""
    size = 1024 if "1024" in path.name else 2048 if "2048" in path.name else 512
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, FFHQ_512 * (size / 512), method=cv2.LMEDS)
    gray = (135, 133, 132)
    crop = cv2.warpAffine(photograph, matrix, (size, size), borderMode=cv2.BORDER_CONSTANT, borderValue=gray)
    session = session_of(path)
    values = {"input": to_input(crop), "weight": np.array([1], dtype=np.double)}
    output = session.run(None, {each.name: values[each.name] for each in session.get_inputs()})[0][0]
    result = ((np.clip(output, -1, 1) + 1) / 2 * 255).transpose(1, 2, 0).round().astype(np.uint8)[:, :, ::-1]
    return matrix, crop, result


def by_deep_live_cam(path, photograph, landmarks, size):
    """Deep-Live-Cam bdeeb3a: modules/processors/frame/_onnx_enhancer.py."""
    points = np.array([[0.31556875, 0.4615741], [0.68262291, 0.4615741], [0.50009375, 0.6405054]])
    points = np.concatenate([points, [[0.34947187, 0.8246919], [0.65343645, 0.8246919]]]).astype(np.float32) * size
    matrix, _ = cv2.estimateAffinePartial2D(landmarks.astype(np.float32), points, method=cv2.LMEDS)
    crop = cv2.warpAffine(photograph, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    session = session_of(path)
    shapes = {each.name: [side if isinstance(side, int) else 1 for side in each.shape] for each in session.get_inputs()}
    session.run(None, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})  # warm-up: all inputs
    blob = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).astype(np.float32) / 255 * 2 - 1
    output = session.run(None, {session.get_inputs()[0].name: blob.transpose(2, 0, 1)[None]})[0][0]
    image = np.clip((output.transpose(1, 2, 0) + 1) / 2 * 255, 0, 255).astype(np.uint8)  # cut off, not rounded
    return matrix, crop, cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def by_visomaster(path, photograph, landmarks, size):
    """VisoMaster 429cc08: app/processors/face_restorers.py with the alignment Blend, on 512 px, at full strength."""
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, FFHQ_512, method=cv2.LMEDS)
    crop = cv2.warpAffine(photograph, matrix, (512, 512))
    image = torch.from_numpy(crop[:, :, ::-1].copy()).permute(2, 0, 1) / 255
    image = ((image - 0.5) / 0.5)[None].contiguous()
    output = torch.empty(1, 3, size, size)
    binding, where = session_of(path), {"device_type": "cpu", "device_id": 0, "element_type": np.float32}
    bound = binding.io_binding()
    bound.bind_input(name="input", shape=(1, 3, size, size), buffer_ptr=image.data_ptr(), **where)
    bound.bind_output(name="output", shape=(1, 3, size, size), buffer_ptr=output.data_ptr(), **where)
    binding.run_with_iobinding(bound)
    result = (output[0].clamp(-1, 1) + 1) / 2 * 255
    return matrix, crop, result.permute(1, 2, 0).numpy()[:, :, ::-1]


RUN = {
    "facefusion": by_facefusion,
    "reactor": by_reactor,
    "deep-live-cam": by_deep_live_cam,
    "visomaster": by_visomaster,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net_g_latest.pth"
    torch.save({"params_ema": built(lambda: GPEN(32, **SMALL)).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def photograph():
    """A photograph of smooth colors, with a face that is tilted by 12 degrees."""
    colors = np.random.default_rng(3).random((12, 12, 3), np.float32)
    image = (np.clip(cv2.resize(colors, (480, 480), interpolation=cv2.INTER_CUBIC), 0, 1) * 255).astype(np.uint8)
    return image, (cv2.getRotationMatrix2D((240, 240), 12, 1), 260)


def landmarks_in(tilt, template):
    rotation, side = tilt
    points = template * side + (480 - side) / 2
    return points @ rotation[:, :2].T + rotation[:, 2]


@pytest.mark.parametrize(
    ("name", "size", "weight"),
    [
        ("facefusion", 256, True),
        ("reactor", 512, True),
        ("deep-live-cam", 256, False),
        ("visomaster", 512, False),
    ],
)
def test_application_gets_what_the_network_gives(name, size, weight, weights, photograph, tmp_path, capsys):
    application = APPLICATIONS[name]
    words = ["--for", name, "--size", str(size), *(["--weight"] if weight else [])]
    assert main([str(weights), "-o", str(tmp_path), *words]) == 0
    assert f"for {application.name}, folder {application.folder}" in capsys.readouterr().out
    path = tmp_path / application.files[size]
    assert_runs_everywhere(path)
    model = onnx.load(path)
    assert [each.name for each in model.graph.input] == (["input", "weight"] if weight else ["input"])
    for value in (model.graph.input[0], model.graph.output[0]):
        assert [side.dim_value for side in value.type.tensor_type.shape.dim] == [1, 3, size, size]

    template = parse_template(application.templates[size])
    image, tilt = photograph
    landmarks = landmarks_in(tilt, template)
    matrix, crop, result = RUN[name](path, image, landmarks, size)
    aligned = landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(aligned - scale_template(template, size)).max() < 0.51  # some count from the corner of the pixel

    net = built(lambda: GPEN(32, **SMALL)).eval()
    _, frame = application.fit(TEMPLATES["ffhq"], 32, 32, size)
    file, lq = FileNetwork(net, frame), torch.from_numpy(to_input(crop))
    with torch.no_grad():
        expected = file(lq, torch.tensor([WEIGHT if name == "facefusion" else 1.0]) if weight else None)
    levels = ((expected[0].clamp(-1, 1) + 1) / 2 * 255).permute(1, 2, 0).numpy()[:, :, ::-1]
    rounded = {"deep-live-cam": 1.0, "visomaster": 0.0}.get(name, 0.5)  # cut off, not rounded at all, rounded
    error, _ = rounding_error(net, lq if frame is None else file.into_y @ lq @ file.into_x.T, torch.float32)
    assert np.abs(result.astype(np.float32) - levels).max() <= rounded + error * 255 / 2 + 1e-3
    assert np.abs(levels - crop).mean() > 2  # the network does something


def test_files_are_read_back_with_the_alignment_of_the_application(weights, tmp_path):
    words = ["--for", "facefusion", "--size", "256", "--weight", "--precision", "fp16"]
    assert main([str(weights), "-o", str(tmp_path), *words]) == 0
    network = open_network(tmp_path / "gpen_bfr_256.onnx", device="cpu")
    assert (network.in_size, network.out_size, network.template) == (256, 256, "arcface")
    face = np.random.default_rng(0).random((256, 256, 3), np.float32)
    with torch.no_grad():
        _, frame = APPLICATIONS["facefusion"].fit(TEMPLATES["ffhq"], 32, 32)
        file = FileNetwork(built(lambda: GPEN(32, **SMALL)).eval(), frame)
        lq = torch.from_numpy(face[:, :, ::-1].transpose(2, 0, 1).copy())[None] * 2 - 1
        expected = ((file(lq)[0].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()[:, :, ::-1]
    assert np.abs(network([face])[0] - expected).max() < 0.05


@pytest.mark.parametrize(
    ("name", "own", "sides", "size"),
    [
        ("facefusion", "ffhq", (512, 512), 512),
        ("facefusion", "arcface", (256, 256), 256),
        ("facefusion", "dlib", (256, 256), 512),  # of 256 px, its square would have 203
        ("deep-live-cam", "dlib", (256, 256), 256),
        ("deep-live-cam", "ffhq", (1024, 1024), 512),
        ("visomaster", "ffhq", (128, 2048), 2048),
    ],
)
def test_smallest_size_that_keeps_the_resolution(name, own, sides, size):
    chosen, frame = APPLICATIONS[name].fit(TEMPLATES[own], *sides)
    assert chosen == size
    assert (frame is None) == (APPLICATIONS[name].templates[size] == own and sides == (size, size))


def test_sizes_and_files_that_are_refused(tmp_path):
    with pytest.raises(OptionError, match="--size: got 300; expected one of 256, 512, the sizes of Deep-Live-Cam"):
        APPLICATIONS["deep-live-cam"].fit(TEMPLATES["ffhq"], 256, 256, 300)
    others = tmp_path / "gpen_bfr_512.onnx"
    others.write_bytes(b"another's")
    with pytest.raises(CheckpointError, match=r"gpen_bfr_512.onnx: is a file that gpen-export did not write"):
        APPLICATIONS["facefusion"].path_in(tmp_path, 512)
    assert APPLICATIONS["facefusion"].path_in(others, 512) == others


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "256"], "--size: got it without --for"),
        (["--for", "visomaster", "--weight"], "--weight: got it, but VisoMaster has no such input"),
        (["--for", "visomaster", "--batch", "4"], "--batch: got 4; expected 1, as VisoMaster has it"),
        (["--for", "visomaster", "--format", "program"], "--for: got it with a program of torch.export"),
        (["--for", "visomaster", "--task", "colorize"], "--for: got a network of the task colorize; expected restore"),
    ],
)
def test_options_that_do_not_go_together(words, message, weights, tmp_path, capsys):
    output = tmp_path / "model.onnx" if "--size" in words else tmp_path
    assert main([str(weights), "-o", str(output), *words]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
