"""Parts of the demo. The commands that it runs have their own tests."""

import re
import shutil
from pathlib import Path

import cv2
import make_demo_faces
import numpy as np
import pytest
import yaml
from helpers import REPOSITORY
from synthetic_faces import render_face

from gpen_plugin.cli import demo
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.restore.zoo import DEFAULT, RELEASED

OPTIONS = yaml.safe_load((REPOSITORY / demo.OPTIONS).read_text())


@pytest.fixture
def val(tmp_path, monkeypatch):
    """The demo's folder of validation faces, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / demo.DATA / "faces" / "val"
    folder.mkdir(parents=True)
    for seed in range(2):
        cv2.imwrite(str(folder / f"{seed:05d}.png"), render_face(seed, 64))
    return folder


def test_degraded_images_equal_those_of_the_validation(val):
    """After bilinear enlargement."""
    data = OPTIONS["datasets"]["val"]
    demo._degrade(data)
    options = {**data, "phase": "val", "dataroot_gt": str(val), "io_backend": {"type": "disk"}}
    for item in GPENDegradationDataset(options):
        name = item["gt_path"].rpartition("/")[2]
        small = cv2.imread(str(demo.OUTPUT / "degraded" / name)).astype(np.float32) / 255
        enlarged = cv2.resize(small, (64, 64), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        np.testing.assert_allclose(item["lq"].permute(1, 2, 0).numpy(), enlarged * 2 - 1, atol=1e-5)


@pytest.mark.parametrize("zipped", [False, True])
def test_faces_in_subfolders_are_all_degraded_and_measured(tmp_path, monkeypatch, capsys, zipped):
    """Subfolders with files of the same names, also inside a zip file, as FFHQ and compressed folders have them."""
    monkeypatch.chdir(tmp_path)
    for index in range(20):
        path = tmp_path / "own" / "faces" / ("00000", "01000")[index % 2] / f"{index // 2:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), render_face(index, 64))
    given = shutil.make_archive("own", "zip", "own") if zipped else "own"
    output = demo.DATA / "faces"
    assert make_demo_faces.main(["--input", str(given), "--output", str(output), "--size", "64"]) == 0
    val = {path.relative_to(output / "val") for path in (output / "val").rglob("*.png")}
    assert len(val) == 4
    assert len({path.name for path in val}) < 4, "two faces of one name"
    data = OPTIONS["datasets"]["val"]
    demo._degrade(data)
    options = {**data, "phase": "val", "dataroot_gt": str(output / "val"), "io_backend": {"type": "disk"}}
    faces = GPENDegradationDataset(options)
    assert len(faces) == 4
    for item in faces:
        degraded = demo.OUTPUT / "degraded" / Path(item["gt_path"]).relative_to(output / "val")
        enlarged = cv2.resize(cv2.imread(str(degraded)), (64, 64), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        expected = (item["lq"].permute(1, 2, 0).numpy() + 1) * 127.5
        np.testing.assert_allclose(enlarged, expected, atol=1)  # rounded to 8 bits after the enlargement
    shutil.copytree(output / "val", demo.OUTPUT / "restored" / "gpen")
    demo._report(["GPEN"])
    printed = capsys.readouterr().out
    assert "4 faces not used in training" in printed
    assert re.search(r"GPEN +inf +1\.0000 +0\.0", printed)


def test_report_measures_and_draws_a_sheet(val, capsys):
    demo._degrade(OPTIONS["datasets"]["val"])
    restored = demo.OUTPUT / "restored" / "wo_ft"
    shutil.copytree(val, restored)
    for path in restored.iterdir():  # one gray level off: 20 log10(255) dB
        image = cv2.imread(str(path)).astype(int)
        cv2.imwrite(str(path), np.where(image < 255, image + 1, image - 1).astype(np.uint8))
    shutil.copytree(val, demo.OUTPUT / "restored" / "gpen")
    demo._report(["GPEN", "w/o-ft"])
    printed = capsys.readouterr().out
    assert re.search(r"w/o-ft +48\.13 +0\.99", printed)
    assert re.search(r"GPEN +inf +1\.0000 +0\.0", printed)
    assert re.search(r"degraded, enlarged bilinearly +2\d\.", printed)
    assert cv2.imread(str(demo.OUTPUT / "demo.png")).shape[1] == 5 * (192 + 4) + 4


def test_wrong_faces_keep_an_earlier_demo(val, capsys):
    demo.OPTIONS.parent.mkdir()
    for options in (demo.OPTIONS, demo.PRIOR_OPTIONS, demo.FINETUNE_OPTIONS):
        shutil.copy(REPOSITORY / options, options)
    assert demo.main(["--faces", "nowhere"]) == 1
    assert "--faces: nowhere is not there" in capsys.readouterr().err
    assert len(list(val.iterdir())) == 2


def test_faces_in_a_folder_of_the_demo_are_refused(val, capsys):
    demo.OPTIONS.parent.mkdir()
    for options in (demo.OPTIONS, demo.PRIOR_OPTIONS, demo.FINETUNE_OPTIONS):
        shutil.copy(REPOSITORY / options, options)
    assert demo.main(["--faces", str(val)]) == 1
    assert "expected another folder. Move it: the demo deletes datasets/demo" in capsys.readouterr().err
    assert len(list(val.iterdir())) == 2


def test_demo_needs_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert demo.main([]) == 1
    assert "expected a checkout of the project" in capsys.readouterr().err


def test_variants_are_those_of_the_ablation():
    """Each is set by the one key in which its option file differs from GPEN's."""
    files = {"GPEN": "gpen", "w/o-ft": "gpen_wo_ft", "w/o-noise": "gpen_wo_noise", "noise-add": "gpen_noise_add"}
    own = yaml.safe_load((REPOSITORY / "options/ablation/gpen.yml").read_text())
    assert list(files) == list(demo.VARIANTS)
    for name, changes in demo.VARIANTS.items():
        for key, value in changes.items():
            section, last = key.split(":")
            other = yaml.safe_load((REPOSITORY / f"options/ablation/{files[name]}.yml").read_text())
            assert str(other[section][last]).lower() == value
            assert other[section][last] != own[section][last]
            assert last in OPTIONS[section]  # the host's --force_yml cannot add keys


