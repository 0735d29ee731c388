"""Colorization, inpainting and segmentation as data sets: their items, and what they are functions of."""

import cv2
import numpy as np
import pytest
import torch
from helpers.training_images import color_image, write_faces, write_lmdb

from gpen_plugin.data.degradation import DegradationRanges, degrade, resize_bilinear, sample_recipe
from gpen_plugin.data.gpen_task_dataset import (
    BrushRanges,
    GPENColorizationDataset,
    GPENInpaintingDataset,
    GPENSegmentationDataset,
    brush_mask,
)
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.data.segmentation_labels import LABELS, colorize_labels, hflip_labels, resize_map
from gpen_plugin.errors import DataError, GPENError
from gpen_plugin.host.data_cursor import SampleIndex
from gpen_plugin.images.color import luminance, to_gray

DATASETS = [GPENColorizationDataset, GPENInpaintingDataset, GPENSegmentationDataset]
MILD = {"kernel_size": [3, 5], "downsample_range": [1, 4]}


def label_map(seed: int, side: int = 32) -> np.ndarray:
    """(side, side) uint8: a left half and a right half that differ, with each label of a side on both."""
    labels = np.random.default_rng(seed).integers(0, len(LABELS), (8, 8), dtype=np.uint8)
    return cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST)


@pytest.fixture
def folder(tmp_path):
    return write_faces(tmp_path / "faces", 6)


@pytest.fixture
def maps(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for i in range(6):
        cv2.imwrite(str(folder / f"face_{i}.png"), label_map(i))
    return folder


@pytest.fixture
def made(folder, maps):
    """Builds a data set on the folders."""

    def build(cls: type, **others):
        return cls(opt(cls, folder, maps, **others))

    return build


def opt(cls: type, folder, maps, **others) -> dict:
    defaults = {
        "name": "faces",
        "type": cls.__name__,
        "phase": "train",
        "dataroot_gt": str(folder),
        "io_backend": {"type": "lmdb" if str(folder).endswith(".lmdb") else "disk"},
        "out_size": 32,
    }
    if cls is GPENSegmentationDataset:
        defaults["dataroot_lq"] = str(maps)
    return defaults | others


def bgr(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().transpose(1, 2, 0)[:, :, ::-1]


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("lq", "gt"))


# --- what all have in common


@pytest.mark.parametrize("cls", DATASETS)
def test_item_has_gt_and_lq(made, folder, cls):
    item = made(cls, in_size=16, phase="val", value_range=[0, 1])[2]
    assert item["lq"].shape == (3, 16, 16)
    assert item["lq"].dtype == item["gt"].dtype == torch.float32
    np.testing.assert_allclose(bgr(item["gt"]), color_image(2) / 255, atol=1e-6)
    assert item["gt_path"] == str(folder / "face_2.png")


@pytest.mark.parametrize("cls", DATASETS)
def test_training_items_depend_on_seed_and_position(made, cls):
    dataset, other_seed = (made(cls, use_hflip=True, seed=seed) for seed in (0, 1))
    positions = [SampleIndex(1, 2, position) for position in range(12)]
    assert all(same(dataset[position], dataset[position]) for position in positions)
    assert not all(same(dataset[positions[0]], dataset[position]) for position in positions)
    assert not all(same(dataset[position], other_seed[position]) for position in positions)


@pytest.mark.parametrize("cls", DATASETS)
def test_validation_is_a_function_of_the_seed_and_of_the_key(made, cls):
    dataset = made(cls, phase="val", use_hflip=True)
    alone = made(cls, phase="val", num_images=1)
    assert same(dataset[0], alone[0])
    assert same(dataset[0], dataset[0])


@pytest.mark.parametrize("cls", DATASETS)
def test_workers_change_nothing(made, cls):
    from basicsr.data import build_dataloader

    batches = {}
    for workers in (0, 1):
        options = {"phase": "train", "num_worker_per_gpu": workers, "batch_size_per_gpu": 3}
        dataset = made(cls, use_hflip=True, **options)
        order = [SampleIndex(i, 0, position) for position, i in enumerate([4, 1, 0, 5, 2, 3])]
        batches[workers] = list(build_dataloader(dataset, options, num_gpu=0, sampler=order, seed=workers))
    assert len(batches[0]) == 2
    assert all(same(one, other) for one, other in zip(*batches.values(), strict=True))


@pytest.mark.parametrize("cls", DATASETS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_size": 64}, "in_size: got 64, above out_size 32; expected at most out_size"),
        ({"in_size": 0}, "in_size: got 0; expected a number above 0"),
        ({"value_range": [1, -1]}, "value_range: got .*the smaller number first"),
        ({"use_hflop": True}, "use_hflop: unknown key.*Did you mean 'use_hflip'"),
        ({"dataroot_gt": "/not/there"}, "dataroot_gt: /not/there is not there"),
    ],
)
def test_wrong_options_name_their_key(folder, maps, cls, change, words):
    with pytest.raises(GPENError, match=f"datasets:val_2:{words}"):
        cls.check_options(opt(cls, folder, maps, **change), "datasets:val_2")


