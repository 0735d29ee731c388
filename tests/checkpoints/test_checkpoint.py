import os
import pickle
import re
import resource

import pytest
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import to_authors
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.errors import CheckpointError

SMALL = {"num_style_feat": 8, "num_mlp": 2, "channel_multiplier": 1, "narrow": 0.04}
OF_D = {"channel_multiplier": 1, "narrow": 0.04}


def prior(seed=0, **arguments):
    torch.manual_seed(seed)
    return GPENPrior(16, **SMALL | arguments)


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def test_entries_of_a_nested_file(tmp_path):
    nets = {name: prior(seed).state_dict() for seed, name in enumerate(["params", "params_ema"])}
    torch.save(nets, tmp_path / "net.pth")
    assert same(checkpoint.read(tmp_path / "net.pth"), nets["params_ema"])
    assert same(checkpoint.read(tmp_path / "net.pth", key="params"), nets["params"])


def test_entries_of_the_authors_training_file(tmp_path):
    content = {name: to_authors(GPEN(16, **SMALL).state_dict()) for name in ("g", "g_ema")}
    content |= {"d": to_authors(GPENDiscriminator(16, **OF_D).state_dict()), "g_optim": {"state": {}}}
    torch.save(content, tmp_path / "train.pth")
    assert same(checkpoint.read(tmp_path / "train.pth"), content["g_ema"])
    assert same(checkpoint.read(tmp_path / "train.pth", key="d"), content["d"])
    net, discriminator = GPEN(16, **SMALL), GPENDiscriminator(16, **OF_D)
    checkpoint.load_into(net, tmp_path / "train.pth")
    checkpoint.load_into(discriminator, tmp_path / "train.pth")
    assert same(to_authors(net.state_dict()), content["g_ema"])
    assert same(to_authors(discriminator.state_dict()), content["d"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
@pytest.mark.parametrize("entry", [None, "params_ema"])
def test_files_with_the_prefixes_of_wrappers(tmp_path, prefix, entry):
    net = prior()
    content = {f"{prefix}{key}": tensor for key, tensor in net.state_dict().items()}
    torch.save(content if entry is None else {entry: content}, tmp_path / "net.pth")
    assert same(checkpoint.read(tmp_path / "net.pth"), net.state_dict())
    other = prior()
    checkpoint.load_into(other, tmp_path / "net.pth")
    assert same(other.state_dict(), net.state_dict())


def test_file_of_a_partly_compiled_network(tmp_path):
    net = GPEN(16, **SMALL)
    plain = dict(net.state_dict())
    net.decoder = torch.compile(net.decoder, backend="eager")
    assert any(key.startswith("decoder._orig_mod.") for key in net.state_dict())
    torch.save(net.state_dict(), tmp_path / "net.pth")
    assert same(checkpoint.read(tmp_path / "net.pth"), plain)


def test_ambiguous_keys_are_unchanged(tmp_path):
    content = {"x": torch.zeros(1), "_orig_mod.x": torch.ones(1)}
    torch.save(content, tmp_path / "net.pth")
    assert checkpoint.read(tmp_path / "net.pth").keys() == content.keys()


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state_dict = dict(prior().state_dict())
    safetensors.save_file(state_dict, tmp_path / "net.safetensors")
    read = checkpoint.read(tmp_path / "net.safetensors")
    assert same(dict(sorted(read.items())), dict(sorted(state_dict.items())))


class Malice:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (torch.save, r"net\.pth: holds code besides weights \(\w+\.mkdir\); it was not run"),
        (lambda content, path: path.write_bytes(pickle.dumps(content, 2)), r"net\.pth: holds code besides weights"),
        (
            lambda content, path: path.write_bytes(pickle.dumps(content, 5)),
            r"net\.pth: cannot be read, it is damaged or",
        ),
    ],
    ids=["torch", "pickle 2", "pickle 5"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_is_refused_and_not_run(tmp_path, save, message):
    path, trace = tmp_path / "net.pth", tmp_path / "trace"
    save({"params": {}, "x": Malice(str(trace))}, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.read(path)
    assert "weights_only" not in str(caught.value), "torch's text advises to load unsafely"
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file(tmp_path, share):
    path = tmp_path / "net.pth"
    torch.save(prior().state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=r"net\.pth: cannot be read, it is damaged.*Download or write it again"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "it is damaged or no weight file"),
    ],
)
def test_no_weight_file(tmp_path, content, message):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ([torch.zeros(1)], None, "holds a list"),
        ({}, None, "holds nothing"),
        ({"iter": 3}, None, "holds iter; expected tensors by name"),
        ({"params": {}, "iter": 3}, None, "holds nothing; expected tensors by name"),
        ({"params": {"a": torch.zeros(1)}}, "params_ema", r"no entry 'params_ema'.*Name one of: params\."),
        ({"a": torch.zeros(1)}, "params", r"no entry 'params'.*The file is flat: name no entry \(~\)\."),
        (
            {"optimizer": {"a": torch.zeros(1)}},
            None,
            r"holds optimizer; expected one of params_ema, .*Name one of: opt",
        ),
    ],
)
def test_wrong_content(tmp_path, content, key, message):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(tmp_path / "net.pth", key)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: there is no such file"):
        checkpoint.read(tmp_path / "none.pth")


def test_write_then_read(tmp_path):
    state_dict = prior().state_dict()
    checkpoint.write(tmp_path / "net.pth", {"params": state_dict})
    assert same(checkpoint.read(tmp_path / "net.pth"), state_dict)
    assert os.listdir(tmp_path) == ["net.pth"]


