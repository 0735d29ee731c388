"""Encode photographs to the formats that are written."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from gpen_plugin.images.metadata import Metadata, add_to_tiff, png_chunks, resized_exif

_DEFAULT_QUALITY = 95
_JPEG_SEGMENT = 65533  # most bytes of one segment, its length field apart
_ROWS_PER_STRIP = 256
_ZLIB_LEVEL = 3  # in a third of the time of 6, the usual one, files within some hundredths of its
_SAMPLES, _SAMPLED_ROWS = 6, 16  # parts of an image, and rows in each, on which strategies of zlib are compared
_TIFF_HEADER = b"II*\0" + bytes(4)
_NAMES = {
    "exif": "EXIF",
    "icc": "the color profile",
    "xmp": "XMP",
    "photoshop": "IPTC captions",
    "comment": "the comment",
    "png_text": "PNG text",
    "resolution": "the resolution",
}


@dataclass(frozen=True, eq=False)
class Origin:
    """How a file stored its pixels."""

    one_channel: bool = False  # gray in one channel, with or without alpha
    lossless: bool = True  # whether it stored them exactly
    tables: tuple[tuple[int, ...], ...] = ()  # quantization tables of a JPEG file, 64 divisors each
    format: str = ""  # Pillow's name; empty without a file


@dataclass(frozen=True)
class _Page:
    """Input of an encoder: (H, W, C) samples, gray or RGB, with alpha last if there is any."""

    samples: np.ndarray
    metadata: Metadata
    origin: Origin
    quality: int | None

    @property
    def exif(self) -> bytes:
        height, width = self.samples.shape[:2]
        return resized_exif(self.metadata.exif, width, height)

    def image(self) -> Image.Image:
        """For Pillow, as L, LA, RGB or RGBA."""
        return Image.fromarray(self.samples[:, :, 0] if self.samples.shape[2] == 1 else self.samples)


@dataclass(frozen=True)
class _Encoder:
    """A format: how it is written, and what it can hold."""

    write: Callable[[_Page], bytes]
    formats: tuple[str, ...]  # as Pillow names what is read
    alpha: bool
    deep: bool
    holds: tuple[str, ...]


def origin_of(image: Image.Image, samples: np.ndarray, data: bytes) -> Origin:
    """How a file that was decoded to `samples`, (H, W, C), stored them."""
    jpeg = image.format in ("JPEG", "MPO")
    lossy = jpeg or image.format in ("AVIF", "HEIF", "JPEG2000") or (image.format == "WEBP" and not _is_vp8l(data))
    tables = tuple(tuple(table) for table in image.quantization.values()) if jpeg else ()
    return Origin(samples.shape[2] <= 2, not lossy, tables, image.format)


def encode(
    suffix: str,  # of `ENCODERS`
    pixels: np.ndarray,  # (H, W, 3) BGR, uint8 or uint16
    alpha: np.ndarray | None,  # (H, W) of the same dtype, or None
    metadata: Metadata,  # written as far as the format can hold it
    origin: Origin,  # how the photograph was stored before
    quality: int | None,  # of lossy formats, 1 to 100; None is 95, or the tables of `origin` if they are better
) -> tuple[bytes, list[str]]:
    """Encode a photograph.

    Returns: Contents of the file, and a line for each thing that the format cannot hold.
    Raises: OSError, ValueError, OverflowError: the encoder refuses, e.g. an image too large for the format.
    """
    page, lost = _page(suffix, pixels, alpha, metadata, origin, quality)
    return ENCODERS[suffix].write(page), lost


class TiffPages:
    """Writes the pages of a TIFF file one after another to an empty file that is open for writing."""

    def __init__(self, file: BinaryIO):
        self._file, self._link = file, 4  # where the place of the next page is to be written
        file.write(_TIFF_HEADER)

    def add(self, pixels: np.ndarray, alpha: np.ndarray | None, metadata: Metadata, origin: Origin) -> list[str]:
        """Write a page; returns the lost parts, see `encode`."""
        page, lost = _page(".tif", pixels, alpha, metadata, origin, None)
        start = self._file.seek(0, os.SEEK_END)
        start += self._file.write(b"\0" * (start % 2))  # pages begin at even places
        data = _tiff_page(page, start)
        self._file.write(data)
        self._file.seek(self._link)
        self._file.write(struct.pack("<I", start))
        (entries,) = struct.unpack_from("<H", data)
        self._link = start + 2 + 12 * entries
        return lost


def _page(
    suffix: str,
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    metadata: Metadata,
    origin: Origin,
    quality: int | None,
) -> tuple[_Page, list[str]]:
    """The input of an encoder, and what its format cannot hold; see `encode`."""
    encoder, lost = ENCODERS[suffix], []
    if alpha is not None and not encoder.alpha:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            pixels = _on_white(pixels, alpha)
            lost.append(f"transparency put on white, which {suffix} has none of")
        alpha = None
    one_channel = origin.one_channel and bool((pixels == pixels[:, :, :1]).all())
    page = pixels[:, :, :1] if one_channel else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    page = page if alpha is None else np.concatenate([page, alpha[:, :, None]], axis=2)
    page = np.ascontiguousarray(page)  # (H, W, C)
    if page.dtype == np.uint16 and not encoder.deep:
        page = np.rint(page / np.float32(257)).astype(np.uint8)
        lost.append(f"16 bits reduced to 8, the most that {suffix} holds")
    if page.dtype == np.uint16 and page.shape[2] == 2:
        page = page[:, :, [0, 0, 0, 1]]  # what others read, as few know gray with alpha in 16 bits
    fitting, left_out = _fit_metadata(metadata, encoder, page.shape[2], suffix)
    return _Page(page, fitting, origin, quality), lost + left_out


def _fit_metadata(metadata: Metadata, encoder: _Encoder, channels: int, suffix: str) -> tuple[Metadata, list[str]]:
    kept, lost = dict(vars(metadata)), []
    limits = {"exif": _JPEG_SEGMENT - 6, "xmp": _JPEG_SEGMENT - 29, "photoshop": _JPEG_SEGMENT - 14}
    for name, label in _NAMES.items():
        too_long = encoder.write is _jpeg and name in limits and len(kept[name]) > limits[name]
        if kept[name] and (name not in encoder.holds or too_long):
            lost.append(f"{label} left out, which {suffix} {'holds less of' if too_long else 'does not hold'}")
            kept[name] = type(kept[name])() if name != "resolution" else None
    gray_profile = kept["icc"][16:20] == b"GRAY"
    if gray_profile and (channels >= 3 or encoder.write is _webp):
        lost.append("the color profile left out, which is for gray images alone")
        kept["icc"] = b""
    return Metadata(**kept), lost


def _on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    white = np.iinfo(pixels.dtype).max
    opacity = alpha[:, :, None].astype(np.float32) / white
    return np.rint(pixels * opacity + white * (1 - opacity)).astype(pixels.dtype)


def _png(page: _Page) -> bytes:
    deep = page.samples.dtype == np.uint16
    strategy = _zlib_strategy(page.samples)
    arguments = {
        "compress_level": _ZLIB_LEVEL,
        "compress_type": -1 if strategy == zlib.Z_DEFAULT_STRATEGY else strategy,
    }
    data = _deep_png(page.samples, strategy) if deep else _save(page.image(), "PNG", **arguments)
    chunks = b"".join(_chunk(name, body) for name, body in _png_metadata(page))
    return data[:33] + chunks + data[33:]  # after the header, which has this length in every PNG file


def _deep_png(samples: np.ndarray, strategy: int) -> bytes:
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    options = [cv2.IMWRITE_PNG_COMPRESSION, _ZLIB_LEVEL, cv2.IMWRITE_PNG_STRATEGY, strategy]
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(samples[:, :, order]), options)
    if not encoded:
        raise OSError(f"OpenCV does not write {samples.shape} {samples.dtype}")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, body) for name, body in png_chunks(data.tobytes()) if name in (b"IHDR", b"IDAT", b"IEND")
    )


def _png_metadata(page: _Page) -> list[tuple[bytes, bytes]]:
    metadata, chunks = page.metadata, list(page.metadata.png_color)
    if metadata.icc:
        chunks = [(name, body) for name, body in chunks if name != b"sRGB"]
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.resolution:
        per_meter = [round(value / 0.0254) for value in metadata.resolution]
        chunks.append((b"pHYs", struct.pack(">IIB", *per_meter, 1)))
    if page.exif:
        chunks.append((b"eXIf", page.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    return chunks + list(metadata.png_text)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _jpeg(page: _Page) -> bytes:
    metadata = page.metadata
    arguments = {
        "subsampling": 0,
        "icc_profile": metadata.icc or None,
        "exif": b"Exif\0\0" + page.exif if page.exif else b"",
        "comment": metadata.comment,
    }
    if metadata.xmp:
        arguments["xmp"] = metadata.xmp
    if metadata.resolution:
        arguments["dpi"] = tuple(round(value) for value in metadata.resolution)
    image = page.image()
    if page.quality is None and _is_finer(page.origin.tables):
        data = _save(image, "JPEG", qtables=[list(table) for table in page.origin.tables[:2]], **arguments)
    else:
        data = _save(image, "JPEG", quality=page.quality or _DEFAULT_QUALITY, **arguments)
    if not metadata.photoshop:
        return data
    (length,) = struct.unpack_from(">H", data, 4)  # of the first segment, JFIF, which stays the first
    segment = b"Photoshop 3.0\0" + metadata.photoshop
    return data[: 4 + length] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[4 + length :]


def _is_finer(tables: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a JPEG file is finer quantized than by our default quality."""
    if not tables:
        return False
    usual = Image.open(io.BytesIO(_save(Image.new("L", (8, 8)), "JPEG", quality=_DEFAULT_QUALITY)))
    return sum(tables[0]) < sum(usual.quantization[0])


