import io
import os
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from helpers.photographs import SRGB, bgr, chunk, exif_bytes, image, noise, png
from PIL import Image, ImageCms, ImageOps

from gpen_plugin.errors import DataError
from gpen_plugin.images.photograph import Photograph, read_photograph, write_photograph


@pytest.mark.parametrize(
    ("bits", "color", "clear"), [(8, 0, (7,)), (8, 2, (7, 8, 9)), (16, 0, (700,)), (16, 2, (700, 8, 9))]
)
def test_one_clear_color_of_a_png_becomes_alpha(tmp_path, bits, color, clear):
    pixels = np.array([[clear, [other + 1 for other in clear]]], f">u{bits // 8}")
    transparent = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    (tmp_path / "a.png").write_bytes(png(2, 1, bits, color, b"\0" + pixels.tobytes(), transparent))
    photograph = read_photograph(tmp_path / "a.png")
    assert photograph.alpha.tolist() == [[0, 2**bits - 1]]
    assert photograph.pixels[0, 1].tolist() == bgr(pixels)[0, 1].tolist()


@pytest.mark.parametrize(("mode", "alpha"), [("1", False), ("P", False), ("PA", True), ("RGBX", False)])
def test_other_modes_are_read_as_rgb(tmp_path, mode, alpha):
    rgba = Image.fromarray(noise(4, height=8, width=8))
    rgba.putalpha(255)
    source = rgba.convert("LA").convert(mode) if mode == "PA" else rgba.convert("RGB").convert(mode)
    source.save(tmp_path / "a.tif")
    photograph = read_photograph(tmp_path / "a.tif")
    assert (photograph.alpha is not None) == alpha
    expected = Image.open(tmp_path / "a.tif").convert("RGBA").convert("RGB")
    np.testing.assert_array_equal(photograph.pixels[:, :, ::-1], np.asarray(expected))
    assert photograph.origin.one_channel == (mode == "1")


def test_a_palette_with_transparency(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    photograph = read_photograph(tmp_path / "a.png")
    assert photograph.pixels.tolist() == [[[0, 0, 255], [0, 255, 0], [255, 0, 0]]]
    assert photograph.alpha.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("LAB", ".tif")])
def test_cmyk_and_lab_become_srgb_with_a_note(tmp_path, mode, suffix):
    color = Image.new("RGB", (16, 16), (200, 60, 40))
    if mode == "LAB":
        srgb = ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(color, srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    else:
        image = color.convert("CMYK")
    image.save(tmp_path / f"a{suffix}")
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
def test_tiff_layouts(tmp_path, how, dtype):
    samples = noise(3, dtype, 40, 50)
    stored = samples.transpose(2, 0, 1) if "planarconfig" in how else samples
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(stored), photometric="rgb", **how)
    expected = samples[::-1, ::-1] if "extratags" in how else samples
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels, bgr(expected))


@pytest.mark.parametrize("name", ["a.ppm", "a.jp2"])
def test_reduced_depth_is_noted(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), noise(3, "uint16", 40, 50))
    assert read_photograph(tmp_path / name).notes == ("16 bits reduced to 8",)
    cv2.imwrite(str(tmp_path / name), noise(3, "uint8", 40, 50))
    assert read_photograph(tmp_path / name).notes == ()


def test_sixteen_bits_of_a_pgm(tmp_path):
    samples = noise(1, "uint16")
    cv2.imwrite(str(tmp_path / "a.pgm"), samples)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.pgm").pixels, bgr(samples))


@pytest.mark.parametrize("profile", [SRGB, b"no profile"])
def test_wrong_cmyk_profile_is_ignored(tmp_path, profile):
    Image.new("CMYK", (16, 16), (0, 0, 255, 0)).save(tmp_path / "a.tif", icc_profile=profile)
    photograph = read_photograph(tmp_path / "a.tif")
    assert photograph.pixels[0, 0].tolist() == [0, 255, 255]
    assert photograph.metadata.icc == b""


def test_white_is_zero_in_some_tiffs(tmp_path):
    samples = noise(1, "uint16")[:, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels[:, :, 0], 65535 - samples)


