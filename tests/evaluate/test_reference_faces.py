"""Methods with a reference face in an evaluation: who gets one, who is skipped, and what the tables say."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers.small_evaluation import count_restored, given, run, weights, written  # noqa: F401 - fixtures
from torch import nn

from gpen_plugin.cli.evaluate import main
from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.protocols import build_protocol
from gpen_plugin.evaluate.results import input_path, read_results, reference_path, restored_path
from gpen_plugin.evaluate.stats import CellIndex, Summary


class MeanOfBoth(nn.Module):
    """The mean of the enlarged input and the reference."""

    def forward(self, lq: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        return (nn.functional.interpolate(lq, ref.shape[2:]) + ref) / 2


GUIDED = {
    "type": "arch",
    "network": {"type": f"{__name__}.MeanOfBoth"},
    "weights": "random",
    "value_range": [0, 1],
    "reference_size": 32,
}


def write_table(path, people: str):
    path.write_text("image,identity\n" + "".join(f"face_{i}.png,{who}\n" for i, who in enumerate(people)))


@pytest.fixture
def guided(given, tmp_path):
    """An evaluation in which face_2 has no reference, and that of face_3 is not among the four faces."""
    write_table(tmp_path / "identities.csv", "aacbdddb")
    given["protocol"]["references"] = {"identities": str(tmp_path / "identities.csv")}
    given["methods"]["Guided"] = GUIDED
    return given


def test_faces_without_a_reference_are_skipped_and_counted(guided, faces):
    results = run(guided)
    assert [results.restored(row.name, "") for row in results.rows] == [4, 4, 4, 3]
    assert [results.skipped(row.name, "") for row in results.rows] == [0, 0, 0, 1]
    assert list(results.failures()) == []
    assert results.images["Guided"][""]["face_2"] == {"skipped": "has no reference face"}
    (note,) = results.notes
    assert note == (
        "The reference of a face is another image of the same identity. 3 of 4 images have one; none has face_2"
    )
    root = EvaluationOptions.from_mapping(guided).root
    assert sorted(path.stem for path in (root / "references").iterdir()) == ["face_0", "face_1", "face_3"]
    np.testing.assert_array_equal(
        cv2.imread(str(reference_path(root, "face_3"))), cv2.imread(str(faces / "face_7.png"))
    )
    result = restored_path(root, results.rows[3], "", "face_0")
    paths = input_path(root, "", "face_0"), reference_path(root, "face_0"), result
    lq, reference, restored = (cv2.imread(str(path)).astype(np.float32) for path in paths)
    np.testing.assert_allclose(restored, (resize_bilinear(lq / 255, 32) * 255 + reference) / 2, atol=0.51)


def test_table_compares_on_the_faces_that_both_have(guided):
    results = run(guided)
    summary = Summary.of(results, 200, 0)
    psnr = results.columns[0].name
    cell = summary.cells[CellIndex("Guided", "", psnr)]
    assert (cell.images, cell.complete, cell.mark) == (3, False, "")
    assert {summary.cells[CellIndex(row.name, "", psnr)].mark for row in results.rows} >= {"best", "second"}
    best = next(row.name for row in results.rows if summary.cells[CellIndex(row.name, "", psnr)].mark == "best")
    own, other = (results.image_values(name, "", psnr) for name in ("Guided", best))
    shared = [0, 1, 3]
    assert summary.differences[CellIndex("Guided", "", psnr)].images == 3
    table = written(guided)["table.md"].decode().replace("\\", "")
    (note,) = re.findall(r"- † Not ranked, because it needs a reference face.*", table)
    assert "Guided (n = 3/4)" in note
    expected = f"PSNR on these 3 images: {own[shared].mean():.2f}, {best} {other[shared].mean():.2f}, paired difference"
    assert f"{expected} {(own - other)[shared].mean():+.2f} [" in note
    assert "failed on images" not in table
    assert "3/4" in table


def test_skipped_faces_are_no_failure_of_the_command(guided, tmp_path, capsys):
    path = tmp_path / "guided.yml"
    path.write_text(json.dumps(guided))
    assert main(["-opt", str(path), "--device", "cpu"]) == 0
    assert "Guided" in capsys.readouterr().out
    assert read_results(tmp_path / "small").skipped("Guided", "") == 1


def test_method_with_references_needs_a_protocol_with_references(given):
    given["methods"]["Guided"] = GUIDED
    results = run(given)
    assert results.rows[-1].failure.startswith("methods:Guided: needs reference faces, and the protocol has none")
    assert results.restored("GPEN", "") == 4


def test_changed_reference_is_restored_again(guided, tmp_path, monkeypatch):
    before = run(guided)
    write_table(tmp_path / "identities.csv", "aaaddddb")  # face_0 and face_1: perhaps another; face_2: one; face_3: d
    made = count_restored(monkeypatch)
    after = run(guided)
    assert {("arch", "face_2"), ("arch", "face_3")} <= set(made)
    assert after.skipped("Guided", "") == 0
    assert before.fingerprint["digest"] != after.fingerprint["digest"]
    anew = {**guided, "output": str(tmp_path / "anew")}
    run(anew)
    assert written(guided) == written(anew)
    made.clear()
    run(guided)
    assert made == []


def test_lost_reference_is_skipped_in_the_next_run(guided, tmp_path):
    run(guided)
    write_table(tmp_path / "identities.csv", "aacdefgh")
    after = run(guided)
    assert after.skipped("Guided", "") == 2
    assert not reference_path(tmp_path / "small", "face_3").exists()


def test_added_references_are_another_protocol(given, guided, tmp_path):
    run(guided)
    del guided["protocol"]["references"], guided["methods"]["Guided"]
    with pytest.raises(DataError, match="another protocol"):
        run(guided)
    assert run(guided, restart=True).notes == []
    assert not (tmp_path / "small" / "references").exists()


def test_required_references_leave_out_faces_for_all_methods(guided):
    guided["protocol"]["references"]["required"] = True
    results = run(guided)
    assert results.keys == ["face_0", "face_1", "face_3", "face_4"]
    assert all(results.restored(row.name, "") == 4 for row in results.rows)
    assert "1 of 8 images have no reference and are left out" in results.notes


def test_folder_of_a_program_with_references_may_lack_skipped_faces(guided, faces, tmp_path):
    folder = tmp_path / "theirs"
    shutil.copytree(faces, folder)
    (folder / "face_2.png").unlink()
    guided["methods"]["Theirs"] = {"type": "folder", "path": str(folder), "needs_reference": True}
    results = run(guided)
    assert (results.restored("Theirs", ""), results.skipped("Theirs", "")) == (3, 1)
    guided["methods"]["Theirs"]["needs_reference"] = False
    assert [failure.key for failure in run(guided).failures()] == ["face_2"]


def test_runs_with_references_are_averaged(guided, tmp_path):
    for run_ in (0, 1):
        torch.save({"params": {"bias": torch.zeros(1)}}, tmp_path / f"net_{run_}.pth")
    entry = {**GUIDED, "network": {"type": f"{__name__}.Biased"}, "weights": str(tmp_path / "net_{run}.pth")}
    guided["methods"]["Guided"] = {**entry, "runs": [0, 1]}
    run(guided)
    table = written(guided)["table.md"].decode()
    assert "Guided (n = 3/4)" in table
    assert "failed on images" not in table


class Biased(MeanOfBoth):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))


def test_wild_faces_have_references_of_the_same_name(given, faces, tmp_path):
    references = tmp_path / "references"
    references.mkdir()
    cv2.imwrite(str(references / "face_1.png"), cv2.imread(str(faces / "face_5.png")))
    cv2.imwrite(str(references / "face_2.png"), cv2.imread(str(faces / "face_2.png")))  # the input itself
    given["protocol"] = {
        "type": "wild", "dataroot_lq": str(faces), "out_size": 32, "num_images": 4,
        "references": {"dataroot": str(references)},
    }  # fmt: skip
    given["methods"] = {"Bilinear": {"type": "bilinear"}, "Guided": GUIDED}
    given["metrics"] = {}
    results = run(given)
    assert results.restored("Guided", "") == 1
    assert "1 of 4 images have one; none has face_0, face_2, face_3" in results.notes[0]


def test_every_condition_has_the_same_reference(faces, tmp_path):
    write_table(tmp_path / "identities.csv", "aaaaaaaa")
    protocol = build_protocol(
        {
            "type": "fsr",
            "dataroot_gt": str(faces),
            "out_size": 32,
            "scales": [2, 4],
            "references": {"dataroot": str(faces), "identities": str(tmp_path / "identities.csv")},
        }
    )
    for key in protocol.keys:
        two, four = (protocol.sample(key, condition) for condition in ("2x", "4x"))
        np.testing.assert_array_equal(two.ref, four.ref)
        assert (two.ref != two.gt).any()


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({}, "protocol:references:dataroot: got .* the ground truth"),
        ({"identities": "nowhere.csv"}, "protocol:references:identities: nowhere.csv cannot be read"),
        ({"dataroot": "nowhere"}, "protocol:references:dataroot: nowhere is not there"),
        ({"datroot": "x"}, "protocol:references:datroot: unknown key"),
    ],
)
def test_wrong_references_are_an_error(given, references, message):
    given["protocol"]["references"] = references
    with pytest.raises((OptionError, DataError), match=message):
        run(given)


def test_references_inside_the_output_are_an_error(given, tmp_path):
    given["protocol"]["references"] = {"dataroot": str(tmp_path / "small" / "truth")}
    with pytest.raises(OptionError, match=r"protocol:references:dataroot.*output"):
        EvaluationOptions.from_mapping(given)