def test_second_stage_embeds_the_first():
    prior = yaml.safe_load((REPOSITORY / demo.PRIOR_OPTIONS).read_text())
    assert prior["network_g"] | {"type": "GPEN"} == OPTIONS["network_g"]
    assert prior["network_d"] == OPTIONS["network_d"]
    path = OPTIONS["path"]["pretrain_prior"].format(**OPTIONS["network_g"])
    assert path == f"experiments/{prior['name']}/models/net_g_latest.pth"
    assert path == str(demo._weights_path("gpen_demo_prior_concat"))


def test_fine_tuning_has_the_sizes_of_the_default_model():
    model = RELEASED[DEFAULT.lower()]
    net_g = yaml.safe_load((REPOSITORY / demo.FINETUNE_OPTIONS).read_text())["network_g"]
    widths = ("out_size", "channel_multiplier", "narrow", "num_style_feat", "num_mlp")
    assert [net_g[key] for key in widths] == [getattr(model, key) for key in widths]


def test_default_demo_restores_portrait_and_both_models(val, monkeypatch):
    """What is commands, in its order; the training and the commands have tests of their own."""
    demo.OPTIONS.parent.mkdir()
    for options in (demo.OPTIONS, demo.PRIOR_OPTIONS, demo.FINETUNE_OPTIONS):
        shutil.copy(REPOSITORY / options, options)
    commands = []

    def restore(*command):
        commands.append([str(word) for word in command])
        if "--upscale" in command:
            degraded, enlarged = (command[command.index("gpen_plugin.restore") + at] for at in (1, 3))
            cv2.imwrite(str(enlarged), cv2.resize(cv2.imread(str(degraded)), (512, 512)))

    monkeypatch.setattr(demo, "_run_python", restore)
    monkeypatch.setattr(demo, "_prepare", lambda *_: None)
    monkeypatch.setattr(demo, "_train", lambda options, changes: commands.append([str(options), changes["name"]]))
    monkeypatch.setattr(demo, "_report", lambda names: commands.append(names))
    assert demo.main([]) == 0
    portrait, training, default, fine_tuned, reported = commands
    assert portrait[:3] == ["-m", "gpen_plugin.restore", "demo/portrait/photograph.png"]
    assert training == ["options/gpen_finetune_shipped.yml", "gpen_demo_shipped"]
    assert "-m" not in default[2:]
    assert fine_tuned[-2:] == ["-m", "experiments/gpen_demo_shipped/models/net_g_latest.pth"]
    assert reported == ["default", "fine-tuned"]
    assert cv2.imread("demo/portrait.png").shape[1] == 3 * (256 + 4) + 4
