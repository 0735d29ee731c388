"""Decode image files to pixels."""

import contextlib
import io
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageCms

from gpen_plugin.errors import DataError
from gpen_plugin.images.metadata import orientation_of

LIMIT = 250  # megapixels
# Not all that Pillow opens: PostScript is a program, and some formats accept any file that begins like theirs.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "JPEG2000", "QOI", "HEIF")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_CONVERTED_MODES = {"1": "L", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
_FRAMES = {"MPO": "images", "HEIF": "images"}
_TRANSPARENCY = (1, 2)  # of the kinds of extra channels of a TIFF file
_BLOCK = 16  # pixels: side of the largest blocks of a JPEG file
_JPEG_END = b"\xff\xd9"
_EXPECTED = "a whole PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or HEIC file"
_HINT = "Replace or remove it."
# The mark that its place is counted from, the place, and by how much the number there is less.
_DEPTH_FIELDS = {
    "PNG": (b"IHDR", 12, 0),
    "JPEG2000": (b"ihdr", 14, 1),
    "AVIF": (b"pixi", 9, 0),
    "HEIF": (b"pixi", 9, 0),
}
_CLASSIC = {b"II*\0": "<", b"MM\0*": ">"}
_BIG = {b"II+\0": "<", b"MM\0+": ">"}
_KIND, _OLD_KIND = 254, 255  # NewSubfileType, SubfileType
_REDUCED, _OLD_REDUCED = 1, 2  # a bit of the first, a value of the second
_pillow_limit = threading.Lock()


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded image file."""

    image: Image.Image  # as opened by Pillow, for the metadata
    samples: np.ndarray  # uint8 or uint16, (H, W, C), upright: gray, gray and alpha, BGR, or BGR and alpha
    keeps_profile: bool  # whether the pixels are in the color space of the file's profile
    notes: list[str]  # what was omitted or changed
    damage: list[str]  # what is missing of the file
    pages: int  # of a TIFF file, without previews; else 1


def decode(
    data: bytes,  # contents of the file
    name: str,  # of the file, for messages
    limit: float = LIMIT,  # in megapixels; checked before anything is decoded
    *,
    page: int = 0,  # of a TIFF file, from 0
    partly: bool = False,  # whether a truncated JPEG file is decoded as far as possible; the rest is gray
) -> Decoded:
    """Decode the first image of a file, or a page of a TIFF file, and apply its orientation.

    AVIF, HEIC and JPEG 2000 are read with 8 bits per channel.

    Raises: DataError: names the file: not an image, damaged, too large, or not of 8 or 16 bits.
    """
    starts, previews = tiff_pages(data)
    data = with_first_page(data, starts[page]) if starts else data
    image = _open(data, name)
    megapixels = image.width * image.height / 1e6
    if megapixels > limit:
        got = f"is {image.width:,} x {image.height:,} pixels, {megapixels:,.0f} megapixels"
        raise DataError(name, got, f"{limit:g} megapixels at most", "Make it smaller first.")
    notes, damage = _notes(image, previews), []
    try:
        samples, turned, keeps_profile = _read_samples(image, data, name, notes)
    except DataError:
        raise
    # A damaged file makes Pillow's decoders fail in many ways, not with OSError alone.
    except Exception as error:
        got = f"cannot be decoded ({_first_line(error)}; {len(data):,} bytes)"
        damaged = DataError(name, got, _EXPECTED, _HINT)
        if not (partly and image.format in ("JPEG", "MPO")):
            raise damaged from error
        image = _open(data + _JPEG_END, name)
        try:
            samples, turned, keeps_profile = _read_samples(image, data, name, notes)
        except Exception:
            raise damaged from error
        rows = _count_decoded_rows(samples)
        if rows <= _BLOCK:  # the last block that is decoded is none of the file's
            raise damaged from error
        damage.append(f"the file is cut off: {rows} of {len(samples)} rows could be read")
    samples = samples if samples.ndim == 3 else samples[:, :, None]  # (H, W, C)
    if not turned:
        samples = _apply_orientation(samples, orientation_of(image))
    return Decoded(image, np.ascontiguousarray(samples), keeps_profile, notes, damage, max(1, len(starts)))


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header only."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        _register_heic(name)
    Image.init()
    try:
        with _without_pillow_limit():
            return Image.open(io.BytesIO(data), formats=[known for known in _FORMATS if known in Image.OPEN])
    except Image.UnidentifiedImageError as error:
        got = f"is no image of a kind that can be read ({len(data):,} bytes)"
        raise DataError(name, got, _EXPECTED, _HINT) from error
    except Exception as error:  # see `decode`
        raise DataError(name, f"cannot be opened ({_first_line(error)})", _EXPECTED, _HINT) from error


def _register_heic(name: str) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        got = "is a HEIC image, and the package pillow-heif is not installed"
        raise DataError(name, got, "", "Run `pip install pillow-heif`, or save it as JPEG or PNG.") from error
    pillow_heif.register_heif_opener()


@contextlib.contextmanager
def _without_pillow_limit() -> Iterator[None]:
    """Pillow's limit is global, and below the size of phone photographs."""
    with _pillow_limit:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _notes(image: Image.Image, previews: int) -> list[str]:
    """What is not decoded."""
    notes = []
    if image.format == "TIFF":
        if previews:
            notes.append(f"{previews} preview{'s' * (previews != 1)} left out")
        if any(kind not in _TRANSPARENCY for kind in image.tag_v2.get(338, ())):
            notes.append("a channel beside the colors, such as infrared, left out")
    elif (count := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"first of {count} {_FRAMES.get(image.format, 'frames')}, the others are left out")
    return notes