def test_writes_safetensors(tmp_path):
    pytest.importorskip("safetensors")
    weight = torch.randn(3, 4)
    shared = {"a": weight, "b": weight[1:], "c": weight.T, "d": weight.half()}
    checkpoint.write(tmp_path / "net.safetensors", shared)
    read = checkpoint.read(tmp_path / "net.safetensors")
    assert all(torch.equal(read[key], shared[key]) and read[key].dtype == shared[key].dtype for key in shared)
    assert os.listdir(tmp_path) == ["net.safetensors"]
    with pytest.raises(CheckpointError, match=r"net\.safetensors: cannot hold nested entries.*Name a \.pth file"):
        checkpoint.write(tmp_path / "net.safetensors", {"params": shared})
    assert same(checkpoint.read(tmp_path / "net.safetensors"), read)


@pytest.fixture
def small_disk():
    """No file can grow past 64 KiB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
def test_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "net.pth"
    checkpoint.write(path, {"a": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"net\.pth: could not be written .*; the earlier file.* is untouched"):
        checkpoint.write(path, {"a": torch.ones(100_000)})
    assert torch.equal(checkpoint.read(path)["a"], torch.ones(3))
    assert os.listdir(tmp_path) == ["net.pth"]


def test_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "net.pth"
    checkpoint.write(path, {"a": torch.ones(3)})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError), match="lambda"):
        checkpoint.write(path, {"a": torch.ones(3), "b": lambda: 0})
    assert torch.equal(checkpoint.read(path)["a"], torch.ones(3))
    assert os.listdir(tmp_path) == ["net.pth"]


def test_missing_folder(tmp_path):
    path = tmp_path / "nowhere" / "net.pth"
    with pytest.raises(
        CheckpointError, match=r"nowhere/net\.pth: could not be .* Make room, or choose another folder\.$"
    ):
        checkpoint.write(path, {})
    with pytest.raises(CheckpointError, match=r"on its disk\. Ask the owner\.$"):
        checkpoint.write(path, {}, hint="Ask the owner.")


def test_a_folder_is_no_weight_file(tmp_path):
    output = f"path:pretrain_network_g: {tmp_path}: is a folder; expected a weight file. Name a file in it."
    with pytest.raises(CheckpointError, match=f"^{re.escape(output)}$"):
        checkpoint.load_into(prior(), tmp_path, where="path:pretrain_network_g")


def test_loads_and_keeps_every_bit(tmp_path):
    source, target = prior(1), prior(2)
    checkpoint.write(tmp_path / "net.pth", {"params": source.state_dict()})
    checkpoint.load_into(target, tmp_path / "net.pth")
    assert same(source.state_dict(), target.state_dict())


@pytest.mark.parametrize(
    ("build", "held"),
    [
        (lambda: GPENPrior(32, **SMALL), "GPENPrior 32 px, narrow 0.04, noise concat"),
        (lambda: prior(narrow=0.08), "GPENPrior 16 px, narrow 0.08, noise concat"),
        (lambda: prior(noise_mode="add"), "GPENPrior 16 px, narrow 0.04, noise add"),
        (lambda: GPEN(32, **SMALL), "a GPEN whose decoder is GPENPrior 32 px, narrow 0.04, noise concat"),
        (lambda: GPENDiscriminator(16, **OF_D), "GPENDiscriminator 16 px, narrow 0.04"),
    ],
)
def test_another_network_is_refused_unchanged(tmp_path, build, held):
    checkpoint.write(tmp_path / "net.pth", build().state_dict())
    net = prior()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    begin = re.escape(f"path:pretrain_network_g: {tmp_path / 'net.pth'}: holds {held}")
    expected = r"expected GPENPrior 16 px, narrow 0\.04, noise concat"
    with pytest.raises(CheckpointError, match=f"(?s)^{begin}.*{expected}"):
        checkpoint.load_into(net, tmp_path / "net.pth", where="path:pretrain_network_g")
    assert same(before, net.state_dict())


def test_an_unreadable_file_is_named_with_its_key(tmp_path):
    with pytest.raises(CheckpointError, match=r"^path:pretrain_network_g:.*none\.pth: there is no such file"):
        checkpoint.load_into(prior(), tmp_path / "none.pth", where="path:pretrain_network_g")


@pytest.mark.parametrize(("lost", "more"), [(1, ""), (8, ""), (10, "; and 2 more")])
def test_missing_tensors_are_named_up_to_eight(tmp_path, lost, more):
    state_dict = prior().state_dict()
    names = [name for name in state_dict if name.endswith(("noise_weight", "modulation.bias"))][:lost]
    for name in names:
        del state_dict[name]
    checkpoint.write(tmp_path / "net.pth", state_dict)
    end = "(" + "; ".join(f"{name} is missing" for name in names[:8]) + f"{more})"
    with pytest.raises(CheckpointError, match=re.escape(end) + "$"):
        checkpoint.load_into(prior(), tmp_path / "net.pth")


def test_another_filter_is_named(tmp_path):
    checkpoint.write(tmp_path / "net.pth", to_authors(prior().state_dict(), resample_kernel=(1, 2, 2, 1)))
    with pytest.raises(CheckpointError, match=r"convs\.0\.conv\.blur\.kernel: another FIR filter"):
        checkpoint.load_into(prior(), tmp_path / "net.pth")
