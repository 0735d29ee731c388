"""Files of other code bases: NVlabs' pickles without their code, pytorch_GAN_zoo's options, licenses."""

import pickle
import sys
import types

import pytest
import torch
from helpers import published_priors as published
from helpers.small_networks import saved

from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.convert import read_networks
from gpen_plugin.cli.convert import main
from gpen_plugin.cli.grow import main as grow
from gpen_plugin.errors import CheckpointError

SOURCE = "raise SystemExit('this was run')"


@pytest.fixture
def nvlabs(monkeypatch):
    """Their packages, as far as pickling needs them; they are gone before a file is read."""
    modules = {}
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util", "training", "training.networks"):
        modules[name] = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, modules[name])

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("their code was run")

    class EasyDict(dict):
        pass

    for module, value in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        value.__module__, value.__qualname__ = module, value.__name__
        setattr(modules[module], value.__name__, value)

    class Module:
        """Pickled as a persistent class: with its source text and its attributes."""

        def __init__(self, tensors):
            self.tensors = tensors

        def __reduce__(self):
            own = {name: tensor for name, tensor in self.tensors.items() if "." not in name}
            below = {}
            for name, tensor in self.tensors.items():
                if "." in name:
                    first, rest = name.split(".", 1)
                    below.setdefault(first, {})[rest] = tensor
            state = {
                "training": False,
                "_parameters": {
                    name: torch.nn.Parameter(t) for name, t in own.items() if t.ndim or name == "noise_strength"
                },
                "_buffers": {},
                "_modules": {name: Module(tensors) for name, tensors in below.items()},
                "_non_persistent_buffers_set": {"grid"},
                "device": torch.device("cpu"),
                "dtype": torch.float32,
                "init_kwargs": EasyDict(c_dim=0),
            }
            meta = {
                "type": "class",
                "version": 6,
                "module_src": SOURCE,
                "class_name": "Generator",
                "state": EasyDict(state),
            }
            return _reconstruct_persistent_obj, (meta,)

    def write(path, content):
        content = {name: Module(value) if isinstance(value, dict) else value for name, value in content.items()}
        path.write_bytes(pickle.dumps({**content, "training_set_kwargs": EasyDict(path="x.zip")}))
        for name in modules:
            monkeypatch.delitem(sys.modules, name)
        return path

    return write


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_tensors_of_a_pickle_are_read_and_nothing_is_run(nvlabs, tmp_path):
    tensors, critic = published.stylegan2_nvlabs(16), published.discriminator_nvlabs(16)
    path = nvlabs(tmp_path / "ffhq.pkl", {"G_ema": tensors, "G": tensors, "D": critic, "augment_pipe": None})
    held = checkpoint.read_whole(path)
    assert held.keys() == {"G_ema", "G", "D"}
    assert all(torch.equal(held["G_ema"][name], tensor) for name, tensor in tensors.items())
    assert all(torch.equal(held["D"][name], tensor) for name, tensor in critic.items())
    assert "torch_utils" not in sys.modules


def test_pickle_becomes_a_prior_with_its_discriminator_and_license(nvlabs, tmp_path, capsys):
    path = nvlabs(
        tmp_path / "ffhq.pkl", {"G_ema": published.stylegan2_nvlabs(16), "D": published.discriminator_nvlabs(16)}
    )
    target, grown = tmp_path / "prior.pth", tmp_path / "grown.pth"
    assert main([str(path), "-o", str(target), "--to", "basicsr"]) == 0
    assert "license: NVIDIA Source Code License" in capsys.readouterr().out
    assert grow([str(target), "-o", str(grown), "--noise-mode", "concat"]) == 0
    assert checkpoint.license_of(grown).startswith("NVIDIA Source Code License")
    assert main(["--inspect", str(grown)]) == 0
    assert "license: NVIDIA Source Code License" in capsys.readouterr().out
    assert main([str(path), "--key", "D", "-o", str(tmp_path / "d.pth"), "--to", "basicsr"]) == 0
    assert checkpoint.infer_spec(checkpoint.read(tmp_path / "d.pth")).kind == "GPENDiscriminator"


