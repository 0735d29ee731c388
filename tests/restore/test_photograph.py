import errno
import io
import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.restore.photograph import Photograph, read_photograph, write_photograph

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" dc:title="Solvay"/></x:xmpmeta>'
CLEAN_XMP = XMP.replace(b'"6"', b'"1"')


def noise(channels: int, dtype: str = "uint8", height: int = 11, width: int = 17) -> np.ndarray:
    """(H, W, C), grey or RGB; no two channels alike."""
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, True)


def image(samples: np.ndarray) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples, MODES[samples.shape[2]])


def bgr(samples: np.ndarray) -> np.ndarray:
    """The colours that `samples` are expected to be read as."""
    return np.repeat(samples[:, :, :1], 3, axis=2) if samples.shape[2] <= 2 else samples[:, :, 2::-1]


def save_deep(path: Path, samples: np.ndarray) -> None:
    """By encoders other than ours."""
    if path.suffix == ".png":
        cv2.imwrite(str(path), samples[:, :, {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]])
    else:
        colour = samples.shape[2] > 1
        extra = ["unassalpha"] if samples.shape[2] == 4 else None
        picture = samples if colour else samples[:, :, 0]
        tifffile.imwrite(path, picture, photometric="rgb" if colour else "minisblack", extrasamples=extra)


def load_deep(path: Path) -> np.ndarray:
    """By decoders other than ours."""
    samples = tifffile.imread(path) if path.suffix == ".tif" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if samples.ndim == 2:
        return samples[:, :, None]
    return samples if path.suffix == ".tif" else samples[:, :, {3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]]


def exif_bytes(orientation: int = 1, thumbnail: bool = True, order: str = "<") -> bytes:
    """EXIF as a camera writes it: make, orientation, width, a note by the maker, and a thumbnail at the end."""
    note, preview = b"maker's own offsets", b"\xff\xd8preview\xff\xd9"
    camera, after_camera = 8 + 2 + 4 * 12 + 4, 2 + 2 * 12 + 4
    texts = camera + after_camera
    second = texts + 6 + len(note) + 1
    start = second + 2 + 2 * 12 + 4
    short = lambda value: struct.pack(order + "HH", value, 0)  # noqa: E731
    long = lambda value: struct.pack(order + "I", value)  # noqa: E731

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


