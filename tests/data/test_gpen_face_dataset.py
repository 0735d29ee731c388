"""Faces alone; what they share with pairs is tested there in full, and here only to be shared."""

import numpy as np
import pytest
import torch
from helpers.training_images import color_image, write_faces, write_lmdb

from gpen_plugin.data.degradation import DegradationRanges, degrade, resize_bilinear, sample_recipe
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import DataError, GPENError
from gpen_plugin.host.data_cursor import SampleIndex


def opt(root, **others) -> dict:
    defaults = {"name": "faces", "type": "GPENFaceDataset", "phase": "train", "dataroot_gt": str(root), "out_size": 32}
    return {**defaults, **others}


@pytest.fixture
def folder(tmp_path):
    return write_faces(tmp_path / "faces", 6)


@pytest.mark.parametrize("phase", ["train", "val"])
def test_item_has_face_and_path(folder, phase):
    item = GPENFaceDataset(opt(folder, phase=phase))[2]
    assert item.keys() == {"gt", "gt_path"}
    assert item["gt"].shape == (3, 32, 32)
    assert item["gt"].dtype == torch.float32
    assert item["gt_path"] == str(folder / "face_2.png")
    rgb = color_image(2)[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(item["gt"].numpy(), rgb / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (9, 1), (33, 20), (64, 64)])
def test_bytes_and_floats_become_the_same_tensor(folder, height, width, value_range):
    dataset = GPENFaceDataset(opt(folder, value_range=list(value_range)))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    low, high = map(np.float32, value_range)
    expected = (image.astype(np.float32) / 255)[:, :, ::-1].transpose(2, 0, 1) * (high - low) + low
    np.testing.assert_array_equal(dataset._tensor(image).numpy(), expected)
    np.testing.assert_array_equal(dataset._tensor(image.astype(np.float32) / 255).numpy(), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (20, 33), (64, 16), (48, 48)])
def test_small_images_are_enlarged_as_whole_ones_would_be(folder, height, width):
    dataset = GPENFaceDataset(opt(folder))
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    enlarged = dataset._tensor(resize_bilinear(image, 48))
    torch.testing.assert_close(dataset._tensor(image, 48), enlarged, rtol=0, atol=1e-6)


def test_uint8_items_are_the_float_ones_in_8_bits(folder):
    options = {"out_size": 32, "in_size": 16, "value_range": [0, 255]}
    floats, integers = (GPENDegradationDataset(opt(folder, **options, uint8=uint8)) for uint8 in (False, True))
    for index in range(6):
        index = SampleIndex(index, 0, index)
        wanted, item = floats[index], integers[index]
        assert (item["gt"].dtype, item["lq"].dtype) == (torch.uint8, torch.uint8)
        assert item["gt"].shape == (3, 32, 32)
        torch.testing.assert_close(item["gt"].float(), wanted["gt"].round(), rtol=0, atol=0)
        torch.testing.assert_close(item["lq"].float(), wanted["lq"], rtol=0, atol=1)  # OpenCV rounds twice


def test_floats_become_uint8_by_rounding(folder):
    dataset = GPENFaceDataset(opt(folder, uint8=True))
    image = np.array([[[0.0, 0.5, 1.0], [1.2, -0.1, 0.999]]], np.float32)  # BGR
    assert dataset._tensor(image).tolist() == [[[255, 255]], [[128, 0]], [[0, 255]]]


def test_value_range_and_size(folder):
    item = GPENFaceDataset(opt(folder, out_size=16, value_range=[0, 255]))[0]
    assert item["gt"].shape == (3, 16, 16)
    torch.testing.assert_close(item["gt"], item["gt"].round())
    assert item["gt"].max() > 100


def test_folder_and_lmdb_give_the_same(folder, tmp_path):
    root = write_lmdb(tmp_path / "faces.lmdb", {f"face_{i}": color_image(i) for i in range(6)})
    one = GPENFaceDataset(opt(folder, use_hflip=True))
    other = GPENFaceDataset(opt(root, use_hflip=True, io_backend={"type": "lmdb"}))
    for i in range(6):
        assert torch.equal(one[SampleIndex(i, 1, i)]["gt"], other[SampleIndex(i, 1, i)]["gt"])
    assert other[1]["gt_path"] == "face_1.png"


