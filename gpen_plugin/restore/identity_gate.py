"""The identity of faces: whether a restored face has that of the input, and which face has that of a reference."""

import os
from collections.abc import Sequence
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


class FaceEmbedding:
    """The embedding of a face for a recognition network."""

    def __init__(
        self,
        # the network and its input. Faces are warped into the framing of its training, FFHQ's for gfpgan's ArcFace and
        # ArcFace's for others; `align` is ignored
        settings: RecognitionSettings | None = None,
    ):
        settings = settings or RecognitionSettings()
        foreign = bool(settings.onnx or settings.network)
        self._framing = ARCFACE_112 if foreign else TEMPLATES["ffhq"]
        self._side = OVERSAMPLING * (settings.input_size or (ARCFACE_SIDE if foreign else GFPGAN_INPUT.side))
        self.settings = replace(settings, align="none")

    def __call__(
        self,
        face: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1]; made square as for the restoration network
        template: np.ndarray,  # (5, 2), fractions of the side: its alignment
    ) -> np.ndarray:
        """(D,) float64; zeros for a face without any.

        Raises:
            MissingFileError: weights, or the package of the network, are missing.
            CheckpointError: weights cannot be read, or are those of another network.
            OptionError: the network is not registered, or takes other images than the settings say.
        """
        square = resize_bilinear(face, max(face.shape[:2]))
        framing = template_to_template(template, len(square), self._framing, self._side)
        framed = warp(square, framing, (self._side, self._side))
        return embedding(np.rint(framed * 255).astype(np.uint8), self.settings)


class IdentityGate:
    """Cosine similarity of input and restored face for a face recognition network.

    Raises: OptionError: the threshold is not in [-1, 1].
    """

    def __init__(
        self,
        threshold: float,  # similarity below which a face is rejected, -1 to 1
        settings: RecognitionSettings | None = None,  # see `FaceEmbedding`
    ):
        if not -1 <= threshold <= 1:
            raise OptionError("identity", f"got {threshold}", "a cosine, from -1 to 1")
        self.threshold, self.embedding = threshold, FaceEmbedding(settings)

    def __call__(
        self,
        crop: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1]
        restored: np.ndarray,  # (T, U, 3) BGR float32 in [0, 1]
        template: np.ndarray,  # (5, 2), fractions of the side: alignment of both
    ) -> float:
        """Cosine similarity of two faces; NaN if the embedding of one is zero. Errors: see `FaceEmbedding`."""
        return cosine_similarity(*(self.embedding(face, template) for face in (crop, restored)))

    def rejects(self, similarity: float) -> bool:
        """Also true for NaN."""
        return not similarity >= self.threshold


class Likeness:
    """Finds the face of a person. Errors: see `FaceEmbedding`."""

    def __init__(
        self,
        threshold: float,  # cosine similarity below which no face is that of the person, -1 to 1
        settings: RecognitionSettings | None,  # see `FaceEmbedding`
        person: np.ndarray,  # their face, (H, W, 3) BGR float32 in [0, 1]
        template: np.ndarray,  # (5, 2), fractions of the side: alignment of all faces
    ):
        self.threshold, self._embedding, self._template = threshold, FaceEmbedding(settings), template
        self._person = self._embedding(person, template)

    def most_like(self, faces: Sequence[np.ndarray]) -> int | None:
        """The index of the face that is most like the person; None if the cosine of each is too low."""
        cosines = [cosine_similarity(self._person, self._embedding(face, self._template)) for face in faces]
        best = int(np.nanargmax(cosines)) if np.isfinite(cosines).any() else None
        return best if best is not None and cosines[best] >= self.threshold else None


def recognition(
    model: str | os.PathLike | None,  # ONNX file of a face recognition network; None is gfpgan's ArcFace
    device: torch.device | str,  # ``auto``, or CUDA; everything else computes on the CPU
) -> RecognitionSettings:
    """The settings of a face recognition network."""
    device = str(device) if str(device).startswith(("auto", "cuda")) else "cpu"
    return RecognitionSettings(onnx=model and str(model), device=device)


def open_gate(
    threshold: float | None,  # see `IdentityGate`
    model: str | os.PathLike | None = None,  # see `recognition`
    device: torch.device | str = "auto",
) -> IdentityGate | None:
    """The gate of a threshold; None without one.

    Raises: OptionError: a model without a threshold, or a threshold that is not in [-1, 1].
    """
    if threshold is None:
        if model is not None:
            raise OptionError("identity_model", f"got {model} without identity", "identity or like, too")
        return None
    return IdentityGate(threshold, recognition(model, device))
