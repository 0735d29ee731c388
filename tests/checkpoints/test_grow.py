import re

import pytest
import torch
from helpers.small_networks import OF_D, SMALL, built, rounding_error, same, saved, weights

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.layers import StyledConv, ToRGB
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.checkpoint import build
from gpen_plugin.cli.grow import main
from gpen_plugin.ops.upfirdn import fir_kernel, upfirdn2d

WIDE = {"num_style_feat": 8, "num_mlp": 2, "channel_multiplier": 1, "narrow": 0.0625}


def prior(size, mode, seed=0):
    return built(lambda: GPENPrior(size, noise_mode=mode, **WIDE), seed)


def grown(tmp_path, net, *options):
    """The network of the file that the command writes."""
    source = saved(tmp_path / "small.pth", {"params": net.state_dict(), "params_ema": net.state_dict()})
    target = tmp_path / "grown.pth"
    assert main([str(source), "-o", str(target), *map(str, options)]) == 0
    content = torch.load(target)
    assert same(content["params"], content["params_ema"])
    large = build(checkpoint.infer_spec(content["params"]))
    large.load_state_dict(content["params"])
    return large


def images(net, codes=4, noise=False):
    torch.manual_seed(1)
    latents = net.to_latents(torch.randn(codes, 8))
    with torch.no_grad():
        return net.synthesize(latents, net.make_noise(codes) if noise else [None] * len(net.blocks))


@pytest.mark.parametrize("mode", ["concat", "add", "none"])
def test_larger_prior_generates_the_same_images(tmp_path, mode):
    small = prior(32, mode)
    large = grown(tmp_path, small, "--out-size", 128)
    before, after = images(small), images(large)
    for one, other in zip(before, after, strict=False):
        torch.testing.assert_close(one, other)
    assert after[-1].shape[-1] == 128
    # by the generator's own filter: each 4 x 4 square keeps its mean away from the border
    means = torch.nn.functional.avg_pool2d(after[-1], 4)
    assert (means - before[-1])[:, :, 2:-2, 2:-2].abs().mean() < 0.2 * before[-1].std()


@pytest.mark.parametrize(
    ("before", "after", "close"),
    [("none", "add", 1e-5), ("add", "none", 1e-5), ("none", "concat", 0.2), ("add", "concat", 0.2)],
)
def test_another_noise_mode_generates_nearly_the_same(tmp_path, before, after, close):
    small = prior(64, before)
    other = grown(tmp_path, small, "--noise-mode", after)
    assert checkpoint.infer_spec(other.state_dict()).noise_mode == after
    old, changed = images(small)[-1], images(other, noise=True)[-1]
    assert (old - changed).square().mean().sqrt() <= close * old.std()


def test_new_noise_is_learnt(tmp_path):
    net = grown(tmp_path, prior(32, "none"), "--noise-mode", "concat")
    latents = net.to_latents(torch.randn(2, 8))
    net.synthesize(latents, net.make_noise(2))[-1].square().mean().backward()
    gradients = {name: p.grad.abs().sum() for name, p in net.named_parameters() if name.endswith("noise_weight")}
    assert gradients
    assert all(gradient > 0 for gradient in gradients.values())


def test_concatenated_noise_is_dropped(tmp_path):
    small = prior(32, "concat")
    other = grown(tmp_path, small, "--noise-mode", "none")
    wanted = {
        name: tuple(tensor.shape) for name, tensor in GPENPrior(32, noise_mode="none", **WIDE).state_dict().items()
    }
    assert {name: tuple(tensor.shape) for name, tensor in other.state_dict().items()} == wanted
    assert torch.equal(other.blocks["8"].conv0.weight, small.blocks["8"].conv0.weight[:, :32])


