"""Every mistake in an option file is found before the host writes anything."""

import pickle
from pathlib import Path

import pytest
import torch
import yaml
from helpers import REPOSITORY

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.errors import GPENError
from gpen_plugin.host import registered
from gpen_plugin.preflight import check_run

OPTION_FILES = sorted(file for file in (REPOSITORY / "options").rglob("*.yml") if "\nmodel_type:" in file.read_text())


def parsed(options: dict, is_train: bool = True) -> dict:
    return {**options, "is_train": is_train, "dist": False, "auto_resume": False}


def put(options: dict, path: str, value: object) -> None:
    *parents, last = path.split(":")
    for key in parents:
        options = options[key]
    options[last] = value


def test_right_options_pass(options, prior_options, test_options):
    check_run(parsed(options))
    check_run(parsed(prior_options))
    check_run(parsed(test_options, is_train=False))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("modle_type", "x", "modle_type: unknown key.*Did you mean 'model_type'"),
        ("train:optin", {}, "train:optin: unknown key.*Did you mean 'optim'"),
        ("model_type", "GPENModl", "model_type: got 'GPENModl'.*Did you mean 'GPENModel'"),
        ("num_gpu", 99, "num_gpu: got 99; expected at most"),
        ("train:total_iter", "8", "train:total_iter: got '8'.*Write 8 without quotes"),
        ("train:total_iter", 0, "train:total_iter: got 0; expected 1 or more iterations"),
        (
            "train:optim:lr_ratio",
            [100, 10],
            r"train:optim:lr_ratio: got \[100, 10\].*three numbers.*The paper's is",
        ),
        ("train:optim:lr_ratio", [100, -1, 1], r"train:optim:lr_ratio: got \[100, -1, 1\]; expected three numbers"),
        ("train:gan_opt:gan_type", "vanila", "train:gan_opt: NotImplementedError: GAN type vanila is not implemented"),
        ("train:pixel_opt:reduction", "men", "train:pixel_opt: ValueError: Unsupported reduction mode: men"),
        ("train:feature_matching_opt:layers", [7], r"train:feature_matching_opt:layers: got \[7\]; expected .* 0 to 3"),
        ("train:feature_matching_opt", 3, "train:feature_matching_opt: got 3"),
        ("network_g:num_style_feat", 0, "network_g:num_style_feat: got 0"),
        ("network_g:num_mlp", 0, "network_g:num_mlp: got 0"),
        ("datasets:train:batch_size_per_gpu", 0, "datasets:train:batch_size_per_gpu: got 0"),
        ("datasets:train:batch_size_per_gpu", 9, "datasets:train:batch_size_per_gpu: got 9.*at most 8.*enlarge_ratio"),
        ("datasets:val:in_size", 16, "datasets:val:in_size: got 16; expected network_g:in_size, 32"),
        ("datasets:val:name", "train", "datasets:train:name: got 'train', which another set has too"),
        ("val", 3, "val: got 3 .*expected a mapping"),
        ("val:val_freq", 0, "val:val_freq: got 0"),
        ("val:metrics", {"psnr": 3}, "val:metrics:psnr:type"),
        ("val:metrics:psnr:crop_boder", 0, "val:metrics:psnr:crop_boder: unknown key.*Did you mean 'crop_border'"),
        ("logger:print_freq", 0, "logger:print_freq: got 0"),
        ("train:optim:lr", "2e-3", "train:optim:lr: got '2e-3'.*!!float 2e-3"),
        ("train:scheduler:type", "MultiStep", "train:scheduler:type.*Did you mean 'MultiStepLR'"),
        ("train:scheduler:gama", 1, "train:scheduler:gama: unknown key.*Did you mean 'gamma'"),
        ("train:feature_matching_opt:norm", "l3", "train:feature_matching_opt:norm: got 'l3'.*expected one of 'l2'"),
        ("train:pixel_opt:type", "L1Los", "train:pixel_opt:type: got 'L1Los'.*Did you mean 'L1Loss'"),
        ("network_g:out_size", 500, "network_g:out_size: got 500; expected a power of two.*Use 512"),
        ("network_g:in_size", 64, "network_g:in_size: got 64; expected at most out_size"),
        ("network_g:type", "GPENN", "network_g:type: got 'GPENN'.*Did you mean 'GPEN'"),
        ("network_g", {"type": "MSRResNet"}, "network_g:type: got MSRResNet; expected GPEN"),
        ("network_g:narow", 1, "network_g:narow: unknown key.*Did you mean 'narrow'"),
        ("network_d:out_size", 64, "network_d:out_size: got 64; expected network_g:out_size, 32"),
        ("datasets:train:type", "GPENDegradation", "datasets:train:type.*Did you mean 'GPENDegradationDataset'"),
        ("datasets:train:dataroot_gt", "/not/there", "datasets:train:dataroot_gt: .*not/there"),
        ("datasets:val:out_size", 64, "datasets:val:out_size: got 64; expected network_g:out_size, 32"),
        ("datasets:val:value_range", [1, 0], r"datasets:val:value_range: got \[1, 0\]"),
        ("datasets:train:use_hflop", True, "datasets:train:use_hflop: unknown key.*Did you mean 'use_hflip'"),
        ("datasets:train:degradation:jpeg_range", [50, 5], "datasets:train:degradation:jpeg_range"),
        ("val:metrics:psnr:type", "psnr", "val:metrics:psnr:type: got 'psnr'"),
        ("val:metrics:psnr", {"type": "calculate_psnr"}, "val:metrics:psnr:crop_border: missing"),
        ("val:metrics:psnr:type", "calculate_niqe", "val:metrics:psnr: NIQE of images of 32 px"),
        ("path:pretrain_network_g", "/not/there.pth", "path:pretrain_network_g.*not/there"),
        ("path:pretrain_networkg", "x", "path:pretrain_networkg: unknown key.*Did you mean 'pretrain_network_g'"),
        ("logger:print_frequency", 1, "logger:print_frequency: unknown key.*Did you mean 'print_freq'"),
        ("logger:keep_last", 0, "logger:keep_last: got 0; expected 1 or more checkpoints"),
        ("val:grid_images", -1, "val:grid_images: got -1; expected 0 or more"),
        ("logger:keep_last", "2", "logger:keep_last: got '2'.*Write 2 without quotes"),
        ("train:precision", "fp16", "train:precision: got 'fp16'.*expected one of 'fp32', 'bf16'"),
        ("train:compile", "inductr", "train:compile: got .inductr.; expected ~ or a backend of .*such as inductor"),
        ("train:compile", True, r"train:compile: got True \(bool\); expected a text"),
        ("train:nonfinite_patience", -1, "train:nonfinite_patience: got -1; expected 0 or more"),
        ("train:freeze_decoder", "yes", r"train:freeze_decoder: got 'yes' \(str\); expected true or false"),
        ("train:freeze_encoder", True, "train:freeze_encoder: unknown key.*Did you mean 'freeze_decoder'"),
        ("train:augment_opt", {}, "train:augment_opt: unknown key"),  # a prior's
        ("path:pretrain_prior", "/not/there.pth", "path:pretrain_prior: /not/there.pth is not there.*Train it"),
        ("path:pretrain_priors", "x", "path:pretrain_priors: unknown key.*Did you mean 'pretrain_prior'"),
    ],
)
def test_each_mistake_names_key_value_and_hint(options, path, value, message):
    put(options, path, value)
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train:optim", {"lr": 0.002}, "train:optim: unknown key.*Did you mean 'optim_[dg]'"),
        ("train:optim_g:lr", 0, "train:optim_g:lr: got 0; expected a rate above 0"),
        ("train:optim_d:betas", [0, 1], r"train:optim_d:betas: got \[0.0, 1.0\]; expected numbers from 0 up to 1"),
        ("train:optim_g:lr_ratio", [100, 10, 1], "train:optim_g:lr_ratio: unknown key"),
        ("val:truncation", 7, "val:truncation: got 7; expected a number from 0 to 1"),
        ("train:mixing_prob", 1.5, "train:mixing_prob: got 1.5; expected a number from 0 to 1"),
        ("train:net_g_reg_every", 0, "train:net_g_reg_every: got 0; expected 1 or more iterations"),
        ("train:path_batch_shrink", 0, "train:path_batch_shrink: got 0; expected 1 or more times fewer"),
        ("train:ema_half_life", 0, "train:ema_half_life: got 0"),
        ("train:ema_decay", 0.999, "train:ema_decay: unknown key.*ema_half_life"),
        ("train:precision", "bfloat16", "train:precision: got 'bfloat16'.*expected one of 'fp32', 'bf16'"),
        ("train:augment_opt:transform", ["flip"], "train:augment_opt:transform: unknown key.*you mean 'transforms'"),
        ("train:augment_opt:transforms", ["colour"], "train:augment_opt:transforms: got .*colour"),
        ("train:augment_opt:p", 2.0, "train:augment_opt:p: got 2.0; expected a probability"),
        ("train:augment_opt", True, "train:augment_opt: got True .*a mapping"),
        ("val:truncaton", 0.7, "val:truncaton: unknown key.*Did you mean 'truncation'"),
        ("val:metrics:psnr", {"type": "calculate_psnr", "crop_border": 0}, "metrics:psnr:type: .*Use calculate_swd"),
        ("network_g:type", "GPEN", "network_g:type: got GPEN; expected GPENPrior"),
        ("network_g:in_size", 32, "network_g:in_size: unknown key"),
        ("network_d:out_size", 64, "network_d:out_size: got 64; expected network_g:out_size, 32"),
        ("datasets:train:out_size", 64, "datasets:train:out_size: got 64; expected network_g:out_size, 32"),
        ("datasets:train:degradation", {}, "datasets:train:degradation: unknown key"),
        ("datasets:val:value_range", [1, 0], r"datasets:val:value_range: got \[1, 0\]"),
        ("path:pretrain_prior", "prior.pth", "path:pretrain_prior: got prior.pth; expected a training of GPENModel"),
    ],
)
def test_each_mistake_of_a_priors_training_is_named(prior_options, path, value, message):
    put(prior_options, path, value)
    with pytest.raises(GPENError, match=message):
        check_run(parsed(prior_options))


