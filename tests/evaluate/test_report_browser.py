"""The page of an evaluation in a real browser: opened from the disk, clicked, dragged and sorted."""

import json

import pytest
from helpers.accessibility import accessibility_problems
from helpers.results_for_report import NASTY_KEYS, NASTY_NAME, draw_images, made_results, nasty_results

from gpen_plugin.evaluate.options import ReportOptions
from gpen_plugin.evaluate.report import write_report

pytest.importorskip("selenium")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

WINDOW = (1600, 1000)
QUICK = ReportOptions(bootstrap_resamples=100, sheet_tile=16, sheet_images=2, embedded_images=3, vector_figures=())


@pytest.fixture(scope="module")
def scales_page(tmp_path_factory):
    """A page of 15 images in two conditions; the last method fails for one of them."""
    root = tmp_path_factory.mktemp("scales")
    values = {"plain": range(15), "GPEN": [None, *range(29, 15, -1)]}
    results = made_results(values, conditions=["8x", "16x"])
    draw_images(root, results)
    return write_report(root, results, QUICK)[-1]


@pytest.fixture(scope="module")
def nasty_page(tmp_path_factory):
    root = tmp_path_factory.mktemp("nasty")
    results = nasty_results()
    draw_images(root, results)
    return write_report(root, results, QUICK)[-1]


def opened(browser, page):
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(page.as_uri())
    return browser


def all_of(browser, selector: str) -> list:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def titles(browser) -> list[str]:
    return [each.text.replace("\n", " ") for each in all_of(browser, "#cards .name")]


def choose(browser, name: str, text: str) -> None:
    Select(browser.find_element(By.NAME, name)).select_by_visible_text(text)


def all_images_loaded(browser) -> bool:
    return browser.execute_script(
        "return [...document.querySelectorAll('#cards img')].every(i => i.complete && i.naturalWidth > 0)"
    )


def test_worst_images_come_first_and_controls_reorder(browser, scales_page):
    opened(browser, scales_page)
    assert titles(browser)[:3] == ["1. face_0 failed", "2. face_14 PSNR 16.00", "3. face_13 PSNR 17.00"]
    assert "RuntimeError: <b>no</b>" in all_of(browser, "#cards li")[0].text
    choose(browser, "order", "best first")
    assert titles(browser)[0] == "1. face_1 PSNR 29.00"
    choose(browser, "method", "plain")
    assert titles(browser)[0] == "1. face_14 PSNR 14.00"
    assert len(titles(browser)) == 12
    browser.find_element(By.ID, "more").click()
    assert len(titles(browser)) == 15
    browser.find_element(By.NAME, "search").send_keys("FACE_7")
    assert titles(browser) == ["1. face_7 PSNR 7.00"]


def test_click_sorts_the_table(browser, scales_page):
    opened(browser, scales_page)
    head = all_of(browser, ".numbers th[data-lower]")[2]  # FID at 8x: the number of letters

    def order() -> list[str]:
        return [each.text for each in all_of(browser, ".numbers tbody th")]

    seen = []
    for _ in range(3):
        head.find_element(By.TAG_NAME, "button").click()
        seen.append((order(), head.get_attribute("aria-sort")))
    up, down = ["GPEN", "plain"], ["plain", "GPEN"]
    assert seen == [(up, "ascending"), (down, "descending"), (down, None)]


def test_intervals_are_shown_on_demand(browser, scales_page):
    opened(browser, scales_page)
    small = all_of(browser, ".numbers small")[0]
    assert not small.is_displayed()
    browser.find_element(By.ID, "show-intervals").click()
    assert small.is_displayed()
    assert small.text.startswith("[")


def test_slider_follows_mouse_and_keyboard(browser, scales_page):
    opened(browser, scales_page)
    slider = all_of(browser, "#cards .slider")[1]

    def share() -> float:
        clip = slider.find_element(By.CSS_SELECTOR, ".before").value_of_css_property("clip-path")
        assert clip.startswith("inset(")
        return float(slider.get_attribute("style").split("--at:")[1].strip(" ;%"))

    assert share() == 50
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    reach = round(slider.size["width"] / 4)
    ActionChains(browser).move_to_element(slider).click_and_hold().move_by_offset(reach, 0).release().perform()
    dragged = share()
    assert 70 <= dragged <= 80
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert share() == dragged - 2
    label = slider.find_element(By.TAG_NAME, "input").get_attribute("aria-label")
    assert label == "input to the left, GPEN to the right: face_14"


