"""Photographs in and out without harm: depth, transparency, colour profile and all that the file says are kept."""

import os
import stat
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.picture_file import write_whole
from gpen_plugin.restore.photo_decoding import decode
from gpen_plugin.restore.photo_encoding import ENCODERS, Origin, encode, origin_of
from gpen_plugin.restore.photo_metadata import Metadata, read_metadata

WRITTEN_SUFFIXES = tuple(ENCODERS)
RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
FEW = 64  # one pixel of so many, each way, tells of nearly all photographs that they are not grey
_PICTURE = "a picture file"
_DTYPES = ("uint8", "uint16")


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture and what its file says of it.

    Attributes:
        pixels: (H, W, 3) BGR, uint8 or uint16, upright.
        alpha: (H, W), in the dtype of `pixels`, 0 where nothing is seen; None without transparency.
        metadata: what goes into the new file too.
        origin: how the file stored its pixels, for writing them alike.
        notes: what reading left out or changed, e.g. ``first of 12 frames``.
    Raises:
        ShapeError: pixels or alpha of another shape or dtype.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Metadata = field(default_factory=Metadata)
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        _check("pixels", self.pixels, (*self.pixels.shape[:2], 3), _DTYPES)
        if self.alpha is not None:
            _check("alpha", self.alpha, self.pixels.shape[:2], (self.pixels.dtype.name,))

    @classmethod
    def of(cls, samples: np.ndarray) -> "Photograph":
        """A photograph without metadata.

        Args:
            samples: uint8 or uint16: (H, W), (H, W, 1), (H, W, 2) with alpha, (H, W, 3) BGR, or (H, W, 4) with alpha.
        """
        samples = samples if samples.ndim == 3 else samples[:, :, None]  # (H, W, C)
        channels = samples.shape[2]
        alpha = np.ascontiguousarray(samples[:, :, -1]) if channels in (2, 4) else None
        if channels > 2:
            return cls(np.ascontiguousarray(samples[:, :, :3]), alpha)
        return cls(np.repeat(samples[:, :, :1], 3, axis=2), alpha, origin=Origin(one_channel=True))

    @property
    def samples(self) -> np.ndarray:
        """The channels that there are, as `of` takes them: (H, W), (H, W, 2), (H, W, 3) or (H, W, 4)."""
        colour = self.pixels[:, :, :1] if self.origin.one_channel and self.grey else self.pixels
        if self.alpha is not None:
            return np.concatenate([colour, self.alpha[:, :, None]], axis=2)
        return colour[:, :, 0] if colour.shape[2] == 1 else colour

    @cached_property
    def grey(self) -> bool:
        """Whether all three channels are equal everywhere."""
        few = self.pixels[::FEW, ::FEW]
        return _is_grey(few) and _is_grey(self.pixels)

    def with_pixels(self, pixels: np.ndarray) -> "Photograph":
        """The same photograph with other pixels.

        Args:
            pixels: (H, W, 3) BGR, uint8 or uint16, of any size; the transparency is resized to theirs.
        Raises:
            ShapeError: pixels of another shape or dtype.
        """
        _check("pixels", pixels, (*pixels.shape[:2], 3), _DTYPES)
        alpha = self.alpha
        if alpha is not None and alpha.dtype != pixels.dtype:
            alpha = alpha.astype(np.uint16) * 257 if pixels.dtype == np.uint16 else (alpha / 257).round().astype("u1")
        if alpha is not None and alpha.shape != pixels.shape[:2]:
            shrinks = pixels.size < self.pixels.size
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            alpha = cv2.resize(alpha, (pixels.shape[1], pixels.shape[0]), interpolation=interpolation)
        return replace(self, pixels=pixels, alpha=alpha)


