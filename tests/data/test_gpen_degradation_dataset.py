"""The dataset, as the host builds and feeds it."""

import logging
import pickle

import cv2
import numpy as np
import pytest
import torch
from helpers.training_images import color_image, write_faces, write_lmdb

from gpen_plugin.data.degradation import DegradationRanges, degrade, sample_recipe
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.image_source import FolderSource
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import DataError, GPENError
from gpen_plugin.host.data_cursor import SampleIndex

MILD = {"kernel_size": [3, 5], "downsample_range": [1, 4]}


def opt(root, **others) -> dict:
    defaults = {
        "name": "faces",
        "type": "GPENDegradationDataset",
        "phase": "train",
        "dataroot_gt": str(root),
        "io_backend": {"type": "lmdb" if str(root).endswith(".lmdb") else "disk"},
        "out_size": 32,
        "degradation": MILD,
    }
    return {key: value for key, value in {**defaults, **others}.items() if value is not None}


@pytest.fixture
def folder(tmp_path):
    return write_faces(tmp_path / "faces", 6)


@pytest.fixture
def database(tmp_path):
    return write_lmdb(tmp_path / "faces.lmdb", {f"face_{i}": color_image(i) for i in range(6)})


def same(one: dict, other: dict) -> bool:
    return torch.equal(one["lq"], other["lq"]) and torch.equal(one["gt"], other["gt"])


def test_item(folder):
    item = GPENDegradationDataset(opt(folder, in_size=16, phase="val"))[2]
    assert item["lq"].shape == (3, 16, 16)
    assert item["gt"].shape == (3, 32, 32)
    assert item["lq"].dtype == item["gt"].dtype == torch.float32
    assert item["gt_path"] == item["lq_path"] == str(folder / "face_2.png")
    rgb = color_image(2)[:, :, ::-1].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(item["gt"].numpy(), rgb, atol=1e-6)


def test_validation_pair_is_the_recipe_of_seed_and_key(folder):
    item = GPENDegradationDataset(opt(folder, phase="val", seed=5, value_range=[0, 1]))[3]
    recipe = sample_recipe(DegradationRanges.from_options(MILD, ""), rng_from_key(5, "face_3"))
    lq = degrade(color_image(3), recipe, 32)
    # OpenCV's kernels for one and for three channels add the four weighted neighbors in another order
    rounding = 4 * np.finfo(np.float32).eps
    np.testing.assert_allclose(item["lq"].numpy(), lq[:, :, ::-1].transpose(2, 0, 1), rtol=0, atol=rounding)


def test_value_range(folder):
    usual = GPENDegradationDataset(opt(folder, phase="val"))[0]
    unit = GPENDegradationDataset(opt(folder, phase="val", value_range=[0, 1]))[0]
    for name in ("lq", "gt"):
        assert 0 <= unit[name].min() < unit[name].max() <= 1
        torch.testing.assert_close(unit[name] * 2 - 1, usual[name])


def test_folder_and_lmdb_give_the_same(folder, database):
    for phase in ("train", "val"):
        one, other = (GPENDegradationDataset(opt(root, phase=phase, use_hflip=True)) for root in (folder, database))
        for i in range(6):
            index = SampleIndex(i, 0, i)
            assert same(one[index], other[index])
    assert other[1]["gt_path"] == "face_1.png"


def test_training_is_a_function_of_the_position_in_the_run(folder):
    dataset = GPENDegradationDataset(opt(folder, use_hflip=True))
    assert same(dataset[SampleIndex(1, 2, 3)], dataset[SampleIndex(1, 2, 3)])
    assert not same(dataset[SampleIndex(1, 2, 3)], dataset[SampleIndex(1, 2, 4)])
    assert not same(dataset[SampleIndex(1, 2, 3)], dataset[SampleIndex(1, 3, 3)])
    other_seed = GPENDegradationDataset(opt(folder, use_hflip=True, seed=1))
    assert not same(dataset[SampleIndex(1, 2, 3)], other_seed[SampleIndex(1, 2, 3)])


def test_plain_indices_follow_torchs_seed(folder):
    dataset = GPENDegradationDataset(opt(folder))
    torch.manual_seed(1)
    first, second = dataset[0], dataset[0]
    torch.manual_seed(1)
    assert same(first, dataset[0])
    assert not same(first, second)


def test_half_of_the_training_images_are_mirrored(folder):
    flips, plain = (GPENDegradationDataset(opt(folder, use_hflip=use)) for use in (True, False))
    mirrored = 0
    for position in range(100):
        flipped, plain_item = flips[SampleIndex(0, 0, position)]["gt"], plain[SampleIndex(0, 0, position)]["gt"]
        assert torch.equal(flipped, plain_item) or torch.equal(flipped, plain_item.flip(2))
        mirrored += not torch.equal(flipped, plain_item)
    assert 35 <= mirrored <= 65
    assert same(
        GPENDegradationDataset(opt(folder, use_hflip=True, phase="val"))[0],
        GPENDegradationDataset(opt(folder, phase="val"))[0],
    )


