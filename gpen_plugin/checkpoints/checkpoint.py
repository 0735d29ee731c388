"""Weight files: read, write and compare state dicts, and say what a file holds."""

import argparse
import collections
import contextlib
import inspect
import logging
import math
import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from types import MappingProxyType, ModuleType
from typing import BinaryIO

import numpy as np
import torch
from torch import nn

from gpen_plugin.archs.biggan_prior_arch import BigGANPrior
from gpen_plugin.archs.gan_prior_arch import GANPrior, GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import (
    Kind,
    detect_layout,
    extract_decoder,
    filter_taps,
    foreign_filters,
    from_authors,
    taps_equal,
    taps_of,
    without_wrapper_prefixes,
)
from gpen_plugin.archs.layers import EqualLinear, ShapesOnly
from gpen_plugin.archs.pggan_prior_arch import PGGANPrior
from gpen_plugin.archs.prior_layouts import LICENSES, refusal
from gpen_plugin.archs.stylegan1_prior_arch import StyleGAN1Prior
from gpen_plugin.checkpoints import metadata, nvlabs_pickle
from gpen_plugin.checkpoints.download import local_path
from gpen_plugin.checkpoints.metadata import Metadata
from gpen_plugin.checkpoints.network_spec import NetworkSpec, infer_spec, summarize_file
from gpen_plugin.errors import CheckpointError

SMOOTHED_FIRST = (
    *("params_ema", "params", "g_ema", "g", "state_dict"),
    *("G_ema", "G", "generator_smooth", "g_running", "generator", "avgG", "netG"),  # of other code bases
)
"""Which entry of a nested file is read when none is named: the averaged generator before the raw one."""
OF_DISCRIMINATOR = ("params_ema", "params", "d", "state_dict", "D")
_OF_A_STATE = {"iter", "optimizers", "schedulers"}  # of BasicSR's training states, which hold no weights

StateDict = dict[str, torch.Tensor]


def read(
    # a file of torch.save's, a `.safetensors` one, arrays by name in an `.npz` one, or NVlabs' networks in a `.pkl` one
    path: str | os.PathLike,
    # entry of a nested file; None takes the first of `order` that it has, or a flat file itself
    key: str | None = None,
    order: Sequence[str] = SMOOTHED_FIRST,  # entries to look for
) -> StateDict:
    """Read one network's weights: a flat state dict on the CPU, in the file's layout, without wrappers' prefixes.

    Raises CheckpointError: the file is missing, damaged, holds anything but weights, or has no such entry.
    """
    content = read_whole(path)
    entry = _entry(path, content, key, order)
    if not entry or not all(isinstance(value, torch.Tensor) for value in entry.values()):
        raise CheckpointError(str(path), summarize_file(entry), "tensors by name", "Name the right entry or file.")
    return without_wrapper_prefixes(entry)


def read_whole(path: str | os.PathLike) -> Mapping:
    """Read all that a file of weights holds, tensors on the CPU. Raises `CheckpointError` as `read` does.

    A file on the Hub is downloaded, see `local_path`.
    """
    path = local_path(path)
    if os.path.isdir(path):
        raise CheckpointError(str(path), "is a folder", "a weight file", "Name a file in it.")
    if not os.path.isfile(path):
        _refuse_foreign(path)
        raise CheckpointError(str(path), "there is no such file", "a weight file", "Check the path.")
    if os.path.getsize(path) == 0:
        raise CheckpointError(str(path), "the file is empty", "a weight file", "Download or write it again.")
    _refuse_foreign(path)
    load = _reader(path)
    try:
        content = load(path)
    except CheckpointError:
        raise
    except Exception as error:  # damage shows as RuntimeError, EOFError, KeyError, OSError, struct.error and others
        raise _unreadable(path, error) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(str(path), f"holds a {type(content).__name__}", "a mapping of names to tensors")
    if content.keys() >= _OF_A_STATE:
        got = f"is a training state of iteration {content['iter']}"
        hint = f"Its weights are net_g_{content['iter']}.pth in models/, beside its folder."
        raise CheckpointError(str(path), got, "a weight file", hint)
    return content