def _count_decoded_rows(samples: np.ndarray) -> int:
    """Rows of a truncated JPEG file that could be read: the decoder fills the others with mid-gray."""
    there = np.flatnonzero((samples != 128).reshape(len(samples), -1).any(axis=1))
    return int(there[-1]) + 1 if len(there) else 0


def _read_samples(image: Image.Image, data: bytes, name: str, notes: list[str]) -> tuple[np.ndarray, bool, bool]:
    """The samples, whether they are upright already, and whether they are in the colors of the profile."""
    if image.format == "PNG" and _bits(image, data) == 16:
        return _read_png16(image, data), False, True
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA") and _bits(image, data) == 16:
        return *_read_tiff16(image, data), True
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        return _read_gray16(image, _bits(image, data), name), False, True
    if image.format == "BMP" and image.mode == "RGB":  # twice as fast, and trainings read databases of them
        return _decode_opencv(data, np.uint8), False, True
    if (bits := _bits(image, data)) > 8:
        notes.append(f"{bits} bits reduced to 8")
    if image.mode in ("CMYK", "LAB"):
        notes.append(f"{image.mode} converted to sRGB")
        return _opencv_order(_to_srgb(image)), False, False
    return _opencv_order(_plain(image, name)), False, True


def _plain(image: Image.Image, name: str) -> Image.Image:
    """8 bits, gray or RGB, with alpha if anything is transparent."""
    transparent = "transparency" in image.info
    mode = _CONVERTED_MODES.get(image.mode, image.mode)
    if mode == "P":
        mode = "RGBA" if transparent else "RGB"
    elif transparent:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    if mode not in _PLAIN_MODES:
        kind = {"F": "32-bit fractions", "I": "32-bit integers"}.get(mode, f"of the kind {mode}")
        raise DataError(name, f"has values that are {kind}", "8 or 16 bits per channel", "Convert it first.")
    image.load()
    return image if image.mode == mode else image.convert(mode)


def _to_srgb(image: Image.Image) -> Image.Image:
    srgb, profile = ImageCms.createProfile("sRGB"), image.info.get("icc_profile")
    image.load()
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), srgb, outputMode="RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):  # no profile, a damaged one, or one for other colors
        return image.convert("RGB")


def _opencv_order(image: Image.Image) -> np.ndarray:
    samples = np.asarray(image)
    if samples.ndim == 2 or samples.shape[2] == 2:
        return samples
    return cv2.cvtColor(samples, cv2.COLOR_RGB2BGR if samples.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)


def _read_png16(image: Image.Image, data: bytes) -> np.ndarray:
    transparent = image.info.get("transparency")
    samples = _decode_opencv(data)
    if samples.ndim == 2 and isinstance(transparent, int):
        return np.dstack([samples, np.where(samples == transparent, 0, 65535).astype(np.uint16)])
    if data[25] == 4:  # gray with alpha, which OpenCV makes BGRA
        return samples[:, :, 2:]
    return samples