def png(width: int, height: int, bits: int, colour: int, pixels: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    ending = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + ending


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [*((suffix, channels) for suffix in (".png", ".tif", ".webp") for channels in MODES), (".bmp", 1), (".bmp", 3)],
)
def test_eight_bits_come_and_go_unchanged(tmp_path, suffix, channels):
    samples = noise(channels)
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    image(samples).save(source, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    photograph = read_photograph(source)
    np.testing.assert_array_equal(photograph.pixels, bgr(samples))
    assert (photograph.alpha is not None) == (channels in (2, 4))
    if channels in (2, 4):
        np.testing.assert_array_equal(photograph.alpha, samples[:, :, -1])
    assert photograph.grey == (channels <= 2)
    assert write_photograph(target, photograph) == ()
    before, after = Image.open(source), Image.open(target)
    assert after.mode == before.mode
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_come_and_go_unchanged(tmp_path, suffix, channels):
    samples = noise(channels, "uint16", 300)
    save_deep(tmp_path / f"a{suffix}", samples)
    photograph = read_photograph(tmp_path / f"a{suffix}")
    assert photograph.pixels.dtype == np.uint16
    np.testing.assert_array_equal(photograph.pixels, bgr(samples))
    assert write_photograph(tmp_path / f"b{suffix}", photograph) == ()
    np.testing.assert_array_equal(load_deep(tmp_path / f"b{suffix}"), samples)
    again = read_photograph(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(again.pixels, photograph.pixels)
    if channels == 4:
        np.testing.assert_array_equal(again.alpha, samples[:, :, 3])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_of_grey_and_alpha_keep_their_values(tmp_path, suffix):
    samples = noise(2, "uint16")
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    (tmp_path / "a.png").write_bytes(png(17, 11, 16, 4, rows))
    photograph = read_photograph(tmp_path / "a.png")
    assert photograph.grey
    assert photograph.origin.one_channel
    write_photograph(tmp_path / f"b{suffix}", photograph)
    again = read_photograph(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(again.pixels, bgr(samples))
    np.testing.assert_array_equal(again.alpha, samples[:, :, 1])


@pytest.mark.parametrize(
    ("bits", "colour", "clear"), [(8, 0, (7,)), (8, 2, (7, 8, 9)), (16, 0, (700,)), (16, 2, (700, 8, 9))]
)
def test_one_clear_colour_of_a_png_becomes_alpha(tmp_path, bits, colour, clear):
    pixels = np.array([[clear, [other + 1 for other in clear]]], f">u{bits // 8}")
    transparent = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    (tmp_path / "a.png").write_bytes(png(2, 1, bits, colour, b"\0" + pixels.tobytes(), transparent))
    photograph = read_photograph(tmp_path / "a.png")
    assert photograph.alpha.tolist() == [[0, 2**bits - 1]]
    assert photograph.pixels[0, 1].tolist() == bgr(pixels)[0, 1].tolist()


@pytest.mark.parametrize(("mode", "alpha"), [("1", False), ("P", False), ("PA", True), ("RGBX", False)])
def test_other_kinds_of_pixels_are_read_as_what_they_show(tmp_path, mode, alpha):
    rgba = Image.fromarray(noise(4, height=8, width=8))
    rgba.putalpha(255)
    source = rgba.convert("LA").convert(mode) if mode == "PA" else rgba.convert("RGB").convert(mode)
    source.save(tmp_path / "a.tif")
    photograph = read_photograph(tmp_path / "a.tif")
    assert (photograph.alpha is not None) == alpha
    shown = Image.open(tmp_path / "a.tif").convert("RGBA").convert("RGB")
    np.testing.assert_array_equal(photograph.pixels[:, :, ::-1], np.asarray(shown))
    assert photograph.origin.one_channel == (mode == "1")


def test_a_palette_with_transparency(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    photograph = read_photograph(tmp_path / "a.png")
    assert photograph.pixels.tolist() == [[[0, 0, 255], [0, 255, 0], [255, 0, 0]]]
    assert photograph.alpha.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("LAB", ".tif")])
def test_colours_of_print_become_srgb_and_it_is_said(tmp_path, mode, suffix):
    colour = Image.new("RGB", (16, 16), (200, 60, 40))
    if mode == "LAB":
        srgb = ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(colour, srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    else:
        picture = colour.convert("CMYK")
    picture.save(tmp_path / f"a{suffix}")
    photograph = read_photograph(tmp_path / f"a{suffix}")
    assert photograph.notes == (f"{mode} converted to sRGB",)
    assert np.abs(photograph.pixels[8, 8].astype(int) - [40, 60, 200]).max() <= 4
    assert photograph.metadata.icc == b""


@pytest.mark.parametrize(
    "how",
    [
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "extratags": [(274, 3, 1, 3, True)]},
        {"tile": (16, 32)},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib", "predictor": True},
    ],
    ids=["planes", "planes turned", "tiles", "big end first", "big", "compressed"],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_however_a_tiff_is_laid_out(tmp_path, how, dtype):
    samples = noise(3, dtype, 40, 50)
    stored = samples.transpose(2, 0, 1) if "planarconfig" in how else samples
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(stored), photometric="rgb", **how)
    expected = samples[::-1, ::-1] if "extratags" in how else samples
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels, bgr(expected))


@pytest.mark.parametrize("name", ["a.ppm", "a.jp2"])
def test_depth_that_is_lost_is_said(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), noise(3, "uint16", 40, 50))
    assert read_photograph(tmp_path / name).notes == ("16 bits reduced to 8",)
    cv2.imwrite(str(tmp_path / name), noise(3, "uint8", 40, 50))
    assert read_photograph(tmp_path / name).notes == ()


