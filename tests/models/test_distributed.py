"""Several ranks, as processes over gloo on the CPU, in the host's own `train_pipeline` and `test_pipeline`."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from helpers.ranks import Ranks

EXACT = {"rtol": 0, "atol": 0}
# Measured: weights differ by 2.4e-7 after four iterations in which they moved by up to 9e-3, losses by 2e-6 of their
# values. A batch is summed in another order, no more. Adam's usual eps of 1e-8 would make steps of full length out of
# gradients that are nothing but rounding: 1e-5.
ROUNDING = {"rtol": 1e-6, "atol": 2e-6}
EPS = 1e-3


@pytest.fixture(scope="module")
def ranks(clean_python, tmp_path_factory):
    with Ranks(clean_python, tmp_path_factory.mktemp("ranks")) as ranks:
        yield ranks


@pytest.fixture
def run(ranks, write_options, tmp_path):
    """Runs a job on so many ranks, in a folder of its own if none is named; with `error`, it has to end so on each."""

    def run_job(count: int, job: str, options: dict, *arguments: str, name: str = "", error: str = "", **more):
        folder = tmp_path / (name or f"{job}_{len(list(tmp_path.iterdir()))}")
        folder.mkdir(exist_ok=True)
        records = ranks.run(count, job, write_options(options, f"{folder.name}/options.yml"), *arguments, **more)
        for record in records:
            assert record["error"] == error or (error and record["error"].startswith(error)), record["error"]
        return records

    return run_job


def stage(name: str, options: dict, prior_options: dict) -> dict:
    """Options whose result does not depend on how a batch is divided."""
    chosen = copy.deepcopy({"GPENModel": options, "GPENPriorModel": prior_options}[name])
    chosen["network_d"]["stddev_group"] = 1  # the minibatch deviation is taken within a rank
    chosen["train"]["warmup_iter"] = -1
    if name == "GPENModel":
        chosen["train"]["optim"] |= {"eps": EPS, "lr_ratio": [1, 1, 1]}
    else:
        chosen["train"] |= {"path_batch_shrink": 1, "augment_opt": {"p": 0.5, "ramp_images": 100, "every": 2}}
        for optim in ("optim_g", "optim_d"):
            chosen["train"][optim]["eps"] = EPS
    return chosen


def with_batch(options: dict, batch: int) -> dict:
    changed = copy.deepcopy(options)
    changed["datasets"]["train"]["batch_size_per_gpu"] = batch
    return changed


def assert_close(one: dict, other: dict, **tolerance: float) -> None:
    """Networks, by their names and the names of their tensors."""
    assert one["networks"].keys() == other["networks"].keys()
    for net, tensors in one["networks"].items():
        for name, tensor in tensors.items():
            message = f"{net}.{name}: {{}}".format
            torch.testing.assert_close(other["networks"][net][name], tensor, msg=message, **tolerance)


def assert_in_step(records: list[dict]) -> None:
    """Nothing tells the ranks apart but the images that they saw."""
    for other in records[1:]:
        assert_close(records[0], other, **EXACT)
        assert other["own"] == records[0]["own"]
        assert (other["skipped"], other["best"]) == (records[0]["skipped"], records[0]["best"])


@pytest.mark.parametrize("model", ["GPENModel", "GPENPriorModel"])
def test_two_ranks_of_one_image_are_one_rank_of_two(model, options, prior_options, run):
    """Four iterations; R1 at each second one, and for the prior path length and adaptive augmentation too."""
    options = stage(model, options, prior_options)
    del options["val"], options["datasets"]["val"]
    (one,) = run(1, "train", with_batch(options, 2))
    both = run(2, "train", with_batch(options, 1))
    assert one["images"] == [first + second for first, second in zip(*(rank["images"] for rank in both), strict=True)]
    assert_in_step(both)
    assert_close(one, both[0], **ROUNDING)
    own = {name: value for name, value in one["own"].items() if isinstance(value, float)}
    assert own == pytest.approx({name: both[0]["own"][name] for name in own}, rel=1e-5)
    assert all(own.values()), "R1 and path length took place"
    if model == "GPENPriorModel":
        assert one["own"]["augmentation"] == both[0]["own"]["augmentation"]
        assert one["own"]["augmentation"]["p"] != 0.5
    assert len(one["logs"]) == 4
    for log, shared in zip(one["logs"], both[0]["logs"], strict=True):
        assert log.keys() == shared.keys()
        for name in log:
            if not name.startswith("share_"):  # a mean of quotients is not the quotient of means
                assert shared[name] == pytest.approx(log[name], rel=1e-4, abs=1e-5), name


def test_parts_of_the_batches_of_two_ranks_are_one_batch(options, run):
    """Ranks exchange gradients in the last part only."""
    options = stage("GPENModel", options, {})
    del options["val"], options["datasets"]["val"]
    (one,) = run(1, "train", with_batch(options, 4))
    options["train"]["micro_batch"] = 1
    both = run(2, "train", with_batch(options, 2))
    assert_in_step(both)
    assert_close(one, both[0], **ROUNDING)


def test_a_signal_to_one_rank_stops_all_of_them(prior_options, run, tmp_path):
    prior_options["val"] = None
    prior_options["logger"] |= {"use_tb_logger": False, "save_checkpoint_freq": 3}
    both = run(2, "train", prior_options, name="stopped", stopped=2, error="SystemExit: 75")
    assert [len(record["logs"]) for record in both] == [2, 2]
    folder = tmp_path / "stopped/experiments" / prior_options["name"]
    assert [path.name for path in folder.glob("training_states/*")] == ["2.state"]
    resumed = run(2, "train", prior_options, "--auto_resume", name="stopped")
    assert [len(record["logs"]) for record in resumed] == [2, 2]
    assert_in_step(resumed)


def test_two_ranks_train_another_method_as_one_does(rival_options, run):
    """Pix2PixHD with R1, a gradient penalty, and iterations without its discriminator."""
    rival_options["train"] |= {"warmup_iter": -1, "gp_weight": 1.0, "content_only_iter": 1}
    rival_options["train"] |= {"r1_reg_weight": 1, "net_d_reg_every": 2, "pixel_opt": {"type": "L1Loss"}}
    for name in ("optim_g", "optim_d"):
        rival_options["train"][name]["eps"] = EPS
    del rival_options["val"], rival_options["datasets"]["val"]
    (one,) = run(1, "train", with_batch(rival_options, 2))
    both = run(2, "train", with_batch(rival_options, 1))
    assert_in_step(both)
    # The weights move by up to 8e-3. Instance norms of few pixels amplify roundings: measured 3e-5.
    assert_close(one, both[0], rtol=0, atol=3e-4)


def test_ranks_share_the_statistics_of_batch_norm(rival_options, run):
    rival_options["network_g"] = {"type": "SuperFAN", "out_size": 16, "num_feat": 4, "blocks": [1, 1, 1]}
    rival_options["train"] |= {"total_iter": 2, "content_only_iter": 2, "pixel_opt": {"type": "L1Loss"}}
    del rival_options["val"], rival_options["datasets"]["val"]
    records = run(2, "train", with_batch(rival_options, 1))
    assert_in_step(records)
    assert records[0]["networks"]["net_g"]["res1.0.bn1.running_mean"].abs().sum() > 0


VARIANTS = {  # beside those of the next test
    "input smaller than output": ({"in_size": 16}, {}),
    "noise added, decoder as it was": ({"noise_mode": "add"}, {"freeze_decoder": True}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_has_a_parameter_that_ranks_would_wait_for(variant, options, prior_options, run):
    network, train = VARIANTS[variant]
    options = with_batch(stage("GPENModel", options, prior_options), 1)
    options["network_g"] |= network
    if "in_size" in network:
        options["datasets"]["train"]["in_size"] = network["in_size"]
        for section in (options["network_g"], options["network_d"], options["datasets"]["train"]):
            section["out_size"] = 32
    options["train"] |= {"total_iter": 2, **train}
    del options["val"], options["datasets"]["val"]
    records = run(2, "train", options)
    assert [len(record["logs"]) for record in records] == [2, 2]
    assert_in_step(records)


@pytest.mark.parametrize(("model", "noise_mode"), [("GPENModel", "none"), ("GPENPriorModel", "add")])
def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_both(model, noise_mode, options, prior_options, run):
    options = with_batch(stage(model, options, prior_options), 1)
    options["network_g"]["noise_mode"] = noise_mode
    options["train"]["feature_matching_opt" if model == "GPENModel" else "augment_opt"] = None
    del options["val"], options["datasets"]["val"]
    records = run(2, "train", options, spoilt=[2, 3])
    assert_in_step(records)
    assert records[0]["skipped"] == {"GPENModel": 5, "GPENPriorModel": 3}[model]  # of (G,) D and R1, and of (G and) D
    assert records[0]["logs"][-1]["nonfinite_steps"] == records[0]["skipped"]
    assert all(tensor.isfinite().all() for net in records[0]["networks"].values() for tensor in net.values())


def test_both_ranks_end_when_patience_does(options, run):
    options = with_batch(options, 1)
    options["train"] |= {"nonfinite_patience": 2, "r1_reg_weight": 0, "feature_matching_opt": None}
    said = "TrainingError: train:nonfinite_patience: 2: 2 steps in a row"
    records = run(2, "train", options, spoilt=range(2, 7), error=said)
    assert [len(record["images"]) for record in records] == [3, 3]
    assert_in_step(records)


@pytest.mark.parametrize(("model", "images"), [("GPENModel", 1), ("GPENPriorModel", 3)])
def test_a_shared_validation_is_that_of_one_rank(model, images, options, prior_options, run, tmp_path):
    options = stage(model, options, prior_options)
    options["datasets"]["val"]["num_images"] = images
    options["val"]["metrics"]["swd"] = {"type": "calculate_swd", "better": "lower"}
    options["val"]["save_img"] = True
    metrics = options["val"]["metrics"]
    (one,) = run(1, "validate", options, name="one")
    both = run(2, "validate", options, name="both")
    assert [record["restored"] for record in both] == [[*range(0, images, 2)], [*range(1, images, 2)]]
    assert [record["measured"] for record in both] == [len(metrics) * len(record["restored"]) for record in both]
    assert one["results"].keys() == metrics.keys()
    for record in both:
        assert record["results"] == one["results"]
        assert record["best"] == one["best"]
    assert sorted(both[0]["written"] + both[1]["written"]) == sorted(one["written"])
    assert both[0]["written"][-1] == one["written"][-1] == "grid_val_1.png"
    grids = [
        tmp_path / name / "experiments" / options["name"] / "visualization/grid_val_1.png" for name in ("one", "both")
    ]
    assert grids[0].read_bytes() == grids[1].read_bytes()


def test_what_the_ranks_find_out_together(options, faces, run, tmp_path):
    """Each validation is logged once. Without a seed they sample one, and they add up their unreadable images."""
    folder = shutil.copytree(faces, tmp_path / "some_broken")
    for number in (0, 4):  # the first of each rank
        (folder / f"face_{number}.png").write_bytes(b"broken")
    options = with_batch(options, 1)
    options.pop("manual_seed")
    options["datasets"]["train"] |= {"dataroot_gt": str(folder), "on_error": "skip"}
    options["train"]["total_iter"], options["val"]["val_freq"] = 2, 1
    first, second = run(2, "train", options, name="run")
    assert first["seed"] == second["seed"] is not None
    assert [rank["logs"][0]["skipped"] for rank in (first, second)] == [2, 2]
    (log,) = (tmp_path / "run" / "experiments" / "small").glob("*.log")
    shown = log.read_text()
    assert shown.count("Validation val") == 2
    assert shown.count("iter:       2") == 1
    assert len(list((tmp_path / "run" / "tb_logger" / "small").iterdir())) == 1


def test_a_test_is_shared_too(options, test_options, run, tmp_path):
    """Without training the network itself is measured, which the host has wrapped for several GPUs."""
    torch.save({"params_ema": build_network(dict(options["network_g"])).state_dict()}, tmp_path / "g.pth")
    test_options["path"]["pretrain_network_g"] = str(tmp_path / "g.pth")
    test_options["datasets"]["test_1"]["num_images"] = 3
    (one,), both = run(1, "test", test_options), run(2, "test", test_options)
    assert sorted(both[0]["restored"] + both[1]["restored"]) == one["restored"] == [0, 1, 2]
    assert both[0]["results"] == both[1]["results"] == one["results"] != {}


@pytest.fixture
def stopped(run, tmp_path):
    """Trains five iterations on two ranks, and puts what was saved at the third where another run will look for it."""

    def train_and_stop(options: dict) -> list[dict]:
        options["datasets"]["train"] |= {"num_images": 4, "batch_size_per_gpu": 1}  # an epoch has two iterations
        options["train"]["total_iter"] = 5
        options["logger"] |= {"save_checkpoint_freq": 3, "use_tb_logger": False}
        whole = run(2, "train", options, name="whole")
        for folder in ("models", "training_states"):
            saved = Path("experiments", options["name"], folder)
            (tmp_path / "resumed" / saved).mkdir(parents=True)
            for file in (tmp_path / "whole" / saved).glob("*3.*"):
                shutil.copy(file, tmp_path / "resumed" / saved)
        return whole

    return train_and_stop


@pytest.mark.parametrize("model", ["GPENModel", "GPENPriorModel"])
def test_two_ranks_or_one_resume_where_two_stopped(model, options, prior_options, stopped, run, tmp_path):
    options = copy.deepcopy({"GPENModel": options, "GPENPriorModel": prior_options}[model])
    if model == "GPENPriorModel":
        options["train"]["augment_opt"] = {"p": 0.5, "ramp_images": 100, "every": 2}  # the state lies in between
        options["manual_seed"] = 2
    whole = stopped(options)
    shutil.copytree(tmp_path / "resumed", tmp_path / "alone")
    resumed = run(2, "train", options, "--auto_resume", name="resumed")
    assert_in_step(resumed)
    for one, other in zip(whole, resumed, strict=True):
        assert_close(one, other, **EXACT)
        assert other["images"] == one["images"][3:]
        assert other["own"] == one["own"]
        assert other["best"] == one["best"]
    assert resumed[0]["logs"] == whole[0]["logs"][3:]
    if model == "GPENPriorModel":
        sign = whole[0]["logs"][2]["d_sign_real"]
        state = torch.load(tmp_path / "resumed/experiments/small_prior/training_states/3.state", weights_only=True)
        assert len(state["random"]) == 2
        assert state["augmentation"]["sign_sum"] == sign
        assert abs(sign) < 1, "the two ranks' signs differ, or the first one's would do"
    else:  # at the image that would have come next, to the last iteration, although epochs of one rank are longer
        due = [image for both in zip(*(rank["images"] for rank in whole), strict=True) for (image,) in both]
        (alone,) = run(1, "train", options, "--auto_resume", name="alone")
        assert alone["images"] == [[image] for image in due[6:8]]


def test_machines_without_a_common_disk_do_not_part(options, run, tmp_path):
    """Only the first finds the state: the others would begin anew, and train something else beside it."""
    options["train"]["total_iter"] = 1
    options["logger"]["save_checkpoint_freq"] = 1
    run(1, "train", options, name="run")
    (tmp_path / "run/machine_0").mkdir()
    (tmp_path / "run/experiments").rename(tmp_path / "run/machine_0/experiments")
    said = "CheckpointError: path:resume_state: the ranks found"
    records = run(2, "train", options, "--auto_resume", name="run", apart=True, error=said)
    assert not any(record["images"] for record in records)