def write(
    # in an existing folder; the format is safetensors if it ends in `.safetensors`, else torch.save's
    path: str | os.PathLike,
    content: object,  # tensors, numbers, texts, and lists and mappings of them; for safetensors tensors by name
    stated: Metadata | None = None,  # of a mapping: what the file says of itself
    *,
    hint: str = "Make room, or choose another folder.",  # what to do if the disk is full or the folder is not writable
) -> None:
    """Write `content` so that at any moment `path` is either the old file or the whole new one.

    Raises CheckpointError: the file could not be written; the earlier one is as it was.
    """
    target, save = Path(path), _writer(path, content, {} if stated is None else stated.texts())
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as stream:
            save(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, target)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            str(path),
            f"could not be written ({_first_line(_system_error(error))}); the earlier file, if any, is untouched",
            "a writable folder with room on its disk",
            hint,
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(target.parent)


def load_into(
    # a network of this package, not wrapped. One that reads published files of other layouts has a method
    # ``from_published``: their state dict -> one with its own names, other state dicts unchanged
    net: nn.Module,
    path: str | os.PathLike,
    # entry of a nested file; None takes the averaged weights if it has any, and `d` of the authors' files for a
    # discriminator
    key: str | None = None,
    where: str | None = None,  # key path that named the file, for the error, such as `path:pretrain_network_g`
    strict: bool = True,  # whether all tensors have to fit; otherwise those that do are loaded
) -> list[str]:
    """Load a file into a network; if strictly, nothing of `net` changes unless all of it fits.

    Returns the names of the network's tensors that the file did not fill. A prior takes the decoder of a file
    that holds a whole `GPEN`; the log says so. Raises CheckpointError: as `read`; or the file is of another network (if
    not `strict`: shares no tensor with this one), and then the message names both.
    """
    given = read_for(net, path, key, where, strict)
    net.load_state_dict(given, strict=strict)
    return [name for name in net.state_dict() if name not in given]


def read_for(
    net: nn.Module, path: str | os.PathLike, key: str | None = None, where: str | None = None, strict: bool = True
) -> StateDict:
    """Read a file for a network, which may lie on the meta device. Arguments and errors are those of `load_into`.

    Returns weights with keys and shapes of ``net.state_dict()``: all of them if `strict`.
    """
    source = f"{where}: {path}" if where else str(path)
    order = OF_DISCRIMINATOR if type(net).__name__ == "GPENDiscriminator" else SMOOTHED_FIRST
    try:
        state_dict = read(path, key, order)
    except CheckpointError as error:
        raise CheckpointError(source, error.got, error.expected, error.hint) from error
    decoder = extract_decoder(state_dict) if isinstance(net, GANPrior) else None
    state_dict = state_dict if decoder is None else decoder
    convert = getattr(net, "from_published", from_authors)
    try:
        given, own = convert(state_dict), net.state_dict()
    except CheckpointError as error:
        raise CheckpointError(source, error.got, error.expected, error.hint) from error
    problems = differences(given, own) or foreign_filters(net, state_dict)
    if not strict:
        given = {name: tensor for name, tensor in given.items() if name in own and tensor.shape == own[name].shape}
    if problems and (strict or not given):
        if detect_layout(own) is None:  # a network of another method
            found = detect_layout(state_dict)
            got = summarize_file(state_dict) if found is None else f"holds {infer_spec(state_dict, source)}"
            expected = f"all tensors of {type(net).__name__}, as the options build it"
        else:
            got = f"holds {'' if decoder is None else 'a GPEN whose decoder is '}{infer_spec(state_dict, source)}"
            expected = f"{infer_spec(own)}, as the options build it"
        hint = f"Set the network's options to the file's, or name the right file. ({shown(problems)})"
        raise CheckpointError(source, got, expected, hint)
    if decoder is not None:
        logging.getLogger("basicsr").info(f"{source}: holds a whole GPEN; its decoder is taken.")
    _warn_of_other_arguments(net, metadata.read(path), source)
    return given


