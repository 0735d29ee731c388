"""YuNet: equal to what onnxruntime makes of the published file; landmarks from predictions that the tests make."""

import cv2
import numpy as np
import pytest
from synthetic_faces import render_face

from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.nets import yunet
from gpen_plugin.nets.yunet import (
    CROP_SIDE,
    FRAME_SIDE,
    RawPredictions,
    YuNet,
    YuNetNetwork,
    decode_priors,
    yunet_network,
)

EYES_NOSE_MOUTH = np.array([[-16.0, -16.0], [16.0, -16.0], [0.0, 0.0], [-12.0, 16.0], [12.0, 16.0]])


@pytest.fixture(scope="module")
def image_of_face():
    """(256, 256, 3), with a face in the middle."""
    return cv2.copyMakeBorder(render_face(0, 128), 64, 64, 64, 64, cv2.BORDER_REPLICATE)


@pytest.fixture(params=["onnxruntime", "opencv"])
def network(request):
    """The network in both of its runtimes."""
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime")
    return YuNetNetwork(request.param == "onnxruntime")


def best(predictions):
    i = predictions.scores.argmax()
    return predictions.scores[i], predictions.boxes[i], predictions.points[i]


def test_it_is_the_published_network(network, image_of_face):
    """Values of face_detection_yunet_dynamic.onnx, SHA-256 104ee26c..., by onnxruntime 1.32 on the CPU."""
    score, box, points = best(network(image_of_face, 0.5))
    assert score == pytest.approx(0.93593, abs=1e-3)
    assert np.allclose(box, [93.783, 90.964, 159.869, 173.750], atol=0.05)
    expected = [[110.209, 123.324], [140.282, 120.969], [126.017, 139.153], [114.895, 152.052], [141.159, 149.911]]
    assert np.allclose(points, expected, atol=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (31, 200), (64, 33), (300, 7)])
def test_sizes_that_make_a_feature_map_one_cell_wide(network, shape):
    """OpenCV 4 reads memory that is not its own there. Black pixels are no face, whatever the padding."""
    predictions = network(np.zeros((*shape, 3), np.uint8), 0.0)
    cells = sum(
        max(-(-shape[0] // 32) * 32, 64) * max(-(-shape[1] // 32) * 32, 64) // stride**2 for stride in yunet.STRIDES
    )
    assert len(predictions.scores) == cells
    assert predictions.scores.max() < 0.1
    assert np.isfinite(predictions.points).all()
    assert np.isfinite(predictions.boxes).all()


def test_padding_at_the_right_and_below_moves_nothing(image_of_face):
    whole, cut = (best(yunet_network()(image, 0.5)) for image in (image_of_face, image_of_face[:231, :250]))
    for one, other in zip(whole, cut, strict=True):
        assert np.allclose(one, other, atol=1.5)


def test_maps_are_decoded_cell_by_cell():
    values = np.full((16, 2, 3), -20.0, np.float32)
    values[:, 1, 2] = [0, np.log(3), 0.5, 0.25, np.log(2), np.log(4), *range(10)]
    scores, points, boxes = decode_priors(values, 8, 0.1)
    assert scores == pytest.approx(np.sqrt(0.5 * 0.75))
    assert np.allclose(boxes, [[20 - 8, 10 - 16, 20 + 8, 10 + 16]])
    assert np.allclose(points, [[((0 + 2) * 8 + 16 * i, (1 + 1) * 8 + 16 * i) for i in range(5)]])


@pytest.mark.parametrize(("in_onnxruntime", "message"), [(True, "an ONNX file"), (False, "cannot be read by OpenCV")])
def test_a_file_that_is_damaged(in_onnxruntime, message, tmp_path, monkeypatch):
    if in_onnxruntime:
        pytest.importorskip("onnxruntime")
    (tmp_path / "damaged.onnx").write_bytes(b"no network")
    monkeypatch.setattr(yunet, "FILE", tmp_path / "damaged.onnx")
    with pytest.raises(CheckpointError, match=rf"damaged\.onnx: .*{message}"):
        YuNetNetwork(in_onnxruntime)


def test_a_forked_process_gets_a_network_of_its_own(monkeypatch):
    mine = yunet_network()
    assert yunet_network() is mine
    monkeypatch.setattr(yunet.os, "getpid", lambda: -1)
    assert yunet_network() is not mine


def test_no_other_file_is_taken():
    with pytest.raises(OptionError, match=r"model: got my\.onnx for yunet; expected no file"):
        YuNet("my.onnx")


def found(monkeypatch, *faces, shape=(CROP_SIDE, CROP_SIDE)):
    """What is made of predictions: (x, y, score), the middle of a face in pixels of the frame."""
    points = np.array([EYES_NOSE_MOUTH + np.array([x, y]) for x, y, _ in faces]).reshape(-1, 5, 2)
    scores = np.array([score for *_, score in faces])

    def network(image, min_score):
        assert image.shape == (FRAME_SIDE, FRAME_SIDE, 3)
        kept = scores >= min_score
        return RawPredictions(scores[kept], points[kept], np.zeros((int(kept.sum()), 4)))

    monkeypatch.setattr(yunet, "yunet_network", lambda: network)
    return YuNet()(np.zeros((*shape, 3), np.uint8))


def test_points_in_pixels_of_the_image(monkeypatch):
    in_image = (EYES_NOSE_MOUTH + np.array([4, -12])) * 112 / CROP_SIDE + 56
    assert np.allclose(found(monkeypatch, (164, 148, 0.9), shape=(112, 112)), in_image - 0.5)
    wide = (EYES_NOSE_MOUTH + np.array([4, -12])) * 112 / CROP_SIDE + (56, 28)  # a border above and below
    assert np.allclose(found(monkeypatch, (164, 148, 0.9), shape=(56, 112)), wide - 0.5)


@pytest.mark.parametrize("shape", [(64, 64), (500, 300)])
def test_the_border_is_repeated(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    framed, scale, (left, up) = yunet._frame(image)
    assert framed.shape == (FRAME_SIDE, FRAME_SIDE, 3)
    width, height = np.rint(scale * (shape[1], shape[0])).astype(int)
    right, down = left + width - 1, up + height - 1
    assert max(right - left, down - up) == CROP_SIDE - 1
    assert (framed[: up + 1, : left + 1] == framed[up, left]).all()
    assert (framed[down:, right:] == framed[down, right]).all()
    assert (framed[up : down + 1, :left] == framed[up : down + 1, left : left + 1]).all()


def test_guesses_of_one_face_are_averaged(monkeypatch):
    one = found(monkeypatch, (160, 160, 0.9))
    several = found(monkeypatch, (160, 160, 0.9), (168, 160, 0.6), (176, 160, 0.4))
    assert np.allclose(several - one, [8 * 0.6 / 1.5, 0])  # the third is not certain enough


def test_the_face_in_the_middle_counts(monkeypatch):
    one = found(monkeypatch, (160, 160, 0.7))
    assert np.allclose(found(monkeypatch, (160, 160, 0.7), (64, 64, 0.95)), one)
    assert not np.allclose(found(monkeypatch, (160, 160, 0.55), (128, 144, 1.0)), one)


def test_no_face(monkeypatch):
    assert found(monkeypatch, (160, 160, 0.45)) is None
    assert found(monkeypatch) is None


def test_synthetic_face_at_two_sizes():
    large, small = (YuNet()(render_face(3, size)) for size in (256, 128))
    assert np.abs((small + 0.5) * 2 - (large + 0.5)).max() < 6  # 3 px of the small one
