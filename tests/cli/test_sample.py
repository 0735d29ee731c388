import re
import sys

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.cli.sample import main
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.restore.prior_sampler import MEAN_SAMPLES, SHARED_SEED, PriorSampler

SIDE, CELL = 32, 34  # of an image, and with the gap


@pytest.fixture(scope="module")
def net() -> GPENPrior:
    torch.manual_seed(0)
    net = GPENPrior(SIDE, num_style_feat=16, num_mlp=2, narrow=0.03125)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.data.fill_(0.3)
    return net


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("prior") / "net_g_latest.pth"
    other = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    torch.save({"params": other, "params_ema": net.state_dict()}, path)
    return path


@pytest.fixture
def command(weights, tmp_path):
    """Runs the command and returns the image that it wrote."""

    def run(*arguments: str, output: str = "out.png") -> np.ndarray:
        assert main(["-m", str(weights), "-o", str(tmp_path / output), "--device", "cpu", *arguments]) == 0
        return cv2.imread(str(tmp_path / output))

    return run


def cell(table: np.ndarray, row: int, column: int) -> np.ndarray:
    image = table[row * CELL :, column * CELL :][:SIDE, :SIDE]
    assert image.shape == (SIDE, SIDE, 3)
    return image


def draw(weights, *seeds: int, **settings) -> list[np.ndarray]:
    sampler = PriorSampler(weights, **settings)
    return list(sampler(map(sampler.from_seed, seeds)))


