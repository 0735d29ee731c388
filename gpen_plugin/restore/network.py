"""Networks that restore aligned faces, by file or by name, and the conversion of faces to tensors and back."""

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import numpy as np
import torch
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import fuse
from gpen_plugin.archs.key_maps import PriorKind
from gpen_plugin.archs.published_files import published_network, to_basicsr
from gpen_plugin.checkpoints import checkpoint, metadata
from gpen_plugin.checkpoints.download import cache_folder, find_weights, folder_lock, local_path
from gpen_plugin.checkpoints.metadata import Conventions, Metadata
from gpen_plugin.config import schema
from gpen_plugin.config.imports import import_module_of
from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.errors import INSTALL_HOST, CheckpointError, DataError, OptionError, ShapeError
from gpen_plugin.host import host_is_installed, registered, resolve
from gpen_plugin.host.patches import patch_missing_ops
from gpen_plugin.nets.loading import OnnxNetwork, select_device
from gpen_plugin.nets.onnx_providers import provider_of
from gpen_plugin.restore import zoo
from gpen_plugin.restore.alignment import parse_template
from gpen_plugin.restore.parallel import parallel_map
from gpen_plugin.restore.runtime import Choice, fastest
from gpen_plugin.restore.tasks import get_task
from gpen_plugin.restore.zoo import ReleasedModel
from gpen_plugin.version import __version__

DOTTED_PATH_HINT = "Name a network that is not registered by its dotted path."


def to_network(
    image: np.ndarray,
    value_range: tuple[float, float] = (-1, 1),  # lowest and highest value of the result
    *,
    rgb: bool = True,  # channel order of the result; BGR otherwise
) -> torch.Tensor:
    """Convert an image, (H, W, 3) BGR float32 in [0, 1], to (3, H, W) float32 in `value_range`."""
    low, high = map(np.float32, value_range)
    channels = (image[:, :, ::-1] if rgb else image).transpose(2, 0, 1)  # (3, H, W)
    return torch.from_numpy(np.ascontiguousarray(channels) * (high - low) + low)


