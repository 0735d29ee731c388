"""Data sets of [0, 1] and [-1, 1] beside each other: batches enter the networks in the networks' range."""

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils import registry as registries

from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset


class ZeroToOne(torch.utils.data.Dataset):
    """A data set of the user's."""

    value_range = (0, 1)

    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return 4

    def __getitem__(self, index):
        image = torch.full((3, 16, 16), 0.25)
        return {"lq": image, "gt": image, "lq_path": f"{index}.png", "gt_path": f"{index}.png"}


@pytest.fixture
def registered():
    registries.DATASET_REGISTRY.register(ZeroToOne)
    yield "ZeroToOne"
    del registries.DATASET_REGISTRY._obj_map["ZeroToOne"]


@pytest.mark.parametrize("stage", ["options", "prior_options"])
def test_a_batch_enters_in_the_networks_range(request, stage, registered):
    options = request.getfixturevalue(stage)
    options["datasets"]["train"] = {"type": registered, "name": "t"}
    model = build_model({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1})
    model.feed_data({"gt": torch.full((1, 3, 16, 16), 0.25)})
    assert model.gt.unique().tolist() == [-0.5]
    options["datasets"]["train"]["value_range"] = [0, 0.5]  # the key is preferred to the attribute
    model = build_model({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1})
    model.feed_data({"gt": torch.full((1, 3, 16, 16), 0.25)})
    assert model.gt.unique().tolist() == [0]


@pytest.mark.parametrize("value_range", [[-1, 1], [0, 1]])
def test_bytes_enter_as_the_same_numbers_as_floats(options, value_range):
    options["network_g"]["value_range"] = value_range
    options["datasets"]["train"]["value_range"] = value_range
    model = build_model({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1})
    data = GPENDegradationDataset({**options["datasets"]["train"], "phase": "train"})
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    floats = data._tensor(images[0].permute(1, 2, 0).numpy())
    model.feed_data({"gt": floats.expand(2, 3, 16, 16)})
    expected = model.gt
    model.feed_data({"gt": images})
    assert torch.equal(model.gt, expected)


def test_the_hosts_pairs_train_and_validate_gpen(options, faces, train):
    """They give [0, 1]; the same faces have the same PSNR, from either set."""
    for section in (options["network_g"], options["network_d"], *options["datasets"].values()):
        section["out_size"] = 32  # as the faces
    own = options["datasets"].pop("val")
    pairs = {"type": "PairedImageDataset", "dataroot_gt": str(faces), "dataroot_lq": str(faces)}
    pairs |= {"io_backend": {"type": "disk"}, "scale": 1, "use_hflip": True, "use_rot": False, "gt_size": 32}
    options["datasets"]["train"] = {**pairs, "name": "t", "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    options["datasets"] |= {"val_own": {**own, "name": "own", "dataroot_lq": str(faces), "degradation": {}}}
    options["datasets"]["val_host"] = {**pairs, "name": "host"}
    options["val"]["metrics"] = {"psnr": {"type": "calculate_psnr", "crop_border": 0, "better": "higher"}}
    options["datasets"]["val_own"].pop("num_images")
    options["scale"] = 1
    options["train"] |= {"total_iter": 2, "warmup_iter": -1}
    options["val"]["val_freq"] = 2
    run = train(options)
    (log,) = run.glob("train_*.log")
    values = [float(line.split()[2]) for line in log.read_text().splitlines() if "# psnr: " in line]
    assert len(values) == 2
    assert values[0] == values[1]


def test_a_set_of_the_users_trains_a_prior(prior_options, registered, train):
    loader = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    prior_options["datasets"]["train"] = {"type": registered, "name": "t", **loader}
    prior_options["train"]["total_iter"] = 1
    prior_options["val"]["val_freq"] = 100
    prior_options["logger"]["save_checkpoint_freq"] = 100
    assert (train(prior_options) / "models/net_g_latest.pth").is_file()
