"""The page of ``gpen-demo`` in a real browser: a photograph is put in, faces are picked, the result is downloaded."""

import shutil

import cv2
import pytest
from restorer_parts import Detector, Network, face_at, photograph

from gpen_plugin.restore import Restorer
from gpen_plugin.web_demo import Page, build

webdriver = pytest.importorskip("selenium.webdriver")
pytest.importorskip("gradio")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)
PATIENCE = 20  # seconds


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    restorer = Restorer(Network(lambda face: face + 0.2), device="cpu", mask="soft")
    restorer._detector = Detector(face_at(90, 110, 100), face_at(230, 120, 70, score=0.7))
    blocks = build(Page(restorer, folder))
    blocks.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", allowed_paths=[str(folder)])
    yield blocks.local_url
    blocks.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


class Visitor:
    """Somebody who handles the page."""

    def __init__(self, browser, address, downloads):
        self.browser, self.downloads = browser, downloads
        found = {"behavior": "allow", "downloadPath": str(downloads)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", found)
        browser.get(address)
        self.wait(lambda: self.all("#source input[type=file]"))

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def wait(self, condition):
        return WebDriverWait(self.browser, PATIENCE).until(lambda _: condition())

    def put_in(self, path):
        self.all("#source input[type=file]")[0].send_keys(str(path))

    def set_alpha(self, number):
        """As the field beside the slider takes it: typed, and left."""
        (field,) = self.all("#alpha input[type=number]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(number), Keys.TAB)

    def said(self):
        return "".join(each.text for each in self.all("#said"))

    def pictures(self):
        """Addresses of the two pictures of the slider, before and after."""
        return [each.get_attribute("src") for each in self.all("#slider img")]

    def download(self):
        """The file that the button gives, as pixels."""
        for old in self.downloads.glob("*.png"):
            old.unlink()
        self.all("#download")[0].click()
        (path,) = self.wait(lambda: list(self.downloads.glob("uncle_restored*.png")))
        return cv2.imread(str(path)).astype(int)


def test_a_photograph_is_restored_and_faces_are_picked(browser, address, tmp_path):
    picture = photograph()
    (tmp_path / "downloads").mkdir()
    cv2.imwrite(str(tmp_path / "uncle.png"), picture)
    visitor = Visitor(browser, address, tmp_path / "downloads")
    visitor.put_in(tmp_path / "uncle.png")
    visitor.wait(lambda: "2 faces found" in visitor.said())
    before, after = visitor.wait(lambda: len(visitor.pictures()) == 2 and visitor.pictures())
    assert before != after
    both = visitor.download() - picture
    assert both[105:115, 85:95].mean() > 40
    assert both[115:125, 225:235].mean() > 40
    boxes = visitor.wait(lambda: len(visitor.all("#picked input")) == 2 and visitor.all("#picked input"))
    boxes[0].click()
    visitor.wait(lambda: visitor.pictures()[1] != after)
    second = visitor.download() - picture
    assert (second[105:115, 85:95] == 0).all()
    assert second[115:125, 225:235].mean() > 40
    assert len(visitor.all("#faces img")) >= 2
    shown = visitor.pictures()[1]
    visitor.set_alpha(0)
    visitor.wait(lambda: visitor.pictures()[1] != shown)
    assert (visitor.download() == picture).all()
    visitor.set_alpha(0.5)
    visitor.wait(lambda: (visitor.download() - picture)[115:125, 225:235].mean() > 15)
    half = visitor.download() - picture
    assert half[115:125, 225:235].mean() == pytest.approx(second[115:125, 225:235].mean() / 2, abs=2)


def test_what_is_not_a_picture_is_told(browser, address, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    visitor = Visitor(browser, address, tmp_path / "downloads")
    visitor.put_in(tmp_path / "text.png")
    visitor.wait(lambda: visitor.said().startswith("text.png: is no picture of a kind that can be read"))
    assert not visitor.pictures()
