"""The host's DFDNet, with the positions of the parts of an aligned face."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from basicsr.archs import vgg_arch
from helpers.faces_to_restore import degraded, method
from helpers.small_networks import saved

from gpen_plugin.baselines.dfdnet import CHANNELS, FFHQ_POINTS, PART_SIDES, PARTS, AlignedDFDNet, part_boxes
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.host.patches import vgg_offline
from gpen_plugin.restore.network import load_network_weights

RANDOM = {"type": "dfdnet", "weights": "random", "dictionary": "random"}


def small(restore):
    """At 128 px, where an image takes a sixteenth of the time. Trained weights are for 512 px alone."""
    restore.io = dataclasses.replace(restore.io, input_size=128)
    return restore


@pytest.fixture(scope="module")
def untrained():
    return small(method(RANDOM))


def test_random_dfdnet_is_repeatable_and_described(untrained):
    sample = degraded()
    first = untrained(sample)
    assert first.shape == (64, 64, 3)
    assert first.std() > 0
    np.testing.assert_array_equal(untrained(sample), first)
    assert untrained.description.count("RANDOM WEIGHTS") == 2


def test_boxes_contain_their_points():
    eyes, mouth = FFHQ_POINTS[:2], FFHQ_POINTS[3:]
    inside = {"left_eye": eyes[:1], "right_eye": eyes[1:], "nose": FFHQ_POINTS[2:3], "mouth": mouth}
    boxes = dict(zip(PARTS, part_boxes(FFHQ_POINTS).tolist(), strict=True))
    for name, (left, top, right, bottom) in boxes.items():
        assert abs((right - left) - (bottom - top)) <= 1, name
        for x, y in inside[name]:
            assert left - 1 <= x <= right + 1, name
            assert top < y < bottom, name
    middles = {name: (box[1] + box[3]) / 2 for name, box in boxes.items()}
    assert middles["left_eye"] < 240  # the brow counts
    assert middles["left_eye"] < middles["nose"] < middles["mouth"]
    assert boxes["left_eye"][2] <= boxes["right_eye"][0]


def test_boxes_follow_the_points():
    doubled = part_boxes([(x / 2, y / 2) for x, y in FFHQ_POINTS])
    assert (doubled * 2 - part_boxes(FFHQ_POINTS)).abs().max() <= 1
    beyond = part_boxes([(x + 150, y + 100) for x, y in FFHQ_POINTS])
    assert beyond.min() >= 0
    assert beyond.max() == 512


@pytest.mark.parametrize("points", [FFHQ_POINTS[:4], (*FFHQ_POINTS[1::-1], *FFHQ_POINTS[2:])])
def test_points_that_are_no_face(points):
    with pytest.raises(OptionError, match=r"methods:M:points: got .*five points \(x, y\), the left eye first"):
        method({**RANDOM, "points": [list(point) for point in points]})


class Recorder(torch.nn.Module):
    def forward(self, x, part_locations):
        self.seen = part_locations
        return x


def test_boxes_are_scaled_to_the_input():
    boxes = part_boxes(FFHQ_POINTS)
    for size in (512, 256):
        aligned = AlignedDFDNet(Recorder(), boxes)
        aligned(torch.zeros(1, 3, size, size))
        assert [box.shape for box in aligned.net.seen] == [(1, 4)] * 4
        assert torch.equal(torch.cat(aligned.net.seen), boxes * size // 512)


def parts(make: Callable[..., torch.Tensor], count: int) -> dict[str, dict[str, torch.Tensor]]:
    """A dictionary of `count` entries each."""
    return {str(size): {part: make(count, width, 4, 4) for part in PARTS} for size, width in CHANNELS.items()}


def flat(net: torch.nn.Module, value: float) -> dict[str, torch.Tensor]:
    """Weights that take no room in a file: each tensor has one value."""
    return {name: torch.tensor(value).expand(tensor.shape) for name, tensor in net.state_dict().items()}


def test_files_are_read(untrained, tmp_path):
    path = saved(tmp_path / "DFDNet.pth", {"params": flat(untrained.net.net, 0.5)})
    entries = parts(torch.rand, 3)
    dictionary = saved(tmp_path / "dictionary.pth", entries)
    restore = method({**RANDOM, "weights": str(path), "dictionary": str(dictionary)})
    for name in ("upsample4.0.bias", "vgg_extractor.vgg_net.conv1_1.weight"):
        assert (restore.net.net.state_dict()[name] == 0.5).all()
    assert torch.equal(restore.net.net.dict["64"]["nose"], entries["64"]["nose"])
    assert "DFDNet.pth (sha256" in restore.description
    assert "dictionary.pth (sha256" in restore.description
    assert restore.identity != untrained.identity


def test_file_without_the_extractor_is_refused(untrained, tmp_path):
    state = flat(untrained.net.net, 0.5)
    del state["vgg_extractor.vgg_net.conv1_1.weight"]
    path = saved(tmp_path / "DFDNet.pth", {"params": state})
    with pytest.raises(CheckpointError, match=r"at: .*vgg_extractor\.vgg_net\.conv1_1\.weight is missing"):
        load_network_weights(untrained.net.net, str(path), None, "at")


def test_wrong_dictionary_is_an_error(tmp_path):
    entries = parts(torch.zeros, 1)
    del entries["64"]["nose"]
    entries["32"]["mouth"] = torch.zeros(1, 3, 2, 2)
    path = saved(tmp_path / "dictionary.pth", entries)
    with pytest.raises(CheckpointError, match=r"methods:M:dictionary: .*lacks 64 nose; 32 mouth"):
        method({**RANDOM, "dictionary": str(path)})
    with pytest.raises(CheckpointError, match="no such file"):
        method({**RANDOM, "dictionary": str(tmp_path / "nowhere.pth")})


def authors_name(name: str) -> str:
    """The authors' name of a tensor of BasicSR's network, the renaming read backwards."""
    kind, _, rest = name.partition(".")
    if kind == "vgg_extractor":
        if rest in ("mean", "std"):
            return f"VggExtract.RGB_{rest}"
        layer, _, tensor = rest.removeprefix("vgg_net.").partition(".")
        return f"VggExtract.model.features.{vgg_arch.NAMES['vgg19'].index(layer)}.{tensor}"
    if kind == "attn_blocks":
        short = {"left_eye": "le", "right_eye": "re", "nose": "no", "mouth": "mo"}
        part, _, size = rest.partition(".")[0].rpartition("_")
        return f"{short[part]}_{size}.{rest.partition('.')[2]}"
    if kind == "multi_scale_dilation":
        if rest.startswith("conv_fusion"):
            return f"MSDilate.{rest.replace('conv_fusion', 'convi')}"
        number, _, tensor = rest.removeprefix("conv_blocks.").partition(".")
        return f"MSDilate.conv{int(number) + 1}.{tensor}"
    rest = rest.replace("scale_block", "ScaleModel1").replace("shift_block", "ShiftModel1").replace("body", "Model")
    return f"{kind.replace('upsample', 'up')}.{rest}"


def authors_file(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A file as the authors', each tensor with one value of its own, and what BasicSR's network has no use for."""
    own = net.state_dict()
    values = {authors_name(name): (i, tensor.shape) for i, (name, tensor) in enumerate(own.items())}
    assert len(values) == len(own)
    state = {f"module.{name}": torch.tensor(float(i)).expand(shape) for name, (i, shape) in values.items()}
    surplus = ("VggExtract.features.0.0.weight", "VggExtract.model.classifier.0.bias", "to_rgb0.0.bias")
    surplus += ("up0.conv1.0.weight", "up0.conv1.0.weight_flip")
    return state | {f"module.{name}": torch.zeros(1) for name in surplus}