def test_an_empty_and_a_truncated_lmdb_are_named(options, faces, tmp_path):
    """A truncated one would kill the process with SIGBUS as soon as a page beyond its end is read."""
    import make_lmdb

    whole = tmp_path / "whole.lmdb"
    assert make_lmdb.main(["--input", str(faces), "--output", str(whole), "--size", "32"]) == 0
    data = {"dataroot_gt": str(whole), "io_backend": {"type": "lmdb"}}
    options["datasets"]["train"] |= data
    check_run(parsed(options))
    with open(whole / "data.mdb", "r+b") as file:
        file.truncate(8192)
    with pytest.raises(GPENError, match=r"datasets:train:dataroot_gt: .*whole\.lmdb"):
        check_run(parsed(options))
    (whole / "data.mdb").write_bytes(b"")
    with pytest.raises(GPENError, match=r"datasets:train:dataroot_gt: .*whole\.lmdb"):
        check_run(parsed(options))


def test_a_missing_section_is_named(options):
    del options["network_d"]
    with pytest.raises(GPENError, match="network_d: missing"):
        check_run(parsed(options))


def test_several_mistakes_come_together(options):
    put(options, "network_g:out_size", 500)
    put(options, "train:optim:lr_ratio", [1, 2])
    with pytest.raises(GPENError, match=r"(?s)network_g:out_size.*train:optim:lr_ratio"):
        check_run(parsed(options))


