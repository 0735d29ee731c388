"""Read and write photographs with their depth, transparency, color profile and metadata."""

import contextlib
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.images.color import is_monochrome
from gpen_plugin.images.decode import LIMIT, decode
from gpen_plugin.images.encode import ENCODERS, Origin, TiffPages, encode, origin_of
from gpen_plugin.images.files import write_whole
from gpen_plugin.images.metadata import Metadata, read_metadata

WRITTEN_SUFFIXES = tuple(ENCODERS)
RAW_SUFFIXES = (  # of cameras
    ".3fr",
    ".ari",
    ".arw",
    ".cap",
    ".cr2",
    ".cr3",
    ".crw",
    ".dcr",
    ".dng",
    ".erf",
    ".fff",
    ".gpr",
    ".iiq",
    ".k25",
    ".kdc",
    ".mef",
    ".mos",
    ".mrw",
    ".nef",
    ".nrw",
    ".orf",
    ".pef",
    ".ptx",
    ".raf",
    ".raw",
    ".rw2",
    ".rwl",
    ".sr2",
    ".srf",
    ".srw",
    ".x3f",
)
GRAY_CHECK_STEP = 64  # one pixel of so many, each way, tells of nearly all photographs that they are not gray
_IMAGE = "an image file"
_DTYPES = ("uint8", "uint16")


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image and its metadata.

    Raises: ShapeError: pixels or alpha of another shape or dtype.
    """

    pixels: np.ndarray  # (H, W, 3) BGR, uint8 or uint16, upright
    alpha: np.ndarray | None = None  # (H, W), in the dtype of `pixels`, 0 is transparent; None without transparency
    metadata: Metadata = field(default_factory=Metadata)  # also written to the new file
    origin: Origin = field(default_factory=Origin)  # how the file stored its pixels, for writing them alike
    notes: tuple[str, ...] = ()  # what reading omitted or changed, e.g. ``first of 12 frames``
    damage: tuple[str, ...] = ()  # what is missing of the file, e.g. ``it is cut off: 400 of 600 rows could be read``
    pages: int = 1  # number of pages in the file; each is a photograph, see `read_pages`
    # whether it has no colors except a tint. None: see `is_monochrome`. Frames of a video share the value of their
    # shot
    monochrome: bool | None = None

    def __post_init__(self):
        _check("pixels", self.pixels, (*self.pixels.shape[:2], 3), _DTYPES)
        if self.alpha is not None:
            _check("alpha", self.alpha, self.pixels.shape[:2], (self.pixels.dtype.name,))

    @classmethod
    def of(
        cls,
        # uint8 or uint16: (H, W), (H, W, 1), (H, W, 2) with alpha, (H, W, 3) BGR, or (H, W, 4) with alpha
        samples: np.ndarray,
    ) -> "Photograph":
        """A photograph without metadata."""
        samples = samples if samples.ndim == 3 else samples[:, :, None]  # (H, W, C)
        channels = samples.shape[2]
        alpha = np.ascontiguousarray(samples[:, :, -1]) if channels in (2, 4) else None
        if channels > 2:
            return cls(np.ascontiguousarray(samples[:, :, :3]), alpha)
        return cls(np.repeat(samples[:, :, :1], 3, axis=2), alpha, origin=Origin(one_channel=True))

    @property
    def samples(self) -> np.ndarray:
        """The channels as `of` takes them: (H, W), (H, W, 2), (H, W, 3) or (H, W, 4)."""
        color = self.pixels[:, :, :1] if self.origin.one_channel and self.is_gray else self.pixels
        if self.alpha is not None:
            return np.concatenate([color, self.alpha[:, :, None]], axis=2)
        return color[:, :, 0] if color.shape[2] == 1 else color

    @cached_property
    def is_gray(self) -> bool:
        """Whether all three channels are equal."""
        few = self.pixels[::GRAY_CHECK_STEP, ::GRAY_CHECK_STEP]
        return _is_gray(few) and _is_gray(self.pixels)

    @cached_property
    def has_no_color(self) -> bool:
        """Whether restored faces must not gain color: gray, or gray except for the tint of paper or toning."""
        return self.is_gray or (is_monochrome(self.pixels) if self.monochrome is None else self.monochrome)

    def with_pixels(self, pixels: np.ndarray) -> "Photograph":
        """The same photograph with other pixels, (H, W, 3) BGR, uint8 or uint16, of any size; alpha is resized.

        Raises: ShapeError: pixels of another shape or dtype.
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


def read_photograph(
    # PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM, or HEIC if pillow-heif is installed
    path: str | os.PathLike,
    limit: float = LIMIT,  # in megapixels; a larger image is refused before decoding
) -> Photograph:
    """Read a photograph of any common format; of several pages or frames the first.

    PNG and TIFF keep 16 bits; the orientation is applied. Colors stay in the file's profile, but CMYK and Lab become
    sRGB. A truncated JPEG file is read as far as possible. The notes list all of this.

    Raises: DataError: names the file, which does not exist, is not an image, damaged or too large.
    """
    first = next(read_pages(path, limit))
    left_out = [f"first of {first.pages} pages, the others are left out"] if first.pages > 1 else []
    return replace(first, notes=(*first.damage, *left_out, *first.notes))


def read_pages(path: str | os.PathLike, limit: float = LIMIT) -> Iterator[Photograph]:
    """Read the pages of a TIFF file one after another, each with its metadata; of other files the photograph.

    Previews of other pages are omitted. Arguments and errors: see `read_photograph`.
    """
    path = Path(path)
    data = _contents(path, limit)
    number, pages = 0, 1
    while number < pages:
        page = _decoded(data, path, limit, number)
        yield page
        number, pages = number + 1, page.pages