def _warn_of_other_arguments(net: nn.Module, stated: Metadata, source: str) -> None:
    if any(tensor.is_meta for tensor in net.buffers()):
        return
    own = hidden_arguments(net)
    for name in ("lr_mlp", "resample_kernel"):
        value = stated.hidden.get(name, own.get(name))
        if name in own and not (taps_equal(value, own[name]) if name == "resample_kernel" else value == own[name]):
            message = f"{source}: states {name} {value}. The options' {own[name]} is used, which changes its images."
            logging.getLogger("basicsr").warning(message)


def differences(
    given: Mapping[str, torch.Tensor],  # of the file, in our layout
    own: Mapping[str, torch.Tensor],  # the network's, which may lie on the meta device
) -> list[str]:
    """One phrase for each tensor that a file lacks, has too much, or has in another shape than the network."""
    missing = [f"{key} is missing" for key in own if key not in given]
    surplus = [f"{key} is not of this network" for key in given if key not in own]
    misshapen = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    return missing + surplus + misshapen


def shown(problems: Sequence[str], most: int = 8) -> str:
    """The first `most` phrases, and the number of the others."""
    return "; ".join(problems[:most]) + (f"; and {len(problems) - most} more" if len(problems) > most else "")


def _refuse_foreign(path) -> None:
    """Raise a CheckpointError for files of other frameworks, which would only look damaged."""
    name = str(path)
    if os.path.isfile(f"{name}.index") or name.endswith((".index", ".meta")) or ".data-0000" in name:
        hint = "Export its variables to an .npz file with TensorFlow, see docs/EVALUATION.md."
        raise CheckpointError(name, "is a TensorFlow checkpoint", "weights of PyTorch, or an .npz file", hint)
    if name.endswith((".t7", ".net")):
        got = "is a file of Torch7 (Lua), a serialized graph that PyTorch cannot build"
        hint = "Restore the inputs with the authors' program, and compare its images by a method of type folder."
        raise CheckpointError(name, got, "weights of PyTorch", hint)


def _reader(path) -> Callable[[str | os.PathLike], Mapping]:
    if str(path).endswith(".npz"):
        return _load_arrays
    if str(path).endswith(".pkl"):
        return nvlabs_pickle.read
    return _safetensors(path).load_file if _is_safetensors(path) else _load_weights


def _load_arrays(path) -> StateDict:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _load_weights(path) -> object:
    """Read what torch holds safe, and objects that are attributes and no code: options in files of other code bases."""
    options = (Attributes, "models.utils.config.BaseConfig")  # of pytorch_GAN_zoo
    with torch.serialization.safe_globals([argparse.Namespace, options]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    # a training of genforce's keeps its networks one level deeper
    models = content.get("models") if isinstance(content, Mapping) else None
    return {**content, **models} if isinstance(models, Mapping) else content


class Attributes:
    """Stands for an object of another code base: takes its attributes."""


def _writer(path, content: object, texts: Mapping[str, str]) -> Callable[[BinaryIO], object]:
    if not _is_safetensors(path):
        if texts:
            content = collections.OrderedDict(content)  # a dict has no attributes
            content._metadata = dict(texts)
        return lambda stream: torch.save(content, stream)
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        hint = "Name a .pth file, or choose a flat layout."
        raise CheckpointError(str(path), "cannot hold nested entries", "tensors by name in safetensors", hint)
    # the format has neither strides nor tensors that share memory
    separate = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in content.items()}
    serialize = _safetensors(path).save
    return lambda stream: stream.write(metadata.with_header(serialize(separate), texts))


def _is_safetensors(path) -> bool:
    return str(path).endswith(".safetensors")


def _safetensors(path) -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        got = "the package for this format is not installed"
        raise CheckpointError(str(path), got, "safetensors", "Run: pip install safetensors") from error
    return safetensors.torch


