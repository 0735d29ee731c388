import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from helpers.restorer_parts import Detector, Network, face_at, photograph
from PIL import Image

from gpen_plugin.cli import web
from gpen_plugin.cli.web import MAX_PREVIEW_SIDE, Page, comparison, gallery, main, preview, summary
from gpen_plugin.errors import DataError
from gpen_plugin.images.photograph import Photograph, read_photograph, write_photograph
from gpen_plugin.restore.restorer import Restorer

FACES = [face_at(230, 120, 70, score=0.9), face_at(90, 110, 100, score=0.7)]  # the more certain one is on the right


@pytest.fixture
def page(tmp_path):
    (tmp_path / "downloads").mkdir()
    restorer = Restorer(Network(lambda face: face + 0.2), device="cpu", mask="soft")
    restorer._detector = Detector(*FACES)
    return Page(restorer, tmp_path / "downloads")


@pytest.fixture
def upload(page, tmp_path):
    write_photograph(tmp_path / "uncle.png", Photograph.of(photograph()))
    return page.restore(str(tmp_path / "uncle.png"))


def test_only_picked_faces_change(page, upload):
    before = photograph().astype(int)
    first = page.blend(upload, [1], 1).image - before
    assert first[105:115, 85:95].mean() > 40
    assert (first[115:125, 225:235] == 0).all()
    assert (page.blend(upload, [], 1).image == before).all()
    half = page.blend(upload, [1, 2], 0.5).image - before
    assert half[105:115, 85:95].mean() == pytest.approx(first[105:115, 85:95].mean() / 2, abs=1)


def test_faces_are_numbered_from_left_to_right(page, upload):
    assert [face.detected.score for face in upload.faces] == [0.7, 0.9]
    html = comparison(upload, page.blend(upload, [1, 2], 1))
    positions = [float(part.partition("%")[0]) for part in html.split("left: clamp(1em, ")[1:]]
    assert positions == [pytest.approx(100 * x / photograph().shape[1], abs=0.1) for x in (90, 230)]
    assert html.index(">1</b>") < html.index(">2</b>")


def test_download_has_full_size(page, upload):
    result = page.blend(upload, [1, 2], 1)
    path, notes = page.save(upload, result)
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
def test_download_has_the_format_of_the_upload(page, tmp_path, name, kind, written):
    Image.fromarray(photograph()[..., ::-1]).save(tmp_path / name, kind)
    upload = page.restore(str(tmp_path / name))
    path, _ = page.save(upload, page.blend(upload, [1, 2], 1))
    assert path.endswith(f"/a_restored{written}")
    assert Image.open(path).format == (kind if written != ".png" else "PNG")
    assert read_photograph(path).pixels[105:115, 85:95].mean() > photograph()[105:115, 85:95].mean() + 40


@pytest.mark.parametrize(("picked", "alpha"), [([], 1), ([1, 2], 0)])
def test_unchanged_photograph_is_downloaded_as_a_copy(page, tmp_path, picked, alpha):
    Image.fromarray(photograph()[..., ::-1]).save(tmp_path / "a.jpg", quality=60)
    upload = page.restore(str(tmp_path / "a.jpg"))
    path, _ = page.save(upload, page.blend(upload, picked, alpha))
    assert path.endswith("/a_restored.jpg")
    with open(path, "rb") as file:
        assert file.read() == (tmp_path / "a.jpg").read_bytes()


def test_upload_keeps_one_result_until_it_is_deleted(page, upload, tmp_path):
    other = page.restore(str(tmp_path / "uncle.png"))
    paths = [page.save(each, page.blend(each, [], 1))[0] for _ in range(3) for each in (upload, other)]
    assert len(set(paths)) == 6, "a browser may cache by address"
    assert len(list((tmp_path / "downloads").rglob("*.png"))) == 2
    page.delete(upload)
    page.delete(None)
    (left,) = (tmp_path / "downloads").rglob("*.png")
    assert other.folder in left.parents