def _webp(page: _Page) -> bytes:
    arguments = {"icc_profile": page.metadata.icc or None, "exif": page.exif, "xmp": page.metadata.xmp, "exact": True}
    image = page.image()
    image = image.convert({"L": "RGB", "LA": "RGBA"}.get(image.mode, image.mode))
    if page.origin.lossless and page.quality is None:
        return _save(image, "WEBP", lossless=True, **arguments)
    return _save(image, "WEBP", quality=page.quality or _DEFAULT_QUALITY, **arguments)


def _bmp(page: _Page) -> bytes:
    return _save(page.image(), "BMP", dpi=page.metadata.resolution or (96, 96))


def _tiff(page: _Page) -> bytes:
    first = len(_TIFF_HEADER)
    return _TIFF_HEADER[:4] + struct.pack("<I", first) + _tiff_page(page, first)


def _tiff_page(page: _Page, start: int) -> bytes:
    """A page at an even offset. Written here, as neither Pillow nor OpenCV writes 16 bits with metadata."""
    height, width, channels = page.samples.shape
    bits = page.samples.dtype.itemsize * 8
    strategy = _zlib_strategy(page.samples)
    strips = [_strip(page.samples[top : top + _ROWS_PER_STRIP], strategy) for top in range(0, height, _ROWS_PER_STRIP)]
    directory = TiffImagePlugin.ImageFileDirectory_v2(_TIFF_HEADER)
    add_to_tiff(directory, replace(page.metadata, exif=page.exif))
    for tag, value in {
        256: width,
        257: height,
        258: (bits,) * channels,
        259: 8,  # compressed with zlib
        262: 1 if channels <= 2 else 2,  # black is zero, RGB
        277: channels,
        278: _ROWS_PER_STRIP,
        279: tuple(map(len, strips)),
        284: 1,  # the channels of a pixel side by side
        317: 2,  # differences along each row
    }.items():
        directory[tag] = value
    directory[273] = tuple(np.cumsum([0, *map(len, strips[:-1])]).tolist())  # from the end of the directory
    if channels in (2, 4):
        directory[338] = 2  # transparency, by which colors are not multiplied
    return directory.tobytes(start) + b"".join(strips)


