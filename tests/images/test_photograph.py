import errno
import io
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from helpers.photographs import MODES, bgr, exif_bytes, image, noise, png
from PIL import Image

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.images import encode
from gpen_plugin.images.photograph import Photograph, read_photograph, write_photograph


def save_deep(path: Path, samples: np.ndarray) -> None:
    """By encoders other than ours."""
    if path.suffix == ".png":
        cv2.imwrite(str(path), samples[:, :, {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]])
    else:
        color = samples.shape[2] > 1
        extra = ["unassalpha"] if samples.shape[2] == 4 else None
        image = samples if color else samples[:, :, 0]
        tifffile.imwrite(path, image, photometric="rgb" if color else "minisblack", extrasamples=extra)


def load_deep(path: Path) -> np.ndarray:
    """By decoders other than ours."""
    samples = tifffile.imread(path) if path.suffix == ".tif" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if samples.ndim == 2:
        return samples[:, :, None]
    return samples if path.suffix == ".tif" else samples[:, :, {3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]]


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [*((suffix, channels) for suffix in (".png", ".tif", ".webp") for channels in MODES), (".bmp", 1), (".bmp", 3)],
)
def test_8_bit_round_trip(tmp_path, suffix, channels):
    samples = noise(channels)
    if channels in (2, 4):
        samples[:4, :, -1] = 0  # what cannot be seen is to stay too
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    image(samples).save(source, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    photograph = read_photograph(source)
    np.testing.assert_array_equal(photograph.pixels, bgr(samples))
    assert (photograph.alpha is not None) == (channels in (2, 4))
    if channels in (2, 4):
        np.testing.assert_array_equal(photograph.alpha, samples[:, :, -1])
    assert photograph.is_gray == (channels <= 2)
    assert write_photograph(target, photograph) == ()
    before, after = Image.open(source), Image.open(target)
    assert after.mode == before.mode
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_round_trip(tmp_path, suffix, channels):
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
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("grain", [True, False])
def test_grain_is_compressed_without_a_search_for_repetitions(tmp_path, monkeypatch, suffix, dtype, grain):
    rows = np.random.default_rng(0).normal(128, 9, (1000, 64, 3) if grain else (10, 64, 3))
    scale = np.iinfo(dtype).max // 255
    pixels = np.tile(scale * rows, (1 if grain else 100, 1, 1)).astype(dtype)
    write_photograph(tmp_path / f"new{suffix}", Photograph.of(pixels))
    monkeypatch.setattr(encode, "_zlib_strategy", lambda samples: zlib.Z_DEFAULT_STRATEGY)
    write_photograph(tmp_path / f"usual{suffix}", Photograph.of(pixels))
    new, usual = ((tmp_path / f"{name}{suffix}").stat().st_size for name in ("new", "usual"))
    assert new < usual if grain else new == usual
    assert (read_photograph(tmp_path / f"new{suffix}").pixels == pixels).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_gray_with_alpha_round_trip(tmp_path, suffix):
    samples = noise(2, "uint16")
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    (tmp_path / "a.png").write_bytes(png(17, 11, 16, 4, rows))
    photograph = read_photograph(tmp_path / "a.png")
    assert photograph.is_gray
    assert photograph.origin.one_channel
    write_photograph(tmp_path / f"b{suffix}", photograph)
    again = read_photograph(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(again.pixels, bgr(samples))
    np.testing.assert_array_equal(again.alpha, samples[:, :, 1])


def test_image_too_wide_for_webp(tmp_path):
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
def test_lossless_webp_stays_lossless(tmp_path, lossless, quality, expected):
    image(noise(4)).save(tmp_path / "a.webp", lossless=lossless, exif=exif_bytes())
    photograph = read_photograph(tmp_path / "a.webp")
    write_photograph(tmp_path / "b.webp", photograph, quality)
    assert (b"VP8L" not in (tmp_path / "b.webp").read_bytes()) == expected


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_reductions_for_a_format_are_noted(tmp_path, suffix):
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


@pytest.mark.parametrize("pixel", [(0, 0), (64, 128), (33, 70), (99, 199)])
def test_one_pixel_of_color_is_no_gray(pixel):
    pixels = np.repeat(np.random.default_rng(0).integers(0, 255, (100, 200, 1), np.uint8), 3, axis=2)
    assert Photograph(pixels).is_gray
    pixels[pixel] += np.array([0, 1, 0], np.uint8)
    assert not Photograph(pixels).is_gray


def test_gray_keeps_its_mode(tmp_path):
    for channels, mode in ((1, "L"), (3, "RGB")):
        image(np.repeat(noise(1), channels, axis=2)).save(tmp_path / "a.png")
        photograph = read_photograph(tmp_path / "a.png")
        assert photograph.is_gray
        write_photograph(tmp_path / "b.png", photograph)
        assert Image.open(tmp_path / "b.png").mode == mode
        assert not photograph.with_pixels(bgr(noise(3))).is_gray


@pytest.mark.parametrize("shape", [(33, 51), (5, 8)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_resized_with_the_pixels(shape, dtype):
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


@pytest.mark.parametrize("name", ["a.gif", "a"])
def test_a_suffix_that_is_not_written(tmp_path, name):
    with pytest.raises(OptionError, match=r"has .*suffix.*; expected one of \.png, \.jpg"):
        write_photograph(tmp_path / name, Photograph(bgr(noise(3))))


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_out_of_range(tmp_path, quality):
    with pytest.raises(OptionError, match=f"quality: got {quality}; expected 1 to 100"):
        write_photograph(tmp_path / "a.jpg", Photograph(bgr(noise(3))), quality)


@pytest.mark.parametrize(("step", "reason"), [("write", errno.ENOSPC), ("replace", errno.EACCES)])
def test_failed_write_changes_no_file(tmp_path, monkeypatch, step, reason):
    def refuse(*arguments: object) -> None:
        raise OSError(reason, os.strerror(reason))

    class Full(io.FileIO):
        def write(self, data: bytes) -> int:
            super().write(data[: len(data) // 2])
            refuse()

    (tmp_path / "a.png").write_bytes(b"what was there")
    opened = (Path, "open", lambda path, mode: Full(path, "w"))
    monkeypatch.setattr(*(opened if step == "write" else (os, "replace", refuse)))
    with pytest.raises(DataError, match=rf"a\.png: cannot be written .*{os.strerror(reason)}"):
        write_photograph(tmp_path / "a.png", Photograph(bgr(noise(3))))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"what was there"


def test_an_interruption_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(source: str, target: str) -> None:
        raise KeyboardInterrupt("before renaming")

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt, match="before renaming"):
        write_photograph(tmp_path / "a.png", Photograph(bgr(noise(3))))
    assert not list(tmp_path.iterdir())


def test_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written .*; expected a writable folder"):
        write_photograph(tmp_path / "out" / "a.png", Photograph(bgr(noise(3))))
    assert (tmp_path / "out").read_text() == "a file"
