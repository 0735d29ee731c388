"""The gate and the score of the NTIRE challenge, by hand, and its protocol."""

import csv
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.small_evaluation import run

from gpen_plugin.archs.adaface_arch import AdaFace
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.ntire import GATE, PARTS, add_score, check_metrics
from gpen_plugin.evaluate.protocols import NTIRE_POINTS, NTIRE_THRESHOLDS, build_protocol
from gpen_plugin.evaluate.results import Column, Results, Row
from gpen_plugin.evaluate.stats import Summary
from gpen_plugin.metrics import iqa
from gpen_plugin.nets import inception

VALUES = {"clipiqa": 0.6, "maniqa": 0.5, "musiq": 70.0, "niqe": 4.0, "qalign": 4.0}
FID = 40.0
SCORE = 0.6 + 0.5 + 0.7 + 0.6 + 0.8 + 0.6


def results_of(**identities: float) -> Results:
    """Twelve faces per set; each method has its identity on every face."""
    test_sets = {name: [f"{name}/{number:02d}" for number in range(12)] for name in NTIRE_THRESHOLDS}
    keys = [key for each in test_sets.values() for key in each]
    columns = [Column(name, name.upper(), name == "niqe") for name in (GATE, *VALUES)]
    columns.append(Column("fid", "FID", True, of_sets=True))
    wild = {"type": "wild"}
    fingerprint = {
        "digest": "0" * 12,
        "kind": "ntire",
        "line": "ntire",
        "options": {"sets": dict.fromkeys(test_sets, wild)},
    }
    rows = [Row(name, name) for name in identities]
    results = Results("made", "made", fingerprint, 512, keys, [""], columns, rows, test_sets=test_sets)
    for name, identity in identities.items():
        results.images[name] = {"": {key: {GATE: identity, **VALUES} for key in keys}}
        results.sets[name] = {"": {"fid": FID}}
    return results


def test_score_by_hand():
    results = results_of(good=0.9, other=0.7)
    results.images["good"][""]["CelebA/00"]["niqe"] = 64.0  # the mean is 5: over all faces, not over sets
    add_score(results)
    assert results.sets["other"][""]["ntire_score"] == pytest.approx(SCORE)
    assert results.sets["good"][""]["ntire_score"] == pytest.approx(SCORE - 0.1)
    table = Summary.of(results, 100, 0)
    cell = table.cells["other", "All", "ntire_score"]
    assert (cell.text, cell.mark) == (f"{SCORE:.4f}", "best")


def test_parts_of_the_score_are_not_negative():
    assert PARTS["niqe"](12.0) == PARTS["fid"](130.0) == 0


def test_threshold_is_that_of_the_set():
    results = results_of(method=0.55)
    for key in results.test_sets["CelebA"]:
        results.images["method"][""][key][GATE] = 0.5  # not below
    add_score(results)
    below = {name: results.sets["method"][name]["ntire_below"] for name in NTIRE_THRESHOLDS}
    assert below == {"CelebA": 0, "LFW-Test": 12, "CelebChild-Test": 12, "Wider-Test": 0, "WebPhoto-Test": 0}
    assert results.sets["method"][""]["ntire_below"] == 24
    assert "ntire_score" not in results.sets["method"][""]
    assert results.notes == [
        "method fails the gate of NTIRE: 24 faces are below the thresholds, and at most 10 may be; its score would be"
        f" {SCORE:.4f}."
    ]


def test_ten_faces_below_pass_and_eleven_do_not():
    for number, passes in ((10, True), (11, False)):
        results = results_of(method=0.9)
        for index, key in enumerate(results.test_sets["LFW-Test"][:number]):
            # a value below, no face found, and no image
            entry = ({GATE: 0.1}, {GATE: float("nan")}, {"failure": "no"})[index % 3]
            results.images["method"][""][key] = {**VALUES, **entry} if "failure" not in entry else entry
        add_score(results)
        assert ("ntire_score" in results.sets["method"][""]) == passes
        assert results.sets["method"]["LFW-Test"]["ntire_below"] == number


def test_without_any_identity_the_gate_is_not_passed():
    results = results_of(method=float("nan"))
    add_score(results)
    assert results.notes[0].startswith("method fails the gate of NTIRE: no face has a value")


def test_missing_part_leaves_no_score():
    results = results_of(method=0.9)
    del results.sets["method"][""]["fid"]
    add_score(results)
    assert np.isnan(results.sets["method"][""]["ntire_score"])


