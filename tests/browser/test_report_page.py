"""The report's page in a real browser: on a desk, on a phone, in the dark and on paper."""

import base64
import re
from pathlib import Path

import pytest
from written_runs import write_folder

from iq_offline.stages.report import write_report

pytestmark = pytest.mark.slow
PHONE = 360


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two tasks, three methods and three seeds each, with a folder that holds no run."""
    place = tmp_path_factory.mktemp("report")
    learning = {"bc": "rate = 0.001", "iq": "rate = 0.0003\ntemperature = 3.0", "csil": "rate = 0.0003"}
    for task in ("demo/a-dataset-with-a-very-long-name/expert-v0", "hopper-expert-v2"):
        for method, algorithm in learning.items():
            for seed in range(3):
                folder = place / "runs" / f"{task.replace('/', '-')}-{method}-5x1-seed{seed}-0a1b2c"
                folder.mkdir(parents=True)
                look = {"dataset": task, "method": method, "seed": seed, "algorithm": algorithm}
                returns, rewards = [500.0 + 10 * seed, 700.0], None if method == "bc" else {"transition": 0.5}
                write_folder(folder, returns=returns, rewards=rewards, **look)
    (place / "runs" / "unfinished").mkdir()
    (place / "runs" / "unfinished" / "config.toml").write_text("seed = 9\n")
    return write_report([place / "runs"], place / "report").html


def resize(browser, width, height, mobile):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def colours(browser, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    style = "return [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    return [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in browser.execute_script(style)]


def test_page_is_whole_and_loads_nothing(browser, screenshot, page):
    """Every table and picture is there, and nothing is loaded from elsewhere."""
    browser.get(page.as_uri())
    screenshot("report-desk")
    rows = {
        table: len(browser.find_elements("css selector", f"#{table} tbody tr"))
        for table in ("aggregate", "summary", "runs", "datasets", "failed")
    }
    assert rows == {"aggregate": 3, "summary": 6 + 2, "runs": 18 + 2, "datasets": 2, "failed": 1}
    images = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width, i.alt])"
    )
    assert len(images) == 3 + 4 * 2
    assert all(complete and natural > 0 and alt for complete, natural, _, alt in images)
    assert all(shown > 200 for _, _, shown, alt in images if "profiles" not in alt and "by transition" not in alt)
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def test_no_link_is_dead(browser, page):
    browser.get(page.as_uri())
    addresses = browser.execute_script("return [...document.links].map(link => link.href)")
    assert len(addresses) > 100
    assert all(" seed " in title for title in run_titles(browser))
    for address in set(addresses):
        path, _, anchor = address.removeprefix("file://").partition("#")
        assert Path(path).exists()
        assert not anchor or browser.find_elements("id", anchor)


def run_titles(browser):
    """Of the entries that numbers of runs lead to."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#runs a.n')].map("
        "link => document.querySelector(link.hash).querySelector('th').textContent)"
    )


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_verdict_is_on_the_first_screen(browser, screenshot, page, width):
    """Without scrolling, a reader sees the verdict's first sentence, whole, on a phone and on two desks."""
    resize(browser, width, 844 if width < 500 else 900, mobile=width < 500)
    browser.get(page.as_uri())
    screenshot(f"report-{width}-verdict")
    place = "const at = document.querySelector('.verdict strong').getBoundingClientRect(); return [at.top, at.bottom]"
    top, bottom = browser.execute_script(place)
    assert 0 < top < bottom < 844


def test_wide_tables_say_that_they_scroll(browser, screenshot, page):
    """On a phone a line above each table that scrolls says so; on a desk there is no such line, and none scrolls."""
    for width, shown in ((390, True), (1280, False)):
        resize(browser, width, 844, mobile=width < 500)
        browser.get(page.as_uri())
        hint = browser.find_element("css selector", "#by-task ~ .sideways")
        browser.execute_script("arguments[0].scrollIntoView()", browser.find_element("id", "by-task"))
        screenshot(f"report-{width}-tables")
        assert hint.is_displayed() == shown
        hinted = "return [...document.querySelectorAll('.wide')].filter(box => box.checkVisibility()).map(box =>"
        hinted += "[box.scrollWidth > box.clientWidth, box.previousElementSibling.matches('.sideways'), box.ariaLabel])"
        boxes = {name: (scrolls, hint) for scrolls, hint, name in browser.execute_script(hinted)}
        assert {"Run folders", "Datasets"} <= boxes.keys()
        assert any(scrolls for scrolls, _ in boxes.values()) == shown
        assert all(hint for scrolls, hint in boxes.values() if scrolls), boxes