def from_network(
    output: torch.Tensor,  # (3, H, W), float; clipped to `value_range`
    value_range: tuple[float, float] = (-1, 1),  # its lowest and highest value
    *,
    rgb: bool = True,  # its channel order; BGR otherwise
) -> np.ndarray:
    """Convert a network's output to an image, (H, W, 3) BGR uint8, as the validation of a training does."""
    image = (_unit(output, value_range) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    return np.ascontiguousarray(image[:, :, ::-1] if rgb else image)


def faces_to_network(
    faces: Sequence[np.ndarray],  # one or more, (H, W, 3) BGR float32 in [0, 1]
    size: int,  # of the network's input
    value_range: tuple[float, float],  # lowest and highest value of the result
) -> torch.Tensor:
    """Convert faces to a batch, (N, 3, size, size) RGB float32 in `value_range`; other sizes are resized bilinearly.

    Raises: ShapeError: a face of another shape or dtype.
    """
    for face in faces:
        if face.ndim != 3 or face.shape[2] != 3 or 0 in face.shape or face.dtype != np.float32:
            raise ShapeError("faces", f"got {face.shape} {face.dtype}", "(H, W, 3) float32 in BGR order, in [0, 1]")
    fitting = [face if face.shape[:2] == (size, size) else resize_bilinear(face, size) for face in faces]
    return torch.stack([to_network(face, value_range) for face in fitting])  # (N, 3, size, size)


def faces_from_network(
    output: torch.Tensor,  # (N, 3, S, S) RGB, float; clipped to `value_range`
    value_range: tuple[float, float],  # its lowest and highest value
    where: str,  # name of the network for the error
) -> list[np.ndarray]:
    """Convert a batch to N faces, (S, S, 3) BGR float32 in [0, 1].

    Raises: DataError: values that are not finite, which clipping would hide.
    """
    broken = (~output.isfinite()).flatten(1).any(dim=1)  # (N, 3, S, S) -> (N,)
    if broken.any():
        got = f"gave values that are not finite for {int(broken.sum())} of {len(output)} faces"
        hint = "Large networks overflow in half precision: use fp32. If this is fp32, the weights are damaged."
        raise DataError(where, got, "finite values", hint)
    images = _unit(output, value_range).flip(1).permute(0, 2, 3, 1)  # (N, S, S, 3), BGR
    return list(images.contiguous().cpu().numpy())


def _unit(output: torch.Tensor, value_range: tuple[float, float]) -> torch.Tensor:
    low, high = value_range
    return ((output.float() - low) / (high - low)).clamp(0, 1)


ARCFACE_MAX_SIZE = 256  # pixels; other tools use ArcFace's template up to this size, and FFHQ's beyond


class OnnxFaceNetwork:
    """An ONNX file as a `FaceNetwork`: RGB faces of one size in, faces as its first output.

    Conventions come from the metadata of our own files, else from the released model that the file is named after, else
    they are those of the usual tools: [-1, 1].

    Raises:
        MissingFileError: onnxruntime is not installed.
        CheckpointError: the file is damaged, or that of another network.
    """

    file: Path | None = None  # that `open_network` has read it from
    stated: Mapping[str, object]  # conventions that the file states
    released: ReleasedModel | None  # whose conventions it has

    def __init__(
        self,
        path: Path,  # of the file
        device: torch.device,  # where it computes; the CPU if onnxruntime was built without it
        known: ReleasedModel | None = None,  # the released model that it is named after
        provider: str | None = None,  # of onnxruntime, see `gpen_plugin.nets.onnx_providers`; None: by the device
    ):
        self._file = OnnxNetwork(path, device, provider)
        self.in_size, stated = self._input_size(), metadata.parse(self._file.metadata, str(path))
        ours = stated.version is not None  # such a file may have the name that an application wants
        self.released = known = None if ours else known
        usual = Conventions(template="arcface" if self.in_size <= ARCFACE_MAX_SIZE and not ours else "ffhq")
        conventions = _conventions(stated, known, str(path), usual)
        self.stated = stated.conventions
        self.template, self.alpha, self.task = conventions.template, conventions.alpha, conventions.task
        self._value_range = conventions.value_range
        self.out_size = self._output_size()
        if known is not None and self.out_size != known.out_size:
            got, hint = f"gives {self.out_size} px", "Give the file a name of its own."
            raise CheckpointError(str(path), got, f"{known.out_size} px, as {known.name}", hint)
        precision = stated.precision or np.dtype(self._file.precision).name
        self.provider = self._file.provider  # of onnxruntime, as it names it: CPU, CUDA, ...
        self.description = f"ONNX network {self.out_size} px, {path.name}; {precision} on {self.provider}"

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `FaceNetwork`. With a fixed batch size, the file is run several times."""
        if not faces:
            return []
        images = faces_to_network(faces, self.in_size, self._value_range).numpy()
        output = torch.from_numpy(self._run(images))  # (N, 3, out_size, out_size)
        return faces_from_network(output, self._value_range, self.description)

    def _run(self, images: np.ndarray) -> np.ndarray:
        """(N, 3, S, S) -> (N, 3, T, T), both float; the last batch of a fixed size is padded with its last face."""
        size = self._file.batch or len(images)
        missing = -len(images) % size
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])  # (N + missing, 3, S, S)
        try:
            parts = [next(iter(self._file(part).values())) for part in np.split(filled, len(filled) // size)]
        except ShapeError as error:
            hint = "If it can only restore one face at a time, use a batch of 1."
            raise CheckpointError(self._file.path, error.got, "a network of RGB faces", hint) from error
        return np.concatenate(parts)[: len(images)]

    def _input_size(self) -> int:
        file = self._file
        height, width = file.sides
        if file.channels != 3 or height is None or height != width:
            shape = ", ".join("any" if side is None else str(side) for side in (file.channels, height, width))
            expected, hint = "(3, S, S) of one size S", "Export it with a fixed height and width."
            raise CheckpointError(file.path, f"takes images of shape ({shape})", expected, hint)
        return height

    def _output_size(self) -> int:
        """From a run if the file does not state it."""
        shape = tuple(self._file.output_shape)
        if not all(isinstance(side, int) for side in shape[1:]) or len(shape) != 4:
            shape = self._run(np.zeros((1, 3, self.in_size, self.in_size), np.float32)).shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise CheckpointError(self._file.path, f"gives {shape}", "faces (N, 3, S, S) as its first output")
        return shape[2]


def _conventions(stated: Metadata, known: ReleasedModel | None, where: str, usual: Conventions) -> Conventions:
    """What the file states takes precedence over its name, and that over `usual`."""
    found = replace(usual if known is None else known.conventions, **stated.conventions)
    try:
        get_task(found.task)
        parse_template(found.template)
    except OptionError as error:
        raise CheckpointError(f"{where}: gpen.{error.where}", error.got, error.expected, error.hint) from error
    return found


def warn_of_conflicts(network: "FaceNetwork", **given: str | None) -> None:
    """A warning for each of `task` and `template` that is given and that the network's file states otherwise."""
    for name, value in given.items():
        own = getattr(network, "stated", {}).get(name, value)
        if value is not None and value != own:
            file = getattr(network, "file", "its file")  # which `open_network` adds
            message = f"{name}: got {value}, which is used; {file} states that the network's is {own}"
            warnings.warn(message, stacklevel=3)


Precision = Literal["fp32", "bf16"]
RUNTIMES, PRECISIONS = ("auto", "torch", "onnxruntime", "openvino"), ("auto", "fp32", "bf16")

EXPECTED_GPEN = "a whole GPEN, encoder and decoder"
OF_A_PRIOR = "gpen-sample generates faces with it. To restore faces, name a net_g_*.pth of a GPEN's training."
HINTS_BY_KIND = {
    **dict.fromkeys(get_args(PriorKind), OF_A_PRIOR),
    "GPENDiscriminator": "It is for training only. To restore faces, name a net_g_*.pth of a training.",
}


@runtime_checkable
class FaceNetwork(Protocol):
    """Restores aligned faces."""

    in_size: int  # side of the input
    out_size: int  # side of the output
    template: str  # default face alignment; see `gpen_plugin.restore.alignment`
    alpha: float  # default weight of its result, 0 to 1
    task: str  # see `gpen_plugin.restore.tasks`

    @property
    def description(self) -> str:
        """Network, file, precision and device in one line."""

    def __call__(
        self,
        # (H, W, 3) BGR float32 in [0, 1]; other sizes than `in_size` are resized bilinearly
        faces: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """Restore faces in one batch.

        Returns: (out_size, out_size, 3) BGR float32 in [0, 1], in the same order.
        Raises:
            ShapeError: a face of another shape or dtype.
            DataError: the network gave values that are not finite.
            OptionError: the batch does not fit into the device's memory.
        """


class TorchNetwork:
    """A GPEN as a `FaceNetwork`. OptionError if the device does not support bfloat16."""

    net: torch.nn.Module  # in eval mode, on the device; fused, see `gpen_plugin.archs.inference`
    device: torch.device  # where it computes
    value_range: tuple[float, float]  # lowest and highest value that `net` takes and gives
    file: Path | None = None  # that `open_network` has read it from
    stated: Mapping[str, object] = MappingProxyType({})  # conventions that the file states
    released: ReleasedModel | None = None  # whose conventions it has

    def __init__(
        self,
        net: GPEN,  # with its weights
        device: torch.device,  # where it computes
        precision: Precision,  # ``bf16`` computes features in bfloat16; latent codes, styles and images stay in float32
        conventions: Conventions,  # see `Conventions`
        name: str,  # sizes and file; `description` adds device and precision
    ):
        if precision == "bf16" and not torch.amp.is_autocast_available(device.type):
            raise OptionError("precision", f"got bf16, which {device.type} does not have", "fp32")
        self.net, self.device, self._precision = prepare_for_inference(net, device, precision), device, precision
        self.in_size, self.out_size = net.in_size, net.out_size
        self.template, self.alpha, self.task = conventions.template, conventions.alpha, conventions.task
        self.value_range, self.name = conventions.value_range, name

    @property
    def description(self) -> str:
        return f"{self.name}; {self._precision} on {self.device}"

    @torch.inference_mode()
    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not faces:
            return []
        try:
            return self._run_batch(faces)
        except torch.cuda.OutOfMemoryError as error:
            got = f"got {len(faces)} faces, which do not fit into the memory of {self.device}"
            raise OptionError("batch", got, "fewer faces", "Use a smaller batch, bf16, or another device.") from error
        except NotImplementedError as error:  # an operation that the device does not support
            if self.device.type != "mps":
                raise
            first = str(error).strip().splitlines()[0]
            warnings.warn(f"mps cannot run this network; the CPU is used instead ({first})", stacklevel=2)
            self.device = torch.device("cpu")
            self.net = prepare_for_inference(self.net, self.device)
            return self._run_batch(faces)

    def to_tensor(self, faces: Sequence[np.ndarray]) -> torch.Tensor:
        """Faces as `net` takes them: (N, 3, in_size, in_size), on the device. Errors: see `FaceNetwork`."""
        return faces_to_network(faces, self.in_size, self.value_range).to(self.device)

    def to_faces(self, output: torch.Tensor) -> list[np.ndarray]:
        """Inverse of `to_tensor` for the output, (N, 3, out_size, out_size)."""
        return faces_from_network(output, self.value_range, self.description)

    def _run_batch(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        batch = self.to_tensor(faces)
        parts = batch.split(1) if batch.device.type == "cpu" else [batch]
        return self.to_faces(torch.cat(parallel_map(self._output, parts)))

    @torch.inference_mode()  # which each thread has for itself
    def _output(self, batch: torch.Tensor) -> torch.Tensor:
        return self.net(batch)


def open_network(
    # a released name (``GPEN-BFR-512``, downloaded if needed), or a file: weights of ours, of BasicSR or of GPEN's
    # authors, whose tensors determine the sizes, or ONNX; a folder of `save_pretrained`; or a file on the Hugging Face
    # Hub, see `local_path`. It is used as its metadata state, or else as the released model whose name it bears
    model: str | PathLike,
    *,
    key: str | None = None,  # entry of a weight file, e.g. ``params_ema``; None prefers the averaged weights
    device: str | torch.device = "auto",  # see `select_device`
    # ``fp32``, ``bf16``, or ``auto``: bf16 where this processor gains from it and the network's error is small
    precision: str = "fp32",
    # ``torch``, ``onnxruntime``, ``openvino`` (that of onnxruntime), or ``auto``: the fastest by `gpen-restore
    # --benchmark` on this machine, else torch. onnxruntime's first use of weights writes them as ONNX into the cache
    runtime: str = "auto",
    # of onnxruntime: ``cuda``, ``tensorrt``, ``coreml``, ``openvino``, ``directml`` or ``cpu``, also with a device,
    # such as ``openvino:GPU``. None: that of `device`
    provider: str | None = None,
) -> FaceNetwork:
    """Open a network by name or file.

    Raises:
        CheckpointError: there is no such file, it cannot be read, or holds something else.
        MissingFileError: a released file is not on this machine and cannot be downloaded; or a package is missing.
        OptionError: the device or the provider does not exist, or an option does not apply to this kind of file.
    """
    for name, value, known_values in (("precision", precision, PRECISIONS), ("runtime", runtime, RUNTIMES)):
        if value not in known_values:
            raise OptionError(name, f"got {value!r}", f"one of {', '.join(known_values)}")
    device = select_device(device, mps=True)
    path, known = find_model(model)
    if path.suffix.lower() == ".pt2":
        got, hint = "is a program of torch.export, for other runtimes", "Name the weights that it was made from."
        raise CheckpointError(str(path), got, "weights or ONNX", hint)
    if path.suffix.lower() == ".onnx":
        _check_onnx_options(key, precision, runtime)
        provider = provider or ("openvino" if runtime == "openvino" else None)
        network: OnnxFaceNetwork | TorchNetwork = OnnxFaceNetwork(path, device, known, provider)
    else:
        network = _open_weights(path, key, device, Choice(runtime, precision), provider, known)
    network.file = path
    if network.released is not None and not network.released.is_ours:
        zoo.print_license_once()
    return network


def load(
    # a released name (``GPEN-BFR-512``, downloaded if needed), a file on the Hub (``hf:user/repo``), or a file of any
    # layout that `gpen-convert` reads: GPEN, priors and discriminators of ours, of BasicSR, of GPEN's authors, and
    # published priors
    model: str | PathLike,
    key: str | None = None,  # entry of the file; None prefers the averaged weights
    device: str | torch.device = "cpu",  # see `select_device`
) -> nn.Module:
    """A network with its weights, in eval mode, with its parameters: `GPEN`, a `GANPrior` or `GPENDiscriminator`.

    Sizes and widths are those of the tensors. `Restorer` restores photographs, and `fuse` makes a GPEN faster.
    Errors: CheckpointError, MissingFileError as in `open_network`.
    """
    device = select_device(device, mps=True)
    path, known = find_model(model, kinds=None)
    net, spec, stated = checkpoint.read_network(path, key)
    if known is not None and stated.version is None:
        known.check(spec, str(path))
        if not known.is_ours:
            zoo.print_license_once()
    return net.to(device).eval()


def read_gpen(
    weights: str | PathLike,  # a file of ours, of BasicSR or of GPEN's authors; its tensors determine sizes and widths
    key: str | None = None,  # entry of the file; None prefers the averaged weights
) -> tuple[GPEN, checkpoint.NetworkSpec]:
    """Build the GPEN of a file, on the CPU. CheckpointError if it cannot be read or is not a whole GPEN."""
    return checkpoint.read_network(weights, key, "GPEN", HINTS_BY_KIND)[:2]


def prepare_for_inference(
    net: nn.Module,  # any network
    device: torch.device,  # where it computes
    precision: Precision = "fp32",  # of a GPEN; others are unchanged
    *,
    fused: bool = True,  # False keeps the parameters of a GPEN
) -> nn.Module:
    """Move a network to a device in eval mode; a GPEN is fused, in the memory layout that is fastest there."""
    net = net.to(device).eval().requires_grad_(False)
    if not isinstance(net, GPEN):
        return net
    if device.type == "cpu" or precision == "bf16":
        net = net.to(memory_format=torch.channels_last)
    return fuse(net, torch.bfloat16 if precision == "bf16" else torch.float32) if fused else net


def _open_weights(
    path: Path, key: str | None, device: torch.device, wanted: Choice, provider: str | None, known: ReleasedModel | None
) -> OnnxFaceNetwork | TorchNetwork:
    net, spec, stated = checkpoint.read_network(path, key, "GPEN", HINTS_BY_KIND)
    known = known if stated.version is None else None
    if known is not None:
        known.check(spec, str(path))
    conventions = _conventions(stated, known, str(path), Conventions(net.value_range))
    name = f"{spec}, {path.name}"

    def open_in(precision: str) -> TorchNetwork:
        return TorchNetwork(net, device, cast(Precision, precision), conventions, name)

    if provider is not None:
        wanted = _with_provider(wanted, provider)
    choice = fastest(wanted, name, device, open_in)
    if choice.runtime == "torch":
        network: OnnxFaceNetwork | TorchNetwork = open_in(choice.precision)
    else:
        if choice.precision != "fp32":
            raise OptionError("precision", f"got {choice.precision} with the runtime {choice.runtime}", "fp32")
        provider = provider or ("openvino" if choice.runtime == "openvino" else provider_of(device))
        network = OnnxFaceNetwork(_exported(net, conventions), device, provider=provider)
        network.description = f"{name}; fp32 in onnxruntime on {network.provider}"
    network.stated, network.released = stated.conventions, known
    return network


def _with_provider(wanted: Choice, provider: str) -> Choice:
    """`wanted` for weights that a provider of onnxruntime shall run."""
    if wanted.runtime == "torch":
        hint = "Choose the runtime onnxruntime, or leave it out."
        raise OptionError("provider", f"got {provider} with the runtime torch", "none", hint)
    return Choice("onnxruntime", "fp32" if wanted.precision == "auto" else wanted.precision)


def _exported(net: GPEN, conventions: Conventions) -> Path:
    """The network as an ONNX file in the cache folder, which is written at its first use."""
    from gpen_plugin.export.exporter import export
    from gpen_plugin.export.options import ExportOptions

    stated = checkpoint.describe(net, conventions=metadata.stated(conventions), precision="fp32")
    path = cache_folder().parent / "onnx" / f"{__version__}-{metadata.digest(net.state_dict())}.onnx"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(path.parent):
            if not path.is_file():
                print(f"writing the network for onnxruntime to {path}", file=sys.stderr)
                export(net, path, ExportOptions(), stated.texts())
    except OSError as error:
        hint = "Set XDG_CACHE_HOME to one, or choose the runtime torch."
        raise CheckpointError(str(path), f"cannot be written ({error.strerror})", "a writable folder", hint) from error
    return path


def find_model(
    model: str | PathLike,  # see `open_network`
    kinds: Collection[str] | None = ("GPEN",),  # of a released model; None: any
) -> tuple[Path, ReleasedModel | None]:
    """The file of a model, and the released model whose name it bears, if any. Errors as in `open_network`."""
    path = local_path(model)
    known = zoo.get_released(path.name)
    return (path if os.path.isfile(path) else _find_file(model, known, kinds)), known


def _find_file(model: str | PathLike, known: ReleasedModel | None, kinds: Collection[str] | None) -> Path:
    """The file of a released model, of one of `kinds` or any, by its name; an error for anything else."""
    name = Path(model).name
    if known is not None and name == str(model) and not name.lower().endswith(".onnx"):
        if kinds is None or known.kind in kinds:
            return find_weights(known.file, where="model")
        raise CheckpointError(str(model), f"is a {known.spec}", EXPECTED_GPEN, HINTS_BY_KIND[known.kind])
    if os.path.isdir(model):
        raise CheckpointError(str(model), "is a folder", "a weight file", "Name a file in it.")
    names = ", ".join(each.name for each in zoo.RELEASED.values() if kinds is None or each.kind in kinds)
    meant = zoo.suggest(name)
    hint = f"Did you mean {meant}?" if meant else "Check the path."
    raise CheckpointError(str(model), "there is no such file", f"a weight file, or one of {names}", hint)


def _check_onnx_options(key: str | None, precision: str, runtime: str) -> None:
    if runtime == "torch":
        raise OptionError("runtime", "got torch for an ONNX file", "onnxruntime or openvino", "Leave it out.")
    if key is not None:
        raise OptionError("key", f"got {key}, but an ONNX file has no entries", "none", "Leave it out.")
    if precision == "bf16":
        got = f"got {precision}, but an ONNX file has its own precision"
        raise OptionError("precision", got, "fp32", "Leave it out, or export the model in another precision.")


def build_network(
    section: Mapping,  # ``type`` and the arguments
    where: str,  # its key path
    path_hint: str = DOTTED_PATH_HINT,  # sentence for the error, how to name a network that is not registered
) -> nn.Module:
    """Build the network of an option section.

    Raises: OptionError: there is no such network, or it does not take these arguments.
    """
    given = {key: value for key, value in section.items() if key != "type"}
    target = _network_class(section.get("type"), f"{where}:type", path_hint)
    parameters = inspect.signature(target).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        schema.check(target, given, where)
    patch_missing_ops()
    try:
        return target(**given)
    except Exception as error:  # of any kind: an assertion, a missing key, a file that is not there
        got = f"{section['type']} cannot be built ({type(error).__name__}: {error})"
        raise OptionError(where, got, "arguments that it takes") from error


def seeded_init(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a network whose initial weights depend on `seed` only; the global random state does not change."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()


def load_network_weights(
    net: nn.Module,  # the network
    path: str,  # the file
    key: str | None,  # entry of it; None takes params_ema, else params, else a flat file
    where: str,  # key path of the file
    strict: bool = True,  # whether all tensors must match; otherwise those that match are loaded
) -> int:
    """Load a file into any network, tensors only.

    Returns: Number of the network's tensors that the file did not fill.
    Raises: CheckpointError: the file cannot be read, or tensors differ.
    """
    if type(net).__module__.startswith("gpen_plugin."):
        return len(checkpoint.load_into(net, path, key, where=where, strict=strict))
    read, own = name_location(where, lambda: checkpoint.read(path, key)), net.state_dict()
    given = to_basicsr(type(net).__name__, read, own) if type(net).__module__.startswith("basicsr.") else read
    problems = checkpoint.differences(given, own)
    fitting = {name: tensor for name, tensor in given.items() if name in own and tensor.shape == own[name].shape}
    if problems and (strict or not fitting):
        known = published_network(read)
        got = f"holds {known or f'other tensors than {type(net).__name__}'} ({checkpoint.shown(problems)})"
        hint = "Set network to what the file was trained with, or name the right file or param_key."
        raise CheckpointError(f"{where}: {path}", got, "all tensors of this network and no others", hint)
    net.load_state_dict(fitting, strict=False)
    return len(own.keys() - fitting.keys())


def name_location(where: str, read: Callable):
    """Call `read`; its CheckpointError gets `where` in front."""
    try:
        return read()
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error.where}", error.got, error.expected, error.hint) from error


def describe_network(section: Mapping, net: nn.Module) -> str:
    arguments = ", ".join(f"{key} {value}" for key, value in section.items() if key != "type")
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    return f"{type(net).__name__}{f' ({arguments})' if arguments else ''}, {millions:.1f} M parameters"


def _network_class(name: object, where: str, path_hint: str) -> Callable[..., nn.Module]:
    if not isinstance(name, str):
        raise OptionError(where, f"got {name}" if name else "missing", "the name of a network", "Add the key.")
    module, _, attribute = name.rpartition(".")
    if not module:
        found = resolve("arch", name)
        if found is None:
            error = schema.unknown_name(name, list(registered("arch")), where)
            if not host_is_installed():
                path_hint = f"For BasicSR's networks, run: {INSTALL_HOST}. {path_hint}"
            raise OptionError(where, error.got, error.expected, f"{error.hint} {path_hint}")
        return found
    found = getattr(import_module_of(module, where), attribute, None)
    if not inspect.isclass(found) or not issubclass(found, nn.Module):
        raise OptionError(where, f"{module} has no network {attribute}", "the dotted path of a class of networks")
    return found