def test_click_enlarges_an_image(browser, scales_page):
    opened(browser, scales_page)
    choose(browser, "condition", "16x")
    all_of(browser, "#cards li")[1].find_elements(By.CSS_SELECTOR, ".tile")[1].click()
    title = browser.find_element(By.ID, "large-title")
    assert title.text == "2. face_14, 16x"
    tiles = all_of(browser, "#side-by-side .tile")
    assert [tile.text.split("\n")[0] for tile in tiles] == ["input", "plain", "GPEN", "ground truth"]
    assert "PSNR 14.00" in tiles[1].text
    assert tiles[2].get_attribute("aria-pressed") == "true"
    tiles[3].click()
    assert all_of(browser, "#large-slider .right")[0].text == "ground truth"
    browser.find_element(By.ID, "next").click()
    assert title.text == "3. face_13, 16x"
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.find_element(By.ID, "large").is_displayed()


def test_hostile_names_run_no_script(browser, nasty_page):
    opened(browser, nasty_page)
    choose(browser, "order", "as listed")
    choose(browser, "method", NASTY_NAME)
    browser.execute_script("document.querySelectorAll('#cards img').forEach(i => i.loading = 'eager')")
    WebDriverWait(browser, 10).until(all_images_loaded)
    assert len(all_of(browser, "#cards img")) == 7 * 5
    assert [each.get_attribute("title") for each in all_of(browser, "#cards .name span")] == NASTY_KEYS
    assert "from file" in all_of(browser, "#cards")[0].text
    assert browser.execute_script("return window.hit") is None
    assert browser.title == "</title><script>window.hit=1</script>"
    assert browser.get_log("browser") == []


def test_nothing_is_asked_of_a_network(browser, scales_page):
    opened(browser, scales_page)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert scales_page.as_uri() in asked
    assert {url.partition(":")[0] for url in asked if not url.startswith("chrome")} <= {"file", "data"}


@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout_fits_and_text_has_contrast(browser, nasty_page, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    scheme_feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_feature)
    try:
        opened(browser, nasty_page)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        colors = browser.execute_script(
            "return [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            ".map(c => c.match(/\\d+/g).slice(0, 3).map(Number))"
        )
        assert contrast(*colors) > 7
        assert (sum(colors[1]) > sum(colors[0])) is (scheme == "light")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_report_is_accessible(browser, nasty_page):
    assert accessibility_problems(opened(browser, nasty_page)) == []


def contrast(one: list[int], two: list[int]) -> float:
    """The contrast ratio of WCAG 2 between two sRGB colors."""

    def luminance(color: list[int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted((luminance(one), luminance(two)))
    return (lighter + 0.05) / (darker + 0.05)


def test_group_tables_have_their_own_intervals_switch(browser, tmp_path):
    results = made_results({"plain": range(24), "GPEN": range(30, 54)})
    draw_images(tmp_path, results)
    labels = tmp_path / "labels.csv"
    lines = "".join(f"{key},{'low' if place < 12 else 'high'}\n" for place, key in enumerate(results.keys))
    labels.write_text(f"file,place\n{lines}", encoding="utf-8")
    options = ReportOptions(
        bootstrap_resamples=100, sheet_tile=16, sheet_images=2, vector_figures=(), labels=str(labels)
    )
    opened(browser, write_report(tmp_path, results, options)[-1])
    tables = all_of(browser, "#breakdown .numbers")
    assert [table.is_displayed() for table in tables] == [True]
    assert [row.text for row in tables[0].find_elements(By.CSS_SELECTOR, "tbody tr")] == [
        "all 24 11.50 41.50",
        "place",
        "high 12 17.50 ▲ 47.50 ▲",
        "low 12 5.50 ▼ 35.50 ▼",
    ]
    small = tables[0].find_elements(By.TAG_NAME, "small")
    of_the_table = all_of(browser, "#table small")[0]
    assert (small[0].is_displayed(), of_the_table.is_displayed()) == (False, True)
    all_of(browser, "#breakdown .check input")[0].click()
    assert small[0].is_displayed()
    assert small[1].text.startswith("Δ 12.00 [")
    browser.find_element(By.ID, "show-intervals").click()
    assert (small[0].is_displayed(), of_the_table.is_displayed()) == (True, False)
