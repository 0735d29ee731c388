"""Compare the identity of a restored face with that of the input, and reject faces of another identity."""

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

OVERSAMPLING = 2  # the input is halved from a larger image, for which bilinear resizing is an area mean


class IdentityGate:
    """Cosine similarity of input and restored face for a face recognition network.

    Raises: OptionError: the threshold is not in [-1, 1].
    """

    def __init__(
        self,
        threshold: float,  # similarity below which a face is rejected, -1 to 1
        # the network and its input. Faces are warped into the framing of its training, FFHQ's for gfpgan's ArcFace and
        # ArcFace's for others; `align` is ignored
        settings: RecognitionSettings | None = None,
    ):
        if not -1 <= threshold <= 1:
            raise OptionError("identity", f"got {threshold}", "a cosine, from -1 to 1")
        settings = settings or RecognitionSettings()
        self.threshold = threshold
        foreign = bool(settings.onnx or settings.network)
        self._framing = ARCFACE_112 if foreign else TEMPLATES["ffhq"]
        self._side = OVERSAMPLING * (settings.input_size or (ARCFACE_SIDE if foreign else GFPGAN_INPUT.side))
        self._settings = replace(settings, align="none")

    def __call__(
        self,
        crop: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1]; made square as for the restoration network
        restored: np.ndarray,  # (T, U, 3) BGR float32 in [0, 1]
        template: np.ndarray,  # (5, 2), fractions of the side: alignment of both
    ) -> float:
        """Cosine similarity of two faces; NaN if the embedding of one is zero.

        Raises:
            MissingFileError: weights, or the package of the network, are missing.
            CheckpointError: weights cannot be read, or are those of another network.
            OptionError: the network is not registered, or takes other images than the settings say.
        """
        one, other = (self._embedding(face, template) for face in (crop, restored))
        return cosine_similarity(one, other)

    def rejects(self, similarity: float) -> bool:
        """Also true for NaN."""
        return not similarity >= self.threshold

    def _embedding(self, face: np.ndarray, template: np.ndarray) -> np.ndarray:
        square = resize_bilinear(face, max(face.shape[:2]))
        framing = template_to_template(template, len(square), self._framing, self._side)
        framed = warp(square, framing, (self._side, self._side))
        return embedding(np.rint(framed * 255).astype(np.uint8), self._settings)


def open_gate(
    threshold: float | None,  # see `IdentityGate`
    model: str | os.PathLike | None = None,  # ONNX file of a face recognition network; None is gfpgan's ArcFace
    device: torch.device | str = "auto",  # ``auto``, or CUDA; everything else computes on the CPU
) -> IdentityGate | None:
    """The gate of a threshold; None without one.

    Raises: OptionError: a model without a threshold, or a threshold that is not in [-1, 1].
    """
    if threshold is None:
        if model is not None:
            raise OptionError("identity_model", f"got {model} without identity", "identity, too, e.g. 0.3")
        return None
    device = str(device) if str(device).startswith(("auto", "cuda")) else "cpu"
    return IdentityGate(threshold, RecognitionSettings(onnx=model and str(model), device=device))
