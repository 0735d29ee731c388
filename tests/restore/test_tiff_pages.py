"""Every page of a TIFF file is read, restored and written; previews of other pages are not."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from helpers.photographs import SRGB, bgr, noise
from helpers.restore_command import files, run, weights, write  # noqa: F401 - fixtures
from helpers.restorer_parts import Detector, photograph
from PIL import Image

from gpen_plugin.images.photograph import TiffWriter, read_pages, read_photograph

PAGES = [photograph(seed=seed) for seed in range(3)]


def write_tiff(path, pages=PAGES, kinds=(0, 0, 0), **options):
    """Pages in BGR order, with these values of NewSubfileType."""
    with tifffile.TiffWriter(path, **options) as file:
        for number, (page, kind) in enumerate(zip(pages, kinds, strict=True)):
            file.write(
                page[:, :, ::-1], photometric="rgb", subfiletype=kind, description=f"page {number}", metadata=None
            )
    return path


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_all_pages_are_read(tmp_path, dtype, order, big):
    pages = [bgr(noise(3, dtype, 20 + number, 30)) for number in range(3)]
    write_tiff(tmp_path / "a.tif", pages, byteorder=order, bigtiff=big)
    read = list(read_pages(tmp_path / "a.tif"))
    assert [page.pages for page in read] == [3, 3, 3]
    for page, expected in zip(read, pages, strict=True):
        np.testing.assert_array_equal(page.pixels, expected)
    assert read_photograph(tmp_path / "a.tif").notes == ("first of 3 pages, the others are left out",)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_previews_are_left_out_and_it_is_said(tmp_path, place):
    pages, kinds = list(PAGES), [0, 0, 0]
    pages[place], kinds[place] = pages[place][::4, ::4], 1
    read = list(read_pages(write_tiff(tmp_path / "a.tif", pages, kinds)))
    assert [page.pixels.shape for page in read] == [(240, 320, 3)] * 2
    assert read[0].notes == ("1 preview left out",)


@pytest.mark.parametrize("damage", ["a page that leads back", "a page beyond the end"])
def test_pages_of_a_damaged_file_end(tmp_path, damage):
    path = write_tiff(tmp_path / "a.tif", byteorder="<")
    with tifffile.TiffFile(path) as file:
        last = file.pages[2].offset
    data = bytearray(path.read_bytes())
    link = last + 2 + 12 * int.from_bytes(data[last : last + 2], "little")
    wrong = last if damage == "a page that leads back" else len(data) + 8
    data[link : link + 4] = wrong.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(list(read_pages(path))) == 3


def test_pages_are_written_each_with_its_metadata(tmp_path):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "Leica"
    images = [Image.fromarray(page[:, :, ::-1]) for page in PAGES]
    images[0].save(stream, "TIFF", save_all=True, append_images=images[1:], icc_profile=SRGB, dpi=(300, 300), exif=exif)
    (tmp_path / "a.tif").write_bytes(stream.getvalue())
    pages = list(read_pages(tmp_path / "a.tif"))
    odd = [page.with_pixels(page.pixels[: 239 - number]) for number, page in enumerate(pages)]
    with (tmp_path / "b.tif").open("w+b") as file:
        writer = TiffWriter(file, tmp_path / "b.tif")
        assert [writer.add(page) for page in odd] == [()] * 3
    again = list(read_pages(tmp_path / "b.tif"))
    for page, before in zip(again, odd, strict=True):
        np.testing.assert_array_equal(page.pixels, before.pixels)
        assert page.metadata.icc == before.metadata.icc
        assert page.metadata.resolution == before.metadata.resolution
    assert again[0].metadata.icc == SRGB
    with Image.open(tmp_path / "b.tif") as other:  # by another reader
        assert other.n_frames == 3
        other.seek(2)
        np.testing.assert_array_equal(np.asarray(other)[:, :, ::-1], odd[2].pixels)
        assert other.getexif()[0x010F] == "Leica"


def test_every_page_is_restored(run, tmp_path):
    write_tiff(tmp_path / "a.tif")
    status, said = run("a.tif", "-o", "out", "--save-faces", "--compare", "--report", "report.json")
    assert status == 0
    assert "1 of 1 input written, 6 faces" in said.out
    written = list(read_pages(tmp_path / "out/a.tif"))
    assert len(written) == 3
    for page, before in zip(written, PAGES, strict=True):
        assert (page.pixels != before).any()
        assert (page.pixels[0] == before[0]).all()  # no face is there
    assert "faces/a.tif_p3_01_after.png" in files(tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out/compare/a.tif_p2.png")).shape == (240, 644, 3)
    assert '"page": 3' in (tmp_path / "report.json").read_text()


def test_pages_without_a_face_are_copied_with_their_file(run, tmp_path):
    path = write_tiff(tmp_path / "a.tif", kinds=(1, 0, 0))
    status, said = run("a.tif", "-o", "out", detector=Detector())
    assert status == 3
    assert (tmp_path / "out/a.tif").read_bytes() == path.read_bytes()
    assert "left out" not in said.err


def test_pages_go_into_no_format_of_one_image(run, tmp_path):
    write(tmp_path / "in/b.png")
    write_tiff(tmp_path / "in/a.tif")
    status, said = run("in", "-o", "out", "--suffix", "jpg")
    assert status == 1
    assert "in/a.tif: holds several pages, and a .jpg file holds one; expected a .tif file" in said.err
    assert files(tmp_path / "out") == ["b.jpg"]


def test_a_page_that_cannot_be_read_costs_the_file(run, tmp_path):
    whole = write_tiff(tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start = file.pages[2].dataoffsets[0]
    (tmp_path / "a.tif").write_bytes(whole[: start + 1000] if start > len(whole) // 2 else whole[:-1000])
    status, said = run("a.tif", "-o", "out")
    assert status == 1
    assert "failed: a.tif: cannot be" in said.err
    assert not (tmp_path / "out").exists()