def test_restorer_serves_one_visitor_at_a_time(page, upload, tmp_path, monkeypatch):
    """Detectors and masks are not thread-safe."""
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
        done = [visitors.submit(page.restore, str(tmp_path / "uncle.png")) for _ in range(3)]
        done += [visitors.submit(page.blend, upload, [1], 1) for _ in range(3)]
        assert all(each.result() for each in done)
    assert len(most) >= 6
    assert max(most) <= 2  # `restore` itself pastes back


def test_text_file_is_refused(page, tmp_path):
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(DataError, match=r"text\.png"):
        page.restore(str(tmp_path / "text.png"))


def test_skipped_face_is_reported_and_can_be_restored(page, upload):
    page._restorer.max_face = 100
    upload = replace(upload, faces=page._restorer.restore(upload.photograph).faces[::-1])
    assert [bool(face.skip_reason) for face in upload.faces] == [True, False]
    text = summary(upload)
    assert "2 faces found." in text
    assert f"Face 1 was left as it is ({upload.faces[0].skip_reason}). Tick it to restore it anyway." in text.replace(
        "&#x27;", "'"
    )
    assert "1: left as it is<" in gallery(upload.faces)
    assert 'class="alone"' in comparison(upload, page.blend(upload, [2], 1))
    changed = page.blend(upload, [1], 1).image - photograph().astype(int)
    assert changed[105:115, 85:95].mean() > 40


def test_notes_of_the_decoder_are_reported(page, tmp_path):
    frames = [Image.fromarray(photograph()[..., ::-1]), Image.new("RGB", photograph().shape[1::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "Note: first of 2 frames, the others are left out." in summary(page.restore(str(tmp_path / "a.gif")))
    frames[0].convert("CMYK").save(tmp_path / "a.jpg")
    assert "Note: CMYK converted to sRGB." in summary(page.restore(str(tmp_path / "a.jpg")))


def test_no_face_is_reported(page, upload):
    assert "No face was found. The photograph is unchanged." in summary(replace(upload, faces=[]))


def test_notes_are_escaped(upload):
    noted = replace(upload.photograph, notes=("<script>",))
    assert "&lt;script&gt;" in summary(replace(upload, photograph=noted))


def test_preview_is_reduced():
    image = photograph()
    assert (preview(image) == image).all()
    assert preview(np.zeros((MAX_PREVIEW_SIDE // 4, MAX_PREVIEW_SIDE * 2, 3), np.uint16)).shape == (
        MAX_PREVIEW_SIDE // 8,
        MAX_PREVIEW_SIDE,
        3,
    )


def test_images_are_data_urls_with_alternative_texts(page, upload):
    for part in (comparison(upload, page.blend(upload, [1, 2], 1)), gallery(upload.faces)):
        images = part.split("<img ")[1:]
        assert len(images) == (2 if "stage" in part else 4)
        assert all(' alt="' in image and ' alt=""' not in image for image in images)
        assert all('src="data:image/jpeg;base64,' in image for image in images)


def test_missing_gradio_names_the_extra(monkeypatch, capsys):
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
def test_invalid_arguments_are_refused(monkeypatch, capsys, arguments, password, words):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.delenv(web.PASSWORD, raising=False)
    if password:
        monkeypatch.setenv(web.PASSWORD, password)
    assert main(arguments) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("words", "expected"), [([], None), (["keep"], True), (["restore"], False)])
def test_sharp_faces_is_passed_on(monkeypatch, words, expected):
    class Stop(Exception):
        pass

    def opened(*_, skip_sharp, **__):
        assert skip_sharp is expected
        raise Stop("opened")

    monkeypatch.setattr("gpen_plugin.restore.restorer.Restorer", opened)
    monkeypatch.setattr(web, "_gradio", lambda: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which `main` sets
    with pytest.raises(Stop, match="opened"):
        web.main(["--sharp-faces", *words] if words else [])
