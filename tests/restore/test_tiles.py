import numpy as np
import pytest
import torch
from torch import nn

from gpen_plugin.errors import OptionError
from gpen_plugin.restore.background import TILE_OVERLAP, Tiles


def noise(height: int, width: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.random((height, width, 3), np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype)


def convolutions(reach: int, scale: int = 1):
    """A function of images whose result depends on pixels up to `reach` away, in a random way."""
    torch.manual_seed(0)
    layers = [layer for _ in range(reach // 2) for layer in (nn.Conv2d(3, 3, 5, padding=2), nn.Tanh())]
    net = nn.Sequential(nn.Upsample(scale_factor=scale), *layers)

    @torch.inference_mode()
    def run(image: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]  # (1, 3, H, W)
        return net(batch)[0].permute(1, 2, 0).numpy()

    return run


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def square_of_the_mean(image: np.ndarray) -> np.ndarray:
    """What knows of the whole tile: each has another value."""
    return np.full_like(image, image.mean() ** 2)


@pytest.mark.parametrize(("height", "width"), [(300, 420), (129, 128), (128, 700), (1, 300), (300, 1), (193, 193)])
def test_tiles_are_exact_for_a_small_receptive_field(height, width):
    run, image = convolutions(reach=TILE_OVERLAP // 4), noise(height, width)
    assert np.abs(Tiles(run, side=128)(image) - run(image)).max() < 1e-6
    assert run(image).std() > 1e-3


def test_tiles_are_close_for_a_large_receptive_field():
    run, image = convolutions(reach=TILE_OVERLAP), noise(300, 420)
    difference = np.abs(Tiles(run, side=128)(image) - run(image)).max()
    assert 0 < difference < 0.2 * run(image).std()


@pytest.mark.parametrize("scale", [2, 3])
def test_results_are_larger(scale):
    run, image = convolutions(reach=8, scale=scale), noise(200, 150)
    result = Tiles(run, scale, side=64)(image)
    assert result.shape == (200 * scale, 150 * scale, 3)
    assert np.abs(result - run(image)).max() < 1e-6


def test_global_function_leaves_no_seam():
    """Steps of neighboring pixels stay small, although the tiles' values differ much."""
    left = np.linspace(0, 1, 600, dtype=np.float32)[None, :, None] * np.ones((400, 1, 3), np.float32)
    result = Tiles(square_of_the_mean, side=128)(left)
    assert np.ptp(result) > 0.5
    steps = [np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1)]
    assert max(steps) < 0.02


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_identity_changes_no_pixel(dtype):
    image = noise(150, 333, dtype)
    before = image.copy()
    result = Tiles(lambda tile: enlarged(tile, 2), 2, side=64)(image)
    assert result.dtype == image.dtype
    assert np.array_equal(result, enlarged(before, 2))
    assert np.array_equal(image, before)


def test_values_beyond_the_range_are_clipped():
    assert Tiles(lambda tile: tile + 2)(noise(4, 4, "uint8")).min() == 255
    assert Tiles(lambda tile: tile - 2)(noise(4, 4, "uint16")).max() == 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_values_between_are_rounded(dtype):
    image, step = np.full((4, 4, 3), 100, dtype), np.float32(1 / np.iinfo(dtype).max)
    for fraction, value in ((-0.6, 99), (-0.4, 100), (0.4, 100), (0.6, 101)):
        assert np.all(Tiles(lambda tile, fraction=fraction: tile + fraction * step)(image) == value)


def test_progress_counts_each_tile():
    messages = []
    Tiles(lambda tile: tile, side=64)(noise(100, 130), lambda done, total: messages.append((done, total)))
    assert messages == [(number, 12) for number in range(1, 13)]
    Tiles(lambda tile: tile)(noise(100, 130), lambda done, total: messages.append((done, total)))
    assert messages[-1] == (1, 1)


def test_tiles_start_on_the_grid():
    image, seen = noise(257, 500), []
    positions = np.stack(np.meshgrid(np.arange(500), np.arange(257)), axis=-1)
    image[..., :2] = positions / 1000

    def run(tile):
        seen.append(tile.shape[:2])
        assert not np.any(np.rint(tile[0, 0, :2] * 1000) % 32)
        return tile

    Tiles(run, side=200)(image)
    assert max(max(shape) for shape in seen) == 192


class Small:
    """A device on which images up to `most` pixels a side can be worked on."""

    def __init__(self, most: int, error: Exception | None = None):
        self.most, self.sizes = most, []
        self.error = error or torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.sizes.append(max(image.shape[:2]))
        if self.sizes[-1] > self.most:
            raise self.error
        return enlarged(image, 2)


@pytest.mark.parametrize("height", [40, 700])
@pytest.mark.parametrize("error", [None, RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")])
def test_out_of_memory_halves_the_tiles(height, error):
    device, image, messages = Small(130, error), noise(height, 600), []
    tiles = Tiles(device, 2, side=512)
    result = tiles(image, lambda done, total: messages.append(done))
    assert np.array_equal(result, enlarged(image, 2))
    assert messages == list(range(1, messages[-1] + 1))
    assert [size for size in device.sizes if size > 130] == [512, 256]  # a mistake is not made again
    assert tiles.side == 128
    tiles(image)
    assert max(device.sizes[-5:]) <= 128


def test_out_of_memory_at_the_smallest_tiles_is_an_error():
    with pytest.raises(OptionError, match=r"^tile: .* out of memory with tiles of 64 px \(CUDA out of memory"):
        Tiles(Small(10))(noise(300, 300))
    with pytest.raises(OptionError, match="tiles of 20 px"):
        Tiles(Small(10))(noise(20, 11))


def test_other_failures_are_not_hidden():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Tiles(Small(10, RuntimeError("size mismatch")))(noise(300, 300))


@pytest.mark.parametrize("side", [0, -512, 63])
def test_tiles_too_small(side):
    with pytest.raises(OptionError, match=rf"tile: got {side}; expected 64 pixels or more"):
        Tiles(enlarged, side=side)
