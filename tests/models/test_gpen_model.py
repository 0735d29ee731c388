"""GPENModel inside the host's own `train_pipeline`, on the CPU."""

import copy
import shutil

import pytest
import torch
from basicsr.models import build_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpen_plugin.errors import CheckpointError, OptionError


def ready(options: dict, **more) -> dict:
    """Options as the host's parser leaves them."""
    return copy.deepcopy({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1, **more})


@pytest.fixture
def model(options):
    torch.manual_seed(0)
    return build_model(ready(options))


def batch(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1 for name in ("lq", "gt")}


def parameters(*nets) -> list[torch.Tensor]:
    return [parameter.detach().clone() for net in nets for parameter in net.parameters()]


def test_three_groups_hold_every_parameter_once(model):
    (optimizer,) = model.optimizers
    assert [group["name"] for group in optimizer.param_groups] == ["encoder", "decoder", "discriminator"]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-3, 2e-4, 2e-5])
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for net in (model.net_g, model.net_d) for p in net.parameters())


def test_lazy_scaling_really_acts(options):
    options["train"]["optim"] |= {"lazy_lr_scaling": True, "betas": [0.5, 0.99]}
    model = build_model(ready(options))
    group = model.optimizer.param_groups[-1]
    assert group["lr"] == pytest.approx(2e-5 * 2 / 3)  # a penalty at every 2nd iteration
    assert group["betas"] == pytest.approx((0.5 ** (2 / 3), 0.99 ** (2 / 3)))


def test_schedulers_and_warm_up_act_on_all_three(model):
    rates = []
    for i in range(1, 5):
        model.optimizer.step()
        model.update_learning_rate(i, warmup_iter=2)
        rates.append(model.get_current_learning_rate())
    for first, second, third in rates:
        assert (second / first, third / first) == pytest.approx((0.1, 0.01))
    assert rates[0][0] == pytest.approx(2e-3 / 2)
    assert rates[3][0] == pytest.approx(rates[2][0] / 2)


def test_one_iteration_moves_every_network_and_the_average_follows(model):
    before = parameters(model.net_g), parameters(model.net_d), parameters(model.net_g_ema)
    model.feed_data(batch())
    model.optimize_parameters(1)
    after = parameters(model.net_g), parameters(model.net_d), parameters(model.net_g_ema)
    for old, new in zip(before[:2], after[:2], strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
    for old, new, average in zip(before[2], after[0], after[2], strict=True):
        torch.testing.assert_close(average, 0.9 * old + 0.1 * new)


def test_the_average_takes_buffers_over(model):
    model.net_g.register_buffer("counter", torch.tensor(5.0))
    model.net_g_ema.register_buffer("counter", torch.tensor(1.0))
    model.model_ema(decay=0.9)
    assert model.net_g_ema.counter.item() == 5


def test_log_holds_every_loss_and_the_three_rates(model):
    model.feed_data(batch())
    model.optimize_parameters(2)
    log = model.get_current_log()
    assert {"l_g_gan", "l_g_pix", "l_g_feat", "l_d", "l_d_r1", "out_d_real", "out_d_fake"} <= set(log)
    assert log["lr_encoder"] == pytest.approx(100 * log["lr_discriminator"])
    assert log["l_d_r1"] > 0


def test_without_optional_losses(options):
    options["train"] |= {"pixel_opt": None, "feature_matching_opt": None, "r1_reg_weight": 0}
    model = build_model(ready(options))
    model.feed_data(batch())
    model.optimize_parameters(2)
    assert not {"l_g_pix", "l_g_feat", "l_d_r1"} & set(model.get_current_log())


def test_visuals_leave_the_model_between_0_and_1(model):
    model.feed_data({"lq": torch.full((1, 3, 16, 16), -1.0), "gt": torch.full((1, 3, 16, 16), 1.0)})
    model.grid_rows = []
    model.test()
    visuals = model.get_current_visuals()
    assert visuals["lq"].unique().tolist() == [0]
    assert visuals["gt"].unique().tolist() == [1]


def test_a_set_without_ground_truth_does_not_show_the_last_batchs(model):
    model.feed_data(batch())
    model.feed_data({"lq": batch()["lq"]})
    model.grid_rows = []
    model.test()
    assert set(model.get_current_visuals()) == {"lq", "result"}


def states(folder, iteration: int) -> dict:
    files = ("models/net_g_{}.pth", "models/net_d_{}.pth", "training_states/{}.state")
    return {name: torch.load(folder / name.format(iteration), weights_only=True) for name in files}


def assert_same(one, other, path=""):
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}:{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}:{i}")
    elif torch.is_tensor(one):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def test_stopped_and_resumed_is_the_same_as_not_stopped(options, train, tmp_path):
    """Within an epoch of four iterations, and at its end: networks, average, optimizer and best metrics agree."""
    options["train"]["total_iter"], options["logger"]["save_checkpoint_freq"] = 5, 1
    whole = train(options, tmp_path / "whole")
    for stop, workers in ((3, 1), (4, 0)):  # a worker draws what the main process draws
        options["datasets"]["train"]["num_worker_per_gpu"] = workers
        root = tmp_path / f"stopped at {stop}"
        stopped = root / "experiments" / options["name"]
        for folder in ("models", "training_states"):
            (stopped / folder).mkdir(parents=True)
            for file in (whole / folder).glob(f"*{stop}.*"):
                shutil.copy(file, stopped / folder)
        resumed = train(options, root, "--auto_resume")
        assert_same(states(whole, 5), states(resumed, 5), f"stopped at {stop}")
        assert not list(stopped.parent.glob("*archived*"))


