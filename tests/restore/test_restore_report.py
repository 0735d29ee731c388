import json
import math
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from gpen_plugin.errors import DataError
from gpen_plugin.restore.report import FaceReport, JobReport, Report, ReportFile
from gpen_plugin.restore.restorer import RestoredFace

TARGET = Path("out")


def face(kept: str | None = None) -> FaceReport:
    crop = np.zeros((8, 8, 3), np.float32)
    return FaceReport.of(RestoredFace(None, np.eye(2, 3), crop, crop, skip_reason=kept))


def report(*jobs: JobReport, aligned: bool = False, total: int | None = None) -> Report:
    made = Report(len(jobs) if total is None else total, aligned, seconds=2)
    for job in jobs:
        made.add(job)
    return made


def test_summary_names_skipped_files():
    unlike, small = face("identity below 0.5 (--identity)"), face("smaller than 16 px (--min-face)")
    jobs = [
        JobReport(Path("a.png"), TARGET, [face(), unlike, small]),
        JobReport(Path("b.png"), TARGET),
        JobReport(Path("c.png"), TARGET, error="c.png: is empty"),
        JobReport(Path("d.png"), TARGET, [unlike]),
    ]
    assert report(*jobs, total=5).summary().splitlines() == [
        "3 of 5 inputs written, 4 faces found, 1 restored, 2.0 s",
        "1 not written: c.png",
        "not started: 1 input",
        "no face in 1 input: b.png",
        "2 faces left unchanged, identity below 0.5 (--identity): a.png, d.png",
        "1 face left unchanged, smaller than 16 px (--min-face): a.png",
    ]


def test_one_is_no_plural_and_aligned_images_are_not_searched():
    assert report(JobReport(Path("a.png"), TARGET, [face()])).summary() == "1 of 1 input written, 1 face found, 2.0 s"
    assert (
        report(JobReport(Path("a.png"), TARGET), aligned=True).summary() == "1 of 1 input written, 0 faces found, 2.0 s"
    )


def test_long_lists_are_cut():
    summary = report(*(JobReport(Path(f"{number}.png"), TARGET) for number in range(20))).summary()
    assert summary.endswith(
        "no face in 20 inputs: " + ", ".join(f"{number}.png" for number in range(12)) + ", and 8 more"
    )


@pytest.mark.parametrize(
    ("jobs", "aligned", "status"),
    [
        ([JobReport(Path("a"), TARGET, [face()]), JobReport(Path("b"), TARGET)], False, 0),
        ([JobReport(Path("a"), TARGET, [face()]), JobReport(Path("b"), TARGET, error="b: is empty")], False, 1),
        ([JobReport(Path("a"), TARGET), JobReport(Path("b"), TARGET)], False, 3),
        ([JobReport(Path("a"), TARGET)], True, 0),
    ],
)
def test_the_status(jobs, aligned, status):
    assert report(*jobs, aligned=aligned).status == status


def test_report_file_is_valid_json_after_each_job(tmp_path):
    crop = np.zeros((8, 8, 3), np.float32)
    unknown = FaceReport.of(RestoredFace(None, np.eye(2, 3), crop, crop, identity=math.nan))
    path = tmp_path / "report.json"

    def read():
        return json.loads(path.read_text(), parse_constant=pytest.fail)

    file = ReportFile(path, "network", {"output": TARGET, "alpha": 0.5}, ["in/IMG_1.DNG (raw)"])
    assert read()["jobs"] == []
    file.add(JobReport(Path("a.png"), TARGET, [unknown]))
    assert [job["source"] for job in read()["jobs"]] == ["a.png"]
    file.add(JobReport(Path("b.png"), TARGET, error="b.png: is empty"))
    assert read()["jobs"][0]["faces"][0]["identity"] is None
    assert [job["target"] for job in read()["jobs"]] == ["out", "out"]
    assert read()["settings"] == {"output": "out", "alpha": 0.5}
    assert read()["skipped_files"] == ["in/IMG_1.DNG (raw)"]
    assert 0 <= read()["seconds"] < 60


def test_report_file_on_a_full_disk_stays_valid(tmp_path):
    path = tmp_path / "report.json"
    file = ReportFile(path, "network", {}, [])
    file.add(JobReport(Path("a.png"), TARGET))
    before = path.read_bytes()
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limit[1]))
        with pytest.raises(DataError, match=r"cannot be written .*without b\.png"):
            file.add(JobReport(Path("b.png"), TARGET))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    file.add(JobReport(Path("c.png"), TARGET))
    assert [job["source"] for job in json.loads(path.read_text())["jobs"]] == ["a.png", "c.png"]


def test_skipped_and_unstarted_inputs_are_counted_and_named():
    made = Report(3, skipped_files=["in/IMG_1.DNG (raw)", "in/x (no suffix)"])
    made.add(JobReport(Path("a.png"), TARGET, [face()]))
    assert made.summary().splitlines()[1:] == [
        "not started: 2 inputs",
        "skipped: 2 files: in/IMG_1.DNG (raw), in/x (no suffix)",
    ]
    assert made.status == 1


def test_a_report_keeps_no_images():
    crop = np.zeros((8, 8, 3), np.float32)
    references = sys.getrefcount(crop)
    made = Report(1)
    made.add(JobReport(Path("a.png"), TARGET, [FaceReport.of(RestoredFace(None, np.eye(2, 3), crop, crop))] * 2))
    assert sys.getrefcount(crop) == references
    assert made.faces == 2