# --- colorization


def test_gray_is_the_luminance(made):
    item = made(GPENColorizationDataset, phase="val", value_range=[0, 1])[3]
    face = color_image(3).astype(np.float32) / 255
    np.testing.assert_allclose(bgr(item["lq"]), to_gray(face), atol=1e-6)
    np.testing.assert_allclose(item["lq"][0].numpy(), luminance(face), atol=1e-6)
    usual = made(GPENColorizationDataset, phase="val")[3]
    torch.testing.assert_close(usual["lq"], item["lq"] * 2 - 1)


def test_old_photographs_are_degraded_and_then_gray(made):
    item = made(GPENColorizationDataset, phase="val", degradation=MILD, seed=4, value_range=[0, 1])[3]
    recipe = sample_recipe(DegradationRanges.from_options(MILD, ""), rng_from_key(4, "face_3"))
    np.testing.assert_allclose(bgr(item["lq"]), to_gray(degrade(color_image(3), recipe, 32)), atol=1e-6)


def test_a_wrong_degradation_names_its_key(folder, maps):
    for given, words in (({"jpeg_range": [5, 101]}, "degradation:jpeg_range: got"), (3, "degradation: got 3")):
        with pytest.raises(GPENError, match=f"at:{words}"):
            GPENColorizationDataset.check_options(opt(GPENColorizationDataset, folder, maps, degradation=given), "at")


# --- inpainting


def test_strokes_are_white_and_the_rest_is_the_face(made):
    item = made(GPENInpaintingDataset, phase="val", seed=2)[1]
    mask = brush_mask(BrushRanges(), rng_from_key(2, "face_1"), 32)
    assert item["mask"].shape == (1, 32, 32)
    assert item["mask"].dtype == torch.float32
    np.testing.assert_array_equal(item["mask"][0].numpy(), mask)
    covered = item["mask"].bool().expand(3, 32, 32)
    assert covered.any()
    assert (item["lq"][covered] == 1).all()
    assert torch.equal(item["lq"][~covered], item["gt"][~covered])


def test_the_network_sees_strokes_resized_as_images_are(made):
    item, small = (made(GPENInpaintingDataset, phase="val", in_size=size, value_range=[0, 1])[1] for size in (32, 16))
    np.testing.assert_allclose(bgr(small["lq"]), resize_bilinear(bgr(item["lq"]), 16), atol=1e-6)
    assert small["mask"].shape == (1, 32, 32)


def test_the_brush_is_an_option(made, folder, maps):
    much = made(GPENInpaintingDataset, brush={"covered": [0.5, 0.6]})[SampleIndex(0, 0, 0)]["mask"].mean()
    assert 0.5 <= much <= 0.6
    with pytest.raises(GPENError, match="at:brush:covered: got"):
        GPENInpaintingDataset.check_options(opt(GPENInpaintingDataset, folder, maps, brush={"covered": [0.5, 2]}), "at")


# --- segmentation