def test_workers_change_nothing(database):
    from basicsr.data import build_dataloader, build_dataset

    items = {}
    for workers in (0, 2):
        options = opt(database, use_hflip=True, num_worker_per_gpu=workers, batch_size_per_gpu=2)
        dataset = build_dataset(options)
        dataset[0]  # opens the LMDB in this process, which must not reach the workers
        order = [SampleIndex(i, 0, position) for position, i in enumerate([4, 1, 0, 5, 2, 3])]
        items[workers] = list(build_dataloader(dataset, options, num_gpu=0, sampler=order, seed=workers))
    assert len(items[0]) == 3
    for one, other in zip(items[0], items[2], strict=True):
        assert same(one, other)
        assert one["gt_path"] == other["gt_path"]


def test_pickled_set_reads_the_same(database):
    """A worker that is spawned, not forked, gets the set in this way: its open LMDB stays behind."""
    dataset = GPENDegradationDataset(opt(database, use_hflip=True))
    before = dataset[SampleIndex(1, 0, 0)]
    assert same(pickle.loads(pickle.dumps(dataset))[SampleIndex(1, 0, 0)], before)


def test_sample_index_survives_pickling():
    index = pickle.loads(pickle.dumps(SampleIndex(7, 2, 9)))
    assert (index, index.epoch, index.position) == (7, 2, 9)
    assert [10, 11, 12][SampleIndex(1, 0, 0)] == 11


@pytest.mark.parametrize(("height", "width"), [(9, 9), (100, 60), (33, 32), (1, 1)])
def test_images_of_any_size(tmp_path, height, width):
    cv2.imwrite(str(tmp_path / "a.png"), color_image(0, height, width))
    item = GPENDegradationDataset(opt(tmp_path))[0]
    assert item["lq"].shape == item["gt"].shape == (3, 32, 32)


def test_papers_downsampling_reaches_one_pixel(folder):
    item = GPENDegradationDataset(opt(folder, degradation={"downsample_range": [200, 200]}))[0]
    torch.testing.assert_close(item["lq"], item["lq"][:, :1, :1].expand(3, 32, 32))


def test_a_loop_over_the_data_set_ends(folder):
    dataset = GPENDegradationDataset(opt(folder))
    assert sum(1 for _, _ in zip(dataset, range(100), strict=False)) == len(dataset)


def test_unreadable_file_is_named(folder):
    (folder / "face_2.png").write_bytes(b"broken")
    dataset = GPENDegradationDataset(opt(folder))
    with pytest.raises(DataError, match=r"face_2\.png: cannot be decoded"):
        dataset[2]


def test_unreadable_file_is_counted_logged_once_and_replaced(folder, caplog):
    (folder / "face_5.png").write_bytes(b"broken")
    logger = logging.getLogger("basicsr")
    logger.addHandler(caplog.handler)
    dataset = GPENDegradationDataset(opt(folder, phase="val", on_error="skip"))
    items = [dataset[5], dataset[5]]
    logger.removeHandler(caplog.handler)
    assert all(same(item, dataset[0]) for item in items)
    assert items[0]["gt_path"] == str(folder / "face_0.png")
    assert [item["skipped"] for item in items] == [1, 1]
    assert dataset[0]["skipped"] == 0
    assert [record.getMessage().count("face_5.png") for record in caplog.records] == [1]


def test_nothing_can_be_read(folder):
    for path in folder.iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="none of 6 images can be read"):
        GPENDegradationDataset(opt(folder, on_error="skip"))[0]


def test_first_images_only(folder):
    dataset = GPENDegradationDataset(opt(folder, num_images=2))
    assert len(dataset) == 2
    assert dataset.keys == FolderSource(folder, "").keys[:2]


def test_images_that_are_degraded_already_are_paired_by_key(folder, tmp_path):
    lq = tmp_path / "lq"
    lq.mkdir()
    for i in range(6):
        cv2.imwrite(str(lq / f"face_{i}.bmp"), np.full((8, 8, 3), 10 * i, np.uint8))
    (lq / "aaa.bmp").write_bytes(b"one more, which would shift pairs by order")
    dataset = GPENDegradationDataset(
        opt(folder, phase="val", dataroot_lq=str(lq), in_size=16, degradation=None, value_range=[0, 255])
    )
    for i in range(6):
        assert dataset[i]["lq"].shape == (3, 16, 16)
        torch.testing.assert_close(dataset[i]["lq"], torch.full((3, 16, 16), 10.0 * i))
        assert dataset[i]["lq_path"] == str(lq / f"face_{i}.bmp")
    (lq / "face_4.bmp").unlink()
    with pytest.raises(
        DataError, match=r"datasets:val:dataroot_lq: .*lq has no 'face_4'; expected an image of the same name"
    ):
        GPENDegradationDataset(opt(folder, phase="val", dataroot_lq=str(lq), degradation=None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataroot_gt": "/not/there"}, "dataroot_gt: /not/there is not there; expected a folder of images"),
        ({"dataroot_gt": "/not/there.lmdb", "io_backend": {"type": "lmdb"}}, r"dataroot_gt: /not/there\.lmdb is not"),
        ({"io_backend": {"type": "lmbd"}}, "io_backend:type: got 'lmbd'"),
        ({"in_size": 64}, "in_size: got 64, above out_size 32; expected at most out_size"),
        ({"out_size": 0}, "out_size: got 0"),
        ({"value_range": [1, -1]}, r"value_range: got \[1, -1\]; expected the smaller number first"),
        ({"on_error": "ignore"}, "on_error: got 'ignore'"),
        ({"degradation": {"jpeg_range": [5, 101]}}, r"degradation:jpeg_range: got \[5, 101\]"),
        ({"degradation": {"jpg_range": [5, 10]}}, "degradation:jpg_range: unknown key.*'jpeg_range'"),
        ({"use_hflop": True}, "use_hflop: unknown key.*Did you mean 'use_hflip'"),
        ({"dataroot_lq": "/x"}, "degradation: given together with dataroot_lq /x"),
    ],
)
def test_wrong_options_name_their_key(folder, change, words):
    with pytest.raises(GPENError, match=f"datasets:val_2:{words}"):
        GPENDegradationDataset.check_options(opt(folder, **change), "datasets:val_2")


