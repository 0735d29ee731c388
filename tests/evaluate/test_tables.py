import csv
import io
import json
import math

import pytest
from helpers.results_for_report import FID, LPIPS, NASTY_NAME, PSNR, made_results, nasty_results

from gpen_plugin.evaluate.results import Column, with_unique_labels
from gpen_plugin.evaluate.stats import Summary, format_cells
from gpen_plugin.evaluate.tables import latex, markdown, per_image_csv, table_json, wide_csv


def summary_of(results) -> Summary:
    return Summary.of(results, 200, 0)


def marks(results, column: str, condition: str = "") -> list[str]:
    cells = format_cells(results)
    return [cells[row.name, condition, column].mark for row in results.rows]


@pytest.mark.parametrize(("lower", "expected"), [(False, ["", "second", "best"]), (True, ["best", "second", ""])])
def test_best_and_second_follow_the_direction(lower, expected):
    metric = Column("psnr", "PSNR", lower_is_better=lower)
    results = made_results({"a": [1, 1], "b": [2, 2], "c": [3, 3]}, columns=(metric,))
    assert marks(results, "psnr") == expected


def test_values_that_print_alike_share_a_mark():
    results = made_results({"a": [3.001] * 2, "b": [3.004] * 2, "c": [2.0] * 2, "d": [1.0] * 2}, columns=(PSNR,))
    assert marks(results, "psnr") == ["best", "best", "second", ""]


def test_minus_zero_prints_as_zero():
    results = made_results({"a": [-0.001] * 2, "b": [0.0] * 2}, columns=(PSNR,))
    assert {cell.text for cell in format_cells(results).values()} == {"0.00"}


def test_failed_method_is_unranked_in_its_condition_only():
    results = made_results({"a": [1, 2], "b": [9, None], "c": [3, 4]}, conditions=["8x", "16x"])
    results.images["b"]["16x"]["face_1"] = {"psnr": 9.0}
    assert marks(results, "psnr", "8x") == ["second", "", "best"]
    assert marks(results, "psnr", "16x") == ["", "best", "second"]
    assert marks(results, "fid", "8x") == ["best", "", "best"]


def test_mean_over_fewer_images_is_unranked():
    results = made_results({"a": [1, 2, math.nan], "b": [9, math.nan, math.nan], "c": [3, 4, math.nan]})
    assert marks(results, "psnr") == ["second", "", "best"]
    assert marks(results, "fid") == ["best"] * 3
    assert "† Not ranked by PSNR, which has no value on some images: b (n = 1/3)." in summary_of(results).notes()


def test_metric_without_any_value_is_explained():
    nothing = {"a": [math.nan] * 2, "b": [math.nan] * 2}
    notes = summary_of(made_results(nothing)).notes()
    assert "PSNR ↑: no value on any image." in notes
    assert not any(note.startswith("FID") for note in notes)
    assert "LPIPS ↓: weights_100%.pth is missing" in summary_of(made_results(nothing, columns=(LPIPS,))).notes()


def test_one_image_has_a_note_on_intervals():
    notes = summary_of(made_results({"a": [1], "b": [2]})).notes()
    assert "1 image. Best in bold, second underlined. Values that print alike share a mark." in notes
    assert "No intervals: they need two images or more." in notes
    assert not any(note.startswith("No intervals: ") for note in summary_of(made_results({"a": [1, 2]})).notes())


def test_single_method_is_not_called_best():
    assert marks(made_results({"a": [1, 2]}), "psnr") == [""]


def test_markdown_of_one_condition():
    table = markdown(summary_of(made_results({"one": [20, 22], "three": [30, 31], "four": [40, None]})))
    assert "| Method | PSNR ↑ | FID (GT) ↓ | Images |" in table
    assert "| one | <u>21.00</u> | **3.00** | 2 |" in table
    assert "| three | **30.50** | <u>5.00</u> | 2 |" in table
    assert "| four | 40.00† | 4.00† | 1/2 |" in table
    assert "0123456789ab" in table
    assert "† Not ranked, because it failed on images: four (n = 1/2)." in table
    assert "Failed: four, image face\\_1: RuntimeError" in table


def test_tables_of_several_conditions():
    results = made_results({"a": [1, 2], "b": [3, 4]}, conditions=["8x", "16x"])
    del results.images["a"]["16x"], results.sets["a"]["16x"]
    summary = summary_of(results)
    psnr, fid = (f"| {head} | 8x | 16x |\n| --- | ---: | ---: |\n| a |" for head in ("PSNR ↑", "FID (GT) ↓"))
    assert f"{psnr} <u>1.50</u> | - |\n" in markdown(summary)
    assert f"{fid} **1.00** | - |\n" in markdown(summary)
    page = latex(summary)
    assert r"& \multicolumn{2}{c}{PSNR $\uparrow$} & \multicolumn{2}{c}{FID (GT) $\downarrow$} \\" in page
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in page
    assert r"a & \underline{1.50} & - & \textbf{1.00} & - \\" in page