def read_photograph(path: str | os.PathLike, limit: float = 250) -> Photograph:
    """Read a photograph of any common format: the first one, if the file holds several.

    PNG and TIFF keep 16 bits; the orientation that the file states is applied. Colours stay in the file's profile, but
    CMYK and Lab become sRGB.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM, or HEIC where pillow-heif is installed.
        limit: most megapixels; a larger picture is refused before any of it is decoded.
    Raises:
        DataError: names the file, which is not there, no picture, damaged or too large.
    """
    path = Path(path)
    data = _contents(path, limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on oddities of the file that do not matter here
        decoded = decode(data, str(path), limit)
        metadata, notes = read_metadata(decoded.image, data)
        origin = origin_of(decoded.image, decoded.samples, data)
    if not decoded.keeps_profile:
        metadata = replace(metadata, icc=b"")
    notes = (*decoded.notes, *notes)
    return replace(Photograph.of(decoded.samples), metadata=metadata, origin=origin, notes=notes)


def write_photograph(path: str | os.PathLike, photograph: Photograph, quality: int | None = None) -> tuple[str, ...]:
    """Write a photograph whole or not at all.

    PNG, TIFF and BMP lose no pixel, and neither does WebP unless the photograph came from a JPEG or lossy WebP file. A
    format that lacks something gets what it can hold: JPEG and BMP show transparency on white, and 16 bits become 8.

    Args:
        path: target, with one of `WRITTEN_SUFFIXES`; its folder is made.
        photograph: what to write.
        quality: of JPEG, always without subsampling, and of lossy WebP, 1 to 100; None takes 95, or what the JPEG file
            had where that is more.
    Returns:
        What the format could not hold, one line each.
    Raises:
        OptionError: an unknown suffix, or another quality.
        DataError: the file could not be written.
    """
    path = Path(path)
    if path.suffix.lower() not in ENCODERS:
        came = f"has the suffix {path.suffix}" if path.suffix else "has no suffix"
        raise OptionError(str(path), came, "one of " + ", ".join(WRITTEN_SUFFIXES), "Name it otherwise.")
    if quality is not None and not 1 <= quality <= 100:
        raise OptionError("quality", f"got {quality}", "1 to 100", "95 is near to no loss.")
    parts = (photograph.pixels, photograph.alpha, photograph.metadata, photograph.origin)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on oddities of the metadata
            data, lost = encode(path.suffix.lower(), *parts, quality)
    except (OSError, ValueError, OverflowError, cv2.error) as error:
        way_out = "Choose another format, such as PNG."
        raise DataError(
            str(path), f"cannot be encoded ({error})", "a size that the format can hold", way_out
        ) from error
    write_whole(path, data)
    return tuple(lost)


def _is_grey(pixels: np.ndarray) -> bool:
    blue, green, red = cv2.split(pixels)
    return bool(np.array_equal(blue, green) and np.array_equal(green, red))


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
    if array.shape != shape or array.dtype.name not in dtypes or not array.size:
        wanted = "(H, W, 3)" if len(shape) == 3 else shape
        raise ShapeError(name, f"got {array.shape} {array.dtype}", f"{wanted} {' or '.join(dtypes)}")


def _contents(path: Path, limit: float) -> bytes:
    """The bytes of a file, unless it is larger than a picture of `limit` megapixels can be."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            came = "is a folder" if stat.S_ISDIR(status.st_mode) else "is no ordinary file"
            raise DataError(str(path), came, _PICTURE, "Name a picture in it." if path.is_dir() else "Mend the path.")
        if not status.st_size:
            raise DataError(str(path), "is empty (0 bytes)", _PICTURE, "Replace or remove it.")
        if path.suffix.lower() in RAW_SUFFIXES:
            came = f"is a camera's raw file ({path.suffix})"
            raise DataError(str(path), came, "a developed picture", "Export it as TIFF or PNG first.")
        if status.st_size > limit * 16e6:
            came = f"has {status.st_size:,} bytes"
            raise DataError(str(path), came, f"a picture of {limit:g} megapixels at most", "Make it smaller first.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(str(path), "is not there", _PICTURE, "Mend the path.") from error
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror})", _PICTURE) from error