def test_a_checkpoint_of_another_width_says_both(options, tmp_path):
    path = tmp_path / "wide.pth"
    torch.save({"params": GPEN(64, num_style_feat=16, num_mlp=2, narrow=0.0625).state_dict()}, path)
    put(options, "path:pretrain_network_g", str(path))
    with pytest.raises(GPENError, match=r"path:pretrain_network_g(?s:.*)64 px(?s:.*)32 px"):
        check_run(parsed(options))


class Malice:
    def __reduce__(self):
        return (Path.touch, (Path("malice_was_here"),))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", pickle.dumps({"params": Malice()})])
def test_a_damaged_or_malicious_checkpoint_is_refused(options, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    put(options, "path:pretrain_network_g", str(path))
    with pytest.raises(GPENError, match=r"path:pretrain_network_g.*bad\.pth"):
        check_run(parsed(options))
    assert not Path("malice_was_here").exists()


def test_metrics_that_need_ground_truth(test_options, faces):
    test_options["datasets"]["test_2"] = {
        "name": "wild",
        "type": "SingleImageDataset",
        "dataroot_lq": str(faces),
        "io_backend": {"type": "disk"},
    }
    with pytest.raises(GPENError, match="val:metrics:psnr: needs ground truth, which datasets:test_2 lacks"):
        check_run(parsed(test_options, is_train=False))


def test_wrong_size_is_reported_once(options):
    put(options, "network_g:out_size", 500)
    shown = r"^network_g:out_size: got 500; expected a power of two from 16 to 2048\. Use 512\.$"
    with pytest.raises(GPENError, match=shown):
        check_run(parsed(options))


def test_mean_and_std_of_the_hosts_sets_are_one_range(test_options, faces):
    wild = {"name": "wild", "type": "SingleImageDataset", "dataroot_lq": str(faces), "io_backend": {"type": "disk"}}
    test_options["datasets"] = {"test_1": wild}
    test_options["val"]["metrics"] = None
    check_run(parsed(test_options, is_train=False))
    wild |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    check_run(parsed(test_options, is_train=False))
    wild["mean"] = [0.4, 0.5, 0.5]
    with pytest.raises(GPENError, match=r"test_1:mean and std: got \[0\.4, .*expected one mean and one std"):
        check_run(parsed(test_options, is_train=False))


def test_the_hosts_pairs_are_read_before_the_run(options, faces):
    pairs = {"name": "t", "type": "PairedImageDataset", "dataroot_gt": str(faces), "dataroot_lq": str(faces)}
    pairs |= {"io_backend": {"type": "disk"}, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    pairs |= {"scale": 1, "phase": "train"}  # which BasicSR adds
    options["datasets"]["train"] = pairs
    with pytest.raises(GPENError, match="train:gt_size: missing; expected a key that PairedImageDataset reads"):
        check_run(parsed(options))
    pairs |= {"gt_size": 16, "use_hflip": True, "use_rot": False}
    with pytest.raises(GPENError, match=r"datasets:train:gt: gives ground truth of 16 x 16 px; .*out_size, 32"):
        check_run(parsed(options))
    pairs["gt_size"] = 32
    check_run(parsed(options))


def test_other_models_of_the_host_are_left_alone_but_for_what_is_ours(options):
    check_run({"model_type": "SRModel", "datasets": {}, "path": {}, "whatever": 1, "is_train": True, "num_gpu": 0})
    host_options = {**options, "model_type": "SRModel", "network_d": None, "train": {"anything": 1}}
    with pytest.raises(GPENError, match=r"network_g:value_range: is \[-1, 1\]; expected \[0, 1\]"):
        check_run(parsed(host_options))
    host_options["network_g"]["value_range"] = [0, 1]
    for data in host_options["datasets"].values():
        data["value_range"] = [0, 1]
    check_run(parsed(host_options))
    host_options["datasets"]["train"]["uint8"] = True
    with pytest.raises(GPENError, match=r"datasets:train:uint8: got true for SRModel, which takes floats"):
        check_run(parsed(host_options))


@pytest.mark.parametrize("strict", [True, False])
def test_weights_are_looked_at_unless_a_state_is_resumed(options, tmp_path, strict):
    options["path"] |= {
        "pretrain_network_g": str(tmp_path / "none.pth"),
        "strict_load_g": strict,
        "training_states": str(tmp_path / "training_states"),
    }
    for name in ("training_states", "models"):
        (tmp_path / name).mkdir()
    for label in "gd":
        torch.save({}, tmp_path / f"models/net_{label}_5.pth")
    with pytest.raises(GPENError, match=r"none\.pth"):
        check_run({**parsed(options), "auto_resume": True})
    torch.save({}, tmp_path / "training_states/5.state")
    check_run({**parsed(options), "auto_resume": True})


@pytest.fixture
def one_person(tmp_path):
    """A table of identities in which all faces show one person."""
    path = tmp_path / "identities.csv"
    path.write_text("image,identity\n" + "".join(f"face_{i},a\n" for i in range(8)))
    return path


@pytest.mark.usefixtures("each_metric_tried_once", "random_vgg", "random_fan", "random_arcface")
@pytest.mark.parametrize("file", OPTION_FILES, ids=lambda file: file.stem)
def test_every_option_file_is_right_but_for_its_data(faces, one_person, file):
    """All YAML under options/: keys, types and values; networks are built at full size without memory."""
    first, *_ = file.read_text().splitlines()
    script = "test" if "test" in file.name else "train"
    assert first == f"# python basicsr/{script}.py -opt {file.relative_to(REPOSITORY)}"
    options = yaml.safe_load(file.read_text())
    for data in options["datasets"].values():
        data |= {"dataroot_gt": str(faces), "io_backend": {"type": "disk"}}
        if "dataroot_lq" in data:
            data["dataroot_lq"] = str(faces)  # maps, which are not opened before the run
        if "references" in data:
            data["references"] = {"identities": str(one_person)}
    for key in options["path"]:
        if key.startswith("pretrain_"):
            options["path"][key] = None
    options["num_gpu"] = 0
    check_run(parsed(options, is_train="train" in options))
    assert options["network_g"]["type"] in registered("arch")


def test_there_are_option_files():
    assert len(OPTION_FILES) >= 21


def test_the_papers_setting_is_the_papers():
    options = yaml.safe_load((REPOSITORY / "options" / "gpen_finetune.yml").read_text())
    assert options["network_g"]["out_size"] == 1024
    train, data = options["train"], options["datasets"]["train"]
    assert (train["optim"]["lr"], train["optim"]["lr_ratio"]) == (0.002, [100, 10, 1])
    assert (train["pixel_opt"]["loss_weight"], train["feature_matching_opt"]["loss_weight"]) == (1, 0.02)
    assert data["batch_size_per_gpu"] == 1
    degradation = data["degradation"]
    assert [degradation[f"{name}_range"] for name in ("downsample", "noise", "jpeg")] == [[10, 200], [0, 25], [5, 50]]


def test_a_released_file_passes_as_it_is(options, tmp_path):
    """A flat state dict under the authors' names, with their FIR buffers, at param_key ~."""
    from gpen_plugin.archs.key_maps import to_authors

    path = tmp_path / "released.pth"
    torch.save(to_authors(GPEN(32, num_style_feat=16, num_mlp=2, narrow=0.03125).state_dict(), (1, 3, 3, 1)), path)
    options["path"] |= {"pretrain_network_g": str(path), "param_key_g": None}
    check_run(parsed(options))
    options["path"]["param_key_g"] = "params"
    with pytest.raises(GPENError, match="name no entry"):
        check_run(parsed(options))
