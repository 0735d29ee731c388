"""Compare the identity of a restored face with that of the input, and reject faces that drifted away."""

import os
from dataclasses import replace

import numpy as np
import torch

from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.errors import OptionError
from gpen_plugin.metrics.identity import cosine_similarity
from gpen_plugin.nets.arcface import GFPGAN_INPUT, RecognitionSettings, embedding
from gpen_plugin.nets.face_templates import ARCFACE_SIDE
from gpen_plugin.restore.alignment import ARCFACE_112, TEMPLATES, template_to_template, warp

FINER = 2  # a recognition network's input is halved from a larger image: bilinear resizing is then an area's mean


class IdentityGate:
    """Tells how much a restored face is still that of the same person, as a face-recognition network sees it.

    Args:
        threshold: cosine of the angle between the two faces below which the restored one has drifted away.
        settings: which network, and what it takes. The face is brought into the framing that the network was trained
            on, FFHQ's for gfpgan's ArcFace and ArcFace's own for others, whatever `align` says.
    Raises:
        OptionError: the threshold is not from -1 to 1.
    """

    def __init__(self, threshold: float, settings: RecognitionSettings | None = None):
        if not -1 <= threshold <= 1:
            raise OptionError("identity", f"got {threshold}", "a cosine, from -1 to 1")
        settings = settings or RecognitionSettings()
        self.threshold = threshold
        foreign = bool(settings.onnx or settings.network)
        self._framing = ARCFACE_112 if foreign else TEMPLATES["ffhq"]
        self._side = FINER * (settings.input_size or (ARCFACE_SIDE if foreign else GFPGAN_INPUT.side))
        self._settings = replace(settings, align="none")

    def __call__(self, crop: np.ndarray, restored: np.ndarray, template: np.ndarray) -> float:
        """Compare two faces.

        Args:
            crop: (H, W, 3) BGR float32 in [0, 1]. What is not square is made so, as it was for the network.
            restored: (T, U, 3) BGR float32 in [0, 1].
            template: (5, 2), fractions of the side: how both are aligned.
        Returns:
            Cosine of the angle between them, from -1 to 1; NaN if the network made nothing of one.
        Raises:
            MissingFileError: weights, or the package of the network, are missing.
            CheckpointError: weights cannot be read, or are of another network.
            OptionError: the network is not registered, or takes other images than the settings say.
        """
        one, other = (self._embedding(face, template) for face in (crop, restored))
        return cosine_similarity(one, other)

    def drifted(self, similarity: float) -> bool:
        """Whether the restored face is to be left out; so it is if the network could not tell."""
        return not similarity >= self.threshold

    def _embedding(self, face: np.ndarray, template: np.ndarray) -> np.ndarray:
        square = resize_bilinear(face, max(face.shape[:2]))
        framing = template_to_template(template, len(square), self._framing, self._side)
        framed = warp(square, framing, (self._side, self._side))
        return embedding(np.rint(framed * 255).astype(np.uint8), self._settings)


def open_gate(
    threshold: float | None, model: str | os.PathLike | None = None, device: torch.device | str = "auto"
) -> IdentityGate | None:
    """The gate that a user asks for; None where nobody is to look.

    Args:
        threshold: see `IdentityGate`; None is no gate.
        model: an ONNX file of a face-recognition network; None is gfpgan's ArcFace.
        device: where it works: ``auto``, a GPU with CUDA, or else the CPU.
    Raises:
        OptionError: a model without a threshold, or a threshold that is not from -1 to 1.
    """
    if threshold is None:
        if model is not None:
            raise OptionError("identity_model", f"got {model}, and no least likeness", "identity, too, e.g. 0.3")
        return None
    place = str(device) if str(device).startswith(("auto", "cuda")) else "cpu"
    return IdentityGate(threshold, RecognitionSettings(onnx=model and str(model), device=place))
