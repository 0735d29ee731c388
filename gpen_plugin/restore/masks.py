"""How much of a restored face is to be seen where: all of it inside, less and less towards the crop's border."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
import torch

from gpen_plugin.checkpoints.download import WeightFile, find_local, find_weights
from gpen_plugin.errors import INSTALL_FACEXLIB, MissingFileError, OptionError
from gpen_plugin.nets.loading import load_frozen, load_tensors
from gpen_plugin.restore.alignment import TEMPLATES, compose, invert_affine, scale_of, template_to_template, warp

PARSENET = WeightFile(
    "parsing_parsenet.pth",
    "ParseNet, which part of a face is where",
    "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
    "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
)
PARSED_SIDE = 512  # pixels of the faces that ParseNet was trained on, in FFHQ's framing
CLASSES = 19
NO_FACE = (0, 14, 16, 17, 18)  # background, hat, necklace, neck, clothes; the others are skin, features, hair, earrings
WITHOUT_FACEXLIB = f"Run: {INSTALL_FACEXLIB}. Or use mask soft."
FEATHER = 0.03  # of the side: standard deviation of the parsing mask's soft edge

CHIN = 0.75  # of the way from the eyes to the mouth, which the chin lies below the mouth
NARROWEST, WIDEST = 0.15, 0.3  # of half the side, over which a soft mask fades
ROUNDNESS = 4  # exponent: 2 is an ellipse, many are a square


class MaskMaker(Protocol):
    """Makes masks for restored faces.

    Attributes:
        name: ``soft`` or ``parsing``.
        notice: one line for people: which masks, and why no better ones.
    """

    name: str
    notice: str

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Make the masks of restored faces, (S, S, 3) BGR float32 in [0, 1]: (S, S) float32 in [0, 1] each."""


def soft_mask(template: np.ndarray, size: int) -> np.ndarray:
    """A rounded square that fades: it is 1 over the face, down to the chin, and 0 with no slope at the border.

    Args:
        template: (5, 2), fractions of the side. Where it leaves little room around a face, the fade is narrower.
        size: side in pixels.
    Returns:
        (size, size) float32 in [0, 1].
    """
    eyes, mouth = template[:2].mean(axis=0), template[3:].mean(axis=0)
    chin = mouth + CHIN * (mouth - eyes)
    fade = float(np.clip(1 - _distance(*np.abs(2 * chin - 1)), NARROWEST, WIDEST))
    along = np.abs((np.arange(size) + 0.5) * (2 / size) - 1)
    inside = ((1 - _distance(along[:, None], along)) / fade).clip(0, 1)
    return (inside * inside * (3 - 2 * inside)).astype(np.float32)


def _distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """From the middle, where it is 0, to the rounded square's border, where it is 1."""
    return (x**ROUNDNESS + y**ROUNDNESS) ** (1 / ROUNDNESS)


class SoftMask:
    """The same mask for each face, by where faces lie in their crops. See `soft_mask`.

    Args:
        template: (5, 2), fractions of the side: how the faces are aligned.
        notice: for people; see `MaskMaker`.
    """

    name = "soft"

    def __init__(self, template: np.ndarray, notice: str = "soft, faded towards the borders of each face"):
        self._template, self.notice = template, notice

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `MaskMaker`."""
        masks = {size: soft_mask(self._template, size) for size in {len(face) for face in faces}}
        return [masks[len(face)] for face in faces]


class ParsingMask:
    """Masks that follow the outline of each face and its hair, as facexlib's ParseNet sees them.

    Args:
        template: (5, 2), fractions of the side: how the faces are aligned.
        device: where the network is to work.
        download: whether its weights may be downloaded where they are not found.
    Raises:
        MissingFileError: its weights, or the package facexlib, are missing.
        CheckpointError: the file cannot be read, or is of another network.
    """

    name = "parsing"

    def __init__(self, template: np.ndarray, device: str | torch.device = "cpu", *, download: bool = True):
        found = find_local(PARSENET) or _facexlibs_own()
        if found is None and not download:
            raise MissingFileError("mask", f"{PARSENET.name} is not on this machine")
        file = str(found or _downloaded())  # before facexlib, which takes seconds
        self._network = load_frozen(_parsenet(), load_tensors(file), file, torch.device(device))
        self._device, self._template = torch.device(device), template
        self.notice = "parsing, the outline of each face and its hair, by facexlib's ParseNet"

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `MaskMaker`."""
        return [self._of_one(face) for face in faces]

    def _of_one(self, face: np.ndarray) -> np.ndarray:
        size = len(face)
        framed = template_to_template(self._template, size, TEMPLATES["ffhq"], PARSED_SIDE)
        shown = warp(face, framed, (PARSED_SIDE, PARSED_SIDE))
        rgb = np.ascontiguousarray(shown[..., ::-1].transpose(2, 0, 1)[None])  # (1, 3, 512, 512)
        with torch.inference_mode():
            scores, _ = self._network(torch.from_numpy(rgb).to(self._device) * 2 - 1)  # (1, 19, 512, 512)
        label = scores[0].argmax(dim=0).cpu().numpy()
        outline = cv2.GaussianBlur((~np.isin(label, NO_FACE)).astype(np.float32), (0, 0), FEATHER * PARSED_SIDE)
        return warp(outline, invert_affine(framed), (size, size)) * soft_mask(self._template, size)


