"""The page of ``gpen-web`` in a real browser, by mouse and by keyboard."""

from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from helpers.accessibility import accessibility_problems
from helpers.restorer_parts import Detector, Network, face_at, photograph

from gpen_plugin.cli.web import APPEARANCE, Page, build
from gpen_plugin.restore.restorer import Restorer

pytest.importorskip("selenium")
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")  # slow to import

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

WINDOW = (1280, 900)
PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    restorer = Restorer(Network(lambda face: face + 0.2), device="cpu", mask="soft")
    restorer._detector = Detector(face_at(90, 110, 100), face_at(230, 120, 70, score=0.7))
    blocks = build(Page(restorer, folder))
    served = {"server_name": "127.0.0.1", "allowed_paths": [str(folder)], **APPEARANCE}
    blocks.launch(prevent_thread_lock=True, quiet=True, **served)
    yield blocks.local_url
    blocks.close()


class Visitor:
    """Operates the page."""

    def __init__(self, browser, address, folder):
        self.browser, self.folder, self.downloads = browser, folder, folder / "downloads"
        self.downloads.mkdir()
        found = {"behavior": "allow", "downloadPath": str(self.downloads)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", found)
        browser.get(address)
        self.wait(lambda: self.all("#source input[type=file]"))

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def wait(self, condition):
        return WebDriverWait(self.browser, PATIENCE).until(lambda _: condition())

    def press(self, *keys):
        ActionChains(self.browser).send_keys(*keys).perform()

    def upload(self, path):
        self.all("#source input[type=file]")[0].send_keys(str(path))

    def upload_photograph(self):
        """Upload the test photograph and wait for both restored faces."""
        cv2.imwrite(str(self.folder / "uncle.png"), photograph())
        self.upload(self.folder / "uncle.png")
        self.wait(lambda: "2 faces found" in self.status())
        self.wait(lambda: len(self.images()) == 2)

    def status(self):
        return "".join(each.text for each in self.all("#status"))

    def images(self):
        """Addresses of the two images that are compared, before and after."""
        return [each.get_attribute("src") for each in self.all("#compared .compare img")]

    def until_after_is(self, other):
        """Wait for another image than this."""
        return self.wait(lambda: len(self.images()) == 2 and self.images()[1] != other and self.images()[1])

    def download(self):
        """Download the result; return its difference from the photograph."""
        for old in self.downloads.iterdir():
            old.unlink()
        self.all("#download")[0].click()
        (path,) = self.wait(lambda: list(self.downloads.glob("uncle_restored*.png")))
        return cv2.imread(str(path)).astype(int) - photograph()


@pytest.fixture
def visitor(browser, address, tmp_path):
    return Visitor(browser, address, tmp_path)


LEFT, RIGHT = np.s_[105:115, 85:95], np.s_[115:125, 225:235]  # within the two faces


def test_photograph_is_restored_and_faces_are_picked(visitor):
    (status,) = visitor.wait(lambda: visitor.all("#status [role=status], #status[role=status]"))
    assert status.get_attribute("aria-live") == "polite"
    visitor.upload_photograph()
    assert "2 faces found" in status.text, "the element must not be replaced: the status is announced"
    before, after = visitor.images()
    assert before != after
    both = visitor.download()
    assert both[LEFT].mean() > 40
    assert both[RIGHT].mean() > 40
    boxes = visitor.wait(lambda: len(visitor.all("#picked input")) == 2 and visitor.all("#picked input"))
    boxes[0].click()
    visitor.until_after_is(after)
    second = visitor.download()
    assert (second[LEFT] == 0).all()
    assert second[RIGHT].mean() > 40
    assert [each.get_attribute("alt") for each in visitor.all("#faces img")] == [
        f"Face {number} {when}" for number in (1, 2) for when in ("before", "after")
    ]


def test_two_quick_clicks_both_count(visitor):
    visitor.upload_photograph()
    for box in visitor.wait(lambda: len(visitor.all("#picked input")) == 2 and visitor.all("#picked input")):
        box.click()  # the second one during the first blend
    assert (visitor.download() == 0).all()
    visitor.wait(lambda: len(set(visitor.images())) == 1)


def test_strength_by_typing_and_by_arrow_keys(visitor):
    visitor.upload_photograph()
    full, after = visitor.download(), visitor.images()[1]
    (field,) = visitor.all("#alpha input[type=number]")
    for strength, ends in ((0.2, [Keys.ENTER]), (0.4, [Keys.TAB]), (0.6, [])):
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(strength), *ends)
        after = visitor.until_after_is(after)
        assert visitor.download()[RIGHT].mean() == pytest.approx(full[RIGHT].mean() * strength, abs=1), ends
    (handle,) = visitor.all("#alpha input[type=range]")
    handle.send_keys(*[Keys.ARROW_LEFT] * 4)
    visitor.until_after_is(after)
    assert visitor.download()[RIGHT].mean() == pytest.approx(full[RIGHT].mean() * 0.4, abs=1)
    value = visitor.wait(lambda: visitor.all("#alpha input[type=number]")[0].get_attribute("value"))
    assert float(value) == 0.4


