"""The page in a real browser: what is clicked, typed and dragged is what is exported."""

from collections import Counter

import pytest

from gpen_plugin.evaluate.study.votes import read_ballot

pytest.importorskip("selenium")

from helpers.accessibility import accessibility_problems
from helpers.browser_page import Page
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

WINDOW = (1200, 800)


@pytest.fixture
def page(browser, tmp_path):
    return Page(browser, tmp_path)


@pytest.fixture
def page_with_ties(browser, tmp_path):
    return Page(browser, tmp_path, "--allow-ties")


def test_round_trip(page):
    page.begin("Ann O'Neill")
    shown = [page.names()]
    page.press("b", "c", "a", Keys.ENTER)
    shown.append(page.names())
    page.press(Keys.ARROW_RIGHT, "3", Keys.ARROW_RIGHT, "3")
    assert page.letters() == ["", "A", "B"]  # what was at place 3 went to the nearest empty one
    page.press("c")
    page.one("#next").click()
    shown.append(page.names())
    page.drag(".cell:nth-child(3) .tile", ".slot:nth-child(1)")
    page.drag(".cell:nth-child(4) .tile", ".slot:nth-child(3)")
    page.one(".cell:nth-child(2) .tile").click()
    assert page.letters() == ["B", "A", "C"]
    page.refresh()
    assert page.letters() == ["B", "A", "C"]
    assert page.one("#progress-text").text == "Face 3 of 3 · 3 ranked"
    path, votes = page.export()
    letters = zip(shown, ["BCA", "CAB", "BAC"], strict=True)
    ranked = [[[names["ABC".index(letter)]] for letter in best] for names, best in letters]
    assert [vote["places"] for vote in votes["votes"]] == ranked
    assert [vote["shown"] for vote in votes["votes"]] == shown
    assert [vote["image"] for vote in votes["votes"]] == votes["order"]
    assert path.name == f"votes_{page.key.study}_Ann-O-Neill-{votes['voter']}.json"
    ballot = read_ballot(path, page.key)
    assert (ballot.name, len(ballot.rankings)) == ("Ann O'Neill", 3)
    last = next(image for image in page.key.images if image.id == votes["order"][2])
    best = page.key.methods[ballot.rankings[last.key].places.argmin()]
    assert best == last.methods[shown[2][1]]
    assert page.complaints() == []


def test_page_is_accessible(page):
    assert accessibility_problems(page.browser) == []
    page.begin("Ann")
    page.press("b")
    assert accessibility_problems(page.browser) == []


def test_unfinished_votes_export_too(page):
    page.begin()
    page.press("a")
    path, votes = page.export()
    assert votes["votes"][0]["places"] == [[page.names()[0]], [], []]
    ballot = read_ballot(path, page.key)
    assert (len(ballot.rankings), ballot.begun) == (0, 1)


def test_undo_taking_out_and_moving(page):
    page.begin()
    page.press("a", "b", "c")
    page.press("b")
    assert page.letters() == ["A", "", "C"]
    page.press(Keys.BACKSPACE)
    assert page.letters() == ["A", "B", "C"]
    page.one("#undo").click()
    assert page.letters() == ["A", "B", ""]
    page.drag(".slot:nth-child(2) .thumb", ".slot:nth-child(1)")
    assert page.letters() == ["B", "A", ""]
    page.refresh()
    page.press(Keys.BACKSPACE)
    assert page.letters() == ["A", "B", ""]
    page.browser.execute_script("document.querySelector('.slot:nth-child(1) .thumb').focus()")
    page.press(Keys.ARROW_RIGHT)
    assert page.letters() == ["B", "A", ""]
    assert page.one("#live").get_attribute("textContent") == "A is at place 2. 1 left."


def test_click_after_drag_back_does_not_rank(page):
    page.begin()
    page.drag(".cell:nth-child(2) .tile", ".cell:nth-child(2) .tile")
    assert page.letters() == ["", "", ""]


