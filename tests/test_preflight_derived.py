"""Classes of the user's own, derived from ours or not, run under their own names."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from basicsr.utils import registry as registries
from test_preflight import parsed, put

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.config.train_options import TrainOptions
from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.errors import GPENError
from gpen_plugin.models.gan_prior_model import GPENPriorModel
from gpen_plugin.models.gpen_model import GPENModel
from gpen_plugin.preflight import check_run


@pytest.fixture
def enter():
    """Enters a class of the user's in a registry of the host, and takes it out at the end."""
    entered = []

    def register(kind: str, cls: type) -> str:
        registry = getattr(registries, f"{kind.upper()}_REGISTRY")
        registry.register(cls)
        entered.append((registry, cls.__name__))
        return cls.__name__

    yield register
    for registry, name in entered:
        del registry._obj_map[name]


@dataclass(frozen=True, kw_only=True)
class OwnOptions(TrainOptions):
    teacher_opt: Mapping | None = None


class OwnModel(GPENModel):
    options_class = OwnOptions


class OwnPrior(GPENPriorModel):
    pass


class OwnNetwork(GPEN):
    def __init__(self, *args, **kwargs):
        raise AssertionError("a network of the user's is built by the model alone")


class Data(torch.utils.data.Dataset):
    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"lq": torch.zeros(3, 32, 32), "gt": torch.zeros(3, 32, 32)}


class DataInRange(Data):
    value_range = (-1.0, 1.0)


def test_a_derived_model_is_checked_as_ours_and_may_have_keys_of_its_own(options, prior_options, enter, tmp_path):
    options["model_type"] = enter("model", OwnModel)
    options |= {"network_teacher": {"repeats": 3}, "own": 1}
    options["path"] |= {"pretrain_teacher": "hf://me/teacher", "pretrain_prior": None}
    options["val"]["own"] = 2
    options["train"]["teacher_opt"] = {"type": "PerceptualLoss"}
    check_run(parsed(options))
    prior_options["model_type"] = enter("model", OwnPrior)
    check_run(parsed(prior_options))
    for path, value, message in [
        ("train:perceptual_op", 1, "train:perceptual_op: unknown key.*Did you mean 'perceptual_opt'"),
        ("train:optim:lr", 0, "train:optim:lr: got 0"),
        ("network_g:out_size", 500, "network_g:out_size: got 500"),
        ("val:val_freq", "3", "val:val_freq: got '3'"),
    ]:
        wrong = {**options, **{key: dict(options[key]) for key in ("train", "network_g", "val")}}
        wrong["train"]["optim"] = dict(options["train"]["optim"])
        put(wrong, path, value)
        with pytest.raises(GPENError, match=message):
            check_run(parsed(wrong))


def test_a_prior_is_for_models_that_embed_one(options, prior_options, enter):
    options["model_type"], prior_options["model_type"] = enter("model", OwnModel), enter("model", OwnPrior)
    options["path"]["pretrain_prior"] = "/not/there.pth"
    with pytest.raises(GPENError, match=r"path:pretrain_prior: /not/there\.pth is not there"):
        check_run(parsed(options))
    prior_options["path"]["pretrain_prior"] = "/not/there.pth"
    with pytest.raises(GPENError, match=r"path:pretrain_prior: got /not/there\.pth; expected a training of GPENModel"):
        check_run(parsed(prior_options))


def test_a_derived_network_is_not_built(options, enter):
    options["network_g"] = {**options["network_g"], "type": enter("arch", OwnNetwork), "own": 3}
    check_run(parsed(options))


@pytest.mark.parametrize("cls", [Data, DataInRange])
def test_a_data_set_of_the_users_is_taken_at_its_word(options, enter, cls):
    loader = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    options["datasets"]["train"] = {"type": enter("dataset", cls), "name": "t", "dataroot_gt": "s/{0..9}.tar", **loader}
    train = options["datasets"]["train"]
    if cls is Data:
        with pytest.raises(GPENError, match=r"train:value_range: missing; .*\[-1, 1\]. Write value_range: \[-1, 1\]"):
            check_run(parsed(options))
        train["value_range"] = [-1, 1]
    check_run(parsed(options))
    train["value_range"] = [0, 1]
    check_run(parsed(options))


def test_a_data_set_derived_of_ours_has_keys_of_its_own(options, enter):
    class OwnFaces(Data, GPENFaceDataset):
        pass

    options["datasets"]["train"] |= {"type": enter("dataset", OwnFaces), "dataroot_gt": "of its own", "more": 1}
    check_run(parsed(options))
    options["datasets"]["train"]["out_size"] = 64
    with pytest.raises(GPENError, match="datasets:train:out_size: got 64"):
        check_run(parsed(options))


