"""The methods that an evaluation compares, by the ``type`` of their entry in the option file."""

import contextlib
import dataclasses
import hashlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape, glob
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from gpen_plugin.baselines.dfdnet import SIZE as DFDNET_SIZE
from gpen_plugin.baselines.dfdnet import DFDNetOptions, load_dfdnet
from gpen_plugin.baselines.method import (
    RANDOM,
    RANDOM_NOTE,
    Interpolation,
    Method,
    Sample,
    count_parameters,
    describe_file,
    resize,
    seeded,
    to_uint8,
)
from gpen_plugin.baselines.mgan_prior import MGANPrior, MGANPriorOptions
from gpen_plugin.baselines.psp import PSPMethod, PSPOptions, load_published
from gpen_plugin.baselines.pulse import Pulse, PulseOptions
from gpen_plugin.checkpoints import checkpoint, sha256_of
from gpen_plugin.checkpoints.download import local_path
from gpen_plugin.config import schema
from gpen_plugin.config.imports import code_digest, import_module_of
from gpen_plugin.data.image_source import FolderSource, resize_square
from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.restore.network import (
    build_network,
    describe_network,
    from_network,
    load_network_weights,
    name_location,
    prepare_for_inference,
    read_gpen,
    seeded_init,
    to_network,
)


@dataclass(frozen=True, kw_only=True)
class IOConvention:
    """How images pass through a network."""

    value_range: tuple[float, float]  # lowest and highest value of the network's input and output: [0, 1] or [-1, 1]
    channels: Literal["rgb", "bgr"] = "rgb"  # their order in the network
    # side that the degraded image is resized to; ~ for the size of the ground truth, ``native`` for none, if the
    # network itself enlarges.
    input_size: int | Literal["native"] | None = None
    resize: Interpolation = "bilinear"  # interpolation of the input
    # which of several outputs is the image: an index, a key or an attribute; ~ if the network returns the image.
    output: int | str | None = None
    # side that the reference face is resized to, for a network that takes (image, reference); ~ for a network without
    reference_size: int | None = None
    arguments: Mapping = field(default_factory=dict)  # further arguments of the network's forward
    # ``train`` for a network that needs its training mode, such as BasicSR's HiFaceGAN. Its state is reset after each
    # image.
    mode: Literal["eval", "train"] = "eval"
    seed: int = 0  # of the network's random numbers and of random weights

    def check(self, where: str) -> None:
        """Raise `OptionError` for wrong values; `where` is the key path of the entry."""
        low, high = self.value_range
        if not -math.inf < low < high < math.inf:
            raise OptionError(f"{where}:value_range", f"got [{low}, {high}]", "[0, 1] or [-1, 1]")
        if isinstance(self.input_size, int) and self.input_size < 1:
            raise OptionError(f"{where}:input_size", f"got {self.input_size}", "a number above 0, native or ~")
        if self.reference_size is not None and self.reference_size < 1:
            raise OptionError(f"{where}:reference_size", f"got {self.reference_size}", "a number above 0, or ~")

    def __str__(self) -> str:
        reference = "" if self.reference_size is None else f" and a reference at {self.reference_size} px"
        if self.input_size is None:
            return f"input at the size of the results, {self.resize}{reference}"
        size = "its own size" if self.input_size == "native" else f"{self.input_size} px, {self.resize}"
        return f"input at {size}{reference}; its images are resized where the results are of another size"