def differ(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_sample_is_determined_by_its_seed(net, weights):
    (image,) = draw(weights, 7, truncation=0.7)
    stream = torch.Generator().manual_seed(7)
    z, noise = torch.randn(1, 16, generator=stream), net.make_noise(1, stream)
    mean = net.mean_latent(MEAN_SAMPLES, torch.Generator().manual_seed(SHARED_SEED))
    with torch.no_grad():
        expected = net(z, noise, truncation=0.7, truncation_latent=mean)[0]
    expected = ((expected.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()[..., ::-1]
    assert differ(image, expected) <= 1
    assert image.std() > 1


@pytest.mark.parametrize("noise", ["random", "fixed", "zero"])
def test_a_sample_does_not_depend_on_its_batch(weights, noise):
    alone = draw(weights, 0, 1, 2, 3, 4, noise=noise, batch=1)
    together = draw(weights, 4, 3, 2, 1, 0, noise=noise, batch=3)[::-1]
    assert max(map(differ, alone, together)) <= 1
    assert differ(alone[0], alone[1]) > 3


def test_noise(weights):
    """With truncation 0 all have one latent code and differ only in their noise."""
    for noise, distance in (("random", 2), ("fixed", 0), ("zero", 0)):
        one, other = draw(weights, 0, 1, noise=noise, truncation=0)
        assert (differ(one, other) > 1) == (distance > 1), noise
    by_noise = [draw(weights, 0, noise=noise)[0] for noise in ("random", "fixed", "zero")]
    assert min(differ(by_noise[a], by_noise[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 1


def test_truncation_0_is_one_latent_code_and_1_is_the_mappings(net, weights):
    for truncation, same in ((0.0, True), (1.0, False)):
        sampler = PriorSampler(weights, truncation=truncation)
        one, other = (sampler.from_seed(seed).latents for seed in (0, 1))
        assert torch.equal(one, other) == same
    assert torch.equal(one[:, 0], net.mapping(sampler.z(0)))


@pytest.mark.parametrize("truncation", [-3, 1.001, 7, float("nan")])
def test_truncation_out_of_range(truncation, weights, tmp_path, capsys):
    message = f"truncation: got {truncation:g}; expected a number from 0, the mean face, to 1, all variety"
    with pytest.raises(OptionError, match=message):
        PriorSampler(weights, truncation=truncation)
    assert main(["-m", str(weights), "-o", str(tmp_path / "out.png"), "--truncation", str(truncation)]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_mixing_takes_finer_blocks_from_the_style(weights):
    sampler = PriorSampler(weights)
    source, style = sampler.from_seed(0), sampler.from_seed(1)
    for from_resolution, first in ((4, 0), (8, 1), (16, 3), (32, 5)):
        mixed = sampler.mix(source, style, from_resolution)
        assert torch.equal(mixed.latents[:, :first], source.latents[:, :first])
        assert torch.equal(mixed.latents[:, first:], style.latents[:, first:])
        assert mixed.noise_seeds == tuple(0 if size < from_resolution else 1 for size in (4, 8, 16, 32))
    with pytest.raises(OptionError, match=r"from_resolution: got 12; expected one of 4, 8, 16, 32"):
        sampler.mix(source, style, 12)


def test_mixed_sample_has_noise_of_both(weights):
    sampler = PriorSampler(weights, truncation=0)
    own, other = sampler.from_seed(0), sampler.from_seed(1)
    one, mixed, two = sampler([own, sampler.mix(own, other, 16), other])
    assert min(differ(one, mixed), differ(mixed, two)) > 1


def test_grid(command, weights, tmp_path, capsys):
    table = command(
        "--rows", "2", "--columns", "3", "--seed", "5", "--separate", str(tmp_path / "each"), "--batch", "4"
    )
    assert table.shape == (2 * CELL - 2, 3 * CELL - 2, 3)
    assert "6 images written" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "each").iterdir()) == sorted(f"{n}.png" for n in range(5, 11))
    for index, image in enumerate(draw(weights, *range(5, 11))):
        assert differ(cell(table, index // 3, index % 3), image) <= 1
        saved = cv2.imread(str(tmp_path / "each" / f"{5 + index}.png"))
        assert np.array_equal(saved, cell(table, index // 3, index % 3))


def test_the_raw_network_is_another_entry(command):
    arguments = ("--rows", "1", "--columns", "1")
    assert differ(command(*arguments), command(*arguments, "--key", "params")) > 1
    assert np.array_equal(command(*arguments), command(*arguments, "--key", "params_ema"))


def test_mixing_table(command, weights):
    arguments = ("--mode", "mix", "--sources", "0", "1", "--styles", "2", "0", "3")
    table = command(*arguments, "--from-resolution", "8")
    assert table.shape == (3 * CELL - 2, 4 * CELL - 2, 3)
    assert (cell(table, 0, 0) == 255).all()
    own = dict(enumerate(draw(weights, 0, 1, 2, 3)))
    for column, seed in enumerate((2, 0, 3), start=1):
        assert differ(cell(table, 0, column), own[seed]) <= 1
    for row, seed in enumerate((0, 1), start=1):
        assert differ(cell(table, row, 0), own[seed]) <= 1
    assert differ(cell(table, 1, 2), own[0]) <= 1  # mixed with itself
    assert min(differ(cell(table, 1, 1), own[0]), differ(cell(table, 1, 1), own[2])) > 3
    whole = command(*arguments, "--from-resolution", "4")
    for row in (1, 2):
        for column, seed in enumerate((2, 0, 3), start=1):
            assert differ(cell(whole, row, column), own[seed]) <= 1


@pytest.mark.parametrize("space", ["w", "z"])
def test_interpolation_has_small_steps(command, weights, space):
    table = command("--mode", "interpolate", "--seeds", "3", "1", "1", "2", "--frames", "8", "--space", space)
    assert table.shape == (3 * CELL - 2, 9 * CELL - 2, 3)
    own = dict(zip((3, 1, 2), draw(weights, 3, 1, 2, noise="fixed"), strict=True))
    for row, (start, end) in enumerate(((3, 1), (1, 1), (1, 2))):
        steps = [cell(table, row, column) for column in range(9)]
        assert differ(steps[0], own[start]) <= 1
        assert differ(steps[8], own[end]) <= 1
        largest = max(np.abs(steps[n].astype(int) - steps[n + 1]).mean() for n in range(8))
        assert largest <= 0.5 * np.abs(own[start].astype(int) - own[end]).mean() + 0.2


def test_a_table_shows_at_most_8_steps_a_row(command, capsys):
    arguments = ("--mode", "interpolate", "--seeds", "0", "1", "2")
    eight = command(*arguments, "--frames", "8")
    for more in ([], ["--frames", "20"]):
        capsys.readouterr()
        assert np.array_equal(command(*arguments, *more), eight)
        assert "17 images written" in capsys.readouterr().out
    assert command(*arguments, "--frames", "3").shape == (2 * CELL - 2, 4 * CELL - 2, 3)


def test_the_arc_keeps_the_length_of_a_code(weights):
    sampler = PriorSampler(weights, truncation=1)
    drawings = list(sampler.interpolate([0, 1], 4, "z"))
    assert len(drawings) == 5
    codes = {}
    for t in (0.25, 0.5):
        z = torch.stack([sampler.z(0)[0] / sampler.z(0).norm(), sampler.z(1)[0] / sampler.z(1).norm()])
        angle = (z[0] @ z[1]).acos()
        codes[t] = (((1 - t) * angle).sin() * sampler.z(0) + (t * angle).sin() * sampler.z(1)) / angle.sin()
    for t, code in codes.items():
        expected = sampler.net.to_latents(code)
        torch.testing.assert_close(drawings[int(t * 4)].latents, expected, rtol=1e-4, atol=1e-5)
    straight = list(sampler.interpolate([0, 1], 4, "w"))
    torch.testing.assert_close(straight[2].latents, (drawings[0].latents + drawings[4].latents) / 2)


def test_frames_and_film(command, tmp_path):
    pytest.importorskip("av", reason='films need PyAV: pip install "gpen_plugin[video]"')
    arguments = ("--mode", "interpolate", "--seeds", "0", "1", "2", "--frames", "5", "--noise", "zero")
    command(*arguments, output="frames")
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"{number:05d}.png" for number in range(11)]
    command(*arguments, output="deeper/film.mp4")
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["film.mp4"]
    film = cv2.VideoCapture(str(tmp_path / "deeper" / "film.mp4"))
    for name in names:
        read, frame = film.read()
        assert read
        still = cv2.imread(str(tmp_path / "frames" / name))
        assert np.abs(frame.astype(int) - still).mean() < 12  # the codec loses some
    assert not film.read()[0]


def test_a_film_that_cannot_be_written(weights, tmp_path, capsys):
    pytest.importorskip("av", reason='films need PyAV: pip install "gpen_plugin[video]"')
    (tmp_path / "file").write_text("a file")
    arguments = ["--mode", "interpolate", "--frames", "1", "-m", str(weights), "--device", "cpu"]
    assert main([*arguments, "-o", str(tmp_path / "file" / "film.mp4")]) == 1
    assert "film.mp4: cannot be written" in capsys.readouterr().err


def test_missing_pyav_names_extra_and_folder(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    arguments = ["--mode", "interpolate", "--frames", "1", "-m", str(weights), "--device", "cpu"]
    assert main([*arguments, "-o", str(tmp_path / "film.mp4")]) == 1
    said = capsys.readouterr().err
    assert 'Run: pip install "gpen_plugin[video]", or name a folder (no suffix): the frames go there.' in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: GPENDiscriminator(32, narrow=0.03125), "holds GPENDiscriminator 32 px"),
        (lambda: GPEN(32, num_style_feat=16, num_mlp=2, narrow=0.03125), "holds GPEN 32 px"),
    ],
)
def test_another_network_is_refused_by_name(other, message, tmp_path, capsys):
    torch.save(other().state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=rf"{message}.*expected a GPENPrior"):
        PriorSampler(tmp_path / "net.pth")
    assert main(["-m", str(tmp_path / "net.pth"), "-o", str(tmp_path / "out.png"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gpen_plugin: error: ")
    assert message in error
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "mix", "--rows", "2"], "--rows belongs to --mode grid, not to mix"),
        (["--from-resolution", "8"], "--from-resolution belongs to --mode mix, not to grid"),
        (["--mode", "interpolate", "--noise", "random"], "--noise random would jump at each seed"),
        (["--mode", "interpolate", "--seeds", "1"], "--seeds: got 1; expected two or more"),
        (["--rows", "0"], "got 0; expected a whole number from 1"),
        (["--seed", "-1"], "expected"),
        (["--truncation", "much"], "--truncation: invalid float value: 'much'"),
        (["-o", "samples"], "--output: got samples; expected an image file such as samples.png\n"),
        (["-o", "samples.mp4"], "got samples.mp4; expected an image file"),
        (["--mode", "interpolate", "-o", "samples.txt"], "a film (.mp4) or a folder (no suffix)"),
    ],
)
def test_refused(arguments, message, weights, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["-m", str(weights), "-o", str(tmp_path / "out.png"), *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_missing_device(weights, tmp_path, capsys):
    arguments = ["-m", str(weights), "-o", str(tmp_path / "out.png"), "--rows", "1", "--columns", "1"]
    assert main([*arguments, "--device", "cuda"]) == 1
    assert re.search(r"--device: got cuda \(.*\); expected a device of this machine", capsys.readouterr().err)
    assert main([*arguments, "--device", "auto"]) == 0
