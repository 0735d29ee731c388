"""Every page of a TIFF file is read and written; previews of other pages are not."""

import io

import numpy as np
import pytest
import tifffile
from helpers.photographs import SRGB, bgr, noise
from helpers.tiff_files import PAGES, write_tiff
from PIL import Image

from gpen_plugin.images.photograph import TiffWriter, read_pages, read_photograph


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


@pytest.mark.parametrize("index", [0, 1, 2])
def test_previews_are_left_out_with_a_note(tmp_path, index):
    pages, kinds = list(PAGES), [0, 0, 0]
    pages[index], kinds[index] = pages[index][::4, ::4], 1
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