def _read_tiff16(image: Image.Image, data: bytes) -> tuple[np.ndarray, bool]:
    """The samples, and whether they are upright already."""
    tags = image.tag_v2
    in_planes = tags.get(284) == 2
    samples = _decode_planes(data) if in_planes else _decode_opencv(data)
    if image.mode == "RGB":  # a fourth channel is no transparency
        samples = samples[:, :, :3]
    if tags.get(338) == (1,):  # colors already multiplied by alpha
        alpha = np.maximum(samples[:, :, 3:], 1).astype(np.float32)
        samples[:, :, :3] = np.rint(np.minimum(samples[:, :, :3] / alpha, 1) * 65535)
    return samples, not in_planes  # OpenCV turns TIFF files, whatever the flags


def _decode_planes(data: bytes) -> np.ndarray:
    """OpenCV misreads files with separate planes."""
    import tifffile  # comes with scikit-image, which BasicSR needs

    samples = tifffile.imread(io.BytesIO(data), key=0)  # (C, H, W)
    return np.ascontiguousarray(samples[[2, 1, 0, *range(3, len(samples))]].transpose(1, 2, 0))  # (H, W, C)


def _read_gray16(image: Image.Image, bits: int, name: str) -> np.ndarray:
    if image.format == "TIFF" and bits != 16:
        raise DataError(name, f"has {bits} bits per channel", "8 or 16", "Convert it first.")
    samples = np.asarray(image).astype(np.uint16)
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(262) == 0
    return 65535 - samples if white_is_zero else samples


def _decode_opencv(data: bytes, dtype: type = np.uint16) -> np.ndarray:
    """All 16 bits, which Pillow reads for gray images only."""
    flags = cv2.IMREAD_COLOR if dtype == np.uint8 else cv2.IMREAD_UNCHANGED
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if samples is None or samples.dtype != dtype:
        raise OSError("it is damaged, or of a kind that OpenCV does not read")
    return samples


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per channel, from the header; 8 if the file does not state them."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))
    if image.format == "PPM" and image.tile[0].codec_name.startswith("ppm"):
        return int(image.tile[0].args[-1]).bit_length()
    if image.format not in _DEPTH_FIELDS:
        return 8
    mark, place, less = _DEPTH_FIELDS[image.format]
    start = data.find(mark, 0, 4096)
    return data[start + place] + less if 0 <= start < len(data) - place else 8


def _apply_orientation(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation; from 5 on, rows and columns are exchanged."""
    if orientation >= 5:
        samples = samples.transpose(1, 0, 2)  # (H, W, C)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def tiff_pages(
    data: bytes,  # contents of any file
) -> tuple[list[int], int]:
    """Find the pages of a TIFF file. As all readers read the first page, see `with_first_page`.

    Returns:
        Offset of each page's directory, without reduced images of others; and the number of these. Damaged files give
        as many as can be found, other files none.
    """
    pages, previews, seen = [], [], set()
    order = (_CLASSIC | _BIG).get(data[:4])
    if order is None:
        return [], 0
    is_big = data[:4] in _BIG
    count_form, entry_length, place_form = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    try:
        (start,) = struct.unpack_from(order + place_form, data, 8 if is_big else 4)
        while start and start not in seen:
            seen.add(start)
            (count,) = struct.unpack_from(order + count_form, data, start)
            first = start + struct.calcsize(count_form)
            end = first + entry_length * count
            (following,) = struct.unpack_from(order + place_form, data, end)
            reduced = _is_reduced(data, range(first, end, entry_length), order, value_at=12 if is_big else 8)
            (previews if reduced else pages).append(start)
            start = following
    except struct.error:  # cut off, or no directory there
        pass
    return (pages, len(previews)) if pages else (previews, 0)


def with_first_page(data: bytes, start: int) -> bytes:
    """The TIFF file with the page at `start` as its first."""
    order = (_CLASSIC | _BIG)[data[:4]]
    place, form = (8, "Q") if data[:4] in _BIG else (4, "I")
    changed = struct.pack(order + form, start)
    if data[place : place + len(changed)] == changed:
        return data
    return data[:place] + changed + data[place + len(changed) :]


def _is_reduced(data: bytes, entries: range, order: str, value_at: int) -> bool:
    for entry in entries:
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_KIND, _OLD_KIND):
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + value_at)
            if (value & _REDUCED) if tag == _KIND else value == _OLD_REDUCED:
                return True
    return False
