"""GPENPriorModel inside the host's own `train_pipeline` and step by step, on the CPU."""

import copy
import sys

import cv2
import numpy as np
import pytest
import torch
from basicsr.models import build_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.cli import test as testing
from gpen_plugin.models import adversarial_model, gan_prior_model, gan_steps


def build(options: dict, **more):
    """A model as the host builds it, without a run around it."""
    torch.manual_seed(0)
    return build_model(copy.deepcopy({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1, **more}))


def batch(seed: int = 0, count: int = 2) -> dict:
    return {"gt": torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1}


def iterate(model, last: int, first: int = 1) -> list[dict]:
    """Iterations on ever the same images; the log of each."""
    logs = []
    for iteration in range(first, last + 1):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        logs.append(dict(model.get_current_log()))
    return logs


def weights(net) -> dict:
    return copy.deepcopy(net.state_dict())


# --- a run


def test_a_run_leaves_networks_states_pages_and_scalars(prior_options, train, tmp_path):
    folder = train(prior_options)
    assert {path.name for path in (folder / "models").iterdir()} == {
        f"net_{net}_{i}.pth" for net in "gd" for i in (2, 4, "latest")
    }
    assert set(torch.load(folder / "models/net_g_4.pth", weights_only=True)) == {"params", "params_ema"}
    assert {path.name for path in (folder / "training_states").iterdir()} == {"2.state", "4.state"}
    page = cv2.imread(str(folder / "visualization/grid_val_4.png"))
    assert page.shape[1] > 3 * page.shape[0] / 2  # raw, average and truncated average stand side by side
    events = EventAccumulator(str(tmp_path / "tb_logger/small_prior")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {f"losses/{name}" for name in ("l_d", "l_d_r1", "l_g_gan", "l_g_path")} <= scalars
    assert {"lr_generator", "lr_discriminator", "mean_path_length", "augment_p", "out_d_real"} <= scalars
    assert [event.step for event in events.Scalars("metrics/val/swd")] == [2, 4]
    assert [event.step for event in events.Images("grid/val")] == [2, 4]
    best = torch.load(folder / "training_states/4.state", weights_only=True)["best_metric_results"]["val"]["swd"]
    assert best["better"] == "lower"
    assert best["val"] == pytest.approx(min(event.value for event in events.Scalars("metrics/val/swd")))


def test_validations_with_unchanged_weights_give_the_same_page_and_metric(prior_options, train, tmp_path):
    pages, values = {}, {}
    prior_options["train"]["total_iter"], prior_options["val"]["val_freq"] = 2, 1
    for name, rate in (("still", 1e-30), ("learning", 0.01)):
        for optim in ("optim_g", "optim_d"):
            prior_options["train"][optim] = {"lr": rate, "betas": [0, 0.99]}
        folder = train({**prior_options, "name": name})
        pages[name] = [cv2.imread(str(folder / f"visualization/grid_val_{i}.png")) for i in (1, 2)]
        events = EventAccumulator(str(tmp_path / f"tb_logger/{name}")).Reload()
        values[name] = [event.value for event in events.Scalars("metrics/val/swd")]
    assert np.array_equal(*pages["still"])
    assert values["still"][0] == values["still"][1]
    assert not np.array_equal(*pages["learning"])
    assert values["learning"][0] != values["learning"][1]


def test_images_of_a_prior_by_the_hosts_testing(prior_options, train, tmp_path, monkeypatch, write_options):
    """One sample of the average per image of the set, the metric of the two sets, and the page of two panels."""
    training = {**prior_options, "train": {**prior_options["train"], "total_iter": 1}, "val": None}
    weights_file = train(training) / "models/net_g_latest.pth"
    options = {
        "name": "samples",
        **{key: prior_options[key] for key in ("model_type", "num_gpu", "manual_seed", "network_g")},
        "datasets": {"test_1": {**prior_options["datasets"]["val"], "name": "test"}},
        "path": {"pretrain_network_g": str(weights_file), "param_key_g": "params_ema"},
        "val": {**prior_options["val"], "save_img": True, "truncation": 0.5},
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test.py"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    assert testing.main(["-opt", str(write_options(options))]) == 0
    folder = tmp_path / "results/samples/visualization"
    files = sorted((folder / "test").glob("*.png"))
    assert [file.name for file in files] == [f"face_{i}_samples.png" for i in range(4)]
    assert (folder / "grid_test_samples.png").is_file()
    net = GPENPrior(**{key: value for key, value in options["network_g"].items() if key != "type"})
    net.load_state_dict(torch.load(weights_file, weights_only=True)["params_ema"])
    net.to(memory_format=torch.channels_last)  # as the model: other kernels round otherwise
    model = build(prior_options)
    for place, file in enumerate(files):  # the same latent codes as in the validations of the training
        assert np.array_equal(cv2.imread(str(file)), model._samples(net, [place])[0])


# --- optimizers and average


def test_rates_and_betas_with_the_correction_for_lazy_regularization(prior_options):
    for name in ("optim_g", "optim_d"):
        prior_options["train"][name] = {"lr": 0.002, "betas": [0.5, 0.99]}
    prior_options["train"] |= {"net_g_reg_every": 4, "net_d_reg_every": 16}
    groups = [optimizer.param_groups[0] for optimizer in build(prior_options).optimizers]
    assert [group["name"] for group in groups] == ["generator", "discriminator"]
    for group, share in zip(groups, (4 / 5, 16 / 17), strict=True):
        assert group["lr"] == pytest.approx(0.002 * share)
        assert group["betas"] == pytest.approx((0.5**share, 0.99**share))
    model = build(prior_options)
    for optimizer, net in zip(model.optimizers, (model.net_g, model.net_d), strict=True):
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        assert held == {id(parameter) for parameter in net.parameters()}


@pytest.mark.parametrize(
    "change", [{"lazy_lr_scaling": False}, {"r1_reg_weight": 0, "path_reg_weight": 0}], ids=["off", "nothing lazy"]
)
def test_without_the_correction_rates_are_the_option_files(prior_options, change):
    prior_options["train"] |= change
    for optimizer in build(prior_options).optimizers:
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (0.002, (0.0, 0.99))


@pytest.mark.parametrize("ranks", [1, 4])
def test_the_average_halves_in_the_images_of_all_ranks(prior_options, ranks):
    """Two images on each of the ranks, and a half-life of 10."""
    model = build(prior_options, world_size=ranks)
    before = weights(model.net_g_ema)
    iterate(model, 1)
    after, kept = weights(model.net_g), 0.5 ** (2 * ranks / 10)
    for name, average in model.net_g_ema.state_dict().items():
        torch.testing.assert_close(average, kept * before[name] + (1 - kept) * after[name])
    assert any(not torch.equal(before[name], after[name]) for name in before)


# --- steps


def test_r1_and_path_length_come_at_their_iterations_alone(prior_options, monkeypatch):
    every_d, every_g = 2, 3
    prior_options["train"] |= {"net_d_reg_every": every_d, "net_g_reg_every": every_g, "augment_opt": None}
    steps = []
    for place, name in ((adversarial_model, "r1_step"), (gan_prior_model, "path_length_step")):
        monkeypatch.setattr(place, name, noting(steps, getattr(place, name)))
    model = build(prior_options)
    found = {}
    for iteration in range(1, 7):
        steps.clear()
        (log,) = iterate(model, iteration, iteration)
        found[iteration] = [name for name, _ in steps]
        assert all(
            options["every"] == {"r1_step": every_d, "path_length_step": every_g}[name] for name, options in steps
        )
        assert ("l_d_r1" in log, "l_g_path" in log) == (True, True)  # between them the last value
    for name, every in (("r1_step", every_d), ("path_length_step", every_g)):
        assert [i for i in found if name in found[i]] == list(range(every, 7, every))


def noting(calls: list, original):
    def call(*arguments, **options):
        calls.append((original.__name__, options))
        return original(*arguments, **options)

    return call


def test_weights_of_0_leave_the_regularizers_out(prior_options, monkeypatch):
    prior_options["train"] |= {"r1_reg_weight": 0, "path_reg_weight": 0}
    for place, name in ((adversarial_model, "r1_step"), (gan_prior_model, "path_length_step")):
        monkeypatch.delattr(place, name)
    for log in iterate(build(prior_options), 2):
        assert not {"l_d_r1", "l_g_path", "mean_path_length"} & set(log)


def test_path_length_takes_a_smaller_batch(prior_options, monkeypatch):
    prior_options["train"] |= {"path_batch_shrink": 3, "net_g_reg_every": 1}
    sizes, original = [], gan_steps.path_lengths
    monkeypatch.setattr(
        gan_steps, "path_lengths", lambda *given: sizes.append([len(t) for t in given]) or original(*given)
    )
    model = build(prior_options)
    for iteration, count in ((1, 6), (2, 2)):
        model.feed_data(batch(count=count))
        model.optimize_parameters(iteration)
    assert sizes == [[2] * 3, [1] * 3]  # never none


@pytest.mark.parametrize("probability", [0, 1])
def test_styles_are_mixed_never_or_always(prior_options, probability):
    prior_options["train"]["mixing_prob"] = probability
    model, places = build(prior_options), []
    model.net_g.register_forward_pre_hook(
        lambda net, given, named: places.append(named["inject_index"]), with_kwargs=True
    )
    iterate(model, 4)
    places, codes = torch.cat(places), model.net_g.num_latent
    assert len(places) == 4 * 4 + 2  # D's and G's two images, and at every second iteration one for path length
    assert ((places < codes) == bool(probability)).all()
    assert ((places >= 1) & (places <= codes)).all()
    if probability:
        assert len(places.unique()) > 3


@pytest.mark.parametrize("mode", ["concat", "add", "none"])
def test_every_noise_mode_trains_and_every_parameter_moves(prior_options, mode):
    prior_options["network_g"]["noise_mode"] = mode
    model = build(prior_options)
    before = weights(model.net_g), weights(model.net_d)
    logs = iterate(model, 2)
    for old, net in zip(before, (model.net_g, model.net_d), strict=True):
        assert [name for name, tensor in net.state_dict().items() if torch.equal(tensor, old[name])] == []
    assert all(np.isfinite(float(value)) for log in logs for value in log.values())
    assert float(logs[-1]["l_d_r1"]) > 0
    assert float(logs[-1]["mean_path_length"]) > 0


# --- augmentation


@pytest.mark.parametrize(("target", "direction"), [(-0.99, 1), (0.99, -1)])
def test_p_of_the_augmentation_is_in_the_log_and_follows_d(prior_options, target, direction):
    """Two images per iteration and an adjustment at every second one: by 4 / 100."""
    prior_options["train"]["augment_opt"] = {"p": 0.5, "target": target, "ramp_images": 100, "every": 2}
    model = build(prior_options)
    with torch.no_grad():  # D is sure of all: of one thing or of the other
        model.net_d.logit.bias.fill_(100.0 * direction)
    found = [round(float(log["augment_p"]), 4) for log in iterate(model, 5)]
    assert found == [round(0.5 + direction * 0.04 * steps, 4) for steps in (0, 1, 1, 2, 2)]


def test_d_and_r1_see_the_same_augmented_images(prior_options, monkeypatch):
    prior_options["train"]["augment_opt"] = {"p": 1.0, "target": None, "transforms": ["color", "translate"]}
    seen, original = [], adversarial_model.r1_step
    monkeypatch.setattr(
        adversarial_model,
        "r1_step",
        lambda net, optimizer, parts, **rest: original(net, optimizer, seen.extend(parts) or seen, **rest),
    )
    model, judged = build(prior_options), []
    model.net_d.register_forward_pre_hook(lambda net, given: judged.append(given[0].detach().clone()))
    iterate(model, 2)
    (at_r1,) = seen
    real, fake = judged[3:5]  # the first iteration has D's two and G's one
    assert torch.equal(at_r1.real, real)
    assert not torch.equal(real, model.gt)
    assert not torch.equal(real, fake)
