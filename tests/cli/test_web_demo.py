import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from helpers.restorer_parts import Detector, Network, face_at, photograph
from PIL import Image

from gpen_plugin.cli import web_demo
from gpen_plugin.cli.web_demo import SHOWN, Page, comparison, gallery, main, shown, summary
from gpen_plugin.errors import DataError
from gpen_plugin.images.photograph import Photograph, read_photograph, write_photograph
from gpen_plugin.restore import Restorer

FACES = [face_at(230, 120, 70, score=0.9), face_at(90, 110, 100, score=0.7)]  # the most certain is the right one


@pytest.fixture
def page(tmp_path):
    (tmp_path / "downloads").mkdir()
    restorer = Restorer(Network(lambda face: face + 0.2), device="cpu", mask="soft")
    restorer._detector = Detector(*FACES)
    return Page(restorer, tmp_path / "downloads")


@pytest.fixture
def visit(page, tmp_path):
    write_photograph(tmp_path / "uncle.png", Photograph.of(photograph()))
    return page.put_in(str(tmp_path / "uncle.png"))


def test_only_picked_faces_change(page, visit):
    before = photograph().astype(int)
    first = page.blended(visit, [1], 1).image - before
    assert first[105:115, 85:95].mean() > 40
    assert (first[115:125, 225:235] == 0).all()
    assert (page.blended(visit, [], 1).image == before).all()
    half = page.blended(visit, [1, 2], 0.5).image - before
    assert half[105:115, 85:95].mean() == pytest.approx(first[105:115, 85:95].mean() / 2, abs=1)


def test_faces_are_numbered_from_left_to_right(page, visit):
    assert [face.detected.score for face in visit.faces] == [0.7, 0.9]
    shown = comparison(visit, page.blended(visit, [1, 2], 1))
    places = [float(part.partition("%")[0]) for part in shown.split("left: clamp(1em, ")[1:]]
    assert places == [pytest.approx(100 * x / photograph().shape[1], abs=0.1) for x in (90, 230)]
    assert shown.index(">1</b>") < shown.index(">2</b>")


def test_the_file_to_download_has_all_pixels(page, visit):
    result = page.blended(visit, [1, 2], 1)
    path, notes = page.file(visit, result)
    assert path.endswith("/uncle_restored.png")
    assert notes == ()
    assert (read_photograph(path).pixels == result.image).all()


@pytest.mark.parametrize(
    ("name", "kind", "written"),
    [
        ("a.jpg", "JPEG", ".jpg"),
        ("a.JPEG", "JPEG", ".JPEG"),
        ("a.webp", "WEBP", ".webp"),
        ("a.tif", "TIFF", ".tif"),
        ("a.bmp", "BMP", ".bmp"),
        ("a.gif", "GIF", ".png"),
        ("a", "PNG", ".png"),
    ],
)
def test_the_download_has_the_format_that_came(page, tmp_path, name, kind, written):
    Image.fromarray(photograph()[..., ::-1]).save(tmp_path / name, kind)
    visit = page.put_in(str(tmp_path / name))
    path, _ = page.file(visit, page.blended(visit, [1, 2], 1))
    assert path.endswith(f"/a_restored{written}")
    assert Image.open(path).format == (kind if written != ".png" else "PNG")
    assert read_photograph(path).pixels[105:115, 85:95].mean() > photograph()[105:115, 85:95].mean() + 40


@pytest.mark.parametrize(("picked", "alpha"), [([], 1), ([1, 2], 0)])
def test_a_photograph_in_which_nothing_changed_is_a_copy_of_the_file(page, tmp_path, picked, alpha):
    Image.fromarray(photograph()[..., ::-1]).save(tmp_path / "a.jpg", quality=60)
    visit = page.put_in(str(tmp_path / "a.jpg"))
    path, _ = page.file(visit, page.blended(visit, picked, alpha))
    assert path.endswith("/a_restored.jpg")
    with open(path, "rb") as file:
        assert file.read() == (tmp_path / "a.jpg").read_bytes()


def test_a_visit_keeps_one_file_until_it_is_over(page, visit, tmp_path):
    other = page.put_in(str(tmp_path / "uncle.png"))
    paths = [page.file(each, page.blended(each, [], 1))[0] for _ in range(3) for each in (visit, other)]
    assert len(set(paths)) == 6, "a browser may keep what it found under an address"
    assert len(list((tmp_path / "downloads").rglob("*.png"))) == 2
    page.forget(visit)
    page.forget(None)
    (left,) = (tmp_path / "downloads").rglob("*.png")
    assert other.folder in left.parents


