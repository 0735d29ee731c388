import struct

import numpy as np
import pytest
from helpers.photographs import CLEAN_XMP, SRGB, XMP, bgr, exif_bytes, image, noise
from PIL import Image, PngImagePlugin

from gpen_plugin.images.photograph import Photograph, read_photograph, write_photograph


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_is_copied(tmp_path, source, suffix, order):
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
def test_metadata_of_16_bit_images_is_copied(tmp_path, source, suffix):
    photograph = Photograph(bgr(noise(3, "uint16")))
    image(noise(3)).save(tmp_path / "a.jpg", exif=exif_bytes(), icc_profile=SRGB, xmp=XMP, dpi=(300, 300))
    original = read_photograph(tmp_path / "a.jpg")
    write_photograph(tmp_path / f"b{source}", original.with_pixels(photograph.pixels))
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
    write_photograph(tmp_path / "b.jpg", photograph.with_pixels(np.zeros((700, 6, 3), np.uint8)))
    exif = Image.open(tmp_path / "b.jpg").getexif()
    assert exif[0x0100] == 6
    assert exif.get_ifd(0x8769)[0xA002] == 6


FAR_AWAY = exif_bytes()[:60] + b"\0\0\0\1" + exif_bytes()[64:]  # where the settings of the camera should be


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\0\0", b"Exif\0\0nothing at all", FAR_AWAY])
def test_damaged_exif_does_not_stop_the_image(tmp_path, exif):
    image(noise(3)).save(tmp_path / "a.jpg", exif=exif)
    photograph = read_photograph(tmp_path / "a.jpg")
    assert photograph.notes == ("its EXIF is damaged and left out",)
    assert photograph.metadata.exif == b""


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_text_and_color_chunks_are_kept(tmp_path, dtype):
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


def resource(code: int, body: bytes) -> bytes:
    """As Photoshop packs it."""
    return b"8BIM" + struct.pack(">HHI", code, 0, len(body)) + body


def test_captions_and_comment_stay_and_the_thumbnail_goes(tmp_path):
    image(noise(3)).save(tmp_path / "plain.jpg", comment=b"a comment")
    data = (tmp_path / "plain.jpg").read_bytes()
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


def test_oversized_exif_is_left_out_with_a_note(tmp_path):
    image(noise(3)).save(tmp_path / "a.png", exif=exif_bytes(thumbnail=False) + bytes(70000))
    lost = write_photograph(tmp_path / "b.jpg", read_photograph(tmp_path / "a.png"))
    assert lost == ("EXIF left out, which .jpg holds less of",)
    assert not len(Image.open(tmp_path / "b.jpg").getexif())


def test_a_profile_for_gray_does_not_go_with_colors(tmp_path):
    profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    image(noise(1)).save(tmp_path / "a.jpg", icc_profile=profile)
    photograph = read_photograph(tmp_path / "a.jpg")
    assert write_photograph(tmp_path / "same.png", photograph) == ()
    assert Image.open(tmp_path / "same.png").info["icc_profile"] == profile
    lost = write_photograph(tmp_path / "b.png", photograph.with_pixels(bgr(noise(3))))
    assert lost == ("the color profile left out, which is for gray images alone",)
    assert Image.open(tmp_path / "b.png").mode == "RGB"
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info
