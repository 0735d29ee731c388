import errno
import os
from pathlib import Path

import pytest

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.restore import inputs
from gpen_plugin.restore.inputs import Job, expand


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A folder to stand in, with inputs in it."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "in/b.JPG",
        "in/a.png",
        "in/notes.txt",
        "in/.hidden.png",
        "in/.thumbs/c.png",
        "in/__MACOSX/a.png",
        "in/deep/er/d.tiff",
        "in/deep/c.heic",
        "in/deep/film.MOV",
        "in/film.avi",
        "other/a.png",
        "empty/notes.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def jobs_of(*arguments, **options) -> list[Job]:
    return expand(*arguments, **options).jobs


def pairs(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(job.source.as_posix(), job.target.as_posix()) for job in jobs]


def test_targets_mirror_the_folder_tree(tree):
    jobs = jobs_of(["in"], "out")
    assert pairs(jobs) == [
        ("in/a.png", "out/a.png"),
        ("in/b.JPG", "out/b.JPG"),
        ("in/deep/c.heic", "out/deep/c.heic.png"),
        ("in/deep/er/d.tiff", "out/deep/er/d.tiff"),
        ("in/deep/film.MOV", "out/deep/film.MOV"),
        ("in/film.avi", "out/film.avi.mp4"),
    ]
    assert [job.kind for job in jobs] == ["image"] * 4 + ["video"] * 2
    assert not (tree / "out").exists()


@pytest.mark.parametrize("name", ["clip.mts", "clip.M2TS", "clip.ts", "VTS_01_1.VOB", "tape.dv", "film.m2v", "a.3g2"])
def test_videos_of_camcorders_discs_and_phones_are_found(tree, name):
    (tree / "in" / name).write_text(name)
    job = next(job for job in jobs_of(["in"], "out") if job.source.name == name)
    assert (job.kind, job.target.suffix) == ("video", ".mp4")


def test_recursive_false_skips_subfolders(tree):
    found = [source for source, _ in pairs(jobs_of(["in"], "out", recursive=False))]
    assert found == ["in/a.png", "in/b.JPG", "in/film.avi"]


@pytest.mark.parametrize("suffix", ["webp", ".WEBP"])
def test_a_suffix_for_all_images(tree, suffix):
    targets = [target for _, target in pairs(jobs_of(["in"], "out", suffix))]
    assert targets[:4] == ["out/a.webp", "out/b.webp", "out/deep/c.webp", "out/deep/er/d.webp"]
    assert targets[4:] == ["out/deep/film.MOV", "out/film.avi.mp4"]


def test_files_are_listed_once_by_name(tree):
    jobs = jobs_of(["in/deep/er/d.tiff", "in/deep/../a.png", str(tree / "in/a.png"), "in/notes.txt"], "out")
    assert pairs(jobs) == [
        ("in/deep/er/d.tiff", "out/d.tiff"),
        ("in/deep/../a.png", "out/a.png"),
        ("in/notes.txt", "out/notes.txt.png"),
    ]


def test_file_and_its_folder_give_one_job(tree):
    assert len(jobs_of(["in/a.png", "in", "in/*"], "out")) == 6


def test_two_links_to_one_image_are_two_images(tree):
    os.link("in/a.png", "in/hard.png")
    (tree / "in/soft.png").symlink_to(tree / "in/a.png")
    targets = [target for _, target in pairs(jobs_of(["in"], "out", recursive=False))]
    assert targets == ["out/a.png", "out/b.JPG", "out/film.avi.mp4", "out/hard.png", "out/soft.png"]


def test_folders_that_lead_in_a_circle_are_searched_once(tree):
    (tree / "in/deep/again").symlink_to(tree / "in")
    (tree / "in/other").symlink_to(tree / "other")
    found = [source for source, _ in pairs(jobs_of(["in"], "out"))]
    assert len(found) == 7
    assert "in/other/a.png" in found


def test_patterns_are_expanded(tree):
    assert pairs(jobs_of(["in/*.png", "in/**/*.tiff"], "out")) == [
        ("in/a.png", "out/a.png"),
        ("in/deep/er/d.tiff", "out/deep/er/d.tiff"),
    ]
    assert pairs(jobs_of([str(tree / "in/d*p/er/*")], "out")) == [
        (f"{tree}/in/deep/er/d.tiff", "out/deep/er/d.tiff"),
    ]
    assert [source for source, _ in pairs(jobs_of(["in/*"], "out"))] == [
        "in/a.png",
        "in/b.JPG",
        "in/deep/c.heic",
        "in/deep/er/d.tiff",
        "in/deep/film.MOV",
        "in/film.avi",
    ]