def _unreadable(path, error: Exception) -> CheckpointError:
    """The error for code or for damage. torch's own text advises unsafe loading, so it is left out."""
    unpicklable = isinstance(error, pickle.UnpicklingError)
    code = re.search(r"GLOBAL (\S+)", str(error)) if unpicklable else None
    if code:
        got = f"holds code besides weights ({code[1]}); it was not run"
        hint = "If you trust the source, ask it for a file with only the state dict."
        return CheckpointError(str(path), got, "tensors, numbers, texts, lists and mappings", hint)
    reason = "no pickle of tensors" if unpicklable else f"{type(error).__name__}: {_first_line(error)}"
    got = f"cannot be read, it is damaged or no weight file ({reason})"
    return CheckpointError(str(path), got, "a whole file of torch.save's", "Download or write it again.")


def _entry(path, content: Mapping, key: str | None, order: Sequence[str]) -> Mapping:
    nested = [name for name, value in content.items() if isinstance(value, Mapping)]
    if key is None:
        key = next((name for name in order if name in nested), None)
        if key is None and nested:
            expected = "one of " + ", ".join(order)
            raise CheckpointError(str(path), summarize_file(content), expected, f"Name one of: {', '.join(nested)}.")
    elif key not in nested:
        hint = f"Name one of: {', '.join(nested)}." if nested else "The file is flat: name no entry (~)."
        raise CheckpointError(str(path), f"no entry '{key}'", "an entry that the file has", hint)
    return content if key is None else content[key]