def test_a_run_leaves_networks_states_grids_and_scalars(options, train, tmp_path):
    folder = train(options)
    assert {path.name for path in (folder / "models").iterdir()} == {
        f"net_{net}_{i}.pth" for net in "gd" for i in (2, 4, "latest")
    }
    assert set(torch.load(folder / "models/net_g_4.pth", weights_only=True)) == {"params", "params_ema"}
    assert {path.name for path in (folder / "visualization").iterdir()} == {"grid_val_2.png", "grid_val_4.png"}
    events = EventAccumulator(str(tmp_path / "tb_logger" / "small")).Reload()
    assert {"lr_encoder", "lr_decoder", "lr_discriminator", "losses/l_g_feat", "metrics/val/psnr"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("metrics/val/psnr")] == [2, 4]
    assert "grid/val" in events.Tags()["images"]
    state = torch.load(folder / "training_states/4.state", weights_only=True)
    assert state["best_metric_results"]["val"]["psnr"]["iter"] in (2, 4)


def test_training_learns(options, train, tmp_path):
    """Thirty iterations bring the validation's PSNR up by more than chance would."""
    options["train"] |= {"total_iter": 30, "warmup_iter": -1}
    options["train"]["scheduler"]["milestones"] = [1000]
    options["train"]["optim"]["lr"] = 0.02
    options["val"]["val_freq"] = 10
    options["logger"] |= {"save_checkpoint_freq": 100, "print_freq": 20}
    train(options)
    events = EventAccumulator(str(tmp_path / "tb_logger" / "small")).Reload()
    values = [event.value for event in events.Scalars("metrics/val/psnr")]
    assert values[-1] > values[0] + 1, values


def test_an_unreadable_weight_file_names_its_key(options, tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(b"no weights")
    options["path"]["pretrain_network_g"] = str(path)
    with pytest.raises(CheckpointError, match="path:pretrain_network_g"):
        build_model(ready(options))


@pytest.mark.parametrize("entry", ["params", None])
def test_partial_loading_fills_network_and_average_alike(options, tmp_path, entry):
    other = build_model(ready(options)).net_g.state_dict()
    path = tmp_path / "g.pth"
    partial = {name: tensor for name, tensor in other.items() if "to_rgb" not in name}
    torch.save({entry: partial} if entry else partial, path)
    options["path"] |= {"pretrain_network_g": str(path), "param_key_g": entry, "strict_load_g": False}
    model = build_model(ready(options))
    held, average = model.net_g.state_dict(), model.net_g_ema.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in partial.items())
    assert all(torch.equal(held[name], average[name]) for name in held)
    torch.save({name + ".x": tensor for name, tensor in partial.items()}, path)
    options["path"]["param_key_g"] = None
    with pytest.raises(CheckpointError, match="path:pretrain_network_g"):
        build_model(ready(options))


def test_unreadable_images_are_counted_in_the_log(options, train, faces, tmp_path):
    folder = shutil.copytree(faces, tmp_path / "some_broken")
    (folder / "face_3.png").write_bytes(b"broken")
    options["datasets"]["train"] |= {"dataroot_gt": str(folder), "on_error": "skip", "num_worker_per_gpu": 1}
    log = next(train(options).glob("train_small_*.log")).read_text()
    assert "skipped: 1.0000e+00" in log  # one broken image in an epoch of eight


def test_ratio_of_two_numbers(options):
    options["train"]["optim"]["lr_ratio"] = [100, 10]
    with pytest.raises(OptionError, match=r"lr_ratio: got \[100, 10\]; expected three numbers"):
        build_model(ready(options))