class NetworkMethod:
    """A network that restores one image at a time."""

    def __init__(
        self,
        net: nn.Module,  # takes (1, 3, H, W) float32
        io: IOConvention,
        device: torch.device,
        description: str,
        identity: Mapping,  # `io` is added
    ):
        self.parameters = count_parameters(net)  # before a GPEN is fused
        self.net, self.io, self.device = prepare_for_inference(net, device), io, device
        self.net.train(io.mode == "train")
        self.description = description
        self.needs_reference = io.reference_size is not None
        handling = {option.name: to_json(getattr(io, option.name)) for option in dataclasses.fields(IOConvention)}
        if not self.needs_reference:
            del handling["reference_size"]  # the images of earlier runs are still those of this method
        self.identity = {**identity, "handling": handling}

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> np.ndarray:
        """Restore a face.

        DataError: the output is not finite. ShapeError: it is no image. OptionError: `output` does not select one.
        """
        how, rgb = self.io, self.io.channels == "rgb"
        if how.input_size == "native":
            lq = sample.lq.astype(np.float32) / 255
        else:
            lq = resize(sample.lq, how.input_size or sample.size, how.resize)
        images = [lq]
        if how.reference_size is not None:
            images.append(resize_square(sample.ref, how.reference_size).astype(np.float32) / 255)
        batches = [
            to_network(image, how.value_range, rgb=rgb)[None].to(self.device) for image in images
        ]  # (1, 3, H, W)
        with seeded(self.device, how.seed, sample.key, sample.condition), self._state_kept():
            image = self._image_of(self.net(*(batch.to(self.device) for batch in batches), **how.arguments))
        if not image.isfinite().all():
            raise DataError(sample.key, "the network gave values that are no numbers", "finite values")
        return resize_square(from_network(image, how.value_range, rgb=rgb), sample.size)

    def _image_of(self, answer: object) -> torch.Tensor:
        """Select the image, (3, H, W), from the network's output."""
        output = self.io.output
        tensor = answer if output is None else _part(answer, output)
        if not isinstance(tensor, torch.Tensor):
            got = f"the network gave {_listed(answer)}" + ("" if output is None else f", and output is {output}")
            raise OptionError("output", got, "the index, key or attribute of the image", "Set output to it.")
        if tensor.ndim != 4 or tensor.shape[:2] != (1, 3):
            raise ShapeError("output", f"the network gave {_listed(answer)}", "an image (1, 3, H, W)")
        return tensor[0]

    @contextlib.contextmanager
    def _state_kept(self) -> Iterator[None]:
        """Reset the buffers afterwards: a network in training mode changes its statistics at each pass."""
        kept = [(buffer, buffer.clone()) for buffer in self.net.buffers()] if self.net.training else []
        try:
            yield
        finally:
            for buffer, before in kept:
                buffer.copy_(before)


def _part(answer: object, output: int | str) -> object:
    """The selected index, key or attribute of an output; None if it does not exist."""
    if isinstance(answer, Mapping):
        return answer.get(output)
    if isinstance(output, str):
        return getattr(answer, output, None)
    inside = isinstance(answer, tuple | list) and -len(answer) <= output < len(answer)
    return answer[output] if inside else None


def _listed(answer: object) -> str:
    """A network's output in words."""
    if isinstance(answer, torch.Tensor):
        return f"a tensor {tuple(answer.shape)}"
    if isinstance(answer, Mapping):
        parts = answer.items()
    elif isinstance(answer, tuple | list):
        parts = zip(getattr(answer, "_fields", range(len(answer))), answer, strict=True)
    else:
        return f"a {type(answer).__name__}"
    return f"a {type(answer).__name__} of " + ", ".join(f"{name}: {_brief(part)}" for name, part in parts)


def _brief(part: object) -> str:
    return f"tensor {tuple(part.shape)}" if isinstance(part, torch.Tensor) else type(part).__name__


