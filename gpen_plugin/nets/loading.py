"""How every auxiliary network is loaded: weights of PyTorch or an ONNX file, on the device of the user's choice."""

import os
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from gpen_plugin.archs.key_maps import without_wrapper_prefixes
from gpen_plugin.checkpoints.download import read_weights
from gpen_plugin.errors import CheckpointError, OptionError, ShapeError
from gpen_plugin.nets.onnx_providers import open_session, provider_of

WEIGHT_ENTRIES = ("params_ema", "params", "state_dict")  # of nested files; the first that is there is read
MAX_NAMED_TENSORS = 4  # in a message
ONNX_IMAGES = ("tensor(float)", "tensor(float16)")
ONNX_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
ONNX_WEIGHT = "weight"


def select_device(
    name: str | torch.device = "auto",
    *,
    mps: bool = False,  # whether `auto` may choose Apple's GPU
    where: str = "device",
) -> torch.device:
    """The device of a name; ``auto`` is a GPU if there is one, else the CPU. OptionError if it is not there."""
    if name == "auto":
        available = {"cuda": torch.cuda.is_available(), "mps": mps and torch.backends.mps.is_available(), "cpu": True}
        name = next(kind for kind in available if available[kind])
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, ImportError) as error:  # a torch without CUDA asserts
        got = f"got {name} ({str(error).strip().splitlines()[0]})"
        raise OptionError(where, got, "a device of this machine", "Use cpu, or leave it out.") from error


def load_tensors(path: str | os.PathLike, objects: bool = False) -> dict[str, torch.Tensor]:
    """Weights of a file of torch.save's, flat or under one of `WEIGHT_ENTRIES`; CheckpointError if there are none.

    `objects` as in `read_weights`.
    """
    content = read_weights(path, objects)
    entry = next((content[name] for name in WEIGHT_ENTRIES if isinstance(content.get(name), Mapping)), content)
    if not entry or not all(isinstance(value, torch.Tensor) for value in entry.values()):
        raise CheckpointError(str(path), "holds no weights", "tensors by name", "Name the right file.")
    return without_wrapper_prefixes(entry)


def load_frozen(
    network: nn.Module,  # may be on the meta device
    tensors: Mapping[str, torch.Tensor],
    path: str,  # of the tensors, for the error
    device: torch.device,
) -> nn.Module:
    """`network` with exactly these weights (else CheckpointError), float32, in evaluation mode, without gradients."""
    problems = _differences(tensors, network.state_dict())
    if problems:
        more = f" and {len(problems) - MAX_NAMED_TENSORS} more" if len(problems) > MAX_NAMED_TENSORS else ""
        names = "; ".join(problems[:MAX_NAMED_TENSORS])
        got = f"its tensors are not those of {type(network).__name__} ({names}{more})"
        raise CheckpointError(path, got, "all tensors of this network and no others", "Name the right file.")
    network.load_state_dict(tensors, assign=True)
    if device.type == "cpu":
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
                module.dilation = (2, 2)  # the same for any number of threads: see `gpen_plugin.archs.inference.conv2d`
    return network.float().eval().requires_grad_(False).to(device)


def _differences(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    # old files have no `num_batches_tracked`, which only training reads; PyTorch adds it
    missing = [f"{name} is missing" for name in own if name not in given and not name.endswith("num_batches_tracked")]
    surplus = [f"{name} is not of it" for name in given if name not in own]
    shapes = [(name, tuple(given[name].shape), tuple(own[name].shape)) for name in own if name in given]
    return missing + surplus + [f"{name} is {one}, not {other}" for name, one, other in shapes if one != other]


def bgr_to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) BGR uint8 to (1, 3, H, W) RGB float32 in [-1, 1]."""
    rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None])  # [1, 3, H, W]
    return torch.from_numpy(rgb).float() / 127.5 - 1


class OnnxNetwork:
    """A network of one image, run by onnxruntime.

    A further input named `weight`, of the result, gets 1, which leaves blending to the caller.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        device: torch.device,  # where it computes; the CPU if onnxruntime was built without it
        provider: str | None = None,  # that must run it, instead of the device's: see `open_session`
    ):
        """Errors of `open_session`; CheckpointError for a file that does not take one image of floats."""
        chosen, threads = provider or provider_of(device), torch.get_num_threads()
        self.path = str(path)
        self._session = open_session(path, chosen, threads, required=provider is not None)
        inputs = self._session.get_inputs()
        weights = [each for each in inputs[1:] if each.name == ONNX_WEIGHT and each.type in ONNX_DTYPES]
        self._weights = {each.name: np.ones(1, ONNX_DTYPES[each.type]) for each in weights}
        inputs = [each for each in inputs if each.name not in self._weights]
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in ONNX_IMAGES:
            got = f"has the inputs {', '.join(f'{each.name} {each.shape} {each.type}' for each in inputs)}"
            raise CheckpointError(self.path, got, "one of (N, C, H, W), float", "Name a network of one image.")
        outputs = self._session.get_outputs()
        self._input, self._outputs = inputs[0].name, [each.name for each in outputs]
        self.precision = ONNX_DTYPES[inputs[0].type]  # of the input, np.float32 or np.float16
        self.output_shape = outputs[0].shape  # of the first output, as in the file: numbers, names and None
        # what the file fixes of the input's (N, C, H, W), else None
        self.batch, self.channels, *self.sides = (side if isinstance(side, int) else None for side in inputs[0].shape)
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)  # custom texts of the file, by name
        self.provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")  # CPU, CUDA, ...

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name for (N, C, H, W) float32, in the file's order and dtype; ShapeError if they do not fit."""
        given = {self._input: images.astype(self.precision, copy=False), **self._weights}
        try:
            return dict(zip(self._outputs, self._session.run(None, given), strict=True))
        except Exception as error:  # onnxruntime's classes have no base of their own
            got = f"does not take images of shape {images.shape} ({str(error).strip().splitlines()[0][:200]})"
            raise ShapeError(self.path, got, hint="Change input_size or channels.") from error


@lru_cache(maxsize=4)
def open_onnx(path: str, device: torch.device) -> OnnxNetwork:
    """An `OnnxNetwork`, opened once per process."""
    return OnnxNetwork(path, device)
