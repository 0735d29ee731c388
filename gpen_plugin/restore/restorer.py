"""Restore photographs: detect faces, restore them in batches, and paste them back."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike

import cv2
import numpy as np
import torch

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.images.color import from_float, keep_color, keep_tint, to_float, to_gray, to_uint8
from gpen_plugin.images.photograph import Photograph, read_photograph
from gpen_plugin.nets.loading import select_device
from gpen_plugin.restore.alignment import align, can_be_aligned, parse_template, scale_affine, side_in_photograph, warp
from gpen_plugin.restore.background import open_background
from gpen_plugin.restore.detail import added_detail, weight_of
from gpen_plugin.restore.detection import DetectedFace, open_detector
from gpen_plugin.restore.identity_gate import Likeness, open_gate, recognition
from gpen_plugin.restore.network import FaceNetwork, open_network, warn_of_conflicts
from gpen_plugin.restore.noise import LEAST, noise_level, remove_noise
from gpen_plugin.restore.parallel import parallel_map
from gpen_plugin.restore.paste import Piece, coverage, normalize_overlaps, open_mask, paste_all, replace_border
from gpen_plugin.restore.selection import parse_selection
from gpen_plugin.restore.tasks import Task, get_task
from gpen_plugin.restore.zoo import DEFAULT

Image = np.ndarray | Photograph | str | PathLike
ALREADY_SHARP = "as sharp as the network's result already (--sharp-faces)"
LIKENESS = 0.3  # cosine similarity of two photographs of one person, at least, for most recognition networks
MIN_FACE = 16  # pixels; smaller faces are not detected


@dataclass(frozen=True, eq=False)
class RestoredFace:
    """The result for one face."""

    detected: DetectedFace | None  # None for an aligned image
    matrix: np.ndarray  # (2, 3) float64, from the photograph to the crop
    # the input, (S, S, 3) BGR float32 in [0, 1], at the network's input size; (H, W, 3) for an aligned image
    crop: np.ndarray
    restored: np.ndarray  # the network's output, (T, T, 3) BGR float32 in [0, 1]; in the input's color with keep_color
    identity: float | None = None  # cosine similarity of both for a recognition network; None if it was not computed
    added_detail: float | None = None  # see `gpen_plugin.restore.detail`; None if it was not measured
    weight: float = 1  # of the restored face in the result, 0 to 1, times that of the restorer
    skip_reason: str | None = None  # why the face is left unchanged in the result; None if it is restored


@dataclass(frozen=True, eq=False)
class Restoration:
    """A photograph with its faces restored."""

    photograph: Photograph  # the result, with the metadata of the input
    faces: list[RestoredFace] = field(default_factory=list)  # sorted by detection score, highest first
    unchanged: bool = False  # whether the pixels are those of the input

    @property
    def image(self) -> np.ndarray:
        """The result in the dtype and with the channels of the input: gray, BGR, or either with alpha."""
        return self.photograph.samples


class Restorer:
    """Restores every face where it is in a photograph, or images that each show one aligned face.

    Detector and mask are opened on first use.

    Raises:
        OptionError: an argument is out of range or unknown.
        MissingFileError: weights are not on this machine and cannot be downloaded.
        CheckpointError: weights are damaged, or those of another network.
        DataError: the photograph of `like` cannot be read, or shows no face.
    """

    def __init__(
        self,
        # a name (``GPEN-BFR-512``), a weight file of ours, of BasicSR or of GPEN's authors, an ONNX file, or a
        # `FaceNetwork`; None takes the default of the task
        model: str | PathLike | FaceNetwork | None = None,
        *,
        key: str | None = None,  # entry of a weight file, e.g. ``params_ema``; None prefers the averaged weights
        device: str | torch.device = "auto",  # ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; auto prefers a GPU
        precision: str = "fp32",  # of the network, ``fp32``, ``bf16`` or ``auto``; see `open_network`
        runtime: str = "auto",  # ``torch``, ``onnxruntime``, ``openvino`` or ``auto``; see `open_network`
        provider: str | None = None,  # of onnxruntime; see `open_network`
        # ``restore``, ``colorize``, ``inpaint``, ``seg2face`` or a `Task`; None takes that of the model
        task: str | Task | None = None,
        # which faces of a photograph are restored: ``all``, ``largest``, numbers from left to right (``1,3``), or
        # ``box:LEFT,TOP,RIGHT,BOTTOM``, which holds their centers
        only: str | None = None,
        # a photograph of a person: of each photograph only the face that is most like it is restored, if the cosine
        # similarity of both is at least `likeness`. It takes part in `only`, too
        like: str | PathLike | None = None,
        likeness: float = LIKENESS,  # -1 to 1
        # ``retinaface``, ``yunet`` or ``auto``: RetinaFace if its weights are on this machine, else YuNet
        detector: str = "auto",
        detector_file: str | PathLike | None = None,  # weights of RetinaFace
        min_face: float = MIN_FACE,  # side of the smallest face that is restored, in pixels
        max_face: float | None = None,  # side of the largest, as aligned; None for no limit
        # leave a face of a photograph unchanged if it is as sharp as the network's result already, and blend the two if
        # it nearly is: see `gpen_plugin.restore.detail`. None: with the default model if there is no `max_face`
        skip_sharp: bool | None = None,
        # face alignment: ``ffhq``, ``gpen``, ``arcface``, ``dlib`` or ten numbers; None takes that of the model
        template: str | None = None,
        mask: str = "auto",  # ``auto``, ``soft`` or ``parsing``: which part of a restored face is pasted
        alpha: float | None = None,  # weight of the restored face, 0 to 1; None takes that of the model, usually 1
        upscale: float = 1,  # factor of the result's height and width, 1 to 16
        # network that enlarges the photograph, see `open_background`. None: plain interpolation
        background: str | None = None,
        tile: int = 512,  # side of the tiles in which it does, in pixels
        batch: int = 8,  # faces per batch; on a CPU they run in parallel threads
        # keep the low frequencies of the input's light and color. None: with the default model
        keep_color: bool | None = None,
        # remove strong noise from a face before the network, see `gpen_plugin.restore.noise`. None: with the default
        # model
        denoise: bool | None = None,
        # least cosine similarity of input and restored face, -1 to 1; below it the face is left unchanged. None: not
        # checked
        identity: float | None = None,
        # ONNX file of a face recognition network, for `identity` and `like`; None: gfpgan's ArcFace
        identity_model: str | PathLike | None = None,
    ):
        _check_range("alpha", alpha, 0, 1)
        _check_range("upscale", upscale, 1, 16)
        _check_range("batch", batch, 1)
        _check_range("min_face", min_face, 1)
        _check_range("max_face", max_face, 1)
        _check_range("likeness", likeness, -1, 1)
        self.device = select_device(device, mps=True)
        given = get_task(task or "restore") if task is None or isinstance(task, str) else task
        is_default = model is None and given.released == DEFAULT
        model = given.released if model is None else model
        if isinstance(model, str | PathLike):
            model = open_network(
                model, key=key, device=self.device, precision=precision, runtime=runtime, provider=provider
            )
        self.network = model
        warn_of_conflicts(self.network, task=task if isinstance(task, str) else None, template=template)
        task = task or self.network.task
        self.task = get_task(task) if isinstance(task, str) else task
        if keep_color and not self.task.keeps_gray:
            got = f"got it for the task {self.task.name}, whose input has no color to keep"
            raise OptionError("keep_color", got, hint="Leave it out.")
        self.template = parse_template(template or self.network.template)
        self.alpha = self.network.alpha if alpha is None else alpha
        self.upscale, self.batch = upscale, batch
        self.keep_color = is_default if keep_color is None else keep_color
        self._replaces_border = is_default
        self.denoise = is_default if denoise is None else denoise
        self.max_face = max_face
        self.skip_sharp = is_default and max_face is None if skip_sharp is None else skip_sharp
        self._select = parse_selection(only)
        unused = identity is None and like is not None
        self._gate = open_gate(identity, None if unused else identity_model, self.device)
        self._background = open_background(background, device=self.device, tile=tile) if background else None
        self._detector_arguments = (detector, detector_file, min(min_face, MIN_FACE))
        self.min_face = min_face
        self._mask_name = mask
        self._detector = self._mask = None
        self._likeness = None
        if like is not None:
            person, settings = self._face_of(like), recognition(identity_model, self.device)
            self._likeness = Likeness(likeness, settings, person, self.template)

    @property
    def detector(self):
        if self._detector is None:
            name, file, least = self._detector_arguments
            self._detector = open_detector(name, file=file, device=self.device, min_size=least)
        return self._detector

    @property
    def mask(self):
        if self._mask is None:
            self._mask = open_mask(self._mask_name, template=self.template, device=self.device)
        return self._mask

    def with_network(self, network: FaceNetwork) -> "Restorer":
        """A copy with another network of the same sizes, e.g. a `VariedNetwork`."""
        other = copy.copy(self)
        other.network = network
        return other

    def find(self, image: Image) -> list[DetectedFace]:
        """Detect the faces of a photograph that are to be restored, sorted by score."""
        photograph = _to_photograph(image)
        faces = self._select(self._detect(photograph))
        if self._likeness is None or not faces:
            return faces
        crops = [self._align(photograph, face).crop for face in faces]
        best = self._likeness.most_like(crops)
        return [] if best is None else [faces[best]]

    def _face_of(self, person: Image) -> np.ndarray:
        photograph = _to_photograph(person)
        faces = self._detect(photograph)
        if not faces:
            where = "like" if isinstance(person, np.ndarray | Photograph) else f"like: {person}"
            raise DataError(where, "no face was found", "a photograph of one face", "Try another.")
        return self._align(photograph, faces[0]).crop

    def _detect(self, photograph: Photograph) -> list[DetectedFace]:
        found = self.detector(to_uint8(photograph.pixels))
        return [face for face in found if can_be_aligned(face.landmarks)]

    def aligned_face(self, image: Image) -> np.ndarray | None:
        """The face with the highest score as the network's input, (S, S, 3) BGR float32; None without a face."""
        photograph = _to_photograph(image)
        faces = self.find(photograph)
        return self._align(photograph, faces[0]).crop if faces else None

    def restore(
        self, image: Image, *, aligned: bool = False, faces: Sequence[DetectedFace] | None = None
    ) -> Restoration:
        """Restore one image; see `restore_all`."""
        return self.restore_all([image], aligned=aligned, faces=None if faces is None else [faces])[0]

    def restore_faces(
        self,
        images: Sequence[Image],  # see `restore_all`
        *,
        aligned: bool = False,
        faces: Sequence[Sequence[DetectedFace]] | None = None,
    ) -> list[list[RestoredFace]]:
        """Restore the faces of images without pasting them, see `paste_back`. Errors: see `restore_all`."""
        self.check_aligned(aligned)
        photographs = [_to_photograph(image) for image in images]
        if aligned:
            located = [[self._aligned(photograph)] for photograph in photographs]
        else:
            found = [self.find(photograph) for photograph in photographs] if faces is None else faces
            located = [
                parallel_map(partial(self._align, photograph), each)
                for photograph, each in zip(photographs, found, strict=True)
            ]
        flat = [(photograph, face) for photograph, each in zip(photographs, located, strict=True) for face in each]
        restored = self._run_network(flat)
        return [[next(restored) for _ in each] for each in located]

    def restore_all(
        self,
        # paths, photographs, or BGR arrays, uint8 or uint16: (H, W), (H, W, 3) or (H, W, 4) with transparency
        images: Sequence[Image],
        *,
        aligned: bool = False,  # each image shows one face aligned as in training; the result has the network's size
        faces: Sequence[Sequence[DetectedFace]] | None = None,  # the faces of each image, if they are known
    ) -> list[Restoration]:
        """Restore images; all their faces share batches.

        Raises:
            DataError: a file cannot be read.
            ShapeError: an array of another shape or dtype.
            OptionError: the task needs aligned faces.
        """
        photographs = [_to_photograph(image) for image in images]
        restored = self.restore_faces(photographs, aligned=aligned, faces=faces)
        finish = self._aligned_result if aligned else self.paste_back
        return [finish(photograph, each) for photograph, each in zip(photographs, restored, strict=True)]

    def check_aligned(self, aligned: bool) -> None:
        """OptionError if the task needs aligned faces and does not get them."""
        if self.task.aligned_only and not aligned:
            got = "got whole photographs"
            raise OptionError(f"task {self.task.name}", got, "aligned faces", "Pass --aligned (aligned=True).")

    def _align(self, photograph: Photograph, face: DetectedFace) -> "_AlignedFace":
        size = self.network.in_size
        matrix = align(face.landmarks, self.template, size)
        crop = warp(photograph.pixels, matrix, (size, size))
        if not self.denoise:
            return _AlignedFace(face, matrix, crop, crop)
        # at the face's own size, at which noise is not interpolated
        side = min(size, max(MIN_FACE, round(side_in_photograph(crop, matrix))))
        small = scale_affine(matrix, target=side / size)
        own = crop if side == size else warp(photograph.pixels, small, (side, side))
        return _AlignedFace(face, matrix, crop, self._without_noise(own, crop))

    def _aligned(self, photograph: Photograph) -> "_AlignedFace":
        crop, size = to_float(photograph.pixels), self.network.in_size
        seen = crop
        if self.denoise:
            larger = max(crop.shape[:2]) > size
            own = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) if larger else crop
            seen = self._without_noise(own, crop)
        return _AlignedFace(None, np.eye(2, 3), crop, seen)

    def _without_noise(self, own: np.ndarray, crop: np.ndarray) -> np.ndarray:
        """What the network sees of a crop; `own` is the same face at the size of its own pixels."""
        level = noise_level(own)
        if level <= LEAST:
            return crop
        size = self.network.in_size
        return cv2.resize(remove_noise(own, level), (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)

    def _run_network(self, located: Sequence[tuple[Photograph, "_AlignedFace"]]) -> Iterator[RestoredFace]:
        for start in range(0, len(located), self.batch):
            part = located[start : start + self.batch]
            outputs = self.network([self.task.preprocess(face.seen, self.network.in_size) for _, face in part])
            for (photograph, face), output in zip(part, outputs, strict=True):
                restored = self.task.postprocess(face.crop, output)
                if self.keep_color:
                    restored = keep_color(restored, face.crop)
                if self._replaces_border:
                    restored = replace_border(restored, face.crop)
                if self.task.keeps_gray and photograph.has_no_color:
                    restored = to_gray(restored) if photograph.is_gray else keep_tint(restored, face.crop)
                skip_reason = self.task.skip_reason(face.crop)
                yield self._check(
                    RestoredFace(face.detected, face.matrix, face.crop, restored, skip_reason=skip_reason)
                )

    def _check(self, face: RestoredFace) -> RestoredFace:
        skip_reason = (
            face.skip_reason or _skip_reason_small(face, self.min_face) or _skip_reason_large(face, self.max_face)
        )
        face = replace(face, skip_reason=skip_reason)
        if self.skip_sharp and face.detected is not None:
            face = weigh(
                face, added_detail(face.crop, face.restored, self.upscale * side_in_photograph(face.crop, face.matrix))
            )
        if self._gate is None:
            return face
        similarity = self._gate(face.crop, face.restored, self.template)
        reason = f"identity below {self._gate.threshold:g} (--identity)"
        return replace(
            face, identity=similarity, skip_reason=reason if self._gate.rejects(similarity) else face.skip_reason
        )

    def _aligned_result(self, photograph: Photograph, faces: list[RestoredFace]) -> Restoration:
        (face,) = faces
        before = cv2.resize(face.crop, face.restored.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        alpha = 0 if face.skip_reason else self.alpha
        result = face.restored if alpha == 1 else before + np.float32(alpha) * (face.restored - before)
        unchanged = alpha == 0 and before.shape == face.crop.shape
        return Restoration(photograph.with_pixels(from_float(result, photograph.pixels.dtype)), faces, unchanged)

    def paste_back(
        self,
        image: Image,  # the photograph in which they were found
        faces: Sequence[RestoredFace],  # all or some faces of an earlier restoration
        *,
        alpha: float | None = None,  # weight of the restored faces; None takes that of the restorer
    ) -> Restoration:
        """Paste restored faces into their photograph, without running the network."""
        photograph = _to_photograph(image)
        canvas = self._canvas(photograph)
        alpha = self.alpha if alpha is None else alpha
        pieces = self._pieces(photograph, canvas.shape[:2], faces) if alpha > 0 else []
        paste_all(canvas, pieces, alpha)
        unchanged = not pieces and self._background is None and canvas.shape == photograph.pixels.shape
        return Restoration(photograph.with_pixels(canvas), list(faces), unchanged)

    def coverage(self, image: Image, faces: Sequence[RestoredFace], *, alpha: float | None = None) -> np.ndarray:
        """The weight of the restored faces in each pixel of `paste_back`'s result: (H, W) float32 in [0, 1]."""
        photograph = _to_photograph(image)
        size = self._result_size(photograph)
        return coverage(size, self._pieces(photograph, size, faces), self.alpha if alpha is None else alpha)

    def _pieces(self, photograph: Photograph, size: tuple[int, int], faces: Sequence[RestoredFace]) -> list[Piece]:
        """The faces that are pasted into a canvas of this height and width."""
        pasted = [face for face in faces if face.skip_reason is None]
        if not pasted:
            return []
        height, width = photograph.pixels.shape[:2]
        scale = size[1] / width, size[0] / height
        matrices = [scale_affine(face.matrix, source=scale) for face in pasted]
        masks = self.mask([face.restored for face in pasted])
        frames = [
            scale_affine(matrix, target=len(mask) / len(face.crop))
            for face, matrix, mask in zip(pasted, matrices, masks, strict=True)
        ]
        return [
            Piece(face.crop, face.restored, matrix, np.float32(face.weight) * mask)
            for face, matrix, mask in zip(pasted, matrices, normalize_overlaps(masks, frames), strict=True)
        ]

    def _result_size(self, photograph: Photograph) -> tuple[int, int]:
        height, width = (max(1, round(side * self.upscale)) for side in photograph.pixels.shape[:2])
        return height, width

    def _canvas(self, photograph: Photograph) -> np.ndarray:
        pixels = photograph.pixels
        height, width = self._result_size(photograph)
        if self._background is None and (height, width) == pixels.shape[:2]:
            return pixels.copy()
        larger = self._background(pixels) if self._background else pixels
        if self._background and photograph.has_no_color:  # networks color what is gray
            gray = photograph.is_gray
            larger = (
                to_gray(larger) if gray else from_float(keep_tint(to_float(larger), to_float(pixels)), larger.dtype)
            )
        if larger.shape[:2] == (height, width):
            return larger
        interpolation = cv2.INTER_AREA if larger.shape[0] > height else cv2.INTER_CUBIC
        return cv2.resize(larger, (width, height), interpolation=interpolation)


def weigh(face: RestoredFace, ratio: float) -> RestoredFace:
    """The face with the weight that belongs to a ratio of detail, see `gpen_plugin.restore.detail`."""
    weight = weight_of(ratio)
    other = None if face.skip_reason == ALREADY_SHARP else face.skip_reason
    return replace(
        face, added_detail=ratio, weight=weight, skip_reason=other or (None if weight > 0 else ALREADY_SHARP)
    )


@dataclass(frozen=True, eq=False)
class _AlignedFace:
    """Input of the network; see `RestoredFace`."""

    detected: DetectedFace | None
    matrix: np.ndarray
    crop: np.ndarray
    seen: np.ndarray  # the crop as the network gets it


def _to_photograph(image: Image) -> Photograph:
    if isinstance(image, Photograph):
        return image
    if not isinstance(image, np.ndarray):
        return read_photograph(image)
    form = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if not form or image.dtype not in (np.uint8, np.uint16) or 0 in image.shape:
        got = f"got {image.shape} {image.dtype}"
        raise ShapeError("image", got, "(H, W), (H, W, 3) or (H, W, 4), uint8 or uint16, in BGR order")
    return Photograph.of(image)


def _check_range(name: str, value: float | None, least: float, most: float = np.inf) -> None:
    if value is not None and not least <= value <= most:
        expected = f"a number from {least:g}" + (f" to {most:g}" if most < np.inf else "")
        raise OptionError(name, f"got {value}", expected)


def _skip_reason_large(face: RestoredFace, most: float | None) -> str | None:
    if most is None or face.detected is None or side_in_photograph(face.crop, face.matrix) <= most:
        return None
    return f"larger than {most:g} px (--max-face); a larger network can restore it, e.g. -m GPEN-BFR-512"


def _skip_reason_small(face: RestoredFace, least: float) -> str | None:
    if face.detected is None:
        return None
    left, top, right, bottom = face.detected.box
    is_small = math.sqrt(max(0, (right - left) * (bottom - top))) < least
    return f"smaller than {least:g} px (--min-face)" if is_small else None