def test_authors_files_load(untrained, tmp_path):
    net = untrained.net.net
    folder = tmp_path / "DictionaryCenter512"
    folder.mkdir()
    rows = {}
    for size, channels in CHANNELS.items():
        for part, side in PART_SIDES.items():
            length = channels * (side * size // 512) ** 2
            rows[size, part] = np.random.default_rng(0).random((2, length), np.float32)
            np.save(folder / f"{part}_{size}_center.npy", rows[size, part])
    weights = saved(tmp_path / "latest_net_G.pth", authors_file(net))
    restore = method({**RANDOM, "weights": str(weights), "dictionary": str(folder)})
    loaded = restore.net.net
    assert all((tensor == i).all() for i, tensor in enumerate(loaded.state_dict().values()))
    assert loaded.dict["256"]["mouth"].shape == (2, 128, 55, 55)
    assert loaded.dict["32"]["nose"].shape == (2, 512, 3, 3)
    assert np.array_equal(loaded.dict["64"]["nose"].flatten(1).numpy(), rows[64, "nose"])
    assert "DictionaryCenter512 of its authors (sha256" in restore.description
    assert "weights of the method's authors" in restore.description

    np.save(folder / "nose_64_center.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(CheckpointError, match=r"nose_64_center\.npy: holds an array \(2, 3\); exp.*\(K, 18432\)"):
        method({**RANDOM, "dictionary": str(folder)})
    np.save(folder / "nose_64_center.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"nose_64_center\.npy: cannot be read \(Object arrays cannot be loaded"):
        method({**RANDOM, "dictionary": str(folder)})
    (folder / "nose_64_center.npy").unlink()
    with pytest.raises(CheckpointError, match=r"methods:M:dictionary: .*nose_64_center\.npy: is not there"):
        method({**RANDOM, "dictionary": str(folder)})


def test_other_files_are_refused_with_what_they_are(tmp_path):
    path = saved(tmp_path / "g.pth", {"model.1.weight": torch.ones(1), "model.38.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"methods:M:weights: .*holds Pix2PixHD's global generator"):
        method({**RANDOM, "weights": str(path)})


def test_no_weights_are_downloaded():
    before = vgg_arch.vgg, vgg_arch.VGG_PRETRAIN_PATH
    with vgg_offline():
        extractor = vgg_arch.VGGFeatureExtractor(["relu1_2", "conv5_4"], "vgg19")
    assert (vgg_arch.vgg, vgg_arch.VGG_PRETRAIN_PATH) == before
    features = extractor(torch.rand(1, 3, 32, 32))
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "relu1_2": (1, 64, 32, 32),
        "conv5_4": (1, 512, 2, 2),
    }
