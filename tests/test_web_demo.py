import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from restorer_parts import Detector, Network, face_at, photograph

from gpen_plugin.errors import DataError
from gpen_plugin.restore import Restorer
from gpen_plugin.restore.photograph import Photograph, read_photograph, write_photograph
from gpen_plugin.web_demo import SHOWN, TILE, Page, before_and_after, main, shown

FACES = [face_at(90, 110, 100), face_at(230, 120, 70, score=0.7)]


@pytest.fixture
def page(tmp_path):
    restorer = Restorer(Network(lambda face: face + 0.2), device="cpu", mask="soft")
    restorer._detector = Detector(*FACES)
    return Page(restorer, tmp_path / "downloads")


@pytest.fixture
def visit(page, tmp_path):
    (tmp_path / "downloads").mkdir()
    write_photograph(tmp_path / "uncle.png", Photograph.of(photograph()))
    return page.put_in(str(tmp_path / "uncle.png"))


def test_only_picked_faces_change(page, visit):
    before = photograph().astype(int)
    first = page.blended(visit, [1], 1).picture - before
    assert first[105:115, 85:95].mean() > 40
    assert (first[115:125, 225:235] == 0).all()
    assert (page.blended(visit, [], 1).picture == before).all()
    half = page.blended(visit, [1, 2], 0.5).picture - before
    assert half[105:115, 85:95].mean() == pytest.approx(first[105:115, 85:95].mean() / 2, abs=1)


def test_the_file_to_download_has_all_pixels(page, visit):
    result = page.blended(visit, [1, 2], 1)
    path = page.file(visit, result)
    assert path.endswith("uncle_restored.png")
    assert (read_photograph(path).pixels == result.picture).all()


def test_a_visit_keeps_one_file_until_it_is_over(page, visit, tmp_path):
    other = page.put_in(str(tmp_path / "uncle.png"))
    for picked in ([], [1], [1, 2]):
        for each in (visit, other):
            page.file(each, page.blended(each, picked, 1))
    assert len(list((tmp_path / "downloads").rglob("*.png"))) == 2
    page.forget(visit)
    page.forget(None)
    (left,) = (tmp_path / "downloads").rglob("*.png")
    assert left.parent == other.folder


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


def test_what_is_not_a_picture(page, tmp_path):
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(DataError, match=r"text\.png"):
        page.put_in(str(tmp_path / "text.png"))


def test_pictures_are_shown_as_rgb_and_no_larger_than_needed(visit):
    picture = photograph()
    assert (shown(picture) == picture[..., ::-1]).all()
    assert shown(np.zeros((SHOWN // 4, SHOWN * 2, 3), np.uint16)).shape == (SHOWN // 8, SHOWN, 3)
    assert before_and_after(visit.faces[0]).shape == (TILE, 2 * TILE, 3)


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["--model", "missing.pth"]) == 1
    assert 'pip install "gpen_plugin[web]"' in capsys.readouterr().err