def test_own_loss_has_types_and_keys_of_its_own(options, enter):
    class OwnLoss(torch.nn.Module):
        def __init__(self, weight: int = 1, names: "Unknown" = None, **more):  # noqa: F821
            super().__init__()

    options["train"]["pixel_opt"] = {"type": enter("loss", OwnLoss), "weight": 0.5, "temperature": "1e-2"}
    check_run(parsed(options))


def test_own_loss_without_its_weights_is_found(options, enter, tmp_path):
    class OwnLoss(torch.nn.Module):
        def __init__(self, file: str):
            super().__init__()
            torch.rand(1)
            torch.load(file)

    options["train"]["losses"] = [{"type": enter("loss", OwnLoss), "file": str(tmp_path / "x.pth")}]
    state = torch.get_rng_state()
    with pytest.raises(GPENError, match=r"train:losses:0: FileNotFoundError: .*x\.pth"):
        check_run(parsed(options))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_range_a_foreign_model_reads_is_claimed_of_the_hosts_alone(options, enter):
    class Reads(registries.MODEL_REGISTRY.get("SRModel")):
        def nondist_validation(self, *args):
            """As GFPGANModel, which reads [-1, 1]."""

    check_run(parsed({**options, "model_type": enter("model", Reads)}))
    with pytest.raises(GPENError, match=r"network_g:value_range: is \[-1, 1\]; expected \[0, 1\], in which SRModel"):
        check_run(parsed({**options, "model_type": "SRModel"}))


def test_sections_of_others_in_a_run_with_one_class_of_ours_are_left_alone(options):
    """In another model the pre-run check touches only what names a class of ours."""
    train = options["datasets"]["train"]
    foreign = {"type": "TarDataset", "dataroot_gt": "shards/{0000..0001}.tar"}
    run = {
        **options,
        "model_type": "RealESRGANModel",
        "network_g": {"type": "RRDBNet", "nonsense": 1},
        "network_d": {"type": "UNetDiscriminatorSN"},
        "network_ema": {"decay": 0.99},
        "path": {"pretrain_teacher": "hf://me/teacher", "pretrain_network_g": "nowhere"},
        "train": {"scheduler": 3},
        "val": {"metrics": {"x": 1}},
        "logger": {"wandb": {"project": "x"}},
        "datasets": {"train": train, "val": foreign, "val_2": dict(foreign)},
    }
    check_run(parsed(run))
    train["out_sise"] = 3
    with pytest.raises(GPENError, match="datasets:train:out_sise: unknown key"):
        check_run(parsed(run))


def test_the_paths_of_the_hosts_own_sets_are_looked_at_for_models_of_ours(options, faces):
    pairs = {"type": "PairedImageDataset", "name": "p", "dataroot_gt": str(faces), "dataroot_lq": "/not/there"}
    options["datasets"]["val"] = {**pairs, "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(GPENError, match="datasets:val:dataroot_lq: /not/there is not there"):
        check_run(parsed(options))
    assert "value_range" in inspect.signature(GPEN).parameters


class OwnPairs(torch.utils.data.Dataset):
    """A set of the user's."""

    value_range = (-1, 1)

    def __init__(self, opt):
        self.opt, self.items = opt, range(opt["count"])

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        image = torch.zeros(3, self.opt["side"], self.opt["side"])
        return dict.fromkeys(self.opt["gives"], image) if self.opt["gives"] else image


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "datasets:train: OwnPairs has no images; expected at least one. Check dataroot_gt: here."),
        ({"count": -1, "side": None}, "datasets:train: OwnPairs has no images"),
        ({"side": 16}, "datasets:train:gt: gives ground truth of 16 x 16 px"),
        ({"gives": ["gt"]}, "datasets:train:type: its items have gt; expected lq, a tensor"),
        ({"gives": []}, "datasets:train:type: its items are Tensor; expected dictionaries"),
        ({"count": "many"}, "datasets:train: TypeError: 'str' object"),
        ({"count": 1}, "datasets:train:batch_size_per_gpu: got 2, a batch of 2; expected at most 1"),
    ],
)
def test_a_set_of_the_users_is_read_before_the_run(options, enter, given, message):
    good = {"name": "own", "dataroot_gt": "here", "count": 4, "side": 32, "gives": ["lq", "gt"]}
    good |= {"type": enter("dataset", OwnPairs), "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    options["datasets"]["train"] = good
    check_run(parsed(options))
    options["datasets"]["train"] = {**good, **given}
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))
    del options["datasets"]["train"]["side"]
    options["datasets"]["train"]["count"] = 4
    with pytest.raises(GPENError, match="datasets:train:side: missing; expected a key that OwnPairs reads"):
        check_run(parsed(options))