def test_license_can_be_stated(tmp_path):
    source = saved(tmp_path / "x.pth", published.pggan_genforce(16))
    assert main([str(source), "-o", str(tmp_path / "y.pth"), "--to", "basicsr", "--license", "CC0"]) == 0
    assert checkpoint.license_of(tmp_path / "y.pth") == "CC0"


class Malicious:
    def __reduce__(self):
        return eval, ("__import__('sys').exit('this was run')",)


def test_pickle_with_other_code_is_refused(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Malicious()}))
    with pytest.raises(CheckpointError, match=r"holds code besides weights \(builtins\.eval\); it was not run"):
        checkpoint.read(path)


def test_pickle_of_tensorflow_is_refused(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00.")
    with pytest.raises(CheckpointError, match=r"is a pickle of TensorFlow.*legacy\.py of stylegan2-ada-pytorch"):
        checkpoint.read(path)


def test_stylegan3_pickle_is_refused_with_the_reason(nvlabs, tmp_path, capsys):
    path = nvlabs(tmp_path / "stylegan3.pkl", {"G_ema": {"synthesis.input.freqs": torch.zeros(3, 2)}})
    with pytest.raises(CheckpointError, match="is a StyleGAN3"):
        read_networks(path, None)
    assert main(["--inspect", str(path)]) == 1
    assert "is a StyleGAN3, which has neither blocks per resolution" in capsys.readouterr().out


def test_options_in_files_of_gan_zoo_are_no_obstacle(tmp_path, monkeypatch):
    modules = {name: types.ModuleType(name) for name in ("models", "models.utils", "models.utils.config")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    config = type("BaseConfig", (), {"__module__": "models.utils.config"})
    modules["models.utils.config"].BaseConfig = config
    options = config()
    options.depthOtherScales = [12]
    tensors = published.pggan_gan_zoo(16)
    path = saved(tmp_path / "zoo.pth", {"config": options, "netG": tensors, "netD": {}, "avgG": tensors, "alpha": 0})
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    assert main([str(path), "-o", str(tmp_path / "prior.pth"), "--to", "basicsr"]) == 0
    held = torch.load(tmp_path / "prior.pth", weights_only=True)
    assert set(held) == {"params", "params_ema"}
    assert checkpoint.license_of(tmp_path / "prior.pth") == "BSD-3-Clause"


def test_training_of_genforce_is_read(tmp_path):
    tensors = published.pggan_genforce(16)
    path = saved(tmp_path / "x.pth", {"models": {"generator": tensors, "generator_smooth": tensors}, "optimizers": {}})
    assert checkpoint.read(path).keys() == tensors.keys()


def test_two_files_of_pulse_become_one(tmp_path):
    synthesis, mapping = published.stylegan1_pulse(published.stylegan1_genforce(16))
    files = [
        str(saved(tmp_path / f"{name}.pt", value)) for name, value in (("synthesis", synthesis), ("mapping", mapping))
    ]
    target = tmp_path / "prior.pth"
    assert main([files[0], "--mapping", files[1], "-o", str(target), "--to", "basicsr"]) == 0
    assert checkpoint.infer_spec(checkpoint.read(target)).kind == "StyleGAN1Prior"


@pytest.mark.parametrize("layout", ["authors", "stylegan2"])
def test_other_priors_have_no_names_in_the_layouts_of_stylegan2(layout, tmp_path, capsys):
    source = saved(tmp_path / "x.pth", published.pggan_genforce(16))
    assert main([str(source), "-o", str(tmp_path / "y.pth"), "--to", layout]) == 1
    assert "expected a StyleGAN2: other priors have no names in this layout" in capsys.readouterr().err