def test_one_image_per_place_unless_ties_are_allowed(page_with_ties):
    page_with_ties.begin()
    page_with_ties.press("a", "b")
    page_with_ties.drag(".cell:nth-child(4) .tile", ".slot:nth-child(1)")
    assert page_with_ties.letters() == ["AC", "B", ""]
    assert page_with_ties.one("#next").text == "Next →"
    path, votes = page_with_ties.export()
    assert [len(names) for names in votes["votes"][0]["places"]] == [2, 1, 0]
    (ranking,) = read_ballot(path, page_with_ties.key).rankings.values()
    assert sorted(ranking.ranks) == [1.5, 1.5, 3]


def test_back_forth_skipping_and_the_end(page):
    page.begin()
    page.press("a", "b", "c", Keys.PAGE_DOWN)
    assert page.one("#next").text == "Skip →"
    page.press(Keys.PAGE_DOWN, "a", "b", "c", Keys.ENTER)
    assert page.one("#summary").text == "You have ranked 2 of 3 faces. 1 are not fully ranked."
    page.one("#missing").click()
    assert page.one("#progress-text").text == "Face 2 of 3 · 2 ranked"
    page.one("#back").click()
    assert page.letters() == ["A", "B", "C"]


def test_zoom_compares_and_flips(page):
    page.begin()
    page.press("b")
    page.press(Keys.ARROW_RIGHT, "z")
    left, right = ("#left img", "#right img")
    sources = [page.one(pane).get_attribute("src") for pane in (left, right)]
    assert [page.one(pane).get_attribute("alt") for pane in (left, right)] == ["A", "B"]
    ActionChains(page.browser).key_down(Keys.SPACE).perform()
    assert [page.one(pane).get_attribute("src") for pane in (left, right)] == sources[::-1]
    ActionChains(page.browser).key_up(Keys.SPACE).perform()
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    assert [page.one(pane).get_attribute("alt") for pane in (left, right)] == ["C", "A"]
    page.press(Keys.ESCAPE)
    assert page.one("#zoom").get_attribute("open") is None
    assert page.letters() == ["B", "", ""]


def test_voters_see_orders_of_their_own(page):
    """Each method comes at each position equally often: 600 voters, chance alone moves a third by a fiftieth."""
    script = """
      const seen = [];
      for (let voter = 0; voter < 600; voter++) {
        ballot = newBallot();
        seen.push([order().join(), shownOf(SETTINGS.images[0]).join()]);
      }
      return seen;"""
    seen = page.browser.execute_script(script)
    for column in range(2):
        orders = Counter(pair[column] for pair in seen)
        assert len(orders) == 6
        assert all(60 < count < 140 for count in orders.values())
    assert len({tuple(pair) for pair in seen}) == 36  # the two orders know nothing of each other


def test_another_person_starts_with_an_empty_ballot(page):
    page.begin("Ann")
    page.press("a")
    _, votes = page.export()
    page.browser.execute_script("window.confirm = () => true; go(3)")
    page.one("#another").click()
    assert page.one("#name").get_attribute("value") == ""
    page.begin("Bob")
    assert page.letters() == ["", "", ""]
    assert page.export()[1]["voter"] != votes["voter"]


def test_without_storage_the_page_warns_and_works(page):
    script = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    found = page.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.open()
        assert "does not let the page store anything" in page.one("#warning").text
        page.begin()
        page.press("c")
        assert page.letters() == ["C", "", ""]
        assert len(page.export()[1]["votes"]) == 1
    finally:
        page.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", found)


@pytest.mark.parametrize("width", [390, 1600])
def test_nothing_is_wider_than_the_window(page, width):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.begin()
        page.press("a", "b")
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert page.one(".tile").size["width"] >= 140
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_finger_taps_scrolls_and_drags(page):
    page.begin()
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        tile, slot = page.center(".cell:nth-child(3) .tile"), page.center(".slot:nth-child(2)")
        page.touch([tile, (tile[0], tile[1] + 60), slot], rest=0)
        assert page.letters() == ["", "", ""]  # that was a scroll
        page.touch([tile, (tile[0] + 5, tile[1] + 5), slot], rest=0.5)
        assert page.letters() == ["", "B", ""]
        page.touch([page.center(".cell:nth-child(2) .tile")], rest=0)
        assert page.letters() == ["A", "B", ""]
    finally:
        page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
