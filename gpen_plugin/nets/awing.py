"""AWing: the 98 landmarks of WFLW by the network of the adaptive wing loss (Wang et al. 2019), as in facexlib."""

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
SIDE = 256  # pixels of the input
POINTS = 98
HOURGLASSES = 4


class AWing:
    """Finds 98 landmarks in any image, whether it shows a face or not; by default with facexlib's weights.

    MissingFileError without the weights or facexlib; CheckpointError if the weights are of another network.
    """

    def __init__(self, path: str | None = None, device: str = "auto"):
        file = str(find_weights(PUBLISHED, path, "model"))
        self._device = select_device(device)
        with torch.device("meta"):  # samples no random numbers, which training depends on
            network = _architecture()(num_modules=HOURGLASSES, num_landmarks=POINTS, device=self._device)
        self._network = load_frozen(network, load_tensors(file), file, self._device)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """WFLW's landmarks of an aligned face, (H, W, 3) BGR uint8: (98, 2) float64, x and y in pixels.

        0 is the center of the first pixel.
        """
        height, width = image.shape[:2]
        rgb = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        inputs = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]))  # [1, 3, SIDE, SIDE]
        with torch.inference_mode():
            stages, _ = self._network(inputs.to(self._device).float() / 255)
        heatmaps = stages[-1][0, :POINTS].double().cpu().numpy()  # the last channel is the face's outline
        return heatmap_argmax(heatmaps) * (width, height) - 0.5


def heatmap_argmax(heatmaps: np.ndarray) -> np.ndarray:
    """(K, H, W) to (K, 2), x and y as fractions: the highest pixel, moved by 1/4 pixel to its higher neighbor."""
    count, height, width = heatmaps.shape
    rows, columns = np.unravel_index(heatmaps.reshape(count, -1).argmax(axis=1), (height, width))
    padded = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)), mode="edge")  # a pixel is at (row + 1, column + 1)
    each = np.arange(count)
    right = np.sign(padded[each, rows + 1, columns + 2] - padded[each, rows + 1, columns])
    down = np.sign(padded[each, rows + 2, columns + 1] - padded[each, rows, columns + 1])
    x, y = columns + 0.5 + right / 4, rows + 0.5 + down / 4
    return np.stack([x / width, y / height], axis=1)


def _architecture() -> type:
    try:
        from facexlib.alignment.awing_arch import FAN
    except ImportError as error:
        got, hint = "the package facexlib is not installed", f"Run: {INSTALL_FACEXLIB}. Or write detector: yunet."
        raise MissingFileError("detector", got, hint=hint) from error
    return FAN
