"""The page of ``camcli compare`` in a browser: it loads nothing, says nothing, and can be read by all.

Needs playwright and axe-playwright-python from the package index, and a Chromium of the system.
"""

import shutil
from pathlib import Path

import pytest
from compare_runs import compare, write_gradients

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tried in a browser by playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe says what people cannot read or reach")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this system")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_can_be_read_and_loads_nothing(tiny: str, here: Path, scheme: str, width: int) -> None:
    write_gradients("in/<img src=x onerror=alert(1)>.png")
    write_gradients("in/b.png")
    Path("in/c.png").write_bytes(b"no picture")
    words = ("--method", "gradcam,layercam", "--layer", "stem", "--normalize", "column", "--save", "html")
    assert compare(tiny, "in", *words).exit_code == 1
    said: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=False
        ).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append("dialog") or dialog.dismiss())
        page.on("request", lambda request: asked.append(request.url))
        page.goto(Path("out/compare.html").absolute().as_uri())
        shown = page.locator("figure img").evaluate_all("all => all.map(one => one.naturalWidth)")
        assert shown == [232] * 6
        assert not [one for one in asked if not one.startswith(("file:", "data:"))]
        assert said == []
        # What is broader than the window scrolls in its own frame.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        browser.close()
