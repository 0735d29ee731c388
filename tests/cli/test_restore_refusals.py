"""What `gpen-restore` refuses before it does anything."""

import pytest
from helpers.restore_command import write


@pytest.mark.parametrize(("option", "folder"), [("--save-faces", "faces"), ("--compare", "compare")])
def test_results_do_not_collide_with_saved_faces(run, tmp_path, option, folder):
    write(tmp_path / f"in/{folder}/a.png")
    status, said = run("in", "-o", "out", option)
    assert status == 1
    assert f"{option}: would write to out/{folder}, like the result of in/{folder}/a.png" in said.err
    assert run("in", "-o", "out")[0] == 0


def test_the_originals_are_spared(run, tmp_path):
    path = write(tmp_path / "in/a.png")
    before = path.read_bytes()
    status, said = run("in", "-o", "in")
    assert status == 1
    assert "--output" in said.err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.png", "-o", "out"], "missing.png"),
        (["a.png", "-o", "out", "--alpha", "2"], "alpha: got 2.0; expected a number from 0 to 1"),
        (["a.png", "-o", "out", "--template", "fhq"], "ffhq"),
        (["a.png", "-o", "out", "--task", "seg2face"], "error: task seg2face: got whole photographs"),
        (["a.png", "-o", "out", "--report", "a.png"], "--report: got a.png; expected a name that ends in .json"),
        (["a.png", "-o", "out", "--variants", "-1"], "--variants: got -1; expected a number from 0"),
        (["a.png", "-o", "out", "--layers", "x"], None),
    ],
)
def test_mistakes_on_the_command_line(run, tmp_path, words, said):
    write(tmp_path / "a.png")
    if said is None:
        with pytest.raises(SystemExit, match=r"^2$"):
            run(*words)
    else:
        status, output = run(*words)
        assert status == 1
        assert said in output.err
        assert "Traceback" not in output.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--aligned"], ["--save-faces"], ["--variants", 2]])
def test_options_for_photographs_only(run, tmp_path, option):
    (tmp_path / "film.mp4").write_bytes(b"")
    status, said = run("film.mp4", "-o", "out", *option)
    assert status == 1
    assert f"{option[0]}: got it for the video film.mp4" in said.err


@pytest.mark.parametrize("option", [["--variant-layers", "fine"], ["--variant-strength", "1"]])
def test_how_variants_differ_without_variants(run, tmp_path, option):
    write(tmp_path / "a.png")
    status, said = run("a.png", "-o", "out", *option)
    assert status == 1
    assert f"{option[0]}: got it without --variants" in said.err


@pytest.mark.parametrize("option", [["--upscale", "2"], ["--only", "largest"]])
def test_options_for_whole_photographs_only(run, tmp_path, option):
    write(tmp_path / "a.png")
    status, said = run("a.png", "-o", "out", "--aligned", *option)
    assert status == 1
    assert f"{option[0]}: got it with --aligned" in said.err


def test_wrong_choice_of_faces(run, tmp_path):
    write(tmp_path / "a.png")
    status, said = run("a.png", "-o", "out", "--only", "smallest")
    assert status == 1
    assert "only: got 'smallest'; expected largest, numbers" in said.err