def test_all_problems_are_in_one_error(folder):
    with pytest.raises(GPENError, match=r"(?s)2 problems.*:in_size.*:degradation:noise_range"):
        GPENDegradationDataset(opt(folder, in_size=64, degradation={"noise_range": [3, 1]}))


def test_mild_pairs_are_nearly_as_sharp_as_their_truth(folder):
    heavy = {"kernel_size": [9, 9], "kernel_list": ["iso"], "kernel_prob": [1], "blur_sigma": [4, 4]}
    clean = {"kernel_size": [1, 1], "downsample_range": [1, 1], "noise_range": [0, 0], "jpeg_range": [100, 100]}
    given = {"degradation": heavy, "mild_degradation": clean}
    dataset = GPENDegradationDataset(opt(folder, mild_prob=0.5, value_range=[0, 1], **given))
    errors = np.array([_error(dataset[SampleIndex(0, 0, position)]) for position in range(60)])
    mild = errors < 0.05  # JPEG of quality 100 halves the color's resolution
    assert 15 < mild.sum() < 45
    assert errors[~mild].min() > 2 * errors[mild].max()


def _error(item: dict) -> float:
    return float((item["lq"] - item["gt"]).square().mean().sqrt())


@pytest.mark.parametrize("name", ["gray_prob", "tint_prob"])
def test_monochrome_faces_are_monochrome_as_input_and_as_truth(folder, name):
    dataset = GPENDegradationDataset(opt(folder, value_range=[0, 1], **{name: 1.0}))
    gt = torch.stack([dataset[SampleIndex(i, 0, i)]["gt"] for i in range(6)])
    red, green, blue = gt.unbind(1)
    if name == "gray_prob":
        assert torch.equal(red, green)
        assert torch.equal(green, blue)
        return
    assert (blue <= green + 1 / 255).all()
    assert (red - blue).amax(dim=(1, 2)).min() > 0.02
    # one hue: every channel is a function of luma that rises, so all of them rise together
    for face in gt.mul(255).round().flatten(2).transpose(1, 2):
        colors = torch.tensor(sorted(set(map(tuple, face.tolist()))))
        assert (colors.diff(dim=0) >= 0).all()


def test_color_jitter_scales_the_channels_of_both(folder):
    plain, jittered = (
        GPENDegradationDataset(opt(folder, value_range=[0, 255], color_jitter=jitter)) for jitter in (0, 0.2)
    )
    before, after = (dataset[SampleIndex(0, 0, 7)]["gt"] for dataset in (plain, jittered))
    inside = (before > 60) & (before < 200)
    factors = [(after[c][inside[c]] / before[c][inside[c]]) for c in range(3)]
    for factor in factors:
        assert factor.max() - factor.min() < 2 * 0.5 / 60 + 1e-3  # rounding to whole levels, on either side
        assert 0.79 < factor.mean() < 1.21
    assert max(f.mean() for f in factors) - min(f.mean() for f in factors) > 0.01


def test_validation_never_changes_colors(folder):
    changed = GPENDegradationDataset(opt(folder, phase="val", gray_prob=1.0, color_jitter=0.5))
    assert same(changed[1], GPENDegradationDataset(opt(folder, phase="val"))[1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mild_prob": 1.5}, "mild_prob: got 1.5; expected a number from 0 to 1"),
        ({"mild_prob": 0.3}, "mild_degradation: missing, and mild_prob is 0.3"),
        ({"gray_prob": 0.6, "tint_prob": 0.6}, "gray_prob and tint_prob: got 0.6 and 0.6"),
        (
            {"mild_prob": 0.3, "mild_degradation": {"noise_range": [3, 1]}},
            "mild_degradation:noise_range: got \\[3, 1\\]",
        ),
    ],
)
def test_wrong_fractions_are_errors(folder, wrong, words):
    with pytest.raises(GPENError, match=words):
        GPENDegradationDataset(opt(folder, **wrong))