@pytest.mark.parametrize("after", ["none", "add"])
def test_unread_concatenated_noise_can_be_removed(tmp_path, after):
    small = prior(64, "concat")
    with torch.no_grad():
        for layer in small.modules():
            if isinstance(layer, StyledConv | ToRGB) and layer.weight.shape[1] % 2 == 0 and layer is not first(small):
                layer.weight[:, layer.weight.shape[1] // 2 :] = 0
    other = grown(tmp_path, small, "--noise-mode", after)
    bound, _ = rounding_error(small, torch.randn(4, 8), torch.float32, small.make_noise(4))
    assert (images(other, noise=True)[-1] - images(small)[-1]).abs().max() <= bound < 1e-3


def first(net):
    """The one convolution that reads the constant, and so no noise."""
    return net.blocks["4"].conv1


def halved(x, times):
    """By the networks' own filter."""
    for _ in range(times):
        x = upfirdn2d(x, fir_kernel((1, 3, 3, 1)), down=2, pad=(1, 1))
    return x


def test_larger_encoder_gives_the_same_codes(tmp_path):
    times = 2
    small = built(lambda: GPEN(32, **WIDE | {"narrow": 0.25}))
    torch.nn.init.normal_(small.encoder.stem.bias)
    large = grown(tmp_path, small, "--out-size", 32 << times)
    x = torch.rand(2, 3, 32 << times, 32 << times)
    with torch.no_grad():
        (z, features), (old_z, old_features) = large.encoder(x), small.encoder(halved(x, times))
    for one, other in zip([z, *features[: len(old_features)]], [old_z, *old_features], strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)


def test_larger_discriminator_gives_the_same_logits(tmp_path):
    times = 2
    small = built(lambda: GPENDiscriminator(32, channel_multiplier=1, narrow=0.25))
    torch.nn.init.normal_(small.stem.bias)
    large = grown(tmp_path, small, "--out-size", 32 << times)
    x = torch.rand(3, 3, 32 << times, 32 << times)
    with torch.no_grad():
        torch.testing.assert_close(large(x), small(halved(x, times)), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("build_small", [lambda: GPEN(16, **SMALL), lambda: GPENDiscriminator(16, **OF_D)])
def test_narrow_stem_is_new(tmp_path, build_small):
    small = built(build_small)
    (name,) = (name for name in small.state_dict() if name.endswith("stem.weight"))
    old, new = small.state_dict()[name], grown(tmp_path, small, "--out-size", 32).state_dict()[name]
    assert old.shape == new.shape
    assert not torch.equal(old, new)
    assert new.std() > 0.5


def test_encoder_is_copied_to_another_noise_mode(tmp_path):
    small = built(lambda: GPEN(16, **SMALL, noise_mode="add"))
    other = grown(tmp_path, small, "--noise-mode", "concat")
    ours, theirs = small.encoder.state_dict(), other.encoder.state_dict()
    assert same(ours, theirs)


def test_half_precision_grows_into_float32(tmp_path):
    source = saved(
        tmp_path / "half.pth", {name: value.half() for name, value in prior(16, "none").state_dict().items()}
    )
    assert main([str(source), "-o", str(tmp_path / "out.pth"), "--out-size", "32"]) == 0
    assert {value.dtype for value in torch.load(tmp_path / "out.pth")["params"].values()} == {torch.float32}


def test_a_grown_prior_is_embedded(tmp_path):
    large = grown(tmp_path, prior(16, "none"), "--out-size", 32, "--noise-mode", "concat")
    whole = GPEN(32, **WIDE)
    assert checkpoint.load_into(whole.decoder, tmp_path / "grown.pth") == []
    assert same(whole.decoder.state_dict(), large.state_dict())


@pytest.mark.parametrize("mode", ["concat", "add", "none"])
def test_noise_weights_are_copied_in_the_same_mode(tmp_path, mode):
    small = prior(16, mode)
    large = grown(tmp_path, small, "--out-size", 32).state_dict()
    names = [name for name in small.state_dict() if name.endswith("noise_weight")]
    assert bool(names) == (mode != "none")
    assert all(torch.equal(large[name], small.state_dict()[name]) for name in names)


def test_inner_layers_of_a_discriminator_are_copied(tmp_path):
    small = built(lambda: GPENDiscriminator(32, **OF_D))
    large = grown(tmp_path, small, "--out-size", 64, "--channel-multiplier", 1)
    ours, theirs = small.state_dict(), large.state_dict()
    kept = [name for name in ours if not name.startswith("stem.")]
    assert len(kept) > 10
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)
    assert large(torch.zeros(2, 3, 64, 64)).isfinite().all()


def test_input_size_grows_in_proportion(tmp_path):
    small = built(lambda: GPEN(32, in_size=16, **SMALL))
    large = grown(tmp_path, small, "--out-size", 64, "--channel-multiplier", 1)
    assert (large.out_size, large.in_size) == (64, 32)
    ours, theirs = small.state_dict(), large.state_dict()
    assert torch.equal(ours["encoder.to_z.weight"], theirs["encoder.to_z.weight"])
    assert torch.equal(ours["encoder.down.4.weight"], theirs["encoder.down.4.weight"])
    assert large(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_seed_determines_new_weights(tmp_path):
    net = prior(16, "none")
    source = saved(tmp_path / "flat.pth", net.state_dict())
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(ord(name))
        marks = torch.random.get_rng_state()
        main([str(source), "-o", str(tmp_path / f"{name}.pth"), "--out-size", "32", "--seed", str(seed)])
        assert torch.equal(marks, torch.random.get_rng_state())
        states.append(torch.load(tmp_path / f"{name}.pth")["params"])
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out-size", "16"], "--out-size: got 16; expected more than the 32 px"),
        (["--out-size", "32"], "expected another size or --noise-mode"),
        (["--out-size", "100"], "out_size: got 100; expected a power of two"),
        ([], "expected another size or --noise-mode"),
        (["--noise-mode", "add"], "--noise-mode: got add for a GPENDiscriminator"),
        (["--out-size", "32", "--channel-multiplier", "1"], "--channel-multiplier: got 1; expected none"),
        (["--out-size", "64", "--channel-multiplier", "0"], "--channel-multiplier: got 0.0; expected a number above 0"),
        (["--out-size", "0"], "--out-size: got 0; expected more than the 32 px"),
    ],
)
def test_impossible_growth_is_refused(tmp_path, capsys, options, message):
    source = saved(tmp_path / "net_d.pth", weights(lambda: GPENDiscriminator(32, **OF_D)))
    assert main([str(source), "-o", str(tmp_path / "out.pth"), *options]) == 1
    assert message in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (tmp_path / "out.pth").exists()


def test_output_is_overwritten_only_by_force(tmp_path, capsys):
    source = saved(tmp_path / "net.pth", prior(16, "none").state_dict())
    other = saved(tmp_path / "other.pth", {})
    for output, force, message in ((other, [], "is there already"), (source, ["--force"], "is an input")):
        assert main([str(source), "-o", str(output), "--out-size", "32", *force]) == 1
        assert message in capsys.readouterr().err
