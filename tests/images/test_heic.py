"""The images of telephones. pillow-heif, an extra, reads them, and writes them for these tests."""

import numpy as np
import pytest
from helpers.photographs import noise
from PIL import Image

from gpen_plugin.errors import DataError
from gpen_plugin.images.photograph import read_photograph, write_photograph

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
pillow_heif.register_heif_opener()


def quarters(channels: int = 3) -> np.ndarray:
    """Red and green above, blue and black below, (64, 96, C) RGB; with alpha clear at the top."""
    samples = np.zeros((64, 96, channels), np.uint8)
    samples[:32, :48, 0] = samples[:32, 48:, 1] = samples[32:, :48, 2] = 255
    samples[10:, :, 3:] = 255
    return samples


def test_heic_is_read_with_its_exif_and_written_as_png(tmp_path):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "Aunt", 6  # other than in JPEG, the file turns its pixels by itself
    Image.fromarray(quarters()).save(tmp_path / "a.heic", exif=exif, quality=95)
    photograph = read_photograph(tmp_path / "a.heic")
    assert np.abs(photograph.pixels[::-1, :, ::-1][:16, :32].astype(int) - [0, 0, 255]).max() <= 8
    assert photograph.pixels.shape == (64, 96, 3)
    assert (photograph.alpha, photograph.notes, photograph.origin.lossless) == (None, (), False)
    write_photograph(tmp_path / "a.png", photograph)
    assert dict(Image.open(tmp_path / "a.png").getexif()) == {0x010E: "Aunt", 0x0112: 1}


def test_heic_with_transparency_and_of_several_images(tmp_path):
    Image.fromarray(quarters(4)).save(tmp_path / "a.heic", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    photograph = read_photograph(tmp_path / "a.heic")
    assert photograph.notes == ("first of 2 images, the others are left out",)
    assert photograph.pixels.shape == (64, 96, 3)
    assert photograph.alpha[0, 0] < 8
    assert photograph.alpha[40, 40] > 247


def test_heic_of_10_bits_is_read_with_8(tmp_path):
    deep = quarters().astype("<u2") * 257
    pillow_heif.from_bytes(mode="RGB;16", size=(96, 64), data=deep.tobytes()).save(tmp_path / "a.heic")
    photograph = read_photograph(tmp_path / "a.heic")
    assert (photograph.pixels.dtype, photograph.notes) == (np.uint8, ("10 bits reduced to 8",))
    assert np.abs(photograph.pixels[8, 8].astype(int) - [0, 0, 255]).max() <= 8


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_truncated_heic_is_refused(tmp_path, fraction):
    Image.fromarray(noise(3, height=64, width=64)).save(tmp_path / "whole.heic")
    data = (tmp_path / "whole.heic").read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(DataError, match=r"a\.heic: (cannot be|is no image)") as caught:
        read_photograph(tmp_path / "a.heic")
    assert len(str(caught.value).splitlines()) == 1