def test_a_name_with_brackets_wins_over_the_pattern(tree):
    for name in ("a[1].png", "a1.png"):
        (tree / "in" / name).write_text(name)
    assert pairs(jobs_of(["in/a[1].png"], "out")) == [("in/a[1].png", "out/a[1].png")]
    (tree / "in/a[1].png").unlink()
    assert pairs(jobs_of(["in/a[1].png"], "out")) == [("in/a1.png", "out/a1.png")]


def test_home_is_found(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    jobs = jobs_of(["~/in/a.png"], "~/out")
    assert jobs == [Job(tree / "in/a.png", "image", tree / "out/a.png")]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere.png", "in"], r"nowhere\.png: is not there; expected an image, a video, a folder"),
        (["in/*.bmp"], r"in/\*\.bmp: matches no image and no video"),
        (["in/*.txt"], r"in/\*\.txt: matches no image and no video"),
        (["empty"], r"empty: holds no image and no video"),
        ([], "INPUT: is missing"),
        (["x.png", "y.png"], r"2 problems:\n  - x\.png: is not there.*\n  - y\.png: is not there"),
    ],
)
def test_an_input_without_a_image_is_named(tree, inputs, message):
    with pytest.raises(DataError, match=message):
        expand(inputs, "out")


def test_one_file_may_be_given_a_name(tree):
    assert pairs(jobs_of(["in/a.png"], "new/best.jpg")) == [("in/a.png", "new/best.jpg")]
    assert pairs(jobs_of(["in/a.png"], "in/best.png", "png")) == [("in/a.png", "in/best.png")]
    assert pairs(jobs_of(["in/film.avi"], "best.mkv", "png")) == [("in/film.avi", "best.mkv")]
    assert pairs(jobs_of(["in/b.*"], "best.jpg")) == [("in/b.JPG", "best.jpg")]


def test_a_folder_may_be_called_like_a_file(tree):
    (tree / "album.png").mkdir()
    assert pairs(jobs_of(["in/a.png"], "album.png")) == [("in/a.png", "album.png/a.png")]


@pytest.mark.parametrize(
    ("inputs", "output", "suffix", "message"),
    [
        (["in"], "best.png", None, r"--output: got the file name best\.png .*; expected a folder"),
        (
            ["in/a.png", "in/b.JPG"],
            "best.png",
            None,
            r"the file name best\.png for a folder or several inputs \(2 files\)",
        ),
        (["other"], "best.png", None, r"best\.png for a folder or several inputs \(1 files\)"),
        (["in/a.png"], "best.gif", None, r"--output: got \.gif for an image; expected one of \.png, \.jpg"),
        (["in/a.png"], "best.mp4", None, r"--output: got \.mp4 for an image"),
        (["in/film.avi"], "best.png", None, r"--output: got \.png for a video; expected one of \.mp4"),
        (["in/film.avi"], "best.avi", None, r"--output: got \.avi for a video; expected one of \.mp4"),
        (["in/a.png"], "best.png", "jpg", r"--suffix: got \.jpg, but best\.png for the output"),
        (["in"], "out", "gif", r"--suffix: got \.gif for an image"),
        (["in"], "in/notes.txt", None, r"--output: got in/notes\.txt, which is a file"),
    ],
)
def test_outputs_that_do_not_fit(tree, inputs, output, suffix, message):
    with pytest.raises(OptionError, match=message):
        expand(inputs, output, suffix)


def test_names_do_not_depend_on_other_inputs(tree):
    for name in ("in/a.heic", "in/a.jpg", "in/film.mpg"):
        (tree / name).write_text(name)
    targets = dict(pairs(jobs_of(["in/*.*", "in"], "out")))
    assert len(set(targets.values())) == len(targets)
    for source, target in targets.items():
        assert pairs(jobs_of([source], "out")) == [(source, f"out/{Path(target).name}")]


@pytest.mark.parametrize(
    ("inputs", "suffix", "message"),
    [
        (["in/a.png", "other/a.png"], None, r"out/a\.png would be the result of in/a\.png and of other/a\.png; .*"),
        (["in", "other"], None, r"out/a\.png would be the result of in/a\.png and of other/a\.png; .*common folder"),
        (["in/a.jpg", "in/a.png"], "png", r"out/a\.png would be .* leave --suffix out"),
        (["in", "in/deep"], None, r"in/deep/c\.heic would become deep/c\.heic and c\.heic; .* each file in one input"),
    ],
)
def test_results_of_one_name_are_an_error(tree, inputs, suffix, message):
    (tree / "in/a.jpg").write_text("a")
    with pytest.raises(OptionError, match=message):
        expand(inputs, "out", suffix)


