"""Metadata of image files, copied except for what restoring makes wrong.

The orientation becomes 1, as the pixels are turned; embedded thumbnails are removed. EXIF is changed in place, as
rewriting breaks the offsets in maker notes.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

ORIENTATION = 0x0112
EXIF_GROUPS = (0x8769, 0x8825)  # camera settings, place
# What a TIFF file tells about the photograph; its other tags tell how the pixels are stored.
_TIFF_TAGS = (270, 271, 272, 285, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096))
_TIFF_PHOTOSHOP = 34377
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_PHOTOSHOP_THUMBNAILS = (1033, 1036)
_PNG_COLOR = (b"cHRM", b"cICP", b"gAMA", b"sRGB")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_TEXT_KEPT_ELSEWHERE = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1")
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))[2-8]")
_XMP_THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", re.DOTALL)


@dataclass(frozen=True)
class Metadata:
    """Metadata of an image file; empty if it had none."""

    exif: bytes = b""  # a TIFF structure, without the ``Exif`` header; orientation 1, no thumbnail
    icc: bytes = b""  # color profile of the pixels
    xmp: bytes = b""  # an XML packet
    photoshop: bytes = b""  # Photoshop's image resources, which contain IPTC captions
    comment: bytes = b""  # of a JPEG or GIF file
    png_color: tuple[tuple[bytes, bytes], ...] = ()  # color chunks of a PNG file: name and content
    png_text: tuple[tuple[bytes, bytes], ...] = ()  # text chunks of a PNG file
    resolution: tuple[float, float] | None = None  # pixels per inch, horizontally and vertically


def read_metadata(
    image: Image.Image,  # the file, opened
    data: bytes,  # its contents
) -> tuple[Metadata, list[str]]:
    """Read the metadata of a file.

    Returns: The metadata, and a line for each kind that is damaged and therefore omitted.
    """
    notes = []
    try:
        exif = clean_exif(_exif_of(image))
        _try_to_write(exif)
    # Pillow's reading of damaged EXIF ends in whatever error comes first.
    except Exception:
        exif = b""
        notes.append("its EXIF is damaged and left out")
    info = image.info
    chunks = list(png_chunks(data)) if image.format == "PNG" else []
    return Metadata(
        exif=exif,
        icc=info.get("icc_profile") or b"",
        xmp=_clean_xmp(info.get("xmp") or b""),
        photoshop=_photoshop_of(image),
        comment=_bytes(info.get("comment") or b""),
        png_color=tuple((name, body) for name, body in chunks if name in _PNG_COLOR),
        png_text=tuple((name, body) for name, body in chunks if name in _PNG_TEXT and not _is_kept_elsewhere(body)),
        resolution=_resolution_of(info),
    ), notes


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 if missing or invalid."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF, see `read_metadata`
        return 1
    return orientation if orientation in range(1, 9) else 1


def clean_exif(
    exif: bytes,  # with or without the ``Exif`` header; may be empty
) -> bytes:
    """Set the orientation to 1 and remove the thumbnail; nothing else moves.

    Raises: struct.error, ValueError: it is damaged.
    """
    cleaned = bytearray(exif.removeprefix(b"Exif\0\0"))
    if not cleaned:
        return b""
    order = _byte_order(cleaned)
    main = struct.unpack_from(order + "I", cleaned, 4)[0]
    entries, pointer = _entries(cleaned, main, order)
    if ORIENTATION in entries:
        struct.pack_into(order + "H", cleaned, entries[ORIENTATION] + 8, 1)
    following = struct.unpack_from(order + "I", cleaned, pointer)[0]
    if following:
        struct.pack_into(order + "I", cleaned, pointer, 0)
        _erase_thumbnail(cleaned, following, order)
    return bytes(cleaned)


def resized_exif(exif: bytes, width: int, height: int) -> bytes:
    """Update the image sizes in the EXIF, if it has any."""
    if not exif:
        return b""
    resized = bytearray(exif)
    order = _byte_order(resized)
    main, _ = _entries(resized, struct.unpack_from(order + "I", resized, 4)[0], order)
    sizes = {0x0100: width, 0x0101: height, 0xA002: width, 0xA003: height}
    tables = [main]
    if EXIF_GROUPS[0] in main:
        start = struct.unpack_from(order + "I", resized, main[EXIF_GROUPS[0]] + 8)[0]
        tables.append(_entries(resized, start, order)[0])
    for table in tables:
        for tag in table.keys() & sizes.keys():
            # As LONG, whose place in an entry SHORT shares.
            struct.pack_into(order + "HII", resized, table[tag] + 2, 4, 1, sizes[tag])
    return bytes(resized)


def add_to_tiff(directory: TiffImagePlugin.ImageFileDirectory_v2, metadata: Metadata) -> None:
    """Add all metadata that a TIFF file can hold."""
    if metadata.exif:
        exif = Image.Exif()
        exif.load(b"Exif\0\0" + metadata.exif)
        for tag in _TIFF_TAGS:
            if tag in exif:
                directory[tag] = exif[tag]
        for group in EXIF_GROUPS:
            if values := exif.get_ifd(group):
                directory[group] = values
    directory[ORIENTATION] = 1
    for tag, content in ((700, metadata.xmp), (_TIFF_PHOTOSHOP, metadata.photoshop), (34675, metadata.icc)):
        if content:
            directory[tag] = content
    if metadata.resolution:
        directory[282], directory[283] = metadata.resolution
        directory[296] = 2  # inches


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk of a PNG file."""
    position = 8
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += length + 12