def test_method_near_the_best_is_marked():
    summary = summary_of(made_results({"a": [1.0, 5.0, 3.0], "b": [5.0, 1.0, 3.2], "c": [0.0, 0.1, 0.2]}))
    assert "<u>3.00</u> ≈" in markdown(summary)
    assert r"\underline{3.00} $\approx$".replace(" ", "") in latex(summary).replace(" ", "")
    assert "0.10 ≈" not in markdown(summary)


def test_names_are_escaped():
    summary = summary_of(nasty_results())
    lines = markdown(summary).splitlines()
    assert "<script" not in markdown(summary)
    assert len({line.replace("\\|", "").count("|") for line in lines if line.startswith("| ")}) == 1
    page = latex(summary)
    assert r"\& \_50\%\_ \textbar{} \$x\$" in page
    rows = page[page.index(r"\midrule") : page.index(r"\bottomrule")].strip().splitlines()[1:]
    assert [row.replace(r"\&", "").count("&") for row in rows] == [3] * 4
    assert page.count("{") - page.count(r"\{") == page.count("}") - page.count(r"\}")


def test_latex_leaves_out_a_metric_without_values():
    page = latex(summary_of(made_results({"a": [1, 2], "b": [3, 4]}, columns=(PSNR, LPIPS, FID))))
    assert r"Method & PSNR $\uparrow$ & FID (GT) $\downarrow$ & Images \\" in page
    assert page.count("LPIPS") == 1
    assert r"Left out, without values: LPIPS (weights\_100\%.pth is missing).\par" in page


def test_wide_latex_stands_below_itself():
    results = made_results({"a": [1, 2], "b": [3, 4]}, conditions=[f"{number}x" for number in range(2, 22)])
    page = latex(summary_of(results))
    assert page.count(r"\begin{tabular}{l" + "r" * 20 + "}") == 2
    assert page.count(r"\begin{table*}") == page.count(r"\par\medskip") == 1


def test_latex_numbers_have_a_minus():
    assert r"a & \textbf{$-$1.50}" in latex(summary_of(made_results({"a": [-1, -2], "b": [-3, -4]}, columns=(PSNR,))))


def test_labels_of_columns_differ():
    labels = [("a", "FID"), ("b", "FID"), ("c", "FID (a)"), ("d", "KID")]
    columns = with_unique_labels([Column(name, label, lower_is_better=True) for name, label in labels])
    assert [column.label for column in columns] == ["FID (a), 2", "FID (b)", "FID (a)", "KID"]


def test_bracket_is_escaped_for_latex():
    page = latex(summary_of(made_results({"a": [1, 2], "[b]*": [3, 4]})))
    assert "{[}b{]}{*} &" in page


def test_equal_failures_share_a_line():
    results = made_results({"a": [None] * 25, "b": [1.0] * 25})
    assert "Failed: a, 25 of 25 images (face_0, face_1, face_2 and 22 more): RuntimeError" in "\n".join(
        summary_of(results).notes()
    )
    for number, entry in enumerate(results.images["a"][""].values()):
        entry["failure"] = f"reason {number}"
    notes = summary_of(results).notes()
    assert sum(note.startswith("Failed: a, image") for note in notes) == 20
    assert "... and 5 more failures, all in results.json." in notes


def test_failed_method_stays_in_the_table():
    table = markdown(summary_of(nasty_results()))
    assert "| broken | -† | -† | -† | 0/7 |" in table
    assert "broken could not run: CheckpointError: no file &lt;i&gt;" in table


def test_wide_csv():
    results = made_results({"a": [20, 22, None], "b,": [30, 31, 32]})
    summary = summary_of(results)
    first, second = csv.DictReader(io.StringIO(wide_csv(summary)))
    assert (first["restored"], first["images"], first["psnr_n"], first["psnr"]) == ("2", "3", "2", "21")
    assert float(first["psnr_low"]) == pytest.approx(20)
    assert (first["fid"], first["fid_low"], first["fid_n"]) == ("1", "", "2")
    assert (second["method"], second["fingerprint"]) == ("b,", "0123456789ab")


def test_per_image_csv_has_a_line_per_value():
    lines = list(csv.DictReader(io.StringIO(per_image_csv(nasty_results()))))
    assert len(lines) == 4 * 7 * 2
    assert {line["metric"] for line in lines} == {"psnr", "lpips"}
    by_place = {(line["method"], line["image"], line["metric"]): line["value"] for line in lines}
    assert by_place[NASTY_NAME, "folder/pic_1", "psnr"] == "24"
    assert by_place["GPEN", "a\"b'c", "psnr"] == ""


def test_table_json():
    content = json.loads(table_json(summary_of(made_results({"a": [1, 2, 3], "b": [5, 6, 7.5]}, columns=(PSNR, FID)))))
    cells = {(cell["row"], cell["column"]): cell for cell in content["cells"]}
    assert cells["b", "psnr"]["mark"] == "best"
    assert cells["b", "psnr"]["difference_from_best"] is None
    assert cells["a", "psnr"]["difference_from_best"]["clear"] is True
    assert cells["a", "psnr"]["interval"][0] >= 1
    assert cells["a", "fid"]["interval"] is None
    assert content["fingerprint"]["digest"] == "0123456789ab"
