"""Restore pictures that each show one aligned face, as the network was trained on them."""

from collections.abc import Sequence
from os import PathLike

import cv2
import numpy as np
import torch

from gpen_plugin import checkpoint
from gpen_plugin.archs import GPEN
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
        state = checkpoint.read(weights, key)
        spec = checkpoint.describe(state)
        if spec.kind != "GPEN":
            raise CheckpointError(
                str(weights), f"holds {spec}", "a whole GPEN, encoder and decoder", "Name a net_g_*.pth of a training."
            )
        self.net = GPEN(**spec.arguments())
        self.net.load_state_dict(state)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.net.to(self.device).eval().requires_grad_(False)
        except (RuntimeError, AssertionError) as error:  # what torch raises for a name or a device that is not there
            came = f"got {device} ({str(error).strip().splitlines()[0]})"
            raise OptionError("device", came, "a device of this machine", "Use cpu, or leave it out.") from error
        self.spec = spec

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
        size = self.net.in_size
        for face in faces:
            if face.ndim != 3 or face.shape[2] != 3 or face.dtype != np.uint8:
                raise ShapeError("faces", f"got {face.shape} {face.dtype}", "(H, W, 3) uint8 in BGR order")
        resized = [cv2.resize(face, (size, size), interpolation=cv2.INTER_LINEAR)[..., ::-1] for face in faces]
        batch = np.stack(resized).transpose(0, 3, 1, 2).astype(np.float32)  # (N, 3, S, S), RGB
        output = self.net(torch.from_numpy(batch / 127.5 - 1).to(self.device)).float().cpu().numpy()
        pictures = np.clip((output + 1) * 127.5, 0, 255).round().astype(np.uint8)
        return [np.ascontiguousarray(picture.transpose(1, 2, 0)[..., ::-1]) for picture in pictures]