def test_numbers_and_slider_above_the_faces(visitor):
    """Numbers can be hidden. Tab focuses the slider, arrows move it, and a new result leaves it in place."""
    visitor.upload_photograph()
    frame = visitor.all("#compared .compare")[0].rect
    numbers = visitor.all("#compared b")
    assert [each.text for each in numbers] == ["1", "2"]
    for number, x in zip(numbers, (90, 230), strict=True):
        middle = number.rect["x"] + number.rect["width"] / 2 - frame["x"]
        assert middle / frame["width"] == pytest.approx(x / photograph().shape[1], abs=0.01)
    visitor.all("#compared .numbers")[0].click()
    assert not any(each.is_displayed() for each in numbers)
    after = visitor.images()[1]
    visitor.all("#download")[0].send_keys(Keys.TAB)
    focused = visitor.browser.switch_to.active_element
    assert "Boundary" in focused.get_attribute("aria-label")
    visitor.press(*[Keys.ARROW_RIGHT] * 5)
    clip = "return getComputedStyle(document.querySelector('.compare .after')).clipPath"
    assert visitor.browser.execute_script(clip) == "inset(0px 0px 0px 55%)"
    visitor.all("#picked input")[0].click()
    visitor.until_after_is(after)
    assert visitor.browser.execute_script(clip) == "inset(0px 0px 0px 55%)"


def test_page_fits_a_phone(visitor):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    visitor.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        visitor.upload_photograph()
        assert visitor.browser.execute_script("return document.documentElement.scrollWidth") == 390
        for each in visitor.all("#faces figure"):
            assert 0 <= each.rect["x"] < each.rect["x"] + each.rect["width"] <= 390
            assert each.rect["height"] < each.rect["width"]
    finally:
        visitor.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_file_name_is_escaped(visitor):
    """Also from Gradio's templates."""
    name = "${1+1} {{value}} <b>.png"
    (visitor.folder / name).write_text("no image")
    visitor.upload(visitor.folder / name)
    visitor.wait(lambda: "no image of a kind that can be read" in visitor.status())
    assert "<b>" not in visitor.status() or "&lt;" not in visitor.status()
    assert not visitor.all("#status b")


def test_text_file_is_reported(visitor):
    (visitor.folder / "text.png").write_text("no image")
    visitor.upload(visitor.folder / "text.png")
    visitor.wait(lambda: visitor.status().strip().startswith("text.png: is no image of a kind that can be read"))
    assert not visitor.images()
    assert not visitor.all("#download")[0].is_enabled()


def test_page_is_accessible_before_and_after(visitor):
    assert accessibility_problems(visitor.browser) == []
    visitor.upload_photograph()
    assert accessibility_problems(visitor.browser) == []
