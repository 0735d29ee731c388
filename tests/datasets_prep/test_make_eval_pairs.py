"""Evaluation pairs on disk: read back pixel for pixel, going on after a stop, and every clear refusal."""

import json
import shutil

import cv2
import make_eval_pairs
import numpy as np
import pytest
import yaml

from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.lmdb_file import check_lmdb
from gpen_plugin.evaluate.fingerprint import compute_fingerprint
from gpen_plugin.evaluate.protocols import all_samples, build_protocol

SMALL = {"kernel_size": [3, 5], "downsample_range": [1, 4]}


@pytest.fixture
def gt(faces, tmp_path):
    """Faces under names of other languages and in folders, which a test may change."""
    copy = shutil.copytree(faces, tmp_path / "faces")
    (copy / "Zoë 100%").mkdir()
    (copy / "face_7.png").rename(copy / "Zoë 100%" / "face.v7.png")
    return copy


@pytest.fixture
def output(tmp_path):
    return tmp_path / "made" / "pairs"


@pytest.fixture
def option_file(gt, write_options):
    """Of an evaluation with a protocol ``bfr``."""
    protocol = {"type": "bfr", "dataroot_gt": str(gt), "out_size": 24, "degradation": SMALL}
    return write_options({"name": "x", "protocol": protocol, "methods": {}})


def fsr(gt, output, *more: str) -> int:
    arguments = ["--type", "fsr", "--input", str(gt), "--size", "32", "--scales", "4", "8", "--output", str(output)]
    return make_eval_pairs.main([*arguments, *more])


@pytest.mark.parametrize(("flags", "suffix", "backend"), [([], "", "disk"), (["--lmdb"], ".lmdb", "lmdb")])
def test_bfr_read_back(option_file, output, flags, suffix, backend):
    assert make_eval_pairs.main(["-opt", str(option_file), "--output", str(output), *flags]) == 0
    made = build_protocol(yaml.safe_load(option_file.read_text())["protocol"])
    roots = {"dataroot_lq": str(output / f"lq{suffix}"), "dataroot_gt": str(output / f"gt{suffix}")}
    pairs = build_protocol({"type": "pairs", **roots})
    assert pairs.keys == made.keys
    dataset = GPENDegradationDataset(
        {
            **roots,
            "name": "val",
            "type": "GPENDegradationDataset",
            "phase": "val",
            "io_backend": {"type": backend},
            "out_size": 24,
            "value_range": [0, 1],
        }
    )
    for i, key in enumerate(made.keys):
        wanted, found = made.sample(key, ""), pairs.sample(key, "")
        np.testing.assert_array_equal(found.lq, wanted.lq)
        np.testing.assert_array_equal(found.gt, wanted.gt)
        lq = dataset[i]["lq"].numpy().transpose(1, 2, 0)[:, :, ::-1]
        # OpenCV resizes planes and images by different code; each rounds two interpolations of values up to 1
        np.testing.assert_allclose(lq, resize_bilinear(wanted.lq, 24), rtol=0, atol=4 * np.finfo(np.float32).eps)
    manifest = json.loads((output / "pairs.json").read_text())
    assert manifest["images"] == {key: made.degradation(key, "") for key in made.keys}
    fingerprint = compute_fingerprint(made, (made.sample(*index) for index in all_samples(made)))
    assert manifest["fingerprint"] == json.loads(json.dumps(fingerprint.to_dict()))
    assert {path.name for path in output.iterdir()} == {f"lq{suffix}", f"gt{suffix}", "pairs.json"}


@pytest.mark.parametrize(("flags", "suffix"), [([], ""), (["--lmdb"], ".lmdb")])
def test_fsr_has_a_set_of_inputs_per_scale(gt, output, flags, suffix):
    assert fsr(gt, output, *flags) == 0
    made = build_protocol({"type": "fsr", "dataroot_gt": str(gt), "out_size": 32, "scales": [4, 8]})
    for condition in ("4x", "8x"):
        roots = {"dataroot_lq": str(output / f"lq_{condition}{suffix}"), "dataroot_gt": str(output / f"gt{suffix}")}
        pairs = build_protocol({"type": "pairs", **roots})
        for key in made.keys:
            np.testing.assert_array_equal(pairs.sample(key, "").lq, made.sample(key, condition).lq)
            np.testing.assert_array_equal(pairs.sample(key, "").gt, made.sample(key, condition).gt)
    manifest = json.loads((output / "pairs.json").read_text())
    assert manifest["images"]["face_0"] == {"4x": "bicubic, 1/4", "8x": "bicubic, 1/8"}


def test_pairs_become_lmdbs(gt, output, tmp_path, write_options):
    fsr(gt, output)
    roots = {"dataroot_lq": str(output / "lq_4x"), "dataroot_gt": str(output / "gt")}
    file = write_options({"protocol": {"type": "pairs", **roots}})
    assert make_eval_pairs.main(["-opt", str(file), "--output", str(tmp_path / "again"), "--lmdb"]) == 0
    check_lmdb(tmp_path / "again" / "lq.lmdb", "")
    lines = (tmp_path / "again" / "lq.lmdb" / "meta_info.txt").read_text().splitlines()
    assert lines[:2] == ["Zo%C3%AB 100%25/face.v7.png (8,8,3) 1", "face_0.png (8,8,3) 1"]