def _exif_of(image: Image.Image) -> bytes:
    if image.format != "TIFF":
        # Some PNG files hold it as text, which only Pillow's own parser reads.
        return image.info.get("exif") or (image.getexif().tobytes() if len(image.getexif()) else b"")
    source, kept = image.getexif(), Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in source:
            kept[tag] = source[tag]
    for group in EXIF_GROUPS:
        if values := source.get_ifd(group):
            kept[group] = dict(values)
    return kept.tobytes() if len(kept) else b""


def _try_to_write(exif: bytes) -> None:
    """Fail now rather than when the restored photograph is written."""
    resized_exif(exif, 1, 1)
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    add_to_tiff(directory, Metadata(exif=exif))
    directory.tobytes()


def _photoshop_of(image: Image.Image) -> bytes:
    if image.format == "TIFF":
        return _bytes(image.tag_v2.get(_TIFF_PHOTOSHOP, b""))
    resources = image.info.get("photoshop")
    if not isinstance(resources, dict):
        return b""
    kept = {code: body for code, body in resources.items() if code not in _PHOTOSHOP_THUMBNAILS}
    return b"".join(_resource(code, body) for code, body in kept.items() if isinstance(body, bytes))


def _resource(code: int, body: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", code, 0, len(body)) + body + b"\0" * (len(body) % 2)


def _resolution_of(info: dict) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (horizontal, vertical) if 0 < horizontal < 1e6 and 0 < vertical < 1e6 else None


def _clean_xmp(xmp: bytes | str) -> bytes:
    return _XMP_THUMBNAILS.sub(b"", _XMP_ORIENTATION.sub(rb"\g<1>1", _bytes(xmp)))


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _is_kept_elsewhere(text: bytes) -> bool:
    return text.partition(b"\0")[0] in _PNG_TEXT_KEPT_ELSEWHERE


def _byte_order(tiff: bytes | bytearray) -> str:
    return {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2])) or _damaged()


def _damaged() -> str:
    raise ValueError("no TIFF structure")


def _entries(tiff: bytearray, start: int, order: str) -> tuple[dict[int, int], int]:
    """Offset of the entry of each tag of a directory, and of the pointer to the next directory."""
    (count,) = struct.unpack_from(order + "H", tiff, start)
    positions = [start + 2 + 12 * i for i in range(count)]
    return {struct.unpack_from(order + "H", tiff, at)[0]: at for at in positions}, start + 2 + 12 * count


def _erase_thumbnail(tiff: bytearray, directory: int, order: str) -> None:
    """Truncate the structure if the thumbnail is at its end, else overwrite it with zeros."""
    entries, _ = _entries(tiff, directory, order)
    if not entries.keys() >= {_THUMBNAIL, _THUMBNAIL_LENGTH}:
        return
    places = (entries[tag] + 8 for tag in (_THUMBNAIL, _THUMBNAIL_LENGTH))
    start, length = (struct.unpack_from(order + "I", tiff, place)[0] for place in places)
    if start + length >= len(tiff):
        del tiff[start:]
    else:
        tiff[start : start + length] = bytes(length)