def test_sixteen_bits_of_a_pgm(tmp_path):
    samples = noise(1, "uint16")
    cv2.imwrite(str(tmp_path / "a.pgm"), samples)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.pgm").pixels, bgr(samples))


@pytest.mark.parametrize("profile", [SRGB, b"no profile"])
def test_a_profile_that_is_not_for_cmyk_does_not_stop_the_picture(tmp_path, profile):
    Image.new("CMYK", (16, 16), (0, 0, 255, 0)).save(tmp_path / "a.tif", icc_profile=profile)
    photograph = read_photograph(tmp_path / "a.tif")
    assert photograph.pixels[0, 0].tolist() == [0, 255, 255]
    assert photograph.metadata.icc == b""


def test_white_is_zero_in_some_tiffs(tmp_path):
    samples = noise(1, "uint16")[:, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels[:, :, 0], 65535 - samples)


def test_colours_multiplied_by_alpha_are_divided(tmp_path):
    samples = np.array([[[20000, 10000, 0, 40000], [0, 0, 0, 0]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    photograph = read_photograph(tmp_path / "a.tif")
    assert photograph.pixels[0].tolist() == [[0, round(65535 / 4), round(65535 / 2)], [0, 0, 0]]
    assert photograph.alpha.tolist() == [[40000, 0]]


def test_a_picture_too_wide_for_webp(tmp_path):
    with pytest.raises(DataError, match=r"b.webp: cannot be encoded .* Choose another format, such as PNG\."):
        write_photograph(tmp_path / "b.webp", Photograph(bgr(noise(3, height=30, width=20000))))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (30, 20000)])
def test_sizes_of_the_edge(tmp_path, suffix, height, width):
    image(noise(3, height=height, width=width)).save(tmp_path / f"a{suffix}")
    photograph = read_photograph(tmp_path / f"a{suffix}")
    assert photograph.pixels.shape == (height, width, 3)
    write_photograph(tmp_path / f"b{suffix}", photograph)
    assert Image.open(tmp_path / f"b{suffix}").size == (width, height)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.png", "deep.tif"])
def test_orientation_is_applied_and_then_said_to_be_upright(tmp_path, name, orientation):
    samples = cv2.resize(noise(3, height=2, width=3), (48, 32), interpolation=cv2.INTER_NEAREST)
    path, target = tmp_path / name, tmp_path / f"b{Path(name).suffix}"
    exif = exif_bytes(orientation)
    if name == "a.tif":  # whose own width is the only one
        exif = Image.Exif()
        exif[0x0112] = orientation
        image(samples).save(path, exif=exif)
    elif name == "deep.tif":
        tifffile.imwrite(
            path, samples.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
        )
    elif name == "deep.png":
        cv2.imwrite(str(path), samples[:, :, ::-1].astype(np.uint16) * 257)
        data = path.read_bytes()
        path.write_bytes(data[:33] + chunk(b"eXIf", exif[6:]) + data[33:])
    else:
        how = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100, "subsampling": 0}}.get(name, {})
        image(samples).save(path, exif=exif, **how)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(turned(samples, orientation)))))
    photograph = read_photograph(path)
    pixels = photograph.pixels[:, :, ::-1]
    pixels = pixels / 257.0 if photograph.pixels.dtype == np.uint16 else pixels.astype(float)
    assert pixels.shape == upright.shape
    assert np.abs(pixels - upright).max() <= (3 if name == "a.jpg" else 0)
    write_photograph(target, photograph)
    written = Image.open(target)
    assert written.size == (upright.shape[1], upright.shape[0])
    assert written.getexif().get(0x0112, 1) == 1