def test_the_option_file_is_changed_by_force_yml(option_file, output):
    forced = ["--force_yml", "protocol:out_size=16", "protocol:num_images=2"]
    make_eval_pairs.main(["-opt", str(option_file), *forced, "--output", str(output)])
    manifest = json.loads((output / "pairs.json").read_text())
    assert (manifest["fingerprint"]["size"], len(manifest["images"])) == (16, 2)


@pytest.mark.parametrize("flags", [[], ["--lmdb"]])
def test_going_on_after_a_stop(gt, output, tmp_path, monkeypatch, capsys, flags):
    fsr(gt, tmp_path / "whole", *flags)
    tqdm = make_eval_pairs.tqdm

    def stopping(items, **options):
        for i, item in enumerate(tqdm(items, **options)):
            if i == 3:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(make_eval_pairs, "tqdm", stopping)
    assert fsr(gt, output, *flags) == 130
    assert "The same command resumes" in capsys.readouterr().err
    assert not (output / "pairs.json").exists()
    written = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
    assert len(written) == (0 if flags else 9)
    monkeypatch.setattr(make_eval_pairs, "tqdm", tqdm)
    assert fsr(gt, output, *flags) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    for name in ("pairs.json", *(["lq_4x.lmdb/meta_info.txt"] if flags else ["lq_8x/face_5.png"])):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (output / "begun.json").exists()
    assert not (output / ".making").exists()


def test_going_on_with_an_original_that_was_changed_meanwhile(gt, output, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(make_eval_pairs, "compute_fingerprint", stopped_at_the_end)
        assert fsr(gt, output) == 130
    cv2.imwrite(str(gt / "face_1.png"), 255 - cv2.imread(str(gt / "face_1.png")))
    assert fsr(gt, output) == 0
    assert fsr(gt, output.with_name("anew")) == 0
    for name in ("gt", "lq_4x", "lq_8x"):
        assert (output / name / "face_1.png").read_bytes() == (
            output.with_name("anew") / name / "face_1.png"
        ).read_bytes()


def stopped_at_the_end(protocol, samples):
    for _ in samples:
        continue
    raise KeyboardInterrupt


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_note_is_reported(gt, output, capsys, content):
    output.mkdir(parents=True)
    (output / "pairs.json").write_text(content)
    assert fsr(gt, output) == 1
    assert "pairs.json: is damaged" in capsys.readouterr().err


def test_finished_lmdb_is_not_changed(gt, output, capsys):
    fsr(gt, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert fsr(gt, output) == 0
    assert "is finished: 8 images, 0 left out" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_an_unreadable_image_is_reported_and_left_out(gt, output, capsys):
    (gt / "face_3.png").write_bytes(b"nothing")
    assert fsr(gt, output) == 0
    printed = capsys.readouterr()
    assert "face_3.png: cannot be decoded" in printed.err
    assert "7 images, 1 left out" in printed.out
    assert json.loads((output / "pairs.json").read_text())["unreadable"] == ["face_3"]
    assert not list(output.rglob("face_3.png"))


def test_nothing_readable(gt, output, capsys):
    for path in gt.rglob("*.png"):
        path.write_bytes(b"nothing")
    assert fsr(gt, output) == 1
    assert "none of 8 images can be read" in capsys.readouterr().err
    assert not (output / "pairs.json").exists()


def test_other_options_are_refused(gt, output, capsys):
    fsr(gt, output)
    assert fsr(gt, output, "--limit", "3") == 1
    assert "was begun with other images, names" in capsys.readouterr().err
    assert fsr(gt, output, "--lmdb") == 1
    assert "was begun with other lmdb" in capsys.readouterr().err


def test_other_folders_are_not_changed(gt, output, capsys):
    output.mkdir(parents=True)
    (output / "letter.txt").write_text("mine")
    assert fsr(gt, output) == 1
    assert "was not made by this script" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["", "pairs"])
def test_an_output_among_the_originals_is_refused(gt, capsys, below):
    before = set(gt.rglob("*"))
    assert fsr(gt, gt / below) == 1
    assert "which lies in dataroot_gt" in capsys.readouterr().err
    assert set(gt.rglob("*")) == before


def test_wild_has_no_pairs(gt, output, write_options, capsys):
    file = write_options({"protocol": {"type": "wild", "dataroot_lq": str(gt), "out_size": 32}})
    assert make_eval_pairs.main(["-opt", str(file), "--output", str(output)]) == 1
    assert "'wild', which has no ground truth" in capsys.readouterr().err


def test_a_name_too_long_for_an_lmdb(gt, output, capsys):
    deep = gt / ("a" * 200) / ("b" * 200) / ("c" * 200)
    deep.mkdir(parents=True)
    (gt / "face_0.png").rename(deep / "face.png")
    assert fsr(gt, output, "--lmdb") == 1
    assert "names too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--type", "bfr"], "give -opt FILE, or --type, --input and --size"),
        (["-opt", "x.yml", "--size", "3"], "change it with --force_yml"),
        (["--force_yml", "a=b"], "name it with -opt"),
    ],
)
def test_arguments_that_do_not_go_together(output, capsys, arguments, words):
    with pytest.raises(SystemExit, match="2"):
        make_eval_pairs.main([*arguments, "--output", str(output)])
    assert words in capsys.readouterr().err
