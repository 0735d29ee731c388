import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.restore_command import files, write
from helpers.restorer_parts import Detector, face_at, photograph

from gpen_plugin.cli import restore as cli
from gpen_plugin.restore import batch, outputs, restorer


def test_a_folder(run, tmp_path):
    for seed, name in enumerate(["a.png", "sub/b.png", "c.jpg"]):
        write(tmp_path / "album" / name, seed)
    status, said = run("album", "-o", "out")
    assert status == 0
    assert files(tmp_path / "out") == ["a.png", "c.jpg", "sub/b.png"]
    assert "3 of 3 inputs written, 6 faces" in said.out
    assert "known: positions of the faces are given" in said.out
    assert (cv2.imread(str(tmp_path / "out/a.png")) != photograph(seed=0)).any()


def test_the_default_output_is_a_folder(run, tmp_path):
    write(tmp_path / "album/a.png")
    assert run("album/a.png")[0] == 0
    assert files(tmp_path / "restored") == ["a.png"]


def test_sharp_faces_are_kept_on_request_and_reported(run, tmp_path):
    write(tmp_path / "a.png")
    assert run("a.png", "--sharp-faces", "keep", "--report", "report.json")[0] == 0
    (job,) = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert all(0 <= face["weight"] <= 1 and face["added_detail"] > 0 for face in job["faces"])
    assert run("a.png", "-o", "all", "--sharp-faces", "restore", "--report", "all.json")[0] == 0
    (job,) = json.loads((tmp_path / "all.json").read_text())["jobs"]
    assert all("weight" not in face and face["skip_reason"] is None for face in job["faces"])


def test_one_file_to_one_file(run, tmp_path):
    write(tmp_path / "a.png")
    assert run("a.png", "-o", "restored.png", "--compare")[0] == 0
    assert files(tmp_path) == ["a.png", "compare/restored.png.png", "restored.png"]
    assert cv2.imread(str(tmp_path / "compare/restored.png.png")).shape == (240, 644, 3)


def test_a_broken_file_is_reported_and_the_rest_done(run, tmp_path):
    write(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_bytes(b"")
    (tmp_path / "in/c.png").write_text("not an image")
    write(tmp_path / "in/d.png", 1)
    status, said = run("in", "-o", "out", "--report", "report.json")
    assert status == 1
    assert files(tmp_path / "out") == ["a.png", "d.png"]
    lines = [line for line in said.err.splitlines() if "failed" in line]
    assert len(lines) == 2
    assert "b.png" in lines[0]
    assert "c.png" in lines[1]
    jobs = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert sorted("error" in job for job in jobs) == [False, False, True, True]
    assert {len(job["faces"]) for job in jobs if "faces" in job} == {2}


def test_photograph_without_faces_is_copied_with_status_3(run, tmp_path):
    write(tmp_path / "a.png")
    status, said = run("a.png", "-o", "out", detector=Detector())
    assert status == 3
    assert (cv2.imread(str(tmp_path / "out/a.png")) == photograph()).all()
    assert "no face in 1 input: a.png" in said.out


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("Insufficient memory")])
def test_out_of_memory_fails_only_its_image(run, tmp_path, monkeypatch, error):
    for seed, name in enumerate("abc"):
        write(tmp_path / f"in/{name}.png", seed)
    whole, large = restorer.Restorer.paste_back, photograph(seed=1)

    def paste_back(self, image, *arguments):
        if (image.pixels == large).all():
            raise error
        return whole(self, image, *arguments)

    monkeypatch.setattr(restorer.Restorer, "paste_back", paste_back)
    status, said = run("in", "-o", "out")
    assert status == 1
    assert files(tmp_path / "out") == ["a.png", "c.png"]
    assert "failed: in/b.png: cannot be restored (" in said.err
    assert "not written: in/b.png" in said.out


