"""A study's page in a browser, as a volunteer handles it."""

import json
import time

from selenium.webdriver.common.action_chains import ActionChains

from gpen_plugin.cli.study import main
from gpen_plugin.evaluate.study.page import read_key
from helpers.small_study import small_results

# A blank document that comes between the two is complete, too, but shows no screen.
DRAWN_ANEW = "return !window.isOld && document.querySelector('main:not([hidden])') !== null"


class Page:
    """A study of three images and three methods, opened by a new voter."""

    def __init__(self, browser, folder, *choices):
        small_results(folder)
        main(["make", "-r", str(folder), "-o", str(folder / "study.html"), *choices])
        self.browser, self.folder = browser, folder
        self.key = read_key(folder / "study_key.json")
        found = {"behavior": "allow", "downloadPath": str(folder)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", found)
        self.open()
        browser.execute_script("localStorage.clear()")
        self.refresh()

    def open(self):
        self.browser.get((self.folder / "study.html").as_uri())

    def refresh(self):
        """Load the page anew. The new page has to have what was stored.

        On a busy machine, Chromium 156 gives the new page older votes at times, whatever the page does; so it has three
        tries. A page that loses votes fails in all of them.
        """
        stored = self.browser.execute_script("return {...localStorage}")
        for _ in range(3):
            self._load_anew()
            if stored.items() <= self.browser.execute_script("return {...localStorage}").items():
                return
            self.browser.execute_script("Object.assign(localStorage, arguments[0])", stored)
        raise AssertionError("the new page has lost what was stored")

    def _load_anew(self):
        """Wait for the new page: on a busy machine the driver is back before it."""
        self.browser.execute_script("window.isOld = true")
        self.browser.refresh()
        until = time.monotonic() + 20
        while not self.browser.execute_script(DRAWN_ANEW):
            assert time.monotonic() < until, "the page did not load anew"
            time.sleep(0.02)

    def begin(self, name=""):
        self.one("#name").send_keys(name)
        self.one("#begin").click()
        return self

    def one(self, selector):
        return self.browser.find_element("css selector", selector)

    def press(self, *keys):
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def drag(self, source, target):
        chain = ActionChains(self.browser, duration=50).click_and_hold(self.one(source)).move_by_offset(15, 15)
        chain.move_to_element(self.one(target)).release().perform()

    def center(self, selector):
        box = self.one(selector).rect
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(self, points, rest):
        """Put a finger down, let it rest, lead it through the points, lift it."""

        def send(kind, *at):
            touches = [{"x": x, "y": y} for x, y in at]
            self.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

        send("touchStart", points[0])
        time.sleep(rest)
        for point in points[1:]:
            send("touchMove", point)
        send("touchEnd")
        time.sleep(0.1)

    def complaints(self):
        """What the browser logged, e.g. a script's error or a request that the page must not make."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def letters(self):
        """Letters by place, e.g. ["B", "", "A"]."""
        slots = self.browser.find_elements("css selector", ".slot")
        return ["".join(mark.text for mark in slot.find_elements("css selector", ".letter")) for slot in slots]

    def names(self):
        """Opaque names in the order shown."""
        return [tile.get_attribute("data-image") for tile in self.browser.find_elements("css selector", ".tile")]

    def export(self):
        for old in self.folder.glob("votes_*"):
            old.unlink()
        self.one("#export").click()
        until = time.monotonic() + 10
        # Chromium reserves the name by an empty file, which the whole one replaces
        while not (found := [path for path in self.folder.glob("votes_*.json") if path.stat().st_size]):
            assert time.monotonic() < until, "no file was downloaded"
            time.sleep(0.05)
        return found[0], json.loads(found[0].read_text())
