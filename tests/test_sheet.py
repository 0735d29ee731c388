import numpy as np

from gpen_plugin.sheet import GAP, sheet


def test_tiles_lie_where_they_should_and_small_pictures_are_enlarged_without_smoothing():
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