def to_json(value: object) -> object:
    """Options as JSON returns them, so that they are equal after a round trip."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, tuple | list) else value


@dataclass(frozen=True)
class GPENOptions:
    """The keys of a method of type ``gpen``."""

    # a file of ours, of BasicSR or of GPEN's authors; its tensors determine the sizes. ``random`` for a test run.
    # ``{run}`` stands for each of the entry's ``runs``.
    weights: str
    param_key: str | None = None  # entry of the file; ~ takes the EMA weights if there are any
    network: Mapping | None = None  # arguments of `GPEN`, with random weights only


WEIGHTS_BY = {
    "authors": "weights of the method's authors",
    "others": "weights of a re-implementation, not of the method's authors",
    "us": "trained by us, not by the method's authors",
}


@dataclass(frozen=True, kw_only=True)
class ArchOptions(IOConvention):
    """The keys of a method of type ``arch``: those of `IOConvention`, and these."""

    # ``type`` and the arguments of a network, as BasicSR's ``network_g``. The type is a name in its registry, or the
    # dotted path of a class.
    network: Mapping
    weights: str  # the file; ``random`` for a test run. ``{run}`` as in `GPENOptions`
    param_key: str | None = None  # entry of the file; ~ takes params_ema, else params, else the file's top level
    strict_load: bool = True  # whether all tensors must fit
    imports: Sequence[str] = ()  # modules to import first because they register their networks, e.g. [gfpgan]
    # who trained the weights, for the reader of the tables: the method's `authors`, `others` who have implemented it
    # again, or `us`; ~ says nothing
    weights_by: Literal["authors", "others", "us"] | None = None
    note: str = ""  # a further sentence for the reader of the tables


def build_gpen(options: GPENOptions, where: str, device: torch.device) -> NetworkMethod:
    """Build a GPEN, whose sizes are inferred from its weights.

    GPENError: the file cannot be read or holds something else; or `network` is missing, wrong or superfluous.
    """
    identity = {"type": "gpen", "param_key": options.param_key, "weights": RANDOM}
    if options.weights == RANDOM:
        if options.network is None:
            hint = "Write e.g. network: {out_size: 512}."
            raise OptionError(f"{where}:network", "missing", "GPEN's arguments, as the weights are random", hint)
        section = {"type": "GPEN", **options.network}
        net = seeded_init(lambda: build_network(section, f"{where}:network"))
        spec, origin, identity["network"] = checkpoint.infer_spec(net.state_dict()), RANDOM_NOTE, to_json(section)
    elif options.network is not None:
        got = "given together with a weight file, which determines it"
        raise OptionError(f"{where}:network", got, "one of the two", "Remove network.")
    else:
        net, spec = name_location(f"{where}:weights", lambda: read_gpen(options.weights, options.param_key))
        identity["weights"] = sha256_of(local_path(options.weights))
        origin = describe_file(options.weights, identity["weights"])
    io = IOConvention(value_range=net.value_range, input_size=net.in_size)
    return NetworkMethod(net, io, device, f"{spec}; {origin}; {io}", identity)


def build_arch(options: ArchOptions, where: str, device: torch.device) -> NetworkMethod:
    """Build any network of BasicSR's registry or of an installed package; errors as in `build_gpen`."""
    options.check(where)
    for module in options.imports:
        import_module_of(module, f"{where}:imports")
    elsewhere = "A package that registers its networks is named in imports."
    net = seeded_init(lambda: build_network(options.network, f"{where}:network", elsewhere), options.seed)
    _check_arguments(net, options, where)
    identity = {"type": "arch", "network": to_json(options.network), "param_key": options.param_key}
    if code := code_digest(type(net)):
        identity["code"] = code
    if options.weights == RANDOM:
        origin, identity["weights"] = RANDOM_NOTE, RANDOM
    else:
        left = load_network_weights(net, options.weights, options.param_key, f"{where}:weights", options.strict_load)
        identity["weights"] = sha256_of(options.weights)
        origin = describe_file(options.weights, identity["weights"])
        origin += f", which lacks {left} of the network's tensors" if left else ""
        identity["strict_load"] = options.strict_load
        origin += f"; {WEIGHTS_BY[options.weights_by]}" if options.weights_by else ""
    parts = [describe_network(options.network, net), origin, str(options), options.note]
    return NetworkMethod(net, options, device, "; ".join(filter(None, parts)), identity)


def build_dfdnet(options: DFDNetOptions, where: str, device: torch.device) -> NetworkMethod:
    """Build DFDNet with its dictionary; errors as in `load_dfdnet`."""
    net, description, identity = load_dfdnet(options, where)
    io = IOConvention(value_range=(-1, 1), input_size=DFDNET_SIZE)
    return NetworkMethod(net, io, device, f"{description}; {io}", identity)


def build_psp(options: PSPOptions, where: str, device: torch.device, folder: Path) -> Method:
    """Build pSp: of a published file, or on a prior; errors as in `load_published` and `PSPMethod`."""
    if options.prior is not None:
        return PSPMethod(options, where, device, folder)
    net, description, identity = load_published(options.weights, f"{where}:weights")
    io = IOConvention(value_range=(-1, 1), input_size=net.in_size)
    return NetworkMethod(net, io, device, f"{description}; {io}", identity)


def _check_arguments(net: nn.Module, options: ArchOptions, where: str) -> None:
    """Raise an `OptionError` unless `forward` takes an image, the reference if one is given, and the arguments."""
    _, *others = inspect.signature(net.forward).parameters.values()
    name, given = type(net).__name__, options.arguments
    takes_more = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in others)
    first = others[0] if others and others[0].kind is others[0].POSITIONAL_OR_KEYWORD else None
    if options.reference_size is not None:
        if first is None and not takes_more:
            got = f"got {options.reference_size}, and {name} takes the image alone"
            raise OptionError(f"{where}:reference_size", got, "~", "Remove it.")
        others = others[1:]
    elif first is not None and first.name == "ref":
        got = f"missing, and {name} takes a reference face"
        raise OptionError(f"{where}:reference_size", got, "its side in pixels")
    known = [parameter.name for parameter in others]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in others):
        for key in given:
            if not known:
                got = f"{name} takes the image alone"
                raise OptionError(f"{where}:arguments:{key}", got, "no arguments", "Remove arguments.")
            if key not in known:
                raise schema.unknown_key(key, known, f"{where}:arguments")


@dataclass(frozen=True)
class NoOptions:
    """The keys of methods of type ``bilinear`` and ``bicubic``: none."""