def test_visitors_take_turns(page, visit, tmp_path, monkeypatch):
    """Detectors and masks keep what they are at in themselves."""
    inside = []

    def alone(restore):
        def turn(*arguments, **options):
            inside.append(1)
            time.sleep(0.02)
            most.append(len(inside))
            inside.pop()
            return restore(*arguments, **options)

        return turn

    most = []
    monkeypatch.setattr(page._restorer, "restore", alone(page._restorer.restore))
    monkeypatch.setattr(page._restorer, "paste_back", alone(page._restorer.paste_back))
    with ThreadPoolExecutor(6) as visitors:
        done = [visitors.submit(page.put_in, str(tmp_path / "uncle.png")) for _ in range(3)]
        done += [visitors.submit(page.blended, visit, [1], 1) for _ in range(3)]
        assert all(each.result() for each in done)
    assert len(most) >= 6
    assert max(most) <= 2  # `restore` itself pastes back


def test_what_is_not_a_image(page, tmp_path):
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(DataError, match=r"text\.png"):
        page.put_in(str(tmp_path / "text.png"))


def test_a_face_that_was_left_alone_is_reported_and_can_be_restored(page, visit):
    page._restorer.max_face = 100
    visit = replace(visit, faces=page._restorer.restore(visit.photograph).faces[::-1])
    assert [bool(face.kept) for face in visit.faces] == [True, False]
    said = summary(visit)
    assert "2 faces found." in said
    assert f"Face 1 was left as it is ({visit.faces[0].kept}). Tick it to restore it anyway." in said.replace(
        "&#x27;", "'"
    )
    assert "1: left as it is<" in gallery(visit.faces)
    assert 'class="alone"' in comparison(visit, page.blended(visit, [2], 1))
    changed = page.blended(visit, [1], 1).image - photograph().astype(int)
    assert changed[105:115, 85:95].mean() > 40


def test_what_reading_changed_is_reported(page, tmp_path):
    frames = [Image.fromarray(photograph()[..., ::-1]), Image.new("RGB", photograph().shape[1::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "Note: first of 2 frames, the others are left out." in summary(page.put_in(str(tmp_path / "a.gif")))
    frames[0].convert("CMYK").save(tmp_path / "a.jpg")
    assert "Note: CMYK converted to sRGB." in summary(page.put_in(str(tmp_path / "a.jpg")))


def test_no_face_is_reported(page, visit):
    assert "No face was found. The photograph is unchanged." in summary(replace(visit, faces=[]))


def test_names_and_notes_cannot_add_to_the_page(visit):
    noted = replace(visit.photograph, notes=("<script>",))
    assert "&lt;script&gt;" in summary(replace(visit, photograph=noted))


def test_images_are_shown_no_larger_than_needed():
    image = photograph()
    assert (shown(image) == image).all()
    assert shown(np.zeros((SHOWN // 4, SHOWN * 2, 3), np.uint16)).shape == (SHOWN // 8, SHOWN, 3)


def test_all_images_have_alternative_texts_and_lie_in_the_page(page, visit):
    for part in (comparison(visit, page.blended(visit, [1, 2], 1)), gallery(visit.faces)):
        images = part.split("<img ")[1:]
        assert len(images) == (2 if "stage" in part else 4)
        assert all(' alt="' in image and ' alt=""' not in image for image in images)
        assert all('src="data:image/jpeg;base64,' in image for image in images)


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["--model", "missing.pth"]) == 1
    assert 'pip install "gpen_plugin[web]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "password", "words"),
    [
        (["--max-upload", "0"], None, "--max-upload: got 0"),
        (["--login", "ann"], None, "--login: got 'ann' without a password"),
        (["--login", ""], "secret", "--login: got ''"),
    ],
)
def test_wrong_arguments(monkeypatch, capsys, arguments, password, words):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.delenv(web_demo.PASSWORD, raising=False)
    if password:
        monkeypatch.setenv(web_demo.PASSWORD, password)
    assert main(arguments) == 1
    assert words in capsys.readouterr().err
