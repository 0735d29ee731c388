"""Nothing that was there is replaced, what was not changed is copied, and a lost output folder ends the run."""

import errno
import gc
import json
import os
import shutil
import signal
import sys
import time
import weakref

import cv2
import pytest
import tifffile
from helpers.forks import fork, wait
from helpers.restore_command import files, write
from helpers.restorer_parts import FACES, Detector, photograph
from helpers.tiff_files import PAGES, write_tiff
from PIL import Image

from gpen_plugin.cli.restore import main
from gpen_plugin.errors import DataError
from gpen_plugin.images.photograph import read_pages
from gpen_plugin.restore import batch, outputs, restorer
from gpen_plugin.restore.outputs import Outputs, shorten_name


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_unchanged_photograph_is_copied(run, tmp_path, suffix):
    source = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if suffix == ".bmp" else {"exif": exif}
    Image.fromarray(photograph()).save(source, **options)
    assert run(source.name, "-o", "none", detector=Detector())[0] == 3
    assert run(source.name, "-o", "alone", "--max-face", 16)[0] == 0
    assert run(source.name, "-o", "blended", "--alpha", 0)[0] == 0
    for folder in ("none", "alone", "blended"):
        assert (tmp_path / folder / source.name).read_bytes() == source.read_bytes()
    assert run(source.name, "-o", "restored")[0] == 0
    assert (tmp_path / "restored" / source.name).read_bytes() != source.read_bytes()


