"""`train:precision` and `train:compile`, in both models: close to what they replace, and never where it would harm."""

import copy
import os
import tempfile

import pytest
import torch
from basicsr.models import build_model

from gpen_plugin.models import gan_steps
from gpen_plugin.models.adversarial_model import processor_digest

LOSSES = {
    "GPENModel": {"l_g_gan", "l_g_pix", "l_g_feat", "l_d", "l_d_r1"},
    "GPENPriorModel": {"l_g_gan", "l_g_path", "l_d", "l_d_r1", "mean_path_length"},
}


@pytest.fixture(params=LOSSES)
def both(request, options, prior_options) -> dict:
    """Options of either model, whose second iteration has all losses."""
    chosen = {"GPENModel": options, "GPENPriorModel": prior_options}[request.param]
    chosen["train"].pop("augment_opt", None)
    return chosen


def build(options: dict, **train):
    torch.manual_seed(0)
    options = {**options, "train": {**options["train"], **train}}
    return build_model(copy.deepcopy({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1}))


def losses_of(model, iterations: int = 2) -> dict[str, float]:
    """The last iteration's losses."""
    generator = torch.Generator().manual_seed(0)
    for iteration in range(1, iterations + 1):
        size = model.net_d.out_size
        model.feed_data({name: torch.rand(2, 3, size, size, generator=generator) * 2 - 1 for name in ("lq", "gt")})
        model.optimize_parameters(iteration)
    log = model.get_current_log()
    return {name: float(log[name]) for name in LOSSES[model.opt["model_type"]]}


def test_bf16_gives_about_the_losses_of_fp32(both):
    exact, rounded = losses_of(build(both)), losses_of(build(both, precision="bf16"))
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.15, abs=0.02)


def test_bf16_is_the_forward_passes_alone(both, monkeypatch):
    """R1 and path length run in fp32 from the image to the penalty; losses, weights and average are fp32 anyway."""
    model, inside, penalties = build(both, precision="bf16"), [], []
    model.net_d.stem.register_forward_hook(lambda net, given, result: inside.append(("D", result.dtype)))
    generator = getattr(model.net_g, "decoder", model.net_g)
    generator.blocks["4"].conv1.register_forward_hook(lambda net, given, result: inside.append(("G", result.dtype)))
    for name in ("r1_penalty", "path_lengths"):
        original = getattr(gan_steps, name)

        def spy(*tensors, original=original, name=name):
            result = original(*tensors)
            assert not torch.is_autocast_enabled("cpu")
            penalties.append((name, {tensor.dtype for tensor in (*tensors, result)}))
            return result

        monkeypatch.setattr(gan_steps, name, spy)
    losses_of(model, iterations=1)
    assert {dtype for _, dtype in inside} == {torch.bfloat16}
    assert {net for net, _ in inside} == {"D", "G"}
    assert penalties == []
    inside.clear()
    losses_of(model, iterations=2)
    assert all(dtypes == {torch.float32} for _, dtypes in penalties)
    regularized = {"r1_penalty": "D", "path_lengths": "G"}
    assert {regularized[name] for name, _ in penalties} == {net for net, dtype in inside if dtype == torch.float32}
    assert {name for name, _ in penalties} == (
        {"r1_penalty"} if model.opt["model_type"] == "GPENModel" else {"r1_penalty", "path_lengths"}
    )
    for net in (model.net_g, model.net_d, model.net_g_ema):
        assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    for optimizer in model.optimizers:
        held = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
        assert {value.dtype for value in held} == {torch.float32}


def test_validation_of_a_bf16_training_is_fp32(both):
    both["val"]["metrics"] = None
    model, dtypes = build(both, precision="bf16"), []
    decoder = getattr(model.net_g_ema, "decoder", model.net_g_ema)
    decoder.blocks["4"].conv1.register_forward_hook(lambda net, given, result: dtypes.append(result.dtype))
    model.to_images({name: torch.zeros(1, 3, 16, 16) for name in ("lq", "gt")}, 0)
    assert dtypes == [torch.float32]


def test_compiled_networks_give_the_same_losses_and_are_compiled_once(both):
    both["network_g"] |= {"out_size": 16, "num_mlp": 1}  # compiling takes long enough
    both["network_d"]["out_size"] = 16
    counts = torch._dynamo.utils.counters
    eager = losses_of(build(both))
    torch.compiler.reset()
    counts.clear()
    # A prior's backward passes differ from those of GPENModel in nothing that is compiled. The usual partitioner loads
    # the inductor, which takes seconds.
    gpen = both["model_type"] == "GPENModel"
    model = build(both, compile="aot_eager_default_partitioner" if gpen else "eager")
    if gpen:
        assert not torch._functorch.config.donated_buffer, "or some versions refuse to go back through D twice"
    assert losses_of(model) == pytest.approx(eager, rel=2e-4, abs=1e-6)
    graphs = counts["stats"]["unique_graphs"]
    assert graphs >= 3
    losses_of(model, iterations=3)
    assert counts["stats"]["unique_graphs"] == graphs
    assert not counts["graph_break"]
    assert model.net_g.state_dict().keys() == model.net_g_ema.state_dict().keys()
    torch.compiler.reset()


def test_each_kind_of_processor_has_a_kernel_cache_of_its_own(options, monkeypatch, tmp_path):
    """Temporary folders and homes are shared between unlike machines, and one's kernels crash on another."""
    runtime = pytest.importorskip("torch._inductor.runtime.runtime_utils")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", runtime.default_cache_dir())  # what importing the inductor does
    build(options, compile="aot_eager")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == f"{runtime.default_cache_dir()}_{processor_digest()}"
    here = processor_digest()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX1024")
    assert processor_digest() != here


def test_a_kernel_cache_that_the_user_set_stays(options, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    build(options, compile="aot_eager")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
