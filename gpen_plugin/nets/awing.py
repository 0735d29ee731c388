"""The 98 landmarks of WFLW, by the network of the adaptive wing loss (Wang et al. 2019), as facexlib has it."""

import cv2
import numpy as np
import torch

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.errors import INSTALL_FACEXLIB, MissingFileError
from gpen_plugin.nets.loading import load_frozen, load_tensors, select_device

PUBLISHED = WeightFile(
    "alignment_WFLW_4HG.pth",
    "98 landmarks of a face",
    "https://github.com/xinntao/facexlib/releases/download/v0.1.0/alignment_WFLW_4HG.pth",
    None,
)
SIDE = 256  # pixels that the network takes
POINTS = 98
HOURGLASSES = 4


class AWing:
    """Finds 98 landmarks of an aligned face; a face or not, it always finds them somewhere.

    Args:
        path: of the weights; facexlib's file is looked for where none is given.
        device: ``auto``, ``cpu`` or ``cuda``.
    Raises:
        MissingFileError: the file, or the package facexlib, is missing.
        CheckpointError: the file cannot be read, or is of another network.
    """

    def __init__(self, path: str | None = None, device: str = "auto"):
        file = str(find_weights(PUBLISHED, path, "model"))
        self._device = select_device(device)
        with torch.device("meta"):  # draws no random numbers, which training counts on
            network = _architecture()(num_modules=HOURGLASSES, num_landmarks=POINTS, device=self._device)
        self._network = load_frozen(network, load_tensors(file), file, self._device)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Find the landmarks.

        Args:
            image: an aligned face, (H, W, 3) BGR uint8, of any size.
        Returns:
            (98, 2) float64, x and y in pixels, where 0 is the middle of the first pixel, in WFLW's order.
        """
        height, width = image.shape[:2]
        rgb = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        inputs = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]))  # (1, 3, SIDE, SIDE)
        with torch.inference_mode():
            stages, _ = self._network(inputs.to(self._device).float() / 255)
        heatmaps = stages[-1][0, :POINTS].double().cpu().numpy()  # the last channel shows the face's outline
        return heatmap_argmax(heatmaps) * (width, height) - 0.5


def heatmap_argmax(heatmaps: np.ndarray) -> np.ndarray:
    """Where each heatmap is highest: its pixel's middle, moved by a quarter pixel to the higher neighbour.

    Args:
        heatmaps: (K, H, W) float.
    Returns:
        (K, 2): x and y as fractions of width and height.
    """
    count, height, width = heatmaps.shape
    rows, columns = np.unravel_index(heatmaps.reshape(count, -1).argmax(axis=1), (height, width))
    around = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)), mode="edge")  # a pixel's own place is (row + 1, column + 1)
    each = np.arange(count)
    right = np.sign(around[each, rows + 1, columns + 2] - around[each, rows + 1, columns])
    down = np.sign(around[each, rows + 2, columns + 1] - around[each, rows, columns + 1])
    x, y = columns + 0.5 + right / 4, rows + 0.5 + down / 4
    return np.stack([x / width, y / height], axis=1)


def _architecture() -> type:
    try:
        from facexlib.alignment.awing_arch import FAN
    except ImportError as error:
        got, hint = "the package facexlib is not installed", f"Run: {INSTALL_FACEXLIB}. Or write detector: yunet."
        raise MissingFileError("detector", got, hint=hint) from error
    return FAN