def test_missing_weights_are_reported_once(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for seed, name in enumerate("abc"):
        write(tmp_path / f"in/{name}.png", seed)
    status, said = run("in", "-o", "out", "--identity", 0.5)
    assert status == 1
    assert said.err.count("arcface_resnet18.pth (") == 1
    assert not (tmp_path / "out").exists()


def test_stopped_by_hand(run, tmp_path, monkeypatch):
    for seed, name in enumerate("abc"):
        write(tmp_path / f"in/{name}.png", seed)
    write_whole, written = outputs.Outputs.write, []

    def stop_at_the_second(self, path, data):
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_whole(self, path, data)

    monkeypatch.setattr(outputs.Outputs, "write", stop_at_the_second)
    status, said = run("in", "-o", "out", "--batch", 1, "--report", "report.json")
    assert status == 130
    assert files(tmp_path / "out") == ["a.png"]
    assert "1 of 3 inputs written" in said.out
    assert "stopped" in said.err
    assert [job["source"] for job in json.loads((tmp_path / "report.json").read_text())["jobs"]] == ["in/a.png"]


def test_memory_limit_counts_results(run, tmp_path, monkeypatch):
    for seed, name in enumerate("abcd"):
        write(tmp_path / f"in/{name}.png", seed)
    together = []
    whole = restorer.Restorer.restore_all
    monkeypatch.setattr(restorer.Restorer, "restore_all", lambda *a, **b: together.append(len(a[1])) or whole(*a, **b))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # with one, there is nothing to do at once
    height, width = photograph().shape[:2]
    for upscale, variants, groups in ((1, 0, [4]), (2, 0, [1] * 4), (1, 1, [2, 2, 2, 2])):
        monkeypatch.setattr(batch, "MAX_PIXELS_AT_ONCE", 8 * height * width)
        together.clear()
        assert run("in", "-o", "out", "--upscale", upscale, "--variants", variants, "--overwrite")[0] == 0
        assert [number for number in together if number] == groups


def test_nan_face_fails_only_its_image(run, tmp_path, weights):
    state = torch.load(weights)
    for tensor in state["params_ema"].values():
        tensor.fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    write(tmp_path / "in/a.png")
    write(tmp_path / "in/b.png")
    status, said = run("in", "-o", "out", model="nan.pth")
    assert status == 1
    assert not (tmp_path / "out").exists()
    assert said.err.count("failed:") == 2


def test_aligned_faces(run, tmp_path):
    for name in ("a.png", "b.png"):
        write(tmp_path / "faces" / name)
    assert run("faces", "-o", "out", "--aligned", detector=None)[0] == 0
    assert cv2.imread(str(tmp_path / "out/a.png")).shape == (32, 32, 3)


def test_jobs_in_processes_write_the_same_files(run, tmp_path):
    for seed, name in enumerate(["a.png", "b.jpg", "c.png"]):
        write(tmp_path / "faces" / name, seed)
    (tmp_path / "faces/broken.png").write_text("not an image")
    words = ("--aligned", "--variants", 1, "--save-faces", "--report")
    inline, _ = run("faces", "-o", "one", *words, "one.json", detector=None)
    assert (inline, run("faces", "-o", "two", *words, "two.json", "--jobs", 2, detector=None)[0]) == (1, 1)
    assert len(files(tmp_path / "one")) == 3 * (2 + 4)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (json.loads((tmp_path / name).read_text())["jobs"] for name in ("one.json", "two.json"))
    assert [{**job, "target": None} for job in one] == [{**job, "target": None} for job in two]


def test_processes_share_cores_and_gpus(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(cv2, "setNumThreads", lambda number: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(restorer, "Restorer", lambda *a, device, **b: opened.append(device) or Stop())
    for index, device in ((0, "auto"), (1, "auto"), (2, "cuda"), (1, "cuda:0"), (1, "cpu"), (None, "auto")):
        arguments = cli.parser().parse_args(["x.png", "--device", device])
        cli.open_runner(arguments, None, [], index, 1)
    assert opened == ["cuda:0", "cuda:1", "cuda:0", "cuda:0", "cpu", "auto"]


class Stop:
    def check_aligned(self, aligned): ...


@pytest.mark.parametrize(
    ("words", "cores", "gigabytes", "count"),
    [([], 8, 32, 1), (["--jobs", "3"], 2, 32, 3), (["--jobs", "auto"], 8, 64, 8), (["--jobs", "auto"], 8, 7, 3)],
)
def test_number_of_processes(monkeypatch, words, cores, gigabytes, count):
    monkeypatch.setattr(cli, "_usable_cores", lambda: cores)
    monkeypatch.setattr(cli.os, "sysconf", {"SC_PHYS_PAGES": gigabytes << 20, "SC_PAGE_SIZE": 1024}.get)
    monkeypatch.setattr(cli, "open_runner", lambda *a: types.SimpleNamespace(facts=None))
    workers = cli._workers(cli.parser().parse_args(["x.png", *words]), None, [], total=100)
    openers = getattr(workers, "_openers", [None])
    assert len(openers) == count
    if count > 1:
        assert openers[0].args[-1] == max(1, cores // count)  # threads of each


@pytest.mark.parametrize("number", ["0", "many", "-1", "1.5"])
def test_wrong_numbers_of_processes(number, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.parser().parse_args(["x.png", "--jobs", number])
    assert f"got {number}; expected a number from 1, or auto" in capsys.readouterr().err


def test_faces_are_saved(run, tmp_path):
    write(tmp_path / "a.png")
    assert run("a.png", "-o", "out", "--save-faces")[0] == 0
    saved = [f"faces/a.png_{number:02d}_{what}.png" for number in (0, 1) for what in ("after", "before")]
    assert files(tmp_path / "out") == ["a.png", *saved]
    assert cv2.imread(str(tmp_path / "out/faces/a.png_00_before.png")).shape == (16, 16, 3)


def test_variants_differ_and_can_be_made_again(run, tmp_path):
    write(tmp_path / "a.png")
    common = ["a.png", "--variants", 2, "--variant-strength", 1, "--seed", 5]
    assert run(*common, "-o", "one")[0] == 0
    assert run(*common, "-o", "two")[0] == 0
    assert files(tmp_path / "one") == ["a.png", "a_1.png", "a_2.png"]
    images = [cv2.imread(str(tmp_path / "one" / name)) for name in files(tmp_path / "one")]
    again = [cv2.imread(str(tmp_path / "two" / name)) for name in files(tmp_path / "one")]
    assert all((one == other).all() for one, other in zip(images, again, strict=True))
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()


def test_a_reference_whose_styles_are_mixed_in(run, tmp_path):
    write(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "other.png"), photograph(64, 64, seed=9))
    assert run("a.png", "-o", "out", "--variant-strength", 1, "--reference", "other.png")[0] == 0
    one, two = (cv2.imread(str(tmp_path / "out" / name)) for name in ("a.png", "a_1.png"))
    assert (one != two).any()


def test_home_is_expanded_in_all_paths(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.png")
    assert run("a.png", "-o", "~/out", "--compare")[0] == 0
    assert files(tmp_path / "out") == ["a.png", "compare/a.png.png"]


def write_film(path: Path, count: int = 4) -> None:
    av = pytest.importorskip("av", reason='videos need PyAV: pip install "gpen_plugin[video]"')
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p"
        for _ in range(count):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(photograph(), format="bgr24")))
        film.mux(stream.encode(None))


def test_a_video(run, tmp_path):
    write_film(tmp_path / "film.avi")
    status, said = run("film.avi", "-o", "out", "--report", "report.json")
    assert status == 0
    assert files(tmp_path / "out") == ["film.avi.mp4"]
    (job,) = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert job["video"]["frames"] == 4
    assert job["video"]["faces"] == 8
    assert "film.avi: 4 frames" in said.out
    reader = cv2.VideoCapture(str(tmp_path / "out" / "film.avi.mp4"))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 4


@pytest.mark.parametrize("option", [["--save-faces"], ["--variants", 1]])
def test_photograph_options_do_not_apply_to_videos(run, tmp_path, option):
    (tmp_path / "album").mkdir()
    write_film(tmp_path / "album" / "film.avi")
    write(tmp_path / "album" / "a.png")
    status, said = run("album", "-o", "out", *option)
    assert status == 0
    assert {"a.png", "film.avi.mp4"} <= set(files(tmp_path / "out"))
    assert f"{option[0]} does not apply to videos" in said.err


def test_video_among_aligned_faces_fails_only_itself(run, tmp_path):
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "film.avi").write_bytes(b"")
    write(tmp_path / "album" / "a.png")
    status, said = run("album", "-o", "out", "--aligned")
    assert status == 1
    assert files(tmp_path / "out") == ["a.png"]
    assert "film.avi: is a video, but --aligned is for images of one face" in said.err


def test_video_without_pyav_fails_only_itself(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"")
    write(tmp_path / "a.png")
    status, said = run("film.mp4", "a.png", "-o", "out")
    assert status == 1
    assert files(tmp_path / "out") == ["a.png"]
    assert 'Run: pip install "gpen_plugin[video]"' in said.err


def test_an_onnx_file_restores(run, tmp_path):
    pytest.importorskip("onnxruntime")
    tiled = pytest.importorskip("helpers.onnx_face_networks").tiled
    write(tmp_path / "a.png")
    status, said = run("a.png", "-o", "out", model=tiled(tmp_path / "net.onnx", gains=(0, 0, 0)))
    assert status == 0
    assert "ONNX network 16 px, net.onnx" in said.out
    changed = cv2.imread(str(tmp_path / "out/a.png")).astype(int) - photograph()
    assert np.abs(changed[105:115, 85:95]).max() > 20  # within a face
    assert not changed[:20].any()


def test_faces_too_large_for_the_network_are_reported(run, tmp_path):
    write(tmp_path / "a.png")
    small = Detector(face_at(90, 110, 30))
    assert "larger network" not in run("a.png", "-o", "one", detector=small)[1].err
    status, said = run("a.png", "-o", "two")  # 100 and 70 px, and the network sees 16
    assert status == 0
    assert "a face has 100 px, but the network only 16 px" in said.err