def open_mask(
    name: Literal["auto", "soft", "parsing"] = "auto",
    device: str | torch.device = "cpu",
    template: np.ndarray = TEMPLATES["ffhq"],
) -> MaskMaker:
    """A maker of masks by name.

    Args:
        name: ``auto`` is ``parsing`` where its weights are on this machine, else ``soft``; the notice says which.
        device: where a network is to work.
        template: (5, 2), fractions of the side: how the faces are aligned.
    Raises:
        OptionError: there are no such masks.
        MissingFileError: of ``parsing``: its weights, or the package facexlib, are missing.
        CheckpointError: its weights cannot be read, or are of another network.
    """
    if name == "soft":
        return SoftMask(template)
    if name == "parsing":
        return ParsingMask(template, device)
    if name != "auto":
        raise OptionError("mask", f"got {name!r}", "auto, soft or parsing")
    try:
        return ParsingMask(template, device, download=False)
    except MissingFileError:
        return SoftMask(template)


def normalize_overlaps(masks: Sequence[np.ndarray], matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Let faces that overlap stand side by side: each mask gives way where masks before it have more to say.

    Pasted in this order, each pixel is the mean of the faces there, weighted by the squares of their masks.

    Args:
        masks: (S, S) float32 in [0, 1] each.
        matrices: (2, 3) each, from the photograph to the frame of the mask.
    Returns:
        The masks, in the same order; the first, and those that touch none before, as they were.
    """
    touching, shared = _touching([len(mask) for mask in masks], matrices), []
    for i, (mask, matrix) in enumerate(zip(masks, matrices, strict=True)):
        earlier = np.zeros_like(mask)
        for j in np.flatnonzero(touching[i, :i]):
            onto = compose(invert_affine(matrices[j]), matrix)
            earlier += cv2.warpAffine(masks[j], onto, mask.shape[::-1], flags=cv2.INTER_LINEAR) ** 2
        own = mask**2
        shared.append(np.where(earlier > 0, mask * own / np.maximum(own + earlier, 1e-12), mask).astype(np.float32))
    return shared


def _touching(sides: Sequence[int], matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Whether the circles around two square frames meet in the photograph, for any two of them: (N, N) bool."""
    backs = [invert_affine(matrix) for matrix in matrices]
    middles = [back @ ((side - 1) / 2, (side - 1) / 2, 1) for side, back in zip(sides, backs, strict=True)]
    middles = np.reshape(middles, (-1, 2))  # (N, 2), of no faces too
    radii = np.array([side * scale_of(back) * math.sqrt(0.5) for side, back in zip(sides, backs, strict=True)])
    apart = np.linalg.norm(middles[:, None] - middles, axis=2)  # (N, N)
    return apart <= radii[:, None] + radii


def _parsenet() -> torch.nn.Module:
    try:
        from facexlib.parsing.parsenet import ParseNet
    except ImportError as error:
        got = f"the package facexlib cannot be imported ({error})"
        raise MissingFileError("mask", got, hint=WITHOUT_FACEXLIB) from error
    with torch.device("meta"):  # draws no random numbers
        return ParseNet(in_size=PARSED_SIDE, out_size=PARSED_SIDE, parsing_ch=CLASSES)


def _downloaded() -> Path:
    if importlib.util.find_spec("facexlib") is None:  # for whom nothing is to be downloaded
        raise MissingFileError("mask", "the package facexlib is not installed", hint=WITHOUT_FACEXLIB)
    return find_weights(PARSENET, where="mask")


def _facexlibs_own() -> Path | None:
    """Where facexlib keeps its copy of the weights; None if it has none."""
    spec = importlib.util.find_spec("facexlib")
    folders = spec.submodule_search_locations if spec else []
    files = (Path(folder) / "weights" / PARSENET.name for folder in folders)
    return next((file for file in files if file.is_file()), None)