def test_faces_are_mirrored_as_in_pairs(folder):
    """Half of them, as a function of seed, epoch and position."""
    faces = GPENFaceDataset(opt(folder, use_hflip=True, seed=4))
    pairs = GPENDegradationDataset(opt(folder, use_hflip=True, seed=4, degradation={"downsample_range": [1, 2]}))
    plain = GPENFaceDataset(opt(folder, phase="val"))[0]["gt"]
    turned = 0
    for position in range(100):
        index = SampleIndex(0, 3, position)
        shown = faces[index]["gt"]
        assert torch.equal(shown, pairs[index]["gt"])
        expected = rng_from_key(4, 3, position).random() < 0.5
        assert torch.equal(shown, plain.flip(2) if expected else plain)
        turned += expected
    assert 35 <= turned <= 65


def test_first_random_number_of_a_pair_is_the_mirror(folder):
    """So a run that is resumed after an update of this package sees the same pairs."""
    mild = {"kernel_size": [3, 5], "downsample_range": [1, 4]}
    for use_hflip in (True, False):
        dataset = GPENDegradationDataset(opt(folder, use_hflip=use_hflip, seed=2, degradation=mild, value_range=[0, 1]))
        for position in range(6):
            rng = rng_from_key(2, 1, position)
            turned = rng.random() < 0.5 and use_hflip
            face = np.ascontiguousarray(color_image(3)[:, :: -1 if turned else 1])
            lq = degrade(face, sample_recipe(DegradationRanges.from_options(mild, ""), rng), 32)
            shown = dataset[SampleIndex(3, 1, position)]["lq"]
            # OpenCV's kernels for one and for three channels add the four weighted neighbors in another order
            rounding = 4 * np.finfo(np.float32).eps
            np.testing.assert_allclose(shown.numpy(), lq[:, :, ::-1].transpose(2, 0, 1), rtol=0, atol=rounding)


def test_the_host_builds_and_loads_it_with_workers(folder):
    from basicsr.data import build_dataloader, build_dataset
    from basicsr.data.data_sampler import EnlargedSampler

    batches = {}
    for workers in (0, 2):
        options = opt(folder, use_hflip=True, num_worker_per_gpu=workers, batch_size_per_gpu=3)
        dataset = build_dataset(options)
        sampler = EnlargedSampler(dataset, 1, 0, ratio=2)
        batches[workers] = [*build_dataloader(dataset, options, num_gpu=0, sampler=sampler, seed=0)]
    assert [batch["gt"].shape for batch in batches[0]] == [(3, 3, 32, 32)] * 4
    for one, other in zip(batches[0], batches[2], strict=True):
        assert one["gt_path"] == other["gt_path"]
        assert torch.equal(one["gt"], other["gt"])


def test_unreadable_images(folder):
    (folder / "face_5.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"face_5\.png: cannot be decoded"):
        GPENFaceDataset(opt(folder))[5]
    dataset = GPENFaceDataset(opt(folder, on_error="skip"))
    assert dataset[5]["gt_path"] == str(folder / "face_0.png")
    assert (dataset[5]["skipped"], dataset[4]["skipped"]) == (1, 0)


def test_first_images_only(folder):
    assert len(GPENFaceDataset(opt(folder, num_images=2))) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_size": 16}, "in_size: unknown key"),
        ({"degradation": {}}, "degradation: unknown key"),
        ({"dataroot_lq": "/lq"}, "dataroot_lq: unknown key.*Did you mean 'dataroot_gt'"),
        ({"dataroot_gt": "/not/there"}, "dataroot_gt: /not/there is not there"),
        ({"num_images": 0}, "num_images: got 0; expected a number above 0"),
        ({"dataset_enlarge_ratio": 0}, "dataset_enlarge_ratio: got 0; expected a number above 0"),
        ({"io_backend": {"type": "rar"}}, "io_backend:type: got 'rar'"),
    ],
)
def test_wrong_options_name_their_key(folder, change, words):
    with pytest.raises(GPENError, match=f"datasets:train:{words}"):
        GPENFaceDataset.check_options(opt(folder, **change), "datasets:train")


def test_all_problems_are_in_one_error(folder):
    with pytest.raises(GPENError, match=r"(?s)2 problems.*:out_size: got 0.*:value_range"):
        GPENFaceDataset(opt(folder, out_size=0, value_range=[1, 0]))


def test_images_that_are_far_too_small_are_reported_once(folder, caplog):
    dataset = GPENFaceDataset(opt(folder, out_size=128, type="GPENFaceDataset"))
    with caplog.at_level("WARNING", logger="basicsr"):
        dataset[0], dataset[1]
    (record,) = caplog.records
    assert "face_0.png has 32 px and is enlarged to 128 px" in record.getMessage()


def test_images_of_half_the_size_are_fine(folder, caplog):
    with caplog.at_level("WARNING", logger="basicsr"):
        GPENFaceDataset(opt(folder, out_size=64, type="GPENFaceDataset"))[0]
    assert not caplog.records