@pytest.fixture
def challenge(tmp_path) -> dict:
    """Two faces per set, and their landmarks."""
    with (tmp_path / "test_face.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "dataset", *(f"{point}_{axis}" for point in NTIRE_POINTS for axis in "xy")])
        for index, name in enumerate(NTIRE_THRESHOLDS):
            (tmp_path / "test" / name).mkdir(parents=True)
            for number in range(2):
                cv2.imwrite(
                    str(tmp_path / "test" / name / f"{index}_{number}.png"), np.full((512, 512, 3), 60, np.uint8)
                )
                writer.writerow([f"{index}_{number}", name, *range(index, index + 10)])
    return {"type": "ntire", "dataroot_lq": str(tmp_path / "test"), "landmarks": str(tmp_path / "test_face.csv")}


def test_protocol_has_the_five_sets_and_their_landmarks(challenge):
    protocol = build_protocol(challenge)
    assert (protocol.size, protocol.has_truth, protocol.kind) == (512, False, "ntire")
    assert [*protocol.test_sets] == [*NTIRE_THRESHOLDS]
    assert protocol.test_sets["Wider-Test"] == ["Wider-Test/3_0", "Wider-Test/3_1"]
    np.testing.assert_array_equal(protocol.sample("Wider-Test/3_1", "").landmarks, np.arange(3, 13).reshape(5, 2))
    assert protocol.options()["landmarks"]["CelebA/0_0"][0] == [0, 1]
    assert build_protocol({**challenge, "landmarks": None}).sample("CelebA/0_0", "").landmarks is None


def test_missing_folders_and_landmarks_are_named(challenge, tmp_path):
    cv2.imwrite(str(tmp_path / "test" / "CelebA" / "new.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"protocol:landmarks: .* has no landmarks of CelebA/new"):
        build_protocol(challenge)
    (tmp_path / "bad.csv").write_text("filename,x\na,1\n")
    with pytest.raises(DataError, match="with the columns filename, left_eye_x"):
        build_protocol({**challenge, "landmarks": str(tmp_path / "bad.csv")})
    with pytest.raises(DataError, match="lacks the folders CelebA, LFW-Test"):
        build_protocol({**challenge, "dataroot_lq": str(tmp_path)})


def test_metrics_of_the_protocol_are_required():
    metrics = {name: {"against": "input"} for name in (GATE, *PARTS)}
    check_metrics(metrics)
    with pytest.raises(OptionError, match="metrics: lacks musiq, fid; expected the metrics of the protocol ntire"):
        check_metrics({name: entry for name, entry in metrics.items() if name not in ("musiq", "fid")})
    with pytest.raises(OptionError, match="metrics:identity:against: got gt; expected input"):
        check_metrics({**metrics, GATE: {}})


def test_evaluation_under_the_protocol(challenge, tmp_path, monkeypatch):
    """A small AdaFace recognizes; pyiqa and Inception are stand-ins."""
    torch.manual_seed(0)
    network = {"type": "AdaFace", "num_layers": 18, "in_size": 16, "num_feat": 2, "num_embedding": 3}
    sizes = {key: value for key, value in network.items() if key != "type"}
    torch.save({"state_dict": AdaFace(**sizes).state_dict()}, tmp_path / "a.ckpt")

    class Constant(torch.nn.Module):
        metric_mode, device = "NR", "cpu"

        def __init__(self, name):
            super().__init__()
            self.name, self.lower_better = name, name == "niqe"

        def forward(self, image):
            return torch.tensor(VALUES[self.name])

    models = SimpleNamespace(list_models=lambda: [*VALUES], create_metric=lambda name, device: Constant(name))
    monkeypatch.setitem(sys.modules, "pyiqa", models)
    iqa._create.cache_clear()
    monkeypatch.setattr(inception, "extract_features", lambda images, *_: np.array([[i.mean(), 1] for i in images]))
    np.savez(tmp_path / "ffhq.npz", mu=np.array([0.0, 1.0]), sigma=np.zeros((2, 2)))
    metrics = {name: {"type": "calculate_iqa", "name": name} for name in VALUES}
    metrics["niqe"]["better"] = "lower"
    metrics["fid"] = {"type": "calculate_fid", "statistics": str(tmp_path / "ffhq.npz"), "better": "lower"}
    metrics[GATE] = {"type": "calculate_identity", "network": network, "weights": str(tmp_path / "a.ckpt")}
    metrics[GATE] |= {"input_size": 16, "align": "landmarks", "against": "input"}
    given = {"name": "ntire", "output": str(tmp_path / "out"), "protocol": challenge, "metrics": metrics}
    results = run({**given, "methods": {"Input": {"type": "bilinear"}}, "report": {"vector_figures": []}})
    assert results.image_values("Input", "", GATE) == pytest.approx(np.ones(10))
    assert results.sets["Input"][""]["fid"] == pytest.approx(60**2)  # all faces have this value
    assert results.sets["Input"][""]["ntire_below"] == 0
    assert results.sets["Input"][""]["ntire_score"] == pytest.approx(SCORE - 0.6)
    assert "| NTIRE score ↑ |" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "NTIRE score" in (tmp_path / "out" / "table.tex").read_text(encoding="utf-8")
    iqa._create.cache_clear()
