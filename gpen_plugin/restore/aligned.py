"""Restore pictures that each show one aligned face, as the network was trained on them."""

from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch
from torch import nn

from gpen_plugin import checkpoint
from gpen_plugin.archs import GPEN
from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.errors import CheckpointError, OptionError, ShapeError


class AlignedRestorer:
    """A GPEN with its weights, as a function from pictures to pictures.

    Args:
        weights: a file of ours, of BasicSR or of GPEN's authors; sizes and widths are read off its tensors.
        key: entry of the file, e.g. ``params_ema``; None takes the averaged weights where there are any.
        device: where to compute; None takes a GPU where there is one.
    Raises:
        CheckpointError: the file cannot be read, or holds something else than a GPEN.
        OptionError: there is no such device.
    """

    def __init__(self, weights: str | PathLike, key: str | None = None, device: str | torch.device | None = None):
        net, self.spec = read_gpen(weights, key)
        self.device = torch_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.net = ready(net, self.device)

    @torch.inference_mode()
    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Restore a batch.

        Args:
            faces: uint8 BGR pictures, (H, W, 3), of any size; each is resized bilinearly to the network's input.
        Returns:
            uint8 BGR pictures of the network's output size, (S, S, 3), in the same order.
        Raises:
            ShapeError: a picture that is not (H, W, 3) uint8.
        """
        for face in faces:
            if face.ndim != 3 or face.shape[2] != 3 or face.dtype != np.uint8:
                raise ShapeError("faces", f"got {face.shape} {face.dtype}", "(H, W, 3) uint8 in BGR order")
        batch = torch.stack([to_network(resize_bilinear(face, self.net.in_size)) for face in faces])  # (N, 3, S, S)
        return [from_network(picture) for picture in self.net(batch.to(self.device))]


def read_gpen(weights: str | PathLike, key: str | None = None) -> tuple[GPEN, checkpoint.NetworkSpec]:
    """Build the GPEN that a file holds, on the CPU.

    Args and errors are those of `AlignedRestorer`.
    """
    state = checkpoint.read(weights, key)
    spec = checkpoint.describe(state)
    if spec.kind != "GPEN":
        expected, way_out = "a whole GPEN, encoder and decoder", "Name a net_g_*.pth of a training."
        raise CheckpointError(str(weights), f"holds {spec}", expected, way_out)
    net = GPEN(**spec.arguments())
    net.load_state_dict(state)
    return net, spec


def torch_device(name: str | torch.device) -> torch.device:
    """The device of this name; OptionError if torch knows none, or has not got it on this machine."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        came = f"got {name} ({str(error).strip().splitlines()[0]})"
        raise OptionError("device", came, "a device of this machine", "Use cpu, or leave it out.") from error


def ready(net: nn.Module, device: torch.device) -> nn.Module:
    """Bring a network to a device, for restoring alone. A GPEN gets the memory layout that it has in its training."""
    if isinstance(net, GPEN) and device.type == "cpu":
        net = net.to(memory_format=torch.channels_last)
    return net.to(device).eval().requires_grad_(False)


def to_network(picture: np.ndarray, value_range: tuple[float, float] = (-1, 1), *, rgb: bool = True) -> torch.Tensor:
    """Turn a picture into what a network takes.

    Args:
        picture: (H, W, 3) BGR float32 in [0, 1].
        value_range: lowest and highest value of the result.
        rgb: its order of channels; BGR otherwise.
    Returns:
        (3, H, W) float32, contiguous.
    """
    low, high = map(np.float32, value_range)
    channels = (picture[:, :, ::-1] if rgb else picture).transpose(2, 0, 1)  # (3, H, W)
    return torch.from_numpy(np.ascontiguousarray(channels) * (high - low) + low)


def from_network(output: torch.Tensor, value_range: tuple[float, float] = (-1, 1), *, rgb: bool = True) -> np.ndarray:
    """Turn what a network gives into a picture, as the validation of a training does.

    Args:
        output: (3, H, W), float, about `value_range`: what is beyond is clipped.
        value_range: its lowest and highest value.
        rgb: its order of channels; BGR otherwise.
    Returns:
        (H, W, 3) BGR uint8.
    """
    low, high = value_range
    unit = ((output.float().cpu() - low) / (high - low)).clamp(0, 1)
    picture = (unit * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()  # (H, W, 3)
    return np.ascontiguousarray(picture[:, :, ::-1] if rgb else picture)