def test_names_that_differ_in_case_need_a_file_system_that_tells_them_apart(tree, monkeypatch):
    names = ["in/a.png", "other/A.PNG", "in/\u00e9.png", "other/e\u0301.png"]
    for name in names:
        (tree / name).write_text(name)
    assert [target for _, target in pairs(jobs_of(names, "out"))] == [f"out/{Path(name).name}" for name in names]
    monkeypatch.setattr(inputs, "_ignores_case", lambda path: True)
    with pytest.raises(
        OptionError, match=r"result of in/a\.png and of other/A\.PNG; .* of in/\u00e9\.png and of other/e"
    ):
        expand(names, "out")


def test_skipped_files_are_listed(tree):
    for name in ("in/IMG_1.DNG", "in/scan", "in/deep/page.pdf"):
        (tree / name).write_text(name)
    (tree / "in/old.jpe").write_text("an image")
    found = expand(["in"], "out")
    assert "in/old.jpe" in [job.source.as_posix() for job in found.jobs]
    expected = ["in/IMG_1.DNG (raw)", "in/deep/page.pdf (pdf)", "in/notes.txt (txt)", "in/scan (no suffix)"]
    assert found.skipped_files == expected
    assert expand(["in/*"], "out").skipped_files == expected
    assert expand(["in/*.png"], "out").skipped_files == []
    with pytest.raises(DataError, match=r"empty: holds no image and no video \(1 other file\)"):
        expand(["empty"], "out")


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch):
    scan = os.scandir

    def locked(path):  # permissions do not stop root
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    found = expand(["in"], "out")
    assert len(found.jobs) == 3
    ((folder, error),) = found.unreadable
    assert folder == Path("in/deep")
    assert "in/deep: is a folder that cannot be read (Permission denied)" in str(error)
    with pytest.raises(DataError, match=r"in/deep: is a folder that cannot be read"):
        expand(["in/deep"], "out")


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("in", "in"),
        ("in", "in/deep/.."),
        ("in", "link"),
        ("link", "in"),
        ("in/deep", "in"),
        ("in/a.png", "in"),
        ("in/b.JPG", "in"),
        ("links", "in"),
        ("links", "links"),
        ("links/a.png", "in"),
        ("in/*.png", "in"),
        ("in/a.png", "in/a.png"),
        ("in/a.png", "link/a.png"),
        ("in/a.png", "links/a.png"),
        ("links/a.png", "in/a.png"),
        ("in/a.png", "hard/a.png"),
        ("in/a.png", "hard"),
    ],
)
@pytest.mark.parametrize("suffix", [None, "png"])
def test_originals_are_never_targets(tree, given, output, suffix):
    (tree / "link").symlink_to(tree / "in")
    for folder in ("links", "hard"):
        (tree / folder).mkdir()
    (tree / "links/a.png").symlink_to(tree / "in/a.png")
    os.link("in/a.png", "hard/a.png")
    (tree / "in/deep/deep").mkdir()
    (tree / "in/deep/deep/e.png").write_text("e")
    with pytest.raises(OptionError, match=r"--output: got .*Originals are never changed"):
        expand([given], output, suffix)


@pytest.mark.parametrize("given", ["in", "in/**", "in/*", "."])
def test_an_output_in_a_folder_that_is_searched_must_be_new(tree, given):
    assert ("in/a.png", "in/new/a.png") in pairs(jobs_of(["in"], "in/new"))
    with pytest.raises(
        OptionError, match=r"--output: got in/deep, but inputs are .*remove it if it contains earlier results"
    ):
        expand([given], "in/deep")
    (tree / "in/new/deep").mkdir(parents=True)
    (tree / "in/new/deep/x.png").write_text("an original, or a result")
    with pytest.raises(OptionError, match=r"--output: got in/new, but inputs are in a folder where results"):
        expand(["in"], "in/new")


def test_further_results_hit_no_input_and_no_other_result(tree):
    (tree / "in/a_1.png").write_text("named like a further result")
    with pytest.raises(OptionError, match=r"INPUT: out/a_1\.png would be the result of in/a\.png and of in/a_1\.png"):
        expand(["in"], "out", endings=["_1", "_2"])
    with pytest.raises(OptionError, match=r"in/a_1\.png, which is one of the inputs"):
        expand(["in/a_1.png"], "in/a.png", endings=["_1"])
    (job,) = jobs_of(["in/b.JPG"], "out", endings=["_1"])
    assert [path.as_posix() for path in job.written(["_1"])] == ["out/b.JPG", "out/b_1.JPG"]


def test_an_output_around_the_input_is_another_folder(tree):
    assert pairs(jobs_of(["in/a.png"], ".")) == [("in/a.png", "a.png")]
