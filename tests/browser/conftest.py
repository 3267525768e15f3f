"""A real browser, headless, with a profile of its own; its tests are skipped where there is none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
PAGE_SECONDS = 180


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Debian's Chromium through selenium; needs the packages chromium and chromium-driver."""
    selenium = pytest.importorskip("selenium", reason="selenium is not installed (make install brings it)")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium or chromedriver on PATH (Debian: apt-get install chromium chromium-driver)")
    assert selenium.__version__
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    chrome = Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(PAGE_SECONDS)
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def screenshot(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Call it with a name: saves what the browser shows into pytest's temporary folder and prints where."""
    folder = tmp_path_factory.mktemp("screenshots")

    def save(name: str) -> Path:
        path = folder / f"{name}.png"
        assert browser.save_screenshot(str(path))
        print(f"screenshot: {path}")
        return path

    return save