def _system_error(error: BaseException) -> BaseException:
    """The system's error: torch's writer turns a full disk into a RuntimeError about positions in the file."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_CLASSES = {cls.__name__: cls for cls in (GPEN, GPENPrior, StyleGAN1Prior, PGGANPrior, BigGANPrior, GPENDiscriminator)}


@dataclass(frozen=True, eq=False)
class Network:
    """One whole network of a file."""

    where: str  # file and entry, for errors and reports
    entry: str | None  # its name in the file; None in a flat one
    spec: NetworkSpec
    tensors: StateDict  # in our layout
    taps: tuple[float, ...] | None  # of its FIR filters, the smallest 1; None where the file does not store them

    @property
    def is_discriminator(self) -> bool:
        """Whether it is a discriminator, not a generator."""
        return self.spec.kind == "GPENDiscriminator"

    @property
    def not_finite(self) -> list[str]:
        """Names of the tensors with infinite values or NaN."""
        return [name for name, tensor in self.tensors.items() if not tensor.isfinite().all()]

    def option_lines(self, stated: Metadata | None = None) -> str:
        """The lines of an option file that build this network; what no shape shows is as `stated`."""
        arguments = {"type": self.spec.kind} | self.spec.arguments()
        defaults = inspect.signature(_CLASSES[self.spec.kind]).parameters
        hidden = {} if stated is None else {name: value for name, value in stated.hidden.items() if name in defaults}
        if self.taps:
            hidden["resample_kernel"] = list(self.taps)
        for name, value in hidden.items():
            usual = defaults[name].default
            if tuple(value) != tuple(usual) if isinstance(usual, tuple) else value != usual:
                arguments[name] = value
        lines = ["network_d:" if self.is_discriminator else "network_g:"]
        return "\n".join(lines + [f"  {name}: {value}" for name, value in arguments.items()])


def build(spec: NetworkSpec, stated: Metadata | None = None) -> GPEN | GANPrior | GPENDiscriminator:
    """The network that a spec describes, with fresh weights; what no shape shows is as `stated`."""
    cls = _CLASSES[spec.kind]
    hidden = {} if stated is None else stated.hidden
    known = inspect.signature(cls).parameters
    return cls(**spec.arguments() | {name: value for name, value in hidden.items() if name in known})


def describe(net: nn.Module, **facts: object) -> Metadata:
    """What a file with the weights of a network states of it; `facts` are further fields of `Metadata`."""
    state = net.state_dict()
    facts = {"architecture": type(net).__name__, "weights_sha256": metadata.digest(state)} | facts
    if type(net) in _CLASSES.values():
        with contextlib.suppress(CheckpointError):  # on a prior of another package
            facts["arguments"] = infer_spec(state).arguments() | hidden_arguments(net)
    return Metadata(**facts)


def hidden_arguments(net: nn.Module) -> dict[str, object]:
    """Arguments with which one of our networks was built and which no shape shows."""
    found = {name: getattr(net, name) for name in ("value_range", "stddev_group") if hasattr(net, name)}
    mapping = getattr(getattr(net, "decoder", net), "mapping", nn.Identity())
    rate = next((layer.lr_mul for layer in mapping.modules() if isinstance(layer, EqualLinear)), None)
    kernel = next((kernel for name, kernel in net.named_buffers() if name.endswith(".kernel")), None)
    found |= {} if rate is None else {"lr_mlp": rate}
    return found | ({} if kernel is None else {"resample_kernel": list(taps_of(kernel))})


def read_network(
    weights: str | os.PathLike,  # a file of any layout
    key: str | None = None,  # entry of it; None prefers the averaged weights
    kind: Kind | None = None,  # that it must be; None: any
    hints: Mapping[Kind, str] = MappingProxyType({}),  # for the error, by the kind that it is
) -> tuple[nn.Module, NetworkSpec, Metadata]:
    """The network of a file, on the CPU, and what the file states of it. CheckpointError as in `read`, or another kind.

    Sizes and widths are those of the tensors.
    """
    state = read(weights, key)
    spec = infer_spec(state, str(weights))
    if kind not in (None, spec.kind):
        expected = "a whole GPEN, encoder and decoder" if kind == "GPEN" else f"a {kind}"
        raise CheckpointError(str(weights), f"holds {spec}", expected, hints.get(spec.kind, ""))
    stated = metadata.read(weights)
    if kind == spec.kind or stated.architecture == spec.kind:  # of a discriminator beside a generator there are none
        check_stated(stated, spec, str(weights))
    net = build(spec, stated)
    problems = differences(from_authors(state), net.state_dict()) or foreign_filters(net, state)
    if problems:
        got = f"holds {spec}, but not as it is built here ({shown(problems)})"
        raise CheckpointError(str(weights), got, "all tensors of one network", "Download or write it again.")
    net.load_state_dict(state)
    net.stated = stated
    return net, spec, stated


def check_stated(stated: Metadata, spec: NetworkSpec, where: str) -> None:
    """Raise a CheckpointError if a file's metadata are of another network than its tensors."""
    if stated.architecture not in (None, spec.kind):
        raise CheckpointError(where, f"states {stated.architecture[:40]}, but holds {spec}", hint=_STALE)
    for name, value in spec.arguments().items():
        given = stated.arguments.get(name, value)
        if given != value and not _nearly(given, value):
            got = f"states {name} {str(given)[:40]}, but its tensors have {value}"
            raise CheckpointError(where, got, "metadata of these tensors", _STALE)


_STALE = "gpen-convert FILE -o NEW --to ours writes it again, with metadata of its tensors."


def _nearly(one: object, other: object) -> bool:
    """Whether two factors of widths are equal up to rounding."""
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return numbers and math.isclose(one, other, rel_tol=1e-6)


def entries(path: str | os.PathLike) -> dict[str | None, object]:
    """Entries of a file by name, or all tensors of a flat file as entry ``None``. CheckpointError as in `read`."""
    content = read_whole(path)
    nested = any(isinstance(value, Mapping) for value in content.values())
    return dict(content) if nested else {None: content}


def license_of(path: str | os.PathLike) -> str | None:
    """The license that a file states, or under which its code base publishes weights. CheckpointError as in `read`."""
    return metadata.read(path).license or license_in(entries(path))


def license_in(held: Mapping[str | None, object]) -> str | None:
    """The license of the `entries` of a file without metadata: stated, or of its code base's published weights."""
    if isinstance(held.get("license"), str):  # of files without metadata
        return held["license"]
    layouts = [detect_layout(without_wrapper_prefixes(value)) for value in held.values() if is_network(value)]
    return next((LICENSES[layout] for _, layout in layouts if layout in LICENSES), None)