def test_wide_screen_holds_tables_side_by_side(browser, page):
    """At 1920 pixels the two first tables stand side by side, and the verdict uses the width."""
    resize(browser, 1920, 1080, mobile=False)
    browser.get(page.as_uri())
    place = "const at = document.querySelector(arguments[0]).getBoundingClientRect(); return [at.top, at.right]"
    (first, _), (second, right) = (browser.execute_script(place, name) for name in ("#by-task", "#all-tasks"))
    assert first == second
    assert right > 1600
    assert browser.execute_script(place, ".verdict ul")[1] > 1600


def test_tables_that_do_not_fit_are_stacked(browser, page):
    """Two tables that do not fit side by side stand one below the other, and neither is cut off."""
    resize(browser, 1920, 1080, mobile=False)
    browser.get(page.as_uri())
    cut = "return [...document.querySelectorAll('.tables .wide')].some(box => box.checkVisibility()"
    cut += " && box.scrollWidth > box.clientWidth)"
    tops = "return ['#summary', '#aggregate'].map(table => document.querySelector(table).getBoundingClientRect().top)"
    assert not browser.execute_script(cut)
    browser.execute_script("document.querySelector('#aggregate').style.width = '1000px'")
    first, second = browser.execute_script(tops)
    assert first < second
    assert not browser.execute_script(cut)


def test_phone_gets_pictures_of_its_own(browser, page):
    """On a phone a picture is drawn for its width, so that its text is as large as on a desk."""
    browser.get(page.as_uri())
    source = "const image = document.images[0]; return image.currentSrc === image.src"
    resize(browser, 1280, 900, mobile=False)
    assert browser.execute_script(source)
    resize(browser, 390, 844, mobile=True)
    browser.get(page.as_uri())
    assert not browser.execute_script(source)


@pytest.mark.parametrize("width", [320, PHONE, 768])
def test_only_tables_scroll_sideways_on_a_phone(browser, screenshot, page, width):
    """On a phone only tables scroll sideways, and their first column stays."""
    resize(browser, width, 740, mobile=True)
    browser.get(page.as_uri())
    for details in browser.find_elements("tag name", "details"):
        browser.execute_script("arguments[0].open = true", details)
    screenshot(f"report-{width}")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("window.scrollTo(500, 0); return window.scrollX") == 0
    box = browser.find_element("css selector", ".wide:has(#runs)")
    hidden = browser.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth", box)
    moved = "arguments[0].scrollLeft = 150; return arguments[0].scrollLeft"
    assert browser.execute_script(moved, box) == min(150, hidden)
    assert hidden > 0 or width > PHONE
    place = "return arguments[0].querySelector('th[scope=row]').getBoundingClientRect().left"
    assert browser.execute_script(place, box) >= 0


def test_page_is_dark_when_asked(browser, screenshot, page):
    """The page is dark where the reader's system prefers dark."""
    browser.get(page.as_uri())
    ink, paper = colours(browser, "light")
    assert ink < paper
    ink, paper = colours(browser, "dark")
    screenshot("report-dark")
    assert ink > paper


def test_print_shows_everything(browser, page, tmp_path_factory):
    """On paper, folded sections are open and no column is cut off."""
    browser.get(page.as_uri())
    # A landscape A4 sheet without its margins, in CSS pixels.
    resize(browser, 1016, 687, mobile=False)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(
        "return [...document.querySelectorAll('.landscape table')].every(t => t.getBoundingClientRect().right <= 1016)"
    )
    seen = "return document.querySelector('table.configuration tr.differs').checkVisibility()"
    assert browser.execute_script(seen)
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})["data"]
    path = tmp_path_factory.mktemp("printed") / "report.pdf"
    path.write_bytes(base64.b64decode(pdf))
    print(f"printed: {path}")
    assert path.read_bytes().startswith(b"%PDF")