def turned(samples: np.ndarray, orientation: int) -> bytes:
    """A PNG file that Pillow turns."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image(samples).save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_goes_along(tmp_path, source, suffix, order):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    more = {"pnginfo": text} if source == ".png" else {"xmp": XMP}
    resolution = {} if source == ".webp" else {"dpi": (300, 300)}
    exif = exif_bytes(6, order=order)
    image(noise(3)).save(tmp_path / f"a{source}", exif=exif, icc_profile=SRGB, **more, **resolution)
    photograph = read_photograph(tmp_path / f"a{source}")
    lost = write_photograph(tmp_path / f"b{suffix}", photograph)
    assert lost == (("the resolution left out, which .webp does not hold",) if resolution and suffix == ".webp" else ())
    written = Image.open(tmp_path / f"b{suffix}")
    written.load()
    assert written.info["icc_profile"] == SRGB
    assert written.info["xmp"] == CLEAN_XMP
    found = written.getexif()
    assert found[0x010F] == "Leica"
    assert found[0x0112] == 1
    assert found.get_ifd(0x8769)[0x927C] == b"maker's own offsets"
    assert found.get_ifd(0x8769)[0xA002] == written.width == 11
    assert b"preview" not in (tmp_path / f"b{suffix}").read_bytes()
    if resolution and suffix != ".webp":
        assert written.info["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("source", [".png", ".tif"])
def test_metadata_goes_along_with_sixteen_bits(tmp_path, source, suffix):
    photograph = Photograph(bgr(noise(3, "uint16")))
    image(noise(3)).save(tmp_path / "a.jpg", exif=exif_bytes(), icc_profile=SRGB, xmp=XMP, dpi=(300, 300))
    told = read_photograph(tmp_path / "a.jpg")
    write_photograph(tmp_path / f"b{source}", told.with_pixels(photograph.pixels))
    read = read_photograph(tmp_path / f"b{source}")
    assert read.pixels.dtype == np.uint16
    write_photograph(tmp_path / f"c{suffix}", read)
    again = read_photograph(tmp_path / f"c{suffix}")
    np.testing.assert_array_equal(again.pixels, photograph.pixels)
    assert (again.metadata.icc, again.metadata.xmp) == (SRGB, CLEAN_XMP)
    assert again.metadata.resolution == pytest.approx((300, 300), abs=0.01)
    assert Image.open(tmp_path / f"c{suffix}").getexif()[0x010F] == "Leica"


def test_a_thumbnail_in_the_middle_of_the_exif_is_blanked(tmp_path):
    image(noise(3)).save(tmp_path / "a.png", exif=exif_bytes() + b"what comes after")
    exif = read_photograph(tmp_path / "a.png").metadata.exif
    assert b"preview" not in exif
    assert exif.endswith(b"what comes after")
    assert len(exif) == len(exif_bytes() + b"what comes after") - 6


def test_exif_states_the_new_size(tmp_path):
    image(noise(3)).save(tmp_path / "a.jpg", exif=exif_bytes(order=">"))
    photograph = read_photograph(tmp_path / "a.jpg")
    write_photograph(tmp_path / "b.jpg", photograph.with_pixels(np.zeros((70000 // 100, 6, 3), np.uint8)))
    exif = Image.open(tmp_path / "b.jpg").getexif()
    assert exif[0x0100] == 6
    assert exif.get_ifd(0x8769)[0xA002] == 6


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\0\0", b"Exif\0\0nothing at all"])
def test_damaged_exif_does_not_stop_the_picture(tmp_path, exif):
    image(noise(3)).save(tmp_path / "a.jpg", exif=exif)
    photograph = read_photograph(tmp_path / "a.jpg")
    assert photograph.notes == ("its EXIF is damaged and left out",)
    assert photograph.metadata.exif == b""


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_png_says_in_text_and_of_colours_stays(tmp_path, dtype):
    text = PngImagePlugin.PngInfo()
    text.add(b"gAMA", struct.pack(">I", 100000))
    text.add_text("Title", "Solvay 1927")
    text.add_itxt("Author", "Benjamin Couprie, é")
    image(noise(1)).save(tmp_path / "a.png", pnginfo=text)
    photograph = read_photograph(tmp_path / "a.png")
    write_photograph(tmp_path / "b.png", photograph.with_pixels(photograph.pixels.astype(dtype)))
    written = Image.open(tmp_path / "b.png")
    assert written.text == {"Title": "Solvay 1927", "Author": "Benjamin Couprie, é"}
    assert written.info["gamma"] == 1
    assert write_photograph(tmp_path / "b.jpg", photograph) == ("PNG text left out, which .jpg does not hold",)


def test_captions_and_the_comment_of_a_jpeg_stay_but_not_its_thumbnail(tmp_path):
    image(noise(3)).save(tmp_path / "plain.jpg", comment=b"a comment")
    data = (tmp_path / "plain.jpg").read_bytes()
    resource = lambda code, body: b"8BIM" + struct.pack(">HHI", code, 0, len(body)) + body  # noqa: E731
    segment = b"Photoshop 3.0\0" + resource(0x0404, b"caption!") + resource(1036, b"preview!")
    (tmp_path / "a.jpg").write_bytes(
        data[:20] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[20:]
    )
    for name in ("b.jpg", "b.tif"):
        lost = write_photograph(tmp_path / name, read_photograph(tmp_path / "a.jpg"))
        assert lost == (() if name == "b.jpg" else ("the comment left out, which .tif does not hold",))
    written = Image.open(tmp_path / "b.jpg")
    assert written.info["photoshop"] == {0x0404: b"caption!"}
    assert written.info["comment"] == b"a comment"
    assert read_photograph(tmp_path / "b.tif").metadata.photoshop == resource(0x0404, b"caption!")


def test_more_exif_than_a_jpeg_holds_is_left_out_and_said(tmp_path):
    image(noise(3)).save(tmp_path / "a.png", exif=exif_bytes(thumbnail=False) + bytes(70000))
    lost = write_photograph(tmp_path / "b.jpg", read_photograph(tmp_path / "a.png"))
    assert lost == ("EXIF left out, which .jpg holds less of",)
    assert not len(Image.open(tmp_path / "b.jpg").getexif())


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_several_is_taken_with_a_note(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    path = tmp_path / f"a.{kind.lower()}"
    frames[0].save(
        path, kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    photograph = read_photograph(path)
    assert photograph.notes == (f"first of 3 {'pages' if kind == 'TIFF' else 'frames'}",)
    assert photograph.pixels[3, 3].tolist() == [0, 0, 250]
    assert photograph.origin.lossless


@pytest.mark.parametrize(
    ("source", "asked", "same_as"), [(None, None, 95), (80, None, 95), (98, None, 98), (98, 70, 70), (None, 40, 40)]
)
def test_quality_of_a_jpeg(tmp_path, source, asked, same_as):
    samples = noise(3, height=32, width=32)
    image(samples).save(tmp_path / "a.jpg", quality=source or 95, subsampling=2)
    photograph = read_photograph(tmp_path / "a.jpg") if source else Photograph(bgr(samples))
    write_photograph(tmp_path / "b.jpg", photograph, asked)
    image(samples).save(tmp_path / "expected.jpg", quality=same_as)
    written, expected = Image.open(tmp_path / "b.jpg"), Image.open(tmp_path / "expected.jpg")
    assert written.quantization == expected.quantization
    assert [component[1:3] for component in written.layer] == [(1, 1)] * 3


@pytest.mark.parametrize(("lossless", "quality", "expected"), [(True, None, 0), (False, None, 1), (True, 30, 1)])
def test_webp_is_lossless_if_it_came_so(tmp_path, lossless, quality, expected):
    image(noise(4)).save(tmp_path / "a.webp", lossless=lossless, exif=exif_bytes())
    photograph = read_photograph(tmp_path / "a.webp")
    write_photograph(tmp_path / "b.webp", photograph, quality)
    assert (b"VP8L" not in (tmp_path / "b.webp").read_bytes()) == expected


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_what_a_format_cannot_hold_is_made_to_fit_and_said(tmp_path, suffix):
    pixels = np.full((16, 16, 3), 10 * 257, np.uint16)
    alpha = np.zeros((16, 16), np.uint16)
    alpha[:, :8] = 65535
    lost = write_photograph(tmp_path / f"b{suffix}", Photograph(pixels, alpha))
    assert [line.partition(",")[0] for line in lost] == ["transparency put on white", "16 bits reduced to 8"]
    written = np.asarray(Image.open(tmp_path / f"b{suffix}"))
    assert written[:, :8].max() == written[:, :8].min() == 10
    assert written[:, 8:].min() == 255
    opaque = Photograph((pixels / 257).astype(np.uint8), np.full((16, 16), 255, np.uint8))
    assert write_photograph(tmp_path / f"b{suffix}", opaque) == ()


def test_a_profile_for_grey_does_not_go_with_colours(tmp_path):
    profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    image(noise(1)).save(tmp_path / "a.jpg", icc_profile=profile)
    photograph = read_photograph(tmp_path / "a.jpg")
    assert write_photograph(tmp_path / "same.png", photograph) == ()
    assert Image.open(tmp_path / "same.png").info["icc_profile"] == profile
    lost = write_photograph(tmp_path / "b.png", photograph.with_pixels(bgr(noise(3))))
    assert lost == ("the colour profile left out, which is for grey pictures alone",)
    assert Image.open(tmp_path / "b.png").mode == "RGB"
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info


def test_grey_stays_as_it_came(tmp_path):
    for channels, mode in ((1, "L"), (3, "RGB")):
        image(np.repeat(noise(1), channels, axis=2)).save(tmp_path / "a.png")
        photograph = read_photograph(tmp_path / "a.png")
        assert photograph.grey
        write_photograph(tmp_path / "b.png", photograph)
        assert Image.open(tmp_path / "b.png").mode == mode
        assert not photograph.with_pixels(bgr(noise(3))).grey


@pytest.mark.parametrize("shape", [(33, 51), (5, 8)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_other_pixels_take_the_transparency_along(shape, dtype):
    alpha = np.zeros((11, 17), np.uint8)
    alpha[:, 9:] = 255
    photograph = Photograph(np.zeros((11, 17, 3), np.uint8), alpha)
    other = photograph.with_pixels(np.ones((*shape, 3), dtype))
    assert other.alpha.shape == shape
    assert other.alpha.dtype == np.dtype(dtype)
    assert other.alpha[:, 0].max() == 0
    assert other.alpha[:, -1].min() == np.iinfo(dtype).max
    assert photograph.with_pixels(photograph.pixels).alpha is alpha


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_a_photograph_of_an_array(channels, dtype):
    samples = noise(channels or 1, dtype)
    photograph = Photograph.of(samples if channels else samples[:, :, 0])
    expected = bgr(samples) if channels <= 2 else samples[:, :, :3]
    np.testing.assert_array_equal(photograph.pixels, expected)
    assert (photograph.alpha is not None) == (channels in (2, 4))
    assert photograph.origin.one_channel == (channels <= 2)


@pytest.mark.parametrize(
    ("pixels", "alpha", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), None, r"pixels: got \(4, 5, 3\) float32; expected .* uint8 or uint16"),
        (np.zeros((4, 5), np.uint8), None, r"pixels: got \(4, 5\) uint8; expected \(H, W, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), None, r"pixels: got \(0, 5, 3\)"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8), r"alpha: got \(5, 4\) uint8; expected \(4, 5\)"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint16), r"alpha: got .* uint16; expected .* uint8"),
    ],
)
def test_arrays_that_are_no_photograph(pixels, alpha, message):
    with pytest.raises(ShapeError, match=message):
        Photograph(pixels, alpha)


def bomb(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, bytes(1000))


def encoded(suffix: str, samples: np.ndarray) -> bytes:
    return cv2.imencode(suffix, samples)[1].tobytes()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"", r"a\.png: is empty \(0 bytes\); expected a picture file\. Replace or remove it\.$"),
        (
            "a.png",
            b"Dear diary,\nno picture.\n",
            r"is no picture of a kind that can be read \(24 bytes\); expected",
        ),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture of a kind"),
        ("a.png", bomb(60000, 60000), r"is 60,000 x 60,000 pixels, 3,600 megapixels; expected 250 megapixels at most"),
        ("a.nef", b"II*\0", r"is a camera's raw file \(\.nef\); expected a developed picture"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(20), "is a HEIC picture.*pillow-heif is not installed.*pip install"),
    ],
)
def test_files_that_are_no_picture(tmp_path, monkeypatch, name, data, message):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_photograph(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *((suffix, "uint8") for suffix in (".png", ".jpg", ".tif", ".bmp", ".webp")),
        (".png", "uint16"),
        (".tif", "uint16"),
    ],
)
def test_half_a_picture_is_refused(tmp_path, suffix, dtype, fraction):
    write_photograph(tmp_path / f"whole{suffix}", Photograph(bgr(noise(3, dtype, 300, 200))))
    data = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(DataError, match=f"a{suffix}: (cannot be|is no picture)") as caught:
        read_photograph(tmp_path / f"a{suffix}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_limit_of_megapixels(tmp_path):
    image(noise(3, height=100, width=300)).save(tmp_path / "a.jpg")
    assert read_photograph(tmp_path / "a.jpg", limit=0.03).pixels.shape == (100, 300, 3)
    with pytest.raises(DataError, match=r"a\.jpg: is 300 x 100 pixels.*expected 0\.0299 megapixels at most"):
        read_photograph(tmp_path / "a.jpg", limit=0.0299)


def test_a_picture_beyond_the_limit_of_pillow_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    image(noise(3)).save(tmp_path / "a.png")
    assert read_photograph(tmp_path / "a.png").pixels.shape == (11, 17, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_that_are_neither_8_nor_16_bits(tmp_path, dtype, channels):
    samples = np.full((4, 5, channels), np.nan if dtype == "float32" else -1, dtype)
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", samples if channels == 3 else samples[:, :, 0], photometric=photometric)
    with pytest.raises(DataError, match=r"a\.tif: (has values that are 32-bit|is no picture of a kind)"):
        read_photograph(tmp_path / "a.tif")


def test_what_is_not_a_file(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: is not there; expected a picture file\. Mend the path\."):
        read_photograph(tmp_path / "a.png")
    with pytest.raises(DataError, match="is a folder; expected a picture file"):
        read_photograph(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: is no ordinary file"):
        read_photograph(tmp_path / "pipe.png")
    with (tmp_path / "endless.png").open("wb") as file:
        file.truncate(10**13)
    with pytest.raises(DataError, match=r"endless\.png: has 10,000,000,000,000 bytes"):
        read_photograph(tmp_path / "endless.png")


@pytest.mark.parametrize("name", ["a.gif", "a"])
def test_a_suffix_that_is_not_written(tmp_path, name):
    with pytest.raises(OptionError, match=r"has .*suffix.*; expected one of \.png, \.jpg"):
        write_photograph(tmp_path / name, Photograph(bgr(noise(3))))


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_there_is_not(tmp_path, quality):
    with pytest.raises(OptionError, match=f"quality: got {quality}; expected 1 to 100"):
        write_photograph(tmp_path / "a.jpg", Photograph(bgr(noise(3))), quality)


@pytest.mark.parametrize(("place", "reason"), [("write", errno.ENOSPC), ("replace", errno.EACCES)])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, place, reason):
    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(reason, os.strerror(reason))

    def refuse(source: str, target: str) -> None:
        raise OSError(reason, os.strerror(reason))

    (tmp_path / "a.png").write_bytes(b"what was there")
    monkeypatch.setattr(*((Path, "write_bytes", half) if place == "write" else (os, "replace", refuse)))
    with pytest.raises(DataError, match=rf"a\.png: cannot be written .*{os.strerror(reason)}"):
        write_photograph(tmp_path / "a.png", Photograph(bgr(noise(3))))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"what was there"


def test_an_interruption_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(source: str, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_photograph(tmp_path / "a.png", Photograph(bgr(noise(3))))
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written .*; expected a writable folder"):
        write_photograph(tmp_path / "out" / "a.png", Photograph(bgr(noise(3))))
    assert (tmp_path / "out").read_text() == "a file"