def is_network(value: object) -> bool:
    """Whether an entry has the names of one of our networks, complete or not."""
    tensors = isinstance(value, Mapping) and value and all(isinstance(item, torch.Tensor) for item in value.values())
    return bool(tensors) and detect_layout(without_wrapper_prefixes(value)) is not None


def network_of(
    path: str | os.PathLike,  # of the file, for errors
    entry: str | None,  # its name
    value: Mapping[str, torch.Tensor],  # its tensors, in any layout
) -> Network:
    """The network in an entry. CheckpointError: none of ours, or tensors missing, superfluous or misshapen."""
    where = str(path) if entry is None else f"{path} [{entry}]"
    plain = without_wrapper_prefixes(value)
    spec, tensors = infer_spec(plain, where), from_authors(plain)
    with ShapesOnly():
        own = build(spec).state_dict()
    problems = differences(tensors, own)
    if problems:
        got = f"holds {spec}, with other tensors than its own ({shown(problems)})"
        raise CheckpointError(where, got, "all tensors of one network and no others", "Download or write it again.")
    return Network(where, entry, spec, tensors, filter_taps(plain, where))


def report(path: str | os.PathLike) -> tuple[str, bool]:
    """Describe a file; True if it has networks, all whole and with finite values. CheckpointError as in `read`."""
    lines, besides, sound, digests = [str(path)], [], [], set()
    held, stated = entries(path), metadata.read(path)
    license = stated.license or license_in(held)
    if license is not None:
        lines.append(f"  license: {license}")
    lines += _stated_lines(stated)
    for entry, value in held.items():
        if entry == "license":
            continue
        if isinstance(value, Mapping) and refusal(value):
            lines.append(f"  {entry or 'flat'}: {refusal(value)}")
            sound.append(False)
            continue
        if not is_network(value):
            besides.append(summarize_file(value) if entry is None else f"{entry} ({_shape(value)})")
            continue
        try:
            network = network_of(path, entry, value)
            if not network.is_discriminator or stated.architecture == network.spec.kind:  # else beside a generator
                check_stated(stated, network.spec, network.where)
            lines.append(indent(_described(network, stated), "  "))
            sound.append(not network.not_finite)
            digests.add(metadata.digest(network.tensors))
        except CheckpointError as error:
            lines.append(f"  {error}")
            sound.append(False)
    if stated.weights_sha256 is not None and digests:
        same = stated.weights_sha256 in digests
        lines.append(f"  SHA-256 of the weights {stated.weights_sha256}: {'as stated' if same else 'DIFFERS'}")
        sound.append(same)
    if not sound:
        lines.append("  no weights of a GPEN, GPENPrior or GPENDiscriminator")
    if besides:
        lines.append(f"  besides: {', '.join(besides)}")
    return "\n".join(lines), bool(sound) and all(sound)


def _stated_lines(stated: Metadata) -> list[str]:
    """What a file states besides its license and what its tensors show."""
    named = {"written by": stated.version and f"gpen_plugin {stated.version}", "title": stated.title}
    conventions = dict(stated.conventions)
    if "value_range" in conventions:
        conventions["value_range"] = list(conventions["value_range"])
    named |= {"data": stated.data} | {name.replace("_", " "): value for name, value in conventions.items()}
    return [f"  {name}: {value}" for name, value in named.items() if value is not None]


def _described(network: Network, stated: Metadata) -> str:
    count = sum(tensor.numel() for tensor in network.tensors.values())
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in network.tensors.values()})
    broken = network.not_finite
    values = f"NOT FINITE: {shown(broken)}" if broken else "all finite"
    facts = f"layout {network.spec.layout}; {count:,} parameters; {', '.join(dtypes)}; {values}"
    return f"{network.entry or 'flat'}: {network.spec}\n  {facts}\n{indent(network.option_lines(stated), '  ')}"


def _shape(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor of {tuple(value.shape)}"
    if isinstance(value, Mapping | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return f"{value}"[:40] if isinstance(value, int | float | str) else type(value).__name__