class InterpolationBaseline:
    """The degraded image, resized by interpolation: the baseline of every method."""

    def __init__(self, how: Interpolation):
        self._how = how
        self.description = f"the degraded image, enlarged by {how} interpolation"
        self.identity = {"type": how}

    def __call__(self, sample: Sample) -> np.ndarray:
        return to_uint8(resize(sample.lq, sample.size, self._how))


@dataclass(frozen=True)
class FolderOptions:
    """The keys of a method of type ``folder``: images that another program restored."""

    path: str  # a folder. ``{condition}`` in it stands for the condition, if the protocol has several
    suffix: str = ""  # appended to the names by the program, e.g. _00
    # whether the program needs a reference face: then a face without one may be missing from the folder
    needs_reference: bool = False


class PrecomputedResults:
    """Images from a folder, by the key of the image; DataError: the folder is missing or empty."""

    def __init__(self, options: FolderOptions, where: str):
        self._options, self.needs_reference = options, options.needs_reference
        self._sources = {folder: FolderSource(folder, f"{where}:path") for folder in self._folders(f"{where}:path")}
        count = sum(len(source.keys) for source in self._sources.values())
        digest = self._digest()
        self.description = (
            f"{count} images of another program (sha256 {digest[:12]}); resized where they are of another size"
        )
        self.identity = {"type": "folder", "suffix": options.suffix, "images": digest}

    def __call__(self, sample: Sample) -> np.ndarray:
        by_condition = "{condition}" in self._options.path
        if sample.condition and not by_condition:
            got = (
                f"{self._options.path} is one folder, and the protocol has several conditions ({sample.condition}, ...)"
            )
            raise OptionError("path", got, "a folder per condition", "Write {condition} in the path.")
        folder, name = self._options.path.replace("{condition}", sample.condition), sample.key + self._options.suffix
        source = self._sources.get(str(Path(folder)))
        if source is None or name not in source.keys:
            raise DataError(f"{folder}/{name}", "is not there", "a restored image of this name")
        return resize_square(source.read(name), sample.size)

    def _folders(self, where: str) -> list[str]:
        if "{condition}" not in self._options.path:
            return [str(Path(self._options.path))]
        pattern = "*".join(map(escape, self._options.path.split("{condition}")))
        found = sorted(str(Path(folder)) for folder in glob(pattern) if Path(folder).is_dir())
        if not found:
            raise DataError(
                where, f"no folder is like {self._options.path}", "a folder per condition", "Check the path."
            )
        return found

    def _digest(self) -> str:
        """Digest of the files' names and bytes."""
        digest = hashlib.sha256()
        for folder, source in self._sources.items():
            for key in source.keys:
                content = hashlib.sha256(Path(source.name(key)).read_bytes()).hexdigest()
                condition = folder if len(self._sources) > 1 else ""
                digest.update(f"{Path(condition).name}/{key}\0{content}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def build_method(
    entry: Mapping,  # ``type`` and the keys of that type
    where: str,  # key path of the entry, e.g. ``methods:GPEN``
    device: torch.device,
    folder: Path,  # of the method, for files that it keeps
) -> Method:
    """Build a method; GPENError: a key is wrong, or a file is missing or of another network."""
    options, build = read_entry(entry, where)
    return build(options, where, device, folder)


def read_entry(entry: Mapping, where: str) -> "tuple[typing.Any, Builder]":
    """Check an entry without opening a file; return its options, and the function that builds the method from them.

    OptionError names the key path of each problem.
    """
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise schema.unknown_name(kind, list(TYPES), f"{where}:type")
    options_class, build = TYPES[kind]
    return schema.build(options_class, {key: value for key, value in entry.items() if key != "type"}, where), build


Builder = Callable[[typing.Any, str, torch.device, Path], Method]
TYPES: dict[str, tuple[type, Builder]] = {
    "bilinear": (NoOptions, lambda options, where, device, folder: InterpolationBaseline("bilinear")),
    "bicubic": (NoOptions, lambda options, where, device, folder: InterpolationBaseline("bicubic")),
    "gpen": (GPENOptions, lambda options, where, device, folder: build_gpen(options, where, device)),
    "arch": (ArchOptions, lambda options, where, device, folder: build_arch(options, where, device)),
    "dfdnet": (DFDNetOptions, lambda options, where, device, folder: build_dfdnet(options, where, device)),
    "folder": (FolderOptions, lambda options, where, device, folder: PrecomputedResults(options, where)),
    "pulse": (PulseOptions, lambda options, where, device, folder: Pulse(options, where, device)),
    "mganprior": (MGANPriorOptions, lambda options, where, device, folder: MGANPrior(options, where, device)),
    "psp": (PSPOptions, build_psp),
}