def _strip(rows: np.ndarray, strategy: int) -> bytes:
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]  # wraps around, as the format has it
    compressor = zlib.compressobj(_ZLIB_LEVEL, strategy=strategy)
    return compressor.compress(differences.astype(differences.dtype.newbyteorder("<")).tobytes()) + compressor.flush()


def _zlib_strategy(samples: np.ndarray) -> int:
    """Runs alone for pixels with grain or noise: smaller then, in half the time, as no other repetitions are searched.

    Both are tried on a few rows.
    """
    if len(samples) < 10 * _SAMPLES * _SAMPLED_ROWS:  # too small to gain much
        return zlib.Z_DEFAULT_STRATEGY
    tops = np.linspace(0, len(samples) - _SAMPLED_ROWS, _SAMPLES).astype(int)
    parts = [samples[top : top + _SAMPLED_ROWS] for top in tops]
    sizes = {
        strategy: sum(len(_strip(part, strategy)) for part in parts)
        for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_RLE)
    }
    return min(sizes, key=sizes.get)


def _save(image: Image.Image, kind: str, **arguments: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **arguments)
    return file.getvalue()


def _is_vp8l(webp: bytes) -> bool:
    """Whether a WebP file's first image is lossless."""
    position = 12
    while position + 8 <= len(webp):
        name, length = struct.unpack_from("<4sI", webp, position)
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        # The head of a frame of an animation is passed over, to the chunks within.
        position += 24 if name == b"ANMF" else 8 + length + length % 2
    return False


_COMMON = ("exif", "icc", "xmp", "resolution")
_JPEG = _Encoder(_jpeg, ("JPEG", "MPO"), alpha=False, deep=False, holds=(*_COMMON, "photoshop", "comment"))
_TIFF = _Encoder(_tiff, ("TIFF",), alpha=True, deep=True, holds=(*_COMMON, "photoshop"))
ENCODERS = {
    ".png": _Encoder(_png, ("PNG",), alpha=True, deep=True, holds=(*_COMMON, "png_text")),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _Encoder(_webp, ("WEBP",), alpha=True, deep=False, holds=("exif", "icc", "xmp")),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": _Encoder(_bmp, ("BMP",), alpha=False, deep=False, holds=("resolution",)),
}
