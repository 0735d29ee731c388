"""GPEN in spandrel: what its loader makes of the files, by our network and by the entry in contrib/spandrel."""

import ast
import importlib

import numpy as np
import pytest
import torch
from helpers import REPOSITORY
from helpers.small_networks import OF_D, SMALL, built, saved

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import fixed_noise, to_authors
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.checkpoint import describe
from gpen_plugin.checkpoints.download import PACKAGE
from gpen_plugin.restore.network import open_network

spandrel = pytest.importorskip("spandrel", reason="spandrel is not installed: pip install spandrel")

ENTRY = REPOSITORY / "contrib/spandrel/architectures"
NETWORKS = {
    "narrow as GPEN-BFR-256": lambda: GPEN(64, channel_multiplier=1, narrow=0.0625, num_style_feat=32, num_mlp=2),
    "smaller input": lambda: GPEN(64, in_size=16, **SMALL),
    "added features": lambda: GPEN(32, noise_mode="add", **SMALL),
}


def installed():
    from gpen_plugin.spandrel import GPENArch

    return GPENArch()


def contributed():
    """The entry as a module of spandrel's own, as which it is to be merged."""
    import spandrel.architectures

    if str(ENTRY) not in spandrel.architectures.__path__:
        spandrel.architectures.__path__.append(str(ENTRY))
    return importlib.import_module("spandrel.architectures.GPEN").GPENArch()


@pytest.fixture(params=[installed, contributed])
def loader(request):
    """A loader with spandrel's registry and one of the two entries."""
    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(spandrel.ArchSupport.from_architecture(request.param()))
    return spandrel.ModelLoader(registry=registry)


def files(net, folder):
    """The network in each kind of file."""
    ours = dict(net.state_dict())
    authors = to_authors(ours)
    stated = describe(net, license="CC0")
    nested = {"params": built(NETWORKS["added features"], 5).state_dict(), "params_ema": ours}
    checkpoint.write(folder / "flat.safetensors", ours, stated)
    checkpoint.write(folder / "authors.safetensors", {name: tensor.half() for name, tensor in authors.items()}, stated)
    checkpoint.write(folder / "net_g_latest.pth", nested, stated)
    saved(folder / "authors.pth", authors | {f"generator.{name}": map for name, map in fixed_noise(32).items()})
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", NETWORKS)
def test_output_is_that_of_our_network(name, loader, tmp_path):
    net = built(NETWORKS[name]).eval()
    image = torch.rand(1, 3, net.in_size, net.in_size)
    with torch.no_grad():
        wanted = ((net(image * 2 - 1) + 1) / 2).clamp(0, 1)
    assert wanted.std() > 0.05
    for path in files(net, tmp_path):
        model = loader.load_from_file(path)
        assert isinstance(model, spandrel.ImageModelDescriptor)
        assert (model.architecture.id, model.purpose, model.scale) == ("GPEN", "FaceSR", net.out_size // net.in_size)
        assert (model.input_channels, model.output_channels) == (3, 3)
        assert model.tiling == spandrel.ModelTiling.DISCOURAGED
        tolerance = 2e-2 if path.name == "authors.safetensors" else 1e-5  # weights of half precision
        assert (model(image) - wanted).abs().max() < tolerance, path.name


def test_included_model_restores_as_open_network_does(loader):
    path = PACKAGE / "GPEN-Faces-256.safetensors"
    face = np.random.default_rng(0).random((256, 256, 3), dtype=np.float32)
    wanted = open_network(path, device="cpu")([face])[0]
    image = torch.from_numpy(face[..., ::-1].copy()).permute(2, 0, 1)[None]
    restored = loader.load_from_file(path)(image)[0].permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(restored - wanted).max() < 1e-4


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (24, 30), (64, 64)])
def test_any_size_gives_the_size_that_spandrel_promises(size, loader, tmp_path):
    model = loader.load_from_file(saved(tmp_path / "a.pth", built(NETWORKS["smaller input"]).state_dict()))
    height, width = size
    assert model(torch.rand(1, 3, height, width)).shape == (1, 3, 4 * height, 4 * width)


