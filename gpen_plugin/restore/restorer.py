"""Photographs in, photographs out: find the faces, restore them in batches, and paste them back."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike

import cv2
import numpy as np
import torch

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.images.color import from_float, keep_color, keep_tint, to_float, to_gray, to_uint8
from gpen_plugin.images.photograph import Photograph, read_photograph
from gpen_plugin.nets.loading import select_device
from gpen_plugin.restore.alignment import align, can_be_aligned, parse_template, scale_affine, side_in_photograph, warp
from gpen_plugin.restore.background import open_background
from gpen_plugin.restore.detection import DetectedFace, open_detector
from gpen_plugin.restore.identity_gate import open_gate
from gpen_plugin.restore.masks import normalize_overlaps, open_mask
from gpen_plugin.restore.network import FaceNetwork, open_network
from gpen_plugin.restore.parallel import parallel_map
from gpen_plugin.restore.paste import Piece, paste_all
from gpen_plugin.restore.tasks import Task, get_task
from gpen_plugin.restore.zoo import DEFAULT

Image = np.ndarray | Photograph | str | PathLike
MIN_FACE = 16  # pixels; what is smaller is not looked for
LARGEST = 1.25  # times what the shipped network sees: beyond it would blur a sharp face


@dataclass(frozen=True, eq=False)
class RestoredFace:
    """What became of a face.

    Attributes:
        detected: where it was found; None in an image that was said to be one aligned face.
        matrix: (2, 3) float64, from the photograph to the crop.
        crop: the face as it was, (S, S, 3) BGR float32 in [0, 1], at the network's input size; of an image that was
            said to be one aligned face, all of it, (H, W, 3).
        restored: the face as the network gave it, (T, T, 3) BGR float32 in [0, 1], colour kept if that was asked
            for.
        identity: cosine of the angle between the two faces as a recognition network sees them; None if none looked.
        kept: why the face was left as it is; None if the restored one stands in the image.
    """

    detected: DetectedFace | None
    matrix: np.ndarray
    crop: np.ndarray
    restored: np.ndarray
    identity: float | None = None
    kept: str | None = None


@dataclass(frozen=True, eq=False)
class Restoration:
    """A photograph with its faces restored.

    Attributes:
        photograph: the result, with the metadata of the input; larger by the factor that was asked for.
        faces: one entry for each face found, the most certain first.
        unchanged: whether its pixels are those of the input, since nothing was restored or enlarged.
    """

    photograph: Photograph
    faces: list[RestoredFace] = field(default_factory=list)
    unchanged: bool = False

    @property
    def image(self) -> np.ndarray:
        """The result as an array, in the dtype and with the channels of the input: grey, BGR, or either with alpha."""
        return self.photograph.samples


class Restorer:
    """Restores every face of a photograph, in its place, or images that each show one aligned face.

    Detector and mask are opened at their first use, so that aligned faces need neither.

    Args:
        model: a name (``GPEN-BFR-512``), a weight file of ours, of BasicSR or of GPEN's authors, an ONNX file, or a
            `FaceNetwork`; None takes the task's own: for restoring, the one that comes with this package.
        key: entry of a weight file, e.g. ``params_ema``; None takes the averaged weights where there are any.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; ``auto`` takes a GPU where there is one.
        precision: ``fp32`` or ``bf16``, of the network alone.
        task: ``restore``, ``colorize``, ``inpaint``, ``seg2face`` or a `Task`; None takes the model's own.
        detector: ``retinaface``, ``yunet`` or ``auto``: RetinaFace if its weights are on this machine, else YuNet.
        detector_file: RetinaFace's weights, where they are not to be looked for.
        min_face: side of the smallest face that is restored, in pixels.
        max_face: of the largest, with what the network is shown around it. None: any; where nobody named a model, 1.25
            times what the small one that comes along sees.
        template: how faces are aligned: ``ffhq``, ``gpen``, ``arcface``, ``dlib`` or ten numbers; None takes the
            model's own.
        mask: ``auto``, ``soft`` or ``parsing``: what of a restored face goes into the photograph.
        alpha: how much of the restoration is blended in, from 0 to 1; None takes the model's own, nearly always 1.
        upscale: factor of the result's height and width.
        background: what enlarges the rest of the photograph; see `open_background`. None: plain interpolation.
        tile: side of the pieces in which the background is enlarged.
        batch: faces that go through the network at once; on a CPU side by side, each on its share of the cores.
        keep_color: keep the low frequencies of the input's colour.
        identity: least likeness of a restored face to what it was, a cosine from -1 to 1; less, and the face is left as
            it is. None: nobody looks.
        identity_model: an ONNX file of a face-recognition network; None is gfpgan's ArcFace.
    Raises:
        OptionError: an argument is out of range, or unknown.
        MissingFileError: weights are not on this machine and cannot be fetched.
        CheckpointError: they are damaged, or of something else.
    """

    def __init__(
        self,
        model: str | PathLike | FaceNetwork | None = None,
        *,
        key: str | None = None,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        task: str | Task | None = None,
        detector: str = "auto",
        detector_file: str | PathLike | None = None,
        min_face: float = MIN_FACE,
        max_face: float | None = None,
        template: str | None = None,
        mask: str = "auto",
        alpha: float | None = None,
        upscale: float = 1,
        background: str | None = None,
        tile: int = 512,
        batch: int = 8,
        keep_color: bool = False,
        identity: float | None = None,
        identity_model: str | PathLike | None = None,
    ):
        _check("alpha", alpha, 0, 1)
        _check("upscale", upscale, 1, 16)
        _check("batch", batch, 1)
        _check("min_face", min_face, 1)
        _check("max_face", max_face, 1)
        self.device = select_device(device, mps=True)
        given = get_task(task or "restore") if task is None or isinstance(task, str) else task
        is_default = model is None and given.released == DEFAULT
        model = given.released if model is None else model
        closed = isinstance(model, str | PathLike)
        arguments = {"key": key, "device": self.device, "precision": precision}
        self.network = open_network(model, **arguments) if closed else model
        task = task or self.network.task
        self.task = get_task(task) if isinstance(task, str) else task
        if keep_color and not self.task.keeps_grey:
            got = f"got it for the task {self.task.name}, whose input has no colour to keep"
            raise OptionError("keep_color", got, hint="Leave it out.")
        self.template = parse_template(template or self.network.template)
        self.alpha = self.network.alpha if alpha is None else alpha
        self.upscale, self.batch, self.keep_color = upscale, batch, keep_color
        self.max_face = LARGEST * self.network.in_size if max_face is None and is_default else max_face
        self._gate = open_gate(identity, identity_model, self.device)
        self._background = open_background(background, device=self.device, tile=tile) if background else None
        self._detector_arguments = (detector, detector_file, min(min_face, MIN_FACE))
        self.min_face = min_face
        self._mask_name = mask
        self._detector = self._mask = None

    @property
    def detector(self):
        """The detector; opened, which may fetch its file, when it is first asked for."""
        if self._detector is None:
            name, file, least = self._detector_arguments
            self._detector = open_detector(name, file=file, device=self.device, min_size=least)
        return self._detector

    @property
    def mask(self):
        """What makes the masks; opened when it is first asked for."""
        if self._mask is None:
            self._mask = open_mask(self._mask_name, template=self.template, device=self.device)
        return self._mask

    def with_network(self, network: FaceNetwork) -> "Restorer":
        """The same restorer around another network of the same sizes, e.g. a `VariedNetwork`."""
        other = copy.copy(self)
        other.network = network
        return other

    def find(self, image: Image) -> list[DetectedFace]:
        """Find the faces of a photograph, the most certain first."""
        found = self.detector(to_uint8(_photograph(image).pixels))
        return [face for face in found if can_be_aligned(face.landmarks)]

    def aligned_face(self, image: Image) -> np.ndarray | None:
        """The most certain face of a photograph as the network takes it, (S, S, 3) BGR float32; None without a face."""
        photograph = _photograph(image)
        faces = self.find(photograph)
        return self._located(photograph, faces[0]).crop if faces else None

    def restore(
        self, image: Image, *, aligned: bool = False, faces: Sequence[DetectedFace] | None = None
    ) -> Restoration:
        """Restore one image; see `restore_all`."""
        return self.restore_all([image], aligned=aligned, faces=None if faces is None else [faces])[0]

    def restore_all(
        self,
        images: Sequence[Image],
        *,
        aligned: bool = False,
        faces: Sequence[Sequence[DetectedFace]] | None = None,
    ) -> list[Restoration]:
        """Restore images; the faces of all of them share batches.

        Args:
            images: paths, photographs, or BGR arrays, uint8 or uint16: (H, W), (H, W, 3) or (H, W, 4) with alpha.
            aligned: each image shows one face as the network was trained on them; the result has the network's size.
            faces: where the faces are, one list for each image, if that is known.
        Returns:
            One entry for each image, in order.
        Raises:
            DataError: a file cannot be read.
            ShapeError: an array of another shape or type.
            OptionError: the task restores aligned faces alone.
        """
        if self.task.aligned_only and not aligned:
            got = "got whole photographs"
            raise OptionError(f"task {self.task.name}", got, "aligned faces", "Pass --aligned (aligned=True).")
        photographs = [_photograph(image) for image in images]
        if aligned:
            located = [[_Located(None, np.eye(2, 3), to_float(photograph.pixels))] for photograph in photographs]
        else:
            found = [self.find(photograph) for photograph in photographs] if faces is None else faces
            located = [
                parallel_map(partial(self._located, photograph), each)
                for photograph, each in zip(photographs, found, strict=True)
            ]
        flat = [(photograph, face) for photograph, each in zip(photographs, located, strict=True) for face in each]
        restored = self._restored(flat)
        finish = self._aligned_result if aligned else self.paste_back
        return [
            finish(photograph, [next(restored) for _ in each])
            for photograph, each in zip(photographs, located, strict=True)
        ]

    def _located(self, photograph: Photograph, face: DetectedFace) -> "_Located":
        size = self.network.in_size
        matrix = align(face.landmarks, self.template, size)
        return _Located(face, matrix, warp(photograph.pixels, matrix, (size, size)))

    def _restored(self, located: Sequence[tuple[Photograph, "_Located"]]) -> Iterator[RestoredFace]:
        """Each face through the network, in batches, and what is kept of the input."""
        for start in range(0, len(located), self.batch):
            part = located[start : start + self.batch]
            outputs = self.network([self.task.before(face.crop, self.network.in_size) for _, face in part])
            for (photograph, face), output in zip(part, outputs, strict=True):
                restored = self.task.after(face.crop, output)
                if self.keep_color:
                    restored = keep_color(restored, face.crop)
                if self.task.keeps_grey and photograph.shows_no_colour:
                    restored = to_gray(restored) if photograph.grey else keep_tint(restored, face.crop)
                kept = self.task.idle(face.crop)
                yield self._judged(RestoredFace(face.detected, face.matrix, face.crop, restored, kept=kept))

    def _judged(self, face: RestoredFace) -> RestoredFace:
        kept = face.kept or _too_small(face, self.min_face) or _size_warning(face, self.max_face)
        face = replace(face, kept=kept)
        if self._gate is None:
            return face
        likeness = self._gate(face.crop, face.restored, self.template)
        drifted = f"identity {likeness:.2f} is below {self._gate.threshold:g}"
        return replace(face, identity=likeness, kept=drifted if self._gate.drifted(likeness) else face.kept)

    def _aligned_result(self, photograph: Photograph, faces: list[RestoredFace]) -> Restoration:
        (face,) = faces
        before = cv2.resize(face.crop, face.restored.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        alpha = 0 if face.kept else self.alpha
        result = face.restored if alpha == 1 else before + np.float32(alpha) * (face.restored - before)
        unchanged = alpha == 0 and before.shape == face.crop.shape
        return Restoration(photograph.with_pixels(from_float(result, photograph.pixels.dtype)), faces, unchanged)

    def paste_back(self, image: Image, faces: Sequence[RestoredFace], *, alpha: float | None = None) -> Restoration:
        """Put restored faces into their photograph; nothing goes through the network.

        Args:
            image: the photograph in which they were found.
            faces: of an earlier restoration, or some of them.
            alpha: how much of the restoration is blended in; None takes the restorer's own.
        """
        photograph = _photograph(image)
        canvas = self._canvas(photograph)
        alpha = self.alpha if alpha is None else alpha
        shown = [face for face in faces if face.kept is None and alpha > 0]
        if shown:
            height, width = photograph.pixels.shape[:2]
            scale = canvas.shape[1] / width, canvas.shape[0] / height
            matrices = [scale_affine(face.matrix, source=scale) for face in shown]
            masks = self.mask([face.restored for face in shown])
            frames = [
                scale_affine(matrix, target=len(mask) / len(face.crop))
                for face, matrix, mask in zip(shown, matrices, masks, strict=True)
            ]
            pieces = [
                Piece(face.crop, face.restored, matrix, mask)
                for face, matrix, mask in zip(shown, matrices, normalize_overlaps(masks, frames), strict=True)
            ]
            paste_all(canvas, pieces, alpha)
        unchanged = not shown and self._background is None and canvas.shape == photograph.pixels.shape
        return Restoration(photograph.with_pixels(canvas), list(faces), unchanged)

    def _canvas(self, photograph: Photograph) -> np.ndarray:
        """The photograph at the size of the result, a copy."""
        pixels = photograph.pixels
        height, width = (max(1, round(side * self.upscale)) for side in pixels.shape[:2])
        if self._background is None and (height, width) == pixels.shape[:2]:
            return pixels.copy()
        larger = self._background(pixels) if self._background else pixels
        if self._background and photograph.shows_no_colour:  # networks colour what is grey
            grey = photograph.grey
            larger = (
                to_gray(larger) if grey else from_float(keep_tint(to_float(larger), to_float(pixels)), larger.dtype)
            )
        if larger.shape[:2] == (height, width):
            return larger
        interpolation = cv2.INTER_AREA if larger.shape[0] > height else cv2.INTER_CUBIC
        return cv2.resize(larger, (width, height), interpolation=interpolation)


@dataclass(frozen=True, eq=False)
class _Located:
    """A face on its way to the network; see `RestoredFace`."""

    detected: DetectedFace | None
    matrix: np.ndarray
    crop: np.ndarray


def _photograph(image: Image) -> Photograph:
    if isinstance(image, Photograph):
        return image
    if not isinstance(image, np.ndarray):
        return read_photograph(image)
    form = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if not form or image.dtype not in (np.uint8, np.uint16) or 0 in image.shape:
        got = f"got {image.shape} {image.dtype}"
        raise ShapeError("image", got, "(H, W), (H, W, 3) or (H, W, 4), uint8 or uint16, in BGR order")
    return Photograph.of(image)


def _check(name: str, value: float | None, least: float, most: float = np.inf) -> None:
    if value is not None and not least <= value <= most:
        expected = f"a number from {least:g}" + (f" to {most:g}" if most < np.inf else "")
        raise OptionError(name, f"got {value}", expected)


def _size_warning(face: RestoredFace, most: float | None) -> str | None:
    """Why a face is larger than a network makes better: it fills more than `most` pixels. None if it is not."""
    if most is None or face.detected is None or side_in_photograph(face.crop, face.matrix) <= most:
        return None
    return f"fills more than {most:g} px: pass a larger network, as -m GPEN-BFR-512, or a larger --max-face"


def _too_small(face: RestoredFace, least: float) -> str | None:
    """Why a face is smaller than asked for. None if it is not."""
    if face.detected is None:
        return None
    left, top, right, bottom = face.detected.box
    is_small = math.sqrt(max(0, (right - left) * (bottom - top))) < least
    return f"smaller than {least:g} px (--min-face)" if is_small else None