def _decoded(data: bytes, path: Path, limit: float, page: int) -> Photograph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on oddities of the file that do not matter here
        decoded = decode(data, str(path), limit, page=page, partly=True)
        metadata, notes = read_metadata(decoded.image, data)
        origin = origin_of(decoded.image, decoded.samples, data)
    if not decoded.keeps_profile:
        metadata = replace(metadata, icc=b"")
    return replace(
        Photograph.of(decoded.samples),
        metadata=metadata,
        origin=origin,
        notes=(*decoded.notes, *notes),
        damage=tuple(decoded.damage),
        pages=decoded.pages,
    )


def write_photograph(
    path: str | os.PathLike,  # with one of `WRITTEN_SUFFIXES`; its folder is created
    photograph: Photograph,  # what to write
    # of JPEG, without subsampling, and of lossy WebP, 1 to 100; None is 95, or that of the JPEG input if higher
    quality: int | None = None,
) -> tuple[str, ...]:
    """Write a photograph completely or not at all.

    PNG, TIFF and BMP are lossless; so is WebP unless the photograph came from a lossy file. JPEG and BMP show
    transparency on white, and reduce 16 bits to 8.

    Returns: A line for each thing that the format cannot hold.
    Raises:
        OptionError: an unknown suffix, or another quality.
        DataError: the file cannot be written.
    """
    data, lost = encode_photograph(path, photograph, quality)
    write_whole(path, data)
    return lost


def encode_photograph(
    path: str | os.PathLike, photograph: Photograph, quality: int | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Contents of the file that `write_photograph` writes, and its return value."""
    path = Path(path)
    if path.suffix.lower() not in ENCODERS:
        got = f"has the suffix {path.suffix}" if path.suffix else "has no suffix"
        raise OptionError(str(path), got, "one of " + ", ".join(WRITTEN_SUFFIXES), "Name it otherwise.")
    if quality is not None and not 1 <= quality <= 100:
        raise OptionError("quality", f"got {quality}", "1 to 100", "95 is near to no loss.")
    with _encoding(path):
        data, lost = encode(path.suffix.lower(), *_parts(photograph), quality)
    return data, tuple(lost)


class TiffWriter:
    """Writes photographs as the pages of a TIFF file."""

    def __init__(
        self,
        file: BinaryIO,  # open for writing, empty
        path: Path,  # its name, for messages
    ):
        self._pages, self._path = TiffPages(file), path

    def add(self, photograph: Photograph) -> tuple[str, ...]:
        """Write the next page; returns the lost parts. DataError if it cannot be encoded."""
        with _encoding(self._path):
            return tuple(self._pages.add(*_parts(photograph)))


def has_format_of(path: Path, photograph: Photograph) -> bool:
    """Whether the suffix is that of the format of the photograph's file."""
    return photograph.origin.format in ENCODERS[path.suffix.lower()].formats


def check_holds_pages(target: Path, source: Path) -> None:
    """Raise a DataError if a file of this suffix cannot hold the pages of the source."""
    if ENCODERS[target.suffix.lower()] is not ENCODERS[".tif"]:
        got = f"holds several pages, and a {target.suffix} file holds one"
        raise DataError(str(source), got, "a .tif file for the result", "Leave the suffix out, or pass --suffix .tif.")


@contextlib.contextmanager
def _encoding(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on oddities of the metadata
            yield
    except (OSError, ValueError, OverflowError, struct.error, cv2.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of an encoder
            raise
        got, hint = f"cannot be encoded ({error})", "Choose another format, such as PNG."
        raise DataError(str(path), got, "a size that the format can hold", hint) from error


def _parts(photograph: Photograph) -> tuple[np.ndarray, np.ndarray | None, Metadata, Origin]:
    return photograph.pixels, photograph.alpha, photograph.metadata, photograph.origin


def _is_gray(pixels: np.ndarray) -> bool:
    blue, green, red = cv2.split(pixels)
    return bool(np.array_equal(blue, green) and np.array_equal(green, red))


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
    if array.shape != shape or array.dtype.name not in dtypes or not array.size:
        wanted = "(H, W, 3)" if len(shape) == 3 else shape
        raise ShapeError(name, f"got {array.shape} {array.dtype}", f"{wanted} {' or '.join(dtypes)}")


def _contents(path: Path, limit: float) -> bytes:
    """The bytes of a file, unless it is larger than an image of `limit` megapixels can be."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            got = "is a folder" if stat.S_ISDIR(status.st_mode) else "is no ordinary file"
            raise DataError(str(path), got, _IMAGE, "Name an image in it." if path.is_dir() else "Check the path.")
        if not status.st_size:
            raise DataError(str(path), "is empty (0 bytes)", _IMAGE, "Replace or remove it.")
        if path.suffix.lower() in RAW_SUFFIXES:
            got = f"is a camera's raw file ({path.suffix})"
            raise DataError(str(path), got, "a developed image", "Export it as TIFF or PNG first.")
        if status.st_size > limit * 16e6:
            got = f"has {status.st_size:,} bytes"
            raise DataError(str(path), got, f"an image of {limit:g} megapixels at most", "Make it smaller first.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(str(path), "is not there", _IMAGE, "Check the path.") from error
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror})", _IMAGE) from error
