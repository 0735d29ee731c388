"""Networks that take faces and give faces, whatever file they come from."""

import os
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from gpen_plugin import checkpoint
from gpen_plugin.archs import GPEN
from gpen_plugin.archs.authors_keys import foreign_filters, to_ours
from gpen_plugin.archs.folding import fold
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.fetch import find_weights
from gpen_plugin.restore import zoo
from gpen_plugin.restore.cores import on_cores
from gpen_plugin.restore.network_pictures import faces_from_network, faces_to_network
from gpen_plugin.restore.onnx_face_network import OnnxFaceNetwork
from gpen_plugin.restore.zoo import Conventions, ReleasedModel

Precision = Literal["fp32", "bf16"]

WHOLE = "a whole GPEN, encoder and decoder"
OTHERS = {  # what is none, and what it is for
    "GPENPrior": "It draws faces, with gpen-sample. To restore them, name a net_g_*.pth of a GPEN's training.",
    "GPENDiscriminator": "It judges faces in trainings. To restore them, name a net_g_*.pth of a training.",
}


@runtime_checkable
class FaceNetwork(Protocol):
    """What restores aligned faces.

    Attributes:
        in_size: side of the faces that it takes.
        out_size: side of those that it gives.
        description: what it is, where it comes from and where it computes, in one line.
        template: how faces are aligned for it, unless somebody says otherwise; see `gpen_plugin.restore.templates`.
        alpha: how much of its result is blended in, likewise; from 0 to 1.
        task: what it does; see `gpen_plugin.restore.tasks`.
    """

    in_size: int
    out_size: int
    description: str
    template: str
    alpha: float
    task: str

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Restore faces, all at once where that is soonest.

        Args:
            faces: (H, W, 3) BGR float32 in [0, 1]; those that are not of `in_size` are resized bilinearly.
        Returns:
            (out_size, out_size, 3) BGR float32 in [0, 1], in the same order.
        Raises:
            ShapeError: a face of another shape or type.
            DataError: the network gave values that are no numbers.
            OptionError: there are more faces than the device has memory for.
        """


class TorchNetwork:
    """A GPEN as a `FaceNetwork`.

    Args:
        net: with its weights.
        device: where it computes.
        precision: ``bf16`` computes features in bfloat16; latent codes, styles and pictures stay in float32.
        conventions: how it wants its faces.
        description: see `FaceNetwork`; device and precision are added.
    Attributes:
        net: evaluating, on the device; folded, see `gpen_plugin.archs.folding`.
        device: where it computes.
        value_range: lowest and highest value that `net` takes and gives.
    Raises:
        OptionError: the device knows no bfloat16.
    """

    def __init__(
        self, net: GPEN, device: torch.device, precision: Precision, conventions: Conventions, description: str
    ):
        if precision == "bf16" and not torch.amp.is_autocast_available(device.type):
            raise OptionError("precision", f"got bf16, which {device.type} does not have", "fp32")
        self.net, self.device, self._precision = ready(net, device, precision), device, precision
        self.in_size, self.out_size = net.in_size, net.out_size
        self.template, self.alpha, self.task = conventions.template, conventions.alpha, conventions.task
        self.value_range, self._name = conventions.value_range, description

    @property
    def description(self) -> str:
        """See `FaceNetwork`."""
        return f"{self._name}; {self._precision} on {self.device}"

    @torch.inference_mode()
    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `FaceNetwork`."""
        if not faces:
            return []
        try:
            return self._restored(faces)
        except torch.cuda.OutOfMemoryError as error:
            came = f"got {len(faces)} at once, for which {self.device} has not the memory"
            raise OptionError("batch", came, "fewer faces", "Use a smaller batch, bf16, or another device.") from error
        except NotImplementedError as error:  # what torch raises for an operation that a device has not got
            if self.device.type != "mps":
                raise
            first = str(error).strip().splitlines()[0]
            warnings.warn(f"mps cannot run this network, so it goes on on the CPU ({first})", stacklevel=2)
            self.device = torch.device("cpu")
            self.net = ready(self.net, self.device)
            return self._restored(faces)

    def to_tensor(self, faces: Sequence[np.ndarray]) -> torch.Tensor:
        """Faces as `net` takes them: (N, 3, in_size, in_size), on the device. See `__call__` for `faces` and errors."""
        return faces_to_network(faces, self.in_size, self.value_range).to(self.device)

    def to_faces(self, output: torch.Tensor) -> list[np.ndarray]:
        """What `net` gave, (N, 3, out_size, out_size), as faces. See `__call__` for the result and errors."""
        return faces_from_network(output, self.value_range, self.description)

    def _restored(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        batch = self.to_tensor(faces)
        parts = batch.split(1) if batch.device.type == "cpu" else [batch]
        return self.to_faces(torch.cat(on_cores(self._output, parts)))

    @torch.inference_mode()  # which each thread has for itself
    def _output(self, batch: torch.Tensor) -> torch.Tensor:
        return self.net(batch)


def open_network(
    model: str | PathLike,
    *,
    key: str | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
) -> FaceNetwork:
    """Open a network by its name or file.

    Args:
        model: a released name (``GPEN-BFR-512``; fetched if it is not here), or a file: weights of ours, of BasicSR or
            of GPEN's authors, whose tensors tell the sizes, or ONNX, ours or others'.
        key: entry of a weight file, e.g. ``params_ema``; None takes the averaged weights where there are any.
        device: see `torch_device`.
        precision: ``fp32`` or ``bf16``.
    Returns:
        The network, ready to be called. A file that bears a released name is used as that model is.
    Raises:
        CheckpointError: there is no such file, it cannot be read, or holds something else.
        MissingFileError: a released file is not on this machine and cannot be fetched; or a package is missing.
        OptionError: the device is not there, or `key` or `precision` do not go with an ONNX file.
    """
    if precision not in ("fp32", "bf16"):
        raise OptionError("precision", f"got {precision!r}", "fp32 or bf16")
    device, path = torch_device(device), Path(os.path.expanduser(model))
    known = zoo.released(path.name)
    if not os.path.isfile(path):
        path = _found(model, known)
    if path.suffix.lower() == ".pt2":
        came, way_out = "is a program of torch.export's, for other runtimes", "Name the weights that it was made of."
        raise CheckpointError(str(path), came, "weights or ONNX", way_out)
    if path.suffix.lower() == ".onnx":
        _check_goes_with_onnx(key, precision)
        network = OnnxFaceNetwork(path, device, known)
    else:
        network = _of_weights(path, key, device, precision, known)
    if known is not None and not known.is_ours:
        zoo.tell_licence()
    return network


def read_gpen(weights: str | PathLike, key: str | None = None) -> tuple[GPEN, checkpoint.NetworkSpec]:
    """Build the GPEN that a file holds, on the CPU.

    Args:
        weights: a file of ours, of BasicSR or of GPEN's authors; sizes and widths are read off its tensors.
        key: entry of the file; None takes the averaged weights where there are any.
    Raises:
        CheckpointError: the file cannot be read, or holds something else than a whole GPEN.
    """
    state = checkpoint.read(weights, key)
    spec = checkpoint.describe(state, str(weights))
    if spec.kind != "GPEN":
        raise CheckpointError(str(weights), f"holds {spec}", WHOLE, OTHERS[spec.kind])
    net = GPEN(**spec.arguments())
    problems = checkpoint.differences(to_ours(state), net.state_dict()) or foreign_filters(net, state)
    if problems:
        came = f"holds {spec}, but not as it is built here ({checkpoint.shown(problems)})"
        raise CheckpointError(str(weights), came, "all tensors of one network", "Fetch or write it again.")
    net.load_state_dict(state)
    return net, spec


def torch_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name; ``auto`` is CUDA's where there is one, else Apple's ``mps``, else the CPU.

    Raises:
        OptionError: torch knows no such device, or has not got it on this machine.
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        name = next(kind for kind, available in there.items() if available)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, ImportError) as error:
        came = f"got {name} ({str(error).strip().splitlines()[0]})"
        raise OptionError("device", came, "a device of this machine", "Use cpu, or leave it out.") from error