def test_colors_multiplied_by_alpha_are_divided(tmp_path):
    samples = np.array([[[20000, 10000, 0, 40000], [0, 0, 0, 0]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    photograph = read_photograph(tmp_path / "a.tif")
    assert photograph.pixels[0].tolist() == [[0, round(65535 / 4), round(65535 / 2)], [0, 0, 0]]
    assert photograph.alpha.tolist() == [[40000, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.png", "deep.tif"])
def test_orientation_is_applied_once(tmp_path, name, orientation):
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


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_several_is_taken_with_a_note(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    path = tmp_path / f"a.{kind.lower()}"
    frames[0].save(
        path, kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    photograph = read_photograph(path)
    assert photograph.notes == (f"first of 3 {'pages' if kind == 'TIFF' else 'frames'}, the others are left out",)
    assert photograph.pixels[3, 3].tolist() == [0, 0, 250]
    assert photograph.origin.lossless


def bomb(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, bytes(1000))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"", r"a\.png: is empty \(0 bytes\); expected an image file\. Replace or remove it\.$"),
        (
            "a.png",
            b"Dear diary,\nno image.\n",
            r"is no image of a kind that can be read \(22 bytes\); expected",
        ),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image of a kind"),
        ("a.png", bomb(60000, 60000), r"is 60,000 x 60,000 pixels, 3,600 megapixels; expected 250 megapixels at most"),
        ("a.nef", b"II*\0", r"is a camera's raw file \(\.nef\); expected a developed image"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(20), "is a HEIC image.*pillow-heif is not installed.*pip install"),
    ],
)
def test_files_that_are_no_image(tmp_path, monkeypatch, name, data, message):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_photograph(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *((suffix, "uint8") for suffix in (".png", ".tif", ".bmp", ".webp")),
        (".png", "uint16"),
        (".tif", "uint16"),
    ],
)
def test_truncated_images_are_refused(tmp_path, suffix, dtype, fraction):
    write_photograph(tmp_path / f"whole{suffix}", Photograph(bgr(noise(3, dtype, 300, 200))))
    data = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(DataError, match=f"a{suffix}: (cannot be|is no image)") as caught:
        read_photograph(tmp_path / f"a{suffix}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_truncated_jpeg_is_read_with_a_note(tmp_path, mode, progressive):
    whole = Image.fromarray(bgr(noise(3, height=300, width=200))).convert(mode)
    whole.save(tmp_path / "whole.jpg", progressive=progressive)
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * 0.7)])
    photograph, expected = read_photograph(tmp_path / "a.jpg"), read_photograph(tmp_path / "whole.jpg")
    assert expected.damage == ()
    (said,) = photograph.damage
    assert said.startswith("the file is cut off: ")
    assert said.endswith(" of 300 rows could be read")
    rows = int(said.split(": ")[1].split()[0])
    assert (rows == 300) if progressive else (150 < rows < 250)
    if not progressive:
        whole_rows = rows - 33  # the last row of blocks, 16 pixels, is cut, and colors are smoothed across its borders
        np.testing.assert_array_equal(photograph.pixels[:whole_rows], expected.pixels[:whole_rows])
        assert (photograph.pixels[rows:] == 128).all()


def test_jpeg_without_pixels_is_refused(tmp_path):
    image(noise(3, height=300, width=200)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: data.index(b"\xff\xda") + 14])  # after the header of the pixels
    with pytest.raises(DataError, match=r"a\.jpg: cannot be (decoded|opened)"):
        read_photograph(tmp_path / "a.jpg")


@pytest.mark.parametrize(("dtype", "planes"), [("uint8", False), ("uint16", False), ("uint16", True)])
@pytest.mark.parametrize("extra", ["unspecified", "unassalpha"])
def test_only_transparency_is_read_as_transparency(tmp_path, dtype, extra, planes):
    samples = noise(4, dtype, 40, 50)
    layout = {"planarconfig": "separate"} if planes else {}
    stored = np.ascontiguousarray(samples.transpose(2, 0, 1)) if planes else samples
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=[extra], **layout)
    photograph = read_photograph(tmp_path / "a.tif")
    np.testing.assert_array_equal(photograph.pixels, bgr(samples))
    if extra == "unspecified":  # as scanners write infrared
        assert photograph.alpha is None
        assert photograph.notes == ("a channel beside the colors, such as infrared, left out",)
    else:
        np.testing.assert_array_equal(photograph.alpha, samples[:, :, 3])
        assert photograph.notes == ()


def test_a_limit_of_megapixels(tmp_path):
    image(noise(3, height=100, width=300)).save(tmp_path / "a.jpg")
    assert read_photograph(tmp_path / "a.jpg", limit=0.03).pixels.shape == (100, 300, 3)
    with pytest.raises(DataError, match=r"a\.jpg: is 300 x 100 pixels.*expected 0\.0299 megapixels at most"):
        read_photograph(tmp_path / "a.jpg", limit=0.0299)


def test_pillow_limit_does_not_apply(tmp_path, monkeypatch):
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
    with pytest.raises(DataError, match=r"a\.tif: (has values that are 32-bit|is no image of a kind)"):
        read_photograph(tmp_path / "a.tif")


def test_other_paths_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: is not there; expected an image file\. Check the path\."):
        read_photograph(tmp_path / "a.png")
    with pytest.raises(DataError, match="is a folder; expected an image file"):
        read_photograph(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: is no ordinary file"):
        read_photograph(tmp_path / "pipe.png")
    with (tmp_path / "endless.png").open("wb") as file:
        file.truncate(10**13)
    with pytest.raises(DataError, match=r"endless\.png: has 10,000,000,000,000 bytes"):
        read_photograph(tmp_path / "endless.png")