def test_unchanged_photograph_is_encoded_in_a_new_format(run, tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "wrong.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    run("a.png", "wrong.jpg", "-o", "jpg", "--suffix", "jpg", detector=Detector())
    assert [Image.open(tmp_path / "jpg" / name).format for name in ("a.jpg", "wrong.jpg")] == ["JPEG"] * 2
    run("a.png", "-o", "large", "--upscale", 2, detector=Detector())
    assert Image.open(tmp_path / "large/a.png").size == (640, 480)


def test_left_out_frames_of_an_animation_are_reported(run, tmp_path):
    frames = [Image.fromarray(photograph(seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    said = run("a.webp", "-o", "copied", detector=Detector())[1]
    assert "frames" not in said.err
    assert Image.open(tmp_path / "copied/a.webp").n_frames == 3
    assert "a.webp: first of 3 frames, the others are left out" in run("a.webp", "-o", "restored")[1].err


def test_a_jpeg_that_is_cut_off_is_restored_and_reported(run, tmp_path):
    Image.fromarray(photograph(480, 320)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 3 // 4])
    status, said = run("a.jpg", "-o", "out")
    assert status == 0
    assert "a.jpg: the file is cut off: " in said.err
    assert Image.open(tmp_path / "out/a.jpg").size == (320, 480)
    assert "the file is cut off" in run("a.jpg", "-o", "copied", detector=Detector())[1].err


def test_earlier_results_are_kept_without_overwrite(run, tmp_path):
    for seed, name in enumerate(("a/x.png", "b/x.png", "b/y.png")):
        write(tmp_path / name, seed)
    assert run("a/x.png", "-o", "out", "--report", "report.json")[0] == 0
    first = (tmp_path / "out/x.png").read_bytes()
    status, said = run("b", "-o", "out")
    assert status == 1
    assert "failed: out/x.png: is there already; expected a new file. Pass --overwrite" in said.err
    assert (tmp_path / "out/x.png").read_bytes() == first
    assert files(tmp_path / "out") == ["x.png", "y.png"]
    status, said = run("b", "-o", "out2", "--report", "report.json")
    assert status == 1
    assert "--report: report.json is there already" in said.err
    assert not (tmp_path / "out2").exists()
    assert run("b", "-o", "out", "--report", "report.json", "--overwrite")[0] == 0
    assert (tmp_path / "out/x.png").read_bytes() != first


@pytest.mark.parametrize("there", ["compare/a.png.png", "faces/a.png_00_before.png", "a_1.png", "compare/a.png_1.png"])
def test_further_files_are_not_replaced(run, tmp_path, there):
    write(tmp_path / "a.png")
    path = tmp_path / "out" / there
    path.parent.mkdir(parents=True)
    path.write_text("of an earlier run")
    status, said = run("a.png", "-o", "out", "--compare", "--save-faces", "--variants", 1)
    assert status == 1
    assert f"out/{there}: is there already" in said.err
    assert files(tmp_path / "out") == [there]
    assert path.read_text() == "of an earlier run"


def test_names_that_differ_in_case_do_not_stop_the_batch(run, tmp_path):
    for seed, name in enumerate(("in/same.png", "in/SAME.PNG", "in/b.png")):
        write(tmp_path / name, seed)
    assert run("in", "-o", "out")[0] == 0
    assert files(tmp_path / "out") == ["SAME.PNG", "b.png", "same.png"]


def test_the_output_folder_is_tested_before_the_work(run, tmp_path, monkeypatch):
    write(tmp_path / "a.png")
    (tmp_path / "file").write_text("no folder")
    status, said = run("a.png", "-o", "file/out")
    assert status == 1
    assert "--output: file/out cannot be written to (Not a directory)" in said.err

    def refuse(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", refuse)
    status, said = run("a.png", "-o", "new/out")
    assert status == 1
    assert "--output: new/out cannot be written to (Read-only file system)" in said.err
    assert not (tmp_path / "new").exists()


def stop_after(monkeypatch, number, then):
    """Let the writing of the file after the first few begin with `then`."""
    write_whole, written = Outputs.write, []

    def write(self, path, data):
        written.append(path)
        if len(written) == number + 1:
            then()
        write_whole(self, path, data)

    monkeypatch.setattr(Outputs, "write", write)
    return written


def test_full_disk_ends_the_run_with_a_report(run, tmp_path, monkeypatch):
    for seed, name in enumerate("abcde"):
        write(tmp_path / f"in/{name}.png", seed)

    def full():
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise DataError("b.png", "cannot be written") from error

    written = stop_after(monkeypatch, 1, full)
    status, said = run("in", "-o", "out", "--batch", 1, "--report", "report.json")
    assert status == 1
    assert len(written) == 2
    assert "gpen_plugin: error: out: No space left on device" in said.err
    assert "1 of 5 inputs written" in said.out
    assert "not started: 3 inputs" in said.out
    jobs = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert [(job["target"], "error" in job) for job in jobs] == [("out/a.png", False), ("out/b.png", True)]


def test_a_report_that_cannot_be_written_is_an_error_before_the_work(run, tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "file").write_text("no folder")
    status, said = run("a.png", "-o", "out", "--report", "file/report.json")
    assert status == 1
    assert "file/report.json: cannot be written" in said.err
    assert not (tmp_path / "out").exists()


def test_lost_output_folder_is_not_created_again(run, tmp_path, monkeypatch):
    for seed, name in enumerate(("a.png", "sub/b.png", "sub/c.png")):
        write(tmp_path / "in" / name, seed)
    stop_after(monkeypatch, 1, lambda: shutil.rmtree(tmp_path / "out"))
    status, said = run("in", "-o", "out", "--batch", 8)
    assert status == 1
    assert "error: out: is not there any more, or is on another disk" in said.err
    assert "not started: 1 input" in said.out
    assert not (tmp_path / "out").exists()


def test_an_output_folder_on_another_disk_is_not_written_to(tmp_path):
    folder = Outputs(tmp_path)
    folder.open()
    folder._device += 1  # as when a disk is taken away from the folder that it was mounted on
    with pytest.raises(DataError, match="is not there any more, or is on another disk"):
        folder.write(tmp_path / "a.png", b"")
    assert files(tmp_path) == []


def test_unexpected_error_fails_only_its_image(run, tmp_path, monkeypatch):
    for seed, name in enumerate("abc"):
        write(tmp_path / f"in/{name}.png", seed)
    whole, wrong = restorer.Restorer.paste_back, photograph(seed=1)

    def paste_back(self, image, *arguments):
        if (image.pixels == wrong).all():
            raise KeyError("x")
        return whole(self, image, *arguments)

    monkeypatch.setattr(restorer.Restorer, "paste_back", paste_back)
    status, said = run("in", "-o", "out")
    assert status == 1
    assert files(tmp_path / "out") == ["a.png", "c.png"]
    assert "failed: in/b.png: cannot be restored (KeyError: " in said.err
    assert "test_restore_outputs.py, line " in said.err


def test_an_unreadable_folder_is_a_failure(run, tmp_path, monkeypatch):
    write(tmp_path / "in/a.png")
    write(tmp_path / "in/locked/b.png")
    scan = os.scandir

    def locked(path="."):  # permissions do not stop root
        if os.fspath(path).endswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    status, said = run("in", "-o", "out")
    assert status == 1
    assert "failed: in/locked: is a folder that cannot be read (Permission denied)" in said.err
    assert "not written: in/locked" in said.out
    assert files(tmp_path / "out") == ["a.png"]


def test_skipped_files_are_reported_once(run, tmp_path):
    write(tmp_path / "in/a.png")
    (tmp_path / "in/IMG_1.DNG").write_bytes(b"raw")
    status, said = run("in", "-o", "out")
    assert status == 0
    assert (said.out + said.err).count("skipped") == 1
    assert "skipped: 1 file: in/IMG_1.DNG (raw)" in said.out


def test_faces_of_long_names_are_saved(run, tmp_path):
    name = "é" * 125 + ".png"
    write(tmp_path / name)
    assert run(name, "-o", "out", "--save-faces", "--compare")[0] == 0
    assert len(files(tmp_path / "out")) == 1 + 2 * len(FACES) + 1
    others = {shorten_name("é" * 300 + end, "_00_before.png") for end in "ab"}
    assert len(others) == 2
    assert {len(os.fsencode(other)) <= 255 for other in others} == {True}


def test_faces_below_min_face_are_reported(run, tmp_path):
    source = write(tmp_path / "a.png")
    status, said = run("a.png", "-o", "out", "--min-face", 500)
    assert status == 0
    assert "2 faces left unchanged, smaller than 500 px (--min-face): a.png" in said.out
    assert (tmp_path / "out/a.png").read_bytes() == source.read_bytes()


def test_sigterm_ends_as_ctrl_c_does(tmp_path, weights):
    for seed in range(8):
        write(tmp_path / f"in/{seed:02d}.png", seed)
    words = ["in", "-o", "out", "--batch", "1", "--report", "report.json", "--mask", "soft", "--device", "cpu"]
    begun, writes = os.pipe()

    def restore_slowly() -> int:
        os.chdir(tmp_path)
        restorer.open_detector = lambda *arguments, **options: Detector(*FACES)
        whole_file = outputs.whole_file

        def slow(path):
            os.write(writes, b"1")
            time.sleep(0.3)
            return whole_file(path)

        outputs.whole_file = slow
        with open("printed.txt", "w", buffering=1) as sys.stderr:
            return main([*words, "--model", str(weights)])

    child = fork(restore_slowly, tmp_path / "error.txt")
    os.close(writes)
    assert [os.read(begun, 1) for _ in range(3)] == [b"1"] * 3
    os.kill(child, signal.SIGTERM)
    assert wait(child) == 128 + signal.SIGTERM
    os.close(begun)
    assert "stopped; all written files are complete" in (tmp_path / "printed.txt").read_text()
    written = files(tmp_path / "out")
    assert 2 <= len(written) < 8
    assert not [name for name in written if name.endswith(".part")]
    assert all(cv2.imread(str(tmp_path / "out" / name)).shape == (240, 320, 3) for name in written)
    jobs = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert len(jobs) in (len(written), len(written) - 1)  # the signal may come between a file and its report


def test_results_are_counted_not_kept(run, tmp_path, monkeypatch):
    for seed in range(3):
        write(tmp_path / f"in/{seed}.png", seed)
    alive = []
    whole = batch.FaceReport.of

    def of(face, page=None):
        alive.append(weakref.ref(face.crop))
        return whole(face, page)

    monkeypatch.setattr(batch.FaceReport, "of", of)
    assert run("in", "-o", "out", "--batch", 1, "--report", "report.json")[0] == 0
    gc.collect()
    assert len(alive) == 3 * len(FACES)
    assert [crop() for crop in alive] == [None] * len(alive)


def test_every_page_is_restored(run, tmp_path):
    write_tiff(tmp_path / "a.tif")
    status, said = run("a.tif", "-o", "out", "--save-faces", "--compare", "--report", "report.json")
    assert status == 0
    assert "1 of 1 input written, 6 faces" in said.out
    written = list(read_pages(tmp_path / "out/a.tif"))
    assert len(written) == 3
    for page, before in zip(written, PAGES, strict=True):
        assert (page.pixels != before).any()
        assert (page.pixels[0] == before[0]).all()  # no face is there
    assert "faces/a.tif_p3_01_after.png" in files(tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out/compare/a.tif_p2.png")).shape == (240, 644, 3)
    assert '"page": 3' in (tmp_path / "report.json").read_text()


def test_pages_without_a_face_are_copied_with_their_file(run, tmp_path):
    path = write_tiff(tmp_path / "a.tif", kinds=(1, 0, 0))
    status, said = run("a.tif", "-o", "out", detector=Detector())
    assert status == 3
    assert (tmp_path / "out/a.tif").read_bytes() == path.read_bytes()
    assert "left out" not in said.err


def test_pages_need_a_tiff_target(run, tmp_path):
    write(tmp_path / "in/b.png")
    write_tiff(tmp_path / "in/a.tif")
    status, said = run("in", "-o", "out", "--suffix", "jpg")
    assert status == 1
    assert "in/a.tif: holds several pages, and a .jpg file holds one; expected a .tif file" in said.err
    assert files(tmp_path / "out") == ["b.jpg"]


def test_unreadable_page_fails_its_file(run, tmp_path):
    whole = write_tiff(tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start = file.pages[2].dataoffsets[0]
    (tmp_path / "a.tif").write_bytes(whole[: start + 1000] if start > len(whole) // 2 else whole[:-1000])
    status, said = run("a.tif", "-o", "out")
    assert status == 1
    assert "failed: a.tif: cannot be" in said.err
    assert not (tmp_path / "out").exists()