def ready(net: nn.Module, device: torch.device, precision: Precision = "fp32", *, folded: bool = True) -> nn.Module:
    """Bring a network to a device, for restoring alone. A GPEN is folded, in the memory layout that is fastest there.

    Args:
        net: any network.
        device: where it computes.
        precision: of a GPEN; others stay as they are.
        folded: False leaves a GPEN's parameters where they are, for those who read them.
    """
    net = net.to(device).eval().requires_grad_(False)
    if not isinstance(net, GPEN):
        return net
    if device.type == "cpu" or precision == "bf16":
        net = net.to(memory_format=torch.channels_last)
    return fold(net, torch.bfloat16 if precision == "bf16" else torch.float32) if folded else net


def _of_weights(
    path: Path, key: str | None, device: torch.device, precision: Precision, known: ReleasedModel | None
) -> TorchNetwork:
    net, spec = read_gpen(path, key)
    if known is not None:
        known.check(spec, str(path))
    conventions = Conventions() if known is None else known.conventions
    return TorchNetwork(net, device, precision, conventions, f"{spec}, {path.name}")


def _found(model: str | PathLike, known: ReleasedModel | None) -> Path:
    """The file of a released model, by its bare name; an error for all that is no name."""
    name = Path(model).name
    if known is not None and name == str(model) and not name.lower().endswith(".onnx"):
        if known.kind == "GPEN":
            return find_weights(known.file, where="model")
        raise CheckpointError(str(model), f"is a {known.spec}", WHOLE, OTHERS[known.kind])
    if os.path.isdir(model):
        raise CheckpointError(str(model), "is a folder", "a weight file", "Name a file in it.")
    names = ", ".join(each.name for each in zoo.RELEASED.values() if each.kind == "GPEN")
    meant = zoo.nearest(name)
    way_out = f"Did you mean {meant}?" if meant else "Mend the path."
    raise CheckpointError(str(model), "there is no such file", f"a weight file, or one of {names}", way_out)


def _check_goes_with_onnx(key: str | None, precision: Precision) -> None:
    if key is not None:
        raise OptionError("key", f"got {key}, and an ONNX file has no entries", "none", "Leave it out.")
    if precision != "fp32":
        came = f"got {precision}, and an ONNX file has its own"
        raise OptionError("precision", came, "fp32", "Leave it out, or export the model in another one.")
