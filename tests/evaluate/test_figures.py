import base64
import re

import cv2
import numpy as np
import pytest
from helpers.results_for_report import LPIPS, PSNR, SIZE, draw_images, made_results, nasty_results

from gpen_plugin.evaluate.figures import (
    choose_images,
    column_names,
    comparison_sheet,
    curves,
    line_style,
    missing_tile,
    sheet_images,
    vector_sheet,
)
from gpen_plugin.evaluate.report import choose_cards, embed_cards, encode_image
from gpen_plugin.evaluate.results import restored_path
from gpen_plugin.evaluate.stats import Summary
from gpen_plugin.images.grid import GAP

TILE = 32


def tiles(page: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The tiles of a sheet, (rows, columns, TILE, TILE, 3)."""
    header = len(page) - rows * (TILE + GAP) - GAP
    grid = page[header + GAP :, GAP:].reshape(rows, TILE + GAP, columns, TILE + GAP, 3)
    return grid.transpose(0, 2, 1, 3, 4)[:, :, :TILE, :TILE]


def sheet_of(root, results, condition: str) -> np.ndarray:
    return comparison_sheet(sheet_images(root, results, condition, results.keys, TILE), column_names(results), TILE)


@pytest.mark.parametrize(("kind", "columns"), [("bfr", 5), ("wild", 4)])
def test_sheet_shows_all_columns_and_missing_tiles(tmp_path, kind, columns):
    results = made_results({"a": [1, None], "b": [3, 4], "c": [3, 4]}, conditions=["8x", "16x"], kind=kind)
    draw_images(tmp_path, results)
    page = sheet_of(tmp_path, results, "16x")
    found = tiles(page, 2, columns)
    assert (found[1, 0, :, :, :2] == (1, 10)).all()  # the input, 4 px enlarged
    assert (found[1, 2, :, :, :2] == (1, 110)).all()
    assert np.array_equal(found[1, 1], missing_tile(TILE, "failed"))
    assert (found[0, 1, :, :, :2] == (0, 110)).all()
    if kind == "bfr":
        assert (found[1, 4, :, :, :2] == (1, 200)).all()


def test_missing_tile_shows_the_reason(tmp_path):
    results = made_results({"a": [1], "b": [2]}, conditions=["8x", "16x"])
    draw_images(tmp_path, results)
    del results.images["a"]["16x"]
    restored_path(tmp_path, results.rows[1], "16x", "face_0").unlink()
    found = tiles(sheet_of(tmp_path, results, "16x"), 1, 4)
    assert np.array_equal(found[0, 1], missing_tile(TILE, "none"))
    assert np.array_equal(found[0, 2], missing_tile(TILE, "missing"))
    assert not np.array_equal(missing_tile(TILE, "none"), missing_tile(TILE, "missing"))


def test_sheet_columns_have_letters():
    names = column_names(made_results({"a": [1], "b": [2]}))
    assert names == ["(a) input", "(b) a", "(c) b", "(d) ground truth"]
    many = column_names(made_results({f"m{place}": [1] for place in range(30)}))
    assert [name.split()[0] for name in many[25:29]] == ["(z)", "(aa)", "(ab)", "(ac)"]


def test_sheet_images_are_sorted_by_the_last_method():
    results = made_results({"a": [9, 8, 7, 6, 5], "b": [3, 1, 5, 4, 2]})
    choice = choose_images(results, 3)
    assert choice.keys == ["face_2", "face_0", "face_1"]
    assert choice.how == "from the best to the worst PSNR of b, evenly spaced"
    assert choose_images(made_results({"b": [3, 1, 5, 4, 2]}, columns=(LPIPS,)), 3).keys == [
        "face_1",
        "face_0",
        "face_2",
    ]
    assert choose_images(results, 99).keys == ["face_2", "face_3", "face_0", "face_4", "face_1"]
    assert choose_images(results, ["face_4"]).keys == ["face_4"]


def test_failed_method_does_not_choose_images():
    assert "of plain" in choose_images(nasty_results(), 2).how


def test_curves_are_deterministic():
    def drawn(last: float | None, formats=()) -> tuple[np.ndarray, dict[str, bytes]]:
        results = made_results({"_a$x$": [20, 22], "b" * 200: [30, last]}, conditions=["8x", "16x", "64x"])
        return curves(Summary.of(results, 100, 0), formats)

    (first, files), (again, same_files) = drawn(33, ["pdf", "svg"]), drawn(33, ["pdf", "svg"])
    assert first.shape[2] == 3
    assert np.array_equal(first, again)
    assert files == same_files
    assert (files["pdf"][:5], b"<svg" in files["svg"]) == (b"%PDF-", True)
    assert not np.array_equal(first, drawn(60)[0])
    assert not np.array_equal(first, drawn(None)[0])


def test_vector_sheet_has_every_pixel_and_the_titles():
    rows = [[np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8) for side in (4, 16)]]
    files = vector_sheet(rows, ["(a) input", "(b) Ü"], ["pdf", "svg"])
    assert files == vector_sheet(rows, ["(a) input", "(b) Ü"], ["pdf", "svg"])
    encoded = re.findall(rb'href="data:image/png;base64,([^"]+)"', files["svg"])
    sides = {cv2.imdecode(np.frombuffer(base64.b64decode(image), np.uint8), 1).shape[0] for image in encoded}
    assert sides == {4, 16}
    assert "(b) Ü" in files["svg"].decode()  # as a comment, above its outlines
    assert files["pdf"].count(b"/Subtype /Image") == 2
    assert vector_sheet(rows, ["(a)", "(b)"], []) == {}


def test_metric_without_values_has_no_panel():
    values = {"a": [20, 22], "b": [30, 31]}
    one = curves(Summary.of(made_results(values, conditions=["8x", "16x"], columns=(PSNR,)), 100, 0), [])
    two = curves(Summary.of(made_results(values, conditions=["8x", "16x"], columns=(PSNR, LPIPS)), 100, 0), [])
    assert np.array_equal(one[0], two[0])


def test_more_methods_than_colors_have_different_lines():
    styles = [line_style(number) for number in range(24)]
    assert len({tuple(style.items()) for style in styles}) == 24
    assert {style["linestyle"] for style in styles[:8]} == {"-"}


def test_embedded_cards_include_extremes():
    rng = np.random.default_rng(0)
    results = made_results({"a": rng.permutation(40), "b": rng.permutation(40)}, conditions=["8x", "16x"])
    cards = choose_cards(results, 24)
    assert len(cards) == len(set(cards)) == 24
    for condition in results.conditions:
        for name in "ab":
            values = results.image_values(name, condition, "psnr")
            assert (condition, results.keys[values.argmin()]) in cards
            assert (condition, results.keys[values.argmax()]) in cards
    assert len(choose_cards(results, 500)) == 80
    assert choose_cards(results, 0) == []


def test_weight_of_images_inside_is_bounded(tmp_path):
    results = made_results({"a": [1, 2, None], "b": [3, 4, 5]})
    draw_images(tmp_path, results)
    cards = choose_cards(results, 3)
    whole = embed_cards(tmp_path, results, cards, SIZE, 10**6)
    assert whole.cards == 3
    assert len(whole.uris) == 3 * 4 - 1
    assert "methods/method_0/restored/face_2.png" not in whole.uris
    weight = sum(map(len, whole.uris.values()))
    bounded = embed_cards(tmp_path, results, cards, SIZE, weight - 1)
    assert bounded.cards == 2
    assert sum(map(len, bounded.uris.values())) < weight
    assert embed_cards(tmp_path, results, cards, SIZE, 0) == ({}, 0)


@pytest.mark.parametrize(("side", "limit", "kind"), [(128, None, "png"), (129, None, "jpeg"), (400, 100, "png")])
def test_small_images_stay_lossless(side, limit, kind):
    image = np.random.default_rng(0).integers(0, 256, (side, side // 2, 3), dtype=np.uint8)
    assert encode_image(image, limit).startswith(f"data:image/{kind};base64,")
