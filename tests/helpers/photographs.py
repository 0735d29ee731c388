"""Images and parts of image files for tests, made without the code that they test."""

import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" dc:title="Solvay"/></x:xmpmeta>'


CLEAN_XMP = XMP.replace(b'"6"', b'"1"')


def noise(channels: int, dtype: str = "uint8", height: int = 11, width: int = 17) -> np.ndarray:
    """(H, W, C), gray or RGB; no two channels alike."""
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, True)


def image(samples: np.ndarray) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples, MODES[samples.shape[2]])


def bgr(samples: np.ndarray) -> np.ndarray:
    """The colors that `samples` are expected to be read as."""
    return np.repeat(samples[:, :, :1], 3, axis=2) if samples.shape[2] <= 2 else samples[:, :, 2::-1]


def exif_bytes(orientation: int = 1, thumbnail: bool = True, order: str = "<") -> bytes:
    """EXIF as a camera writes it: make, orientation, width, a note by the maker, and a thumbnail at the end."""
    note, preview = b"maker's own offsets", b"\xff\xd8preview\xff\xd9"
    camera, after_camera = 8 + 2 + 4 * 12 + 4, 2 + 2 * 12 + 4
    texts = camera + after_camera
    second = texts + 6 + len(note) + 1
    start = second + 2 + 2 * 12 + 4

    def short(value: int) -> bytes:
        return struct.pack(order + "HH", value, 0)

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    def table(*entries: tuple[int, int, int, bytes], following: int = 0) -> bytes:
        packed = [struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries]
        return struct.pack(order + "H", len(entries)) + b"".join(packed) + long(following)

    parts = [
        (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8),
        table(
            (0x010F, 2, 6, long(texts)),
            (0x0100, 3, 1, short(4000)),
            (0x0112, 3, 1, short(orientation)),
            (0x8769, 4, 1, long(camera)),
            following=second if thumbnail else 0,
        ),
        table((0x927C, 7, len(note), long(texts + 6)), (0xA002, 3, 1, short(4000))),
        b"Leica\0" + note + b"\0",
        table((0x0201, 4, 1, long(start)), (0x0202, 4, 1, long(len(preview)))) + preview if thumbnail else b"",
    ]
    return b"Exif\0\0" + b"".join(parts)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, bits: int, color: int, pixels: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    ending = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + ending
