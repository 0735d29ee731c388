import numpy as np
import pytest

from gpen_plugin.images.grid import GAP, mosaic, sheet, side_by_side


def test_grid_cells():
    board = (np.indices((2, 2)).sum(axis=0) % 2)[..., None].repeat(3, axis=2).astype(np.uint8) * 255
    page = sheet([[board, np.full((64, 64, 3), 7, np.uint8)]] * 3, ["degraded", "restored"], tile=32)
    header = page.shape[0] - 3 * (32 + GAP) - GAP
    assert page.shape[1] == 2 * (32 + GAP) + GAP
    for row in range(3):
        top = header + GAP + row * (32 + GAP)
        left = page[top : top + 32, GAP : GAP + 32]
        assert set(np.unique(left)) == {0, 255}
        assert (left[:16, :16] == 0).all()
        assert (left[:16, 16:] == 255).all()
        assert (page[top : top + 32, 2 * GAP + 32 : 2 * GAP + 64] == 7).all()
    assert (page[:header] < 255).any(axis=(0, 2)).sum() > 10  # the titles are there


def test_titles_stay_inside_their_columns():
    page = sheet([[np.zeros((8, 8, 3), np.uint8)] * 2], ["W" * 30, "i"], tile=64)
    header = page[: page.shape[0] - 64 - 2 * GAP]
    assert (header[:, :GAP] == 255).all()
    assert (header[:, GAP + 64 : 2 * GAP + 64] == 255).all()


def shades(count: int, height: int = 3, width: int = 5) -> list[np.ndarray]:
    return [np.full((height, width, 3), 10 * (n + 1), np.uint8) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "columns", "rows_and_columns"), [(5, None, (2, 3)), (5, 2, (3, 2)), (1, None, (1, 1))]
)
def test_a_mosaic_is_filled_row_by_row(count, columns, rows_and_columns):
    images = shades(count)
    table = mosaic(images, columns, gap=1)
    rows, columns = rows_and_columns
    assert table.shape == (rows * 4 - 1, columns * 6 - 1, 3)
    for cell in range(rows * columns):
        top, left = cell // columns * 4, cell % columns * 6
        expected = 10 * (cell + 1) if cell < count else 255
        assert (table[top : top + 3, left : left + 5] == expected).all()
    assert (table[3::4] == 255).all()
    assert (table[:, 5::6] == 255).all()


def test_without_a_gap_a_mosaic_has_no_white():
    assert (mosaic(shades(4), gap=0) < 255).all()


@pytest.mark.parametrize("columns", [1, 2, 3, 6])
def test_a_sheet_of_mosaics_resamples_nothing(columns):
    rng = np.random.default_rng(0)
    tables = [mosaic(list(rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)), columns) for _ in range(3)]
    height, width = tables[0].shape[:2]
    side = max(height, width)
    page = sheet([tables], ["raw", "EMA", "EMA, truncation 0.7"], tile=side)
    header = page.shape[0] - side - 2 * GAP
    for n, table in enumerate(tables):
        tile = page[header + GAP : header + GAP + side, GAP + n * (side + GAP) :][:, :side]
        top, left = (side - height) // 2, (side - width) // 2
        assert np.array_equal(tile[top : top + height, left : left + width], table)
        assert tile.astype(int).sum() == table.astype(int).sum() + 255 * 3 * (side * side - height * width)


def test_a_image_that_is_not_square_keeps_its_shape():
    wide = np.zeros((4, 16, 3), np.uint8)
    page = sheet([[wide]], ["wide"], tile=8)
    tile = page[page.shape[0] - 8 - GAP :][:8, GAP : GAP + 8]
    assert (tile[3:5] == 0).all()
    assert (tile[:3] == 255).all()
    assert (tile[5:] == 255).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_side_by_side(dtype):
    most = np.iinfo(dtype).max
    before, after = np.full((4, 6, 3), most // 4, dtype), np.full((8, 12, 3), most // 2, dtype)
    whole = side_by_side(before, after)
    assert whole.shape == (8, 12 + GAP + 12, 3)
    assert whole.dtype == np.uint8
    assert (whole[:, :12] == 63).all()
    assert (whole[:, 12 : 12 + GAP] == 255).all()
    assert (whole[:, 12 + GAP :] == 127).all()