def test_indexed_and_colored_maps_give_the_same(made, maps, tmp_path):
    colors = tmp_path / "colors"
    colors.mkdir()
    for i in range(6):
        cv2.imwrite(str(colors / f"face_{i}.bmp"), colorize_labels(label_map(i)))
    indexed, colored = (
        made(GPENSegmentationDataset, phase="val", dataroot_lq=str(r), value_range=[0, 1]) for r in (maps, colors)
    )
    for i in range(6):
        assert same(indexed[i], colored[i])
        np.testing.assert_allclose(bgr(indexed[i]["lq"]), colorize_labels(label_map(i)) / np.float32(255), atol=1e-6)
    assert indexed[5]["lq_path"] == str(maps / "face_5.png")
    assert indexed[5]["gt_path"].endswith("faces/face_5.png")


def test_maps_are_resized_without_new_colors(made):
    item = made(GPENSegmentationDataset, phase="val", in_size=16, value_range=[0, 1])[0]
    np.testing.assert_allclose(
        bgr(item["lq"]), colorize_labels(resize_map(label_map(0), 16)) / np.float32(255), atol=1e-6
    )


def test_mirrored_face_has_mirrored_map(made):
    flips, plain = (made(GPENSegmentationDataset, use_hflip=use, value_range=[0, 1]) for use in (True, False))
    seen = set()
    for position in range(20):
        flipped, unflipped = flips[SampleIndex(0, 0, position)], plain[SampleIndex(0, 0, position)]
        turned = not torch.equal(flipped["gt"], unflipped["gt"])
        seen.add(turned)
        labels = hflip_labels(label_map(0)) if turned else label_map(0)
        np.testing.assert_allclose(bgr(flipped["lq"]), colorize_labels(labels) / np.float32(255), atol=1e-6)
        assert not turned or torch.equal(flipped["gt"], unflipped["gt"].flip(2))
    assert seen == {True, False}


def test_another_palette(made, tmp_path):
    palette = [[13 * i, 255 - i, 0] for i in range(19)]
    item = made(GPENSegmentationDataset, phase="val", palette=palette, value_range=[0, 1])[0]
    np.testing.assert_allclose(bgr(item["lq"]), colorize_labels(label_map(0), palette) / np.float32(255), atol=1e-6)
    with pytest.raises(GPENError, match="datasets:val:palette: got 2 entries; expected 19 colors"):
        made(GPENSegmentationDataset, phase="val", palette=palette[:2])


def test_an_lmdb_of_maps_is_read_like_a_folder(made, tmp_path):
    faces = write_lmdb(tmp_path / "f.lmdb", {f"face_{i}": color_image(i) for i in range(6)})
    indexed = {f"face_{i}": cv2.cvtColor(label_map(i), cv2.COLOR_GRAY2BGR) for i in range(6)}
    databases = {"dataroot_gt": str(faces), "dataroot_lq": str(write_lmdb(tmp_path / "m.lmdb", indexed))}
    stored = made(GPENSegmentationDataset, phase="val", io_backend={"type": "lmdb"}, **databases)
    assert same(stored[4], made(GPENSegmentationDataset, phase="val")[4])
    assert stored[4]["lq_path"] == "face_4.png"


def test_a_face_without_a_map_is_named(made, maps, folder):
    (maps / "face_3.png").unlink()
    with pytest.raises(
        DataError, match=r"datasets:val:dataroot_lq: .*maps has no 'face_3'; expected an image of the same name"
    ):
        made(GPENSegmentationDataset, phase="val")
    assert len(made(GPENSegmentationDataset, phase="val", num_images=3)) == 3
    options = opt(GPENSegmentationDataset, folder, maps)
    del options["dataroot_lq"]
    with pytest.raises(GPENError, match="at:dataroot_lq: missing"):
        GPENSegmentationDataset.check_options(options, "at")


def test_invalid_map_is_named_or_replaced(made, maps):
    cv2.imwrite(str(maps / "face_1.png"), color_image(0))
    with pytest.raises(DataError, match=r"maps/face_1\.png: holds the color .* which is no label's"):
        made(GPENSegmentationDataset, phase="val")[1]
    replaced = made(GPENSegmentationDataset, phase="val", on_error="skip")[1]
    assert (replaced["skipped"], replaced["lq_path"]) == (1, str(maps / "face_2.png"))