def test_bfloat16_and_no_float16(loader, tmp_path):
    model = loader.load_from_file(saved(tmp_path / "a.pth", built(NETWORKS["added features"]).state_dict()))
    image = torch.rand(1, 3, 32, 32)
    wanted = model(image)
    assert (model.bfloat16()(image.bfloat16()).float() - wanted).abs().mean() < 0.05
    with pytest.raises(spandrel.UnsupportedDtypeError):
        model.half()


def test_entry_computes_in_float16():
    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(spandrel.ArchSupport.from_architecture(contributed()))
    model = spandrel.ModelLoader(registry=registry).load_from_file(PACKAGE / "GPEN-Faces-256.safetensors")
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    wanted = model(image)
    model.model.half()
    assert (model(image.half()).float() - wanted).abs().max() < 1 / 255


def test_other_networks_are_not_taken_for_a_gpen_nor_a_gpen_for_another(loader):
    others = [GPENPrior(16, **SMALL), GPENDiscriminator(16, **OF_D)]
    for net in others:
        with pytest.raises(spandrel.UnsupportedModelError):
            loader.load_from_state_dict(dict(net.state_dict()))
    ours = dict(GPEN(16, **SMALL).state_dict())
    for state in (ours, to_authors(ours)):
        assert [each.architecture.id for each in loader.registry if each.detect(state)] == ["GPEN"]


def test_missing_and_foreign_tensors_are_errors(loader):
    state = to_authors(dict(GPEN(16, **SMALL).state_dict()))
    with pytest.raises(Exception, match="foreign"):
        loader.load_from_state_dict(state | {"foreign": torch.zeros(1)})
    del state["final_linear.0.bias"]
    with pytest.raises(Exception, match=r"final_linear\.0\.bias|encoder\.to_z\.bias"):
        loader.load_from_state_dict(state)


def test_training_file_of_the_authors_is_unwrapped(tmp_path):
    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(spandrel.ArchSupport.from_architecture(installed()))
    net = built(NETWORKS["added features"])
    path = saved(
        tmp_path / "a.pth", {"g": {}, "d": {}, "g_ema": to_authors(net.state_dict()), "g_optim": {"state": {}}}
    )
    model = spandrel.ModelLoader(registry=registry).load_from_file(path)
    assert torch.equal(model.model.encoder.stem.weight, net.encoder.stem.weight)


def test_other_filter_taps_are_those_of_the_file(loader):
    net = built(lambda: GPEN(16, **SMALL, resample_kernel=(1, 2, 2, 1))).eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        wanted = ((net(image * 2 - 1) + 1) / 2).clamp(0, 1)
    model = loader.load_from_state_dict(to_authors(net.state_dict(), (1, 2, 2, 1)))
    assert (model(image) - wanted).abs().max() < 1e-5


def test_install_adds_to_the_registry_once(monkeypatch):
    import gpen_plugin.spandrel

    registry = spandrel.MAIN_REGISTRY.copy()
    monkeypatch.setattr(gpen_plugin.spandrel, "MAIN_REGISTRY", registry)
    assert [each.architecture.id for each in gpen_plugin.spandrel.install()] == ["GPEN"]
    assert gpen_plugin.spandrel.install(ignore_duplicates=True) == []
    with pytest.raises(spandrel.DuplicateArchitectureError):
        gpen_plugin.spandrel.install()


def test_hyperparameters_of_the_entry_are_found():
    """What spandrel's own `assert_loads_correctly` checks."""
    arch = contributed()
    cls = importlib.import_module("spandrel.architectures.GPEN").GPEN
    for arguments in (
        {"channels": (32, 16, 8, 4), "num_downs": 2, "style_dim": 16},
        {"channels": (32, 16, 8), "num_downs": 2, "style_dim": 24, "num_mlp": 4, "noise_mode": "add"},
    ):
        net = cls(**arguments)
        found = arch.load(net.state_dict()).model.hyperparameters
        assert found | {"channels": tuple(found["channels"])} == net.hyperparameters


def test_entry_imports_only_torch_and_spandrel():
    allowed = {"__future__", "collections", "math", "re", "typing", "typing_extensions", "torch", "spandrel"}
    for path in ENTRY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.partition(".")[0] for name in names} <= allowed
