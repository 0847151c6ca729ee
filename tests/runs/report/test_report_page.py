"""The report in a browser: what people do with it, and that it loads nothing, breaks nowhere and can be read by all.

Needs playwright and axe-playwright-python from the package index, and a Chromium of the system.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_runs import CLASSES, HOSTILE, draw, make_run, outcome, read_items, write_run

from camcli.runs.report import ReportOptions
from camcli.runs.report.run import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tried in a browser by playwright")
axe = pytest.importorskip("axe_playwright_python", reason="axe says what people cannot read or reach")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this system")]
# High enough for all cards of a small run, since only those near the window exist.
DESKTOP, PHONE = {"width": 1280, "height": 2000}, {"width": 390, "height": 844}


class Opened:
    """A page that is open, with what it said and asked for."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.path = page, path
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append("dialog") or dialog.dismiss())
        page.on("request", lambda request: self.asked.append(request.url))

    def go(self, address: str = "") -> None:
        self.page.goto("about:blank")
        self.page.goto(self.path.as_uri() + address)
        self.wait("document.getElementById('status').textContent")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true; the page's policy does not let playwright wait for one by itself."""
        end = time.monotonic() + 30
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(20)

    def names(self) -> list[str]:
        found: list[str] = self.page.locator(".card-name").all_text_contents()
        return found

    def at(self, name: str) -> Any:
        return self.page.locator(f"#{name}")

    def check_quiet(self) -> None:
        assert self.said == []
        assert [one for one in self.asked if not one.startswith(("file:", "blob:", "about:"))] == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium) -> Iterator[Any]:
    contexts = []

    def open_it(out: Path, size: dict[str, int] = DESKTOP, **context: Any) -> Opened:
        contexts.append(chromium.new_context(viewport=size, **context))
        opened = Opened(contexts[-1].new_page(), out / "report.html")
        opened.go()
        return opened

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of twelve images of which one failed, with numbers of some."""
    folder = tmp_path_factory.mktemp("made")
    out = make_run(folder, 12)
    draw(folder / "photos" / "broken.jpg", (9, 9, 9))
    failed = outcome(
        folder / "photos" / "broken.jpg", "photos/broken.jpg", files={}, index=None, method=None, error="is cut"
    )
    write_run(out, [failed])
    (folder / "t.csv").write_text("image,blur\n" + "".join(f"{n:05}.jpg,{(n * 5) % 12}\n" for n in range(12)))
    write_report(out, ReportOptions(columns=(str(folder / "t.csv"),), workers=2))
    return out


def test_it_opens_from_disk_and_shows_every_image(made, open_page):
    opened = open_page(made)
    assert opened.names() == [f"{n:05}.jpg" for n in range(12)] + ["broken.jpg"]
    assert opened.at("status").text_content() == "13 images"
    backgrounds = opened.page.eval_on_selector_all(".card .thumb", "all => all.map(one => one.style.backgroundImage)")
    assert sum("sheet-0-0.webp" in one for one in backgrounds) == 12
    opened.check_quiet()


def test_filters_sorting_and_ranges_are_in_the_address(made, open_page):
    opened = open_page(made)
    opened.at("query").fill("0001")
    assert opened.names() == ["00001.jpg", "00010.jpg", "00011.jpg"]
    opened.at("query").fill("")
    opened.at("class").select_option("1 tiger cat")
    assert opened.names() == ["00001.jpg", "00006.jpg", "00011.jpg"]
    opened.at("sort").select_option("column:blur")
    assert opened.names() == ["00001.jpg", "00006.jpg", "00011.jpg"]  # 5, 6, 7
    opened.at("direction").click()
    assert opened.names()[0] == "00011.jpg"
    assert opened.page.url.partition("#")[2] == "class=1+tiger+cat&sort=column%3Ablur&desc=1"
    opened.at("number").select_option("column:blur")
    opened.at("least").fill("6")
    opened.at("least").dispatch_event("change")
    assert opened.names() == ["00011.jpg", "00006.jpg"]
    opened.page.get_by_role("button", name="Remove the filter: class").click()
    assert len(opened.names()) == 6
    opened.check_quiet()


def test_right_wrong_and_failed(made, open_page):
    opened = open_page(made)
    for result, count in (("right", 8), ("wrong", 4), ("failed", 1), ("done", 12), ("", 13)):
        opened.at("result").select_option(result)
        assert len(opened.names()) == count


def test_findings_are_links_to_what_they_say(made, open_page):
    opened = open_page(made)
    titles = opened.page.locator(".finding-title").all_text_contents()
    assert titles[:2] == ["Failed", "Predicted wrongly"]
    opened.page.locator(".finding", has_text="Failed").click()
    opened.wait("cards.size === 1")
    assert opened.names() == ["broken.jpg"]
    opened.page.go_back()
    opened.wait("cards.size === 13")
    opened.page.locator(".finding", has_text="Least certain").click()
    opened.wait("location.hash.includes('sort=probability')")
    numbers = opened.page.locator(".card-number").all_text_contents()
    assert [*map(float, numbers)] == sorted(map(float, numbers))


def test_a_small_image_of_a_finding_opens_itself(made, open_page):
    opened = open_page(made)
    third = opened.page.locator(".finding", has_text="Least certain").locator(".strip .frame").nth(2)
    name = third.get_attribute("title")
    third.click()
    opened.wait("viewer.open")
    assert opened.at("viewer-name").text_content() == name
    assert opened.at("viewer-place").text_content().startswith("3 of ")
    opened.page.keyboard.press("Escape")
    assert opened.page.evaluate("document.activeElement.dataset.at") == "2"
    opened.check_quiet()


def test_keys_go_on_from_a_fresh_page_a_finding_and_a_bar(made, open_page):
    opened = open_page(made)
    focused = "document.activeElement.dataset.at"
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.evaluate(focused) == "0"
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.evaluate(focused) == "1"
    opened.page.locator(".finding", has_text="Least certain").click()
    assert opened.page.evaluate(focused) == "0"
    opened.go()
    opened.page.get_by_role("button", name="0 tabby: 3 images").click()
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("Enter")
    opened.wait("viewer.open")
    assert opened.at("viewer-place").text_content() == "2 of 3"
    opened.check_quiet()


def test_charts_filter(made, open_page):
    opened = open_page(made)
    opened.page.get_by_role("button", name="0 tabby: 3 images").click()
    assert opened.names() == ["00000.jpg", "00005.jpg", "00010.jpg"]
    assert "Histogram of probabilities: 3 images" in opened.at("histogram").get_attribute("aria-label")


def test_an_address_opens_an_image_and_keys_go_on(made, open_page):
    opened = open_page(made)
    items = {item["name"].rpartition("/")[2]: item["id"] for item in read_items(made)}
    opened.go(f"#class=0+tabby&image={items['00005.jpg']}")
    title, place = opened.at("viewer-name"), opened.at("viewer-place")
    assert (title.text_content(), place.text_content()) == ("photos/tabby/00005.jpg", "2 of 3")
    opened.page.keyboard.press("ArrowRight")
    assert title.text_content() == "photos/tabby/00010.jpg"
    opened.page.keyboard.press("ArrowRight")
    assert title.text_content() == "photos/tabby/00000.jpg"
    assert f"image={items['00000.jpg']}" in opened.page.url
    opened.page.keyboard.press("Escape")
    assert not opened.at("viewer").is_visible()
    assert opened.page.url.endswith("#class=0+tabby")
    # The card of the image that was open has the focus, and arrows go on from there.
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("Enter")
    opened.wait("viewer.open")
    assert title.text_content() == "photos/tabby/00005.jpg"
    # A browser may close it without asking.
    opened.page.evaluate("viewer.close()")
    opened.wait("location.hash === '#class=0+tabby'")
    opened.check_quiet()


def test_the_slider_keys_and_zoom_of_an_open_image(made, open_page):
    opened = open_page(made)
    opened.page.locator(".card").first.click()
    opened.wait("viewer.open")
    over = opened.at("over")
    assert opened.page.locator("#formats button").all_text_contents() == ["image", "overlay"]
    assert over.evaluate("one => one.style.opacity") == "1"
    opened.at("fade").fill("40")
    assert over.evaluate("one => one.style.opacity") == "0.4"
    opened.page.keyboard.press("]")
    assert over.evaluate("one => one.style.opacity") == "0.5"
    opened.page.keyboard.press("1")
    assert not over.is_visible() and opened.at("fade").is_disabled()
    opened.page.keyboard.press(" ")
    assert over.is_visible()
    assert opened.at("under").evaluate("one => one.naturalWidth") == 64
    opened.page.keyboard.press("0")
    assert opened.at("layers").evaluate("one => [one.clientWidth, one.clientHeight]") == [64, 48]
    opened.page.keyboard.press("+")
    assert opened.at("layers").evaluate("one => one.clientWidth") == 80
    opened.at("stage").hover()
    opened.page.mouse.wheel(0, -2000)
    assert opened.at("layers").evaluate("one => one.classList.contains('pixels')")
    opened.page.keyboard.press("f")
    opened.check_quiet()


def test_the_map_that_was_clicked_is_open_and_a_key_opens_the_first(tmp_path, open_page):
    draw(tmp_path / "a.jpg", (0, 0, 255))
    maps = [outcome(tmp_path / "a.jpg", "a.jpg", method=method) for method in ("gradcam", "layercam")]
    out = write_run(tmp_path / "maps", maps)
    write_report(out, ReportOptions(workers=1))
    opened = open_page(out)
    chosen = opened.page.locator("#maps [aria-pressed=true]")
    opened.page.locator(".cell", has_text="layercam").locator(".thumb").click()
    opened.wait("viewer.open")
    assert "layercam" in chosen.text_content() and opened.page.url.endswith("&map=1")
    opened.page.keyboard.press("Escape")
    opened.page.keyboard.press("Enter")
    opened.wait("viewer.open")
    assert "gradcam" in chosen.text_content()
    assert opened.at("status").text_content() == "1 image"
    opened.page.keyboard.press("s")
    assert opened.page.locator("#beside bdi").all_text_contents() == ["gradcam · 0 tabby", "layercam · 0 tabby"]
    assert not opened.at("over").is_visible() and opened.at("fade").is_disabled()
    opened.page.locator("#beside button").last.click()
    assert "layercam" in chosen.text_content()
    opened.page.keyboard.press("+")  # sizes are the window's
    opened.page.keyboard.press(" ")
    assert opened.at("under").is_visible() and not opened.at("beside").is_visible()
    opened.page.keyboard.press(" ")
    opened.at("beside-button").click()
    assert opened.at("over").is_visible()
    opened.check_quiet()
    opened.page.keyboard.press("s")
    _check_axe(opened.page)


def test_five_thousand_images_have_few_cards_and_the_last_is_reached(tmp_path, open_page):
    blocks = [[outcome(tmp_path / "gone.jpg", f"{n:05}.jpg", n, stamp="1-1", files={})] for n in range(5000)]
    out = write_run(tmp_path / "maps", *blocks)
    write_report(out, ReportOptions(workers=2))
    opened = open_page(out)
    opened.wait("items.length === 5000")
    assert opened.at("status").text_content() == "5,000 images"
    assert opened.page.locator(".card").count() < 100
    opened.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    opened.wait("[...cards.keys()].includes(4999)")
    assert opened.page.locator(".card").count() < 100
    opened.at("query").fill("0499")
    assert opened.names() == ["00499.jpg", *(f"0499{n}.jpg" for n in range(10))]
    opened.check_quiet()


@pytest.mark.parametrize("single", [False, True])
def test_hostile_names_are_shown_as_they_are(tmp_path, open_page, single):
    blocks = []
    for name in (name.replace("|", "/") for name in HOSTILE):
        draw(tmp_path / name, (0, 0, 255))
        blocks.append([outcome(tmp_path / name, name, label=f"<img src=x onerror=alert(1)>{name}", notes=("<b>n",))])
    out = write_run(tmp_path / "maps", *blocks, model={"name": "</title><script>alert(1)</script>"})
    write_report(out, ReportOptions(single_file=single, workers=1))
    opened = open_page(out)
    assert opened.names() == [name.rpartition("|")[2] for name in HOSTILE]
    for at in range(len(HOSTILE)):
        opened.page.locator(".card").nth(at).click()
        opened.wait("viewer.open")  # the images of the one before are still there until it is
        for image in ("under", "over"):  # every image is found by its address
            opened.page.evaluate(f"document.getElementById('{image}').decode()")
            assert opened.at(image).evaluate("one => one.naturalWidth") == 64
        opened.page.keyboard.press("Escape")
        opened.wait("!viewer.open")
    assert opened.page.locator("h1").text_content() == "</title><script>alert(1)</script>"
    opened.check_quiet()


def test_a_single_file_needs_no_other(tmp_path, open_page):
    out = make_run(tmp_path / "made", 3)
    write_report(out, ReportOptions(single_file=True, workers=1))
    (tmp_path / "sent").mkdir()
    (out / "report.html").rename(tmp_path / "sent" / "report.html")
    opened = open_page(tmp_path / "sent")
    opened.page.locator(".card").first.click()
    opened.wait("document.getElementById('over').naturalWidth === 64")
    assert {one.partition(":")[0] for one in opened.asked} <= {"file", "blob", "about"}
    assert [one for one in opened.asked if one.startswith("file:") and "report.html" not in one] == []
    opened.check_quiet()


def test_an_image_that_goes_after_the_page_was_made_is_told(tmp_path, open_page):
    out = make_run(tmp_path, 1)
    write_report(out, ReportOptions(workers=1))
    (tmp_path / "photos" / CLASSES[0] / "00000.jpg").unlink()
    opened = open_page(out)
    opened.page.locator(".card").first.click()
    opened.page.wait_for_selector("#stage-note:not([hidden])")
    assert "is not where it was when this page was made" in opened.at("stage-note").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(made, open_page, scheme, size):
    opened = open_page(made, size, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.dataset.theme") == scheme
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    opened.at("provenance").locator("summary").click()
    _check_axe(opened.page)
    opened.page.locator(".card").first.click()
    opened.wait("viewer.open")
    _check_axe(opened.page)


def _check_axe(page: Any) -> None:
    source = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source)
    violations = page.evaluate("axe.run().then(found => found.violations)")
    serious = [one for one in violations if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []


def test_the_theme_is_kept(made, open_page):
    opened = open_page(made, color_scheme="light")
    opened.page.keyboard.press("d")
    opened.go()
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_paper_has_the_first_cards_and_no_controls(made, open_page):
    opened = open_page(made)
    opened.page.emulate_media(media="print")
    opened.page.evaluate("layOutForPrint()")
    assert not opened.at("toolbar").is_visible()
    tops = opened.page.eval_on_selector_all(".slot", "all => all.map(one => one.getBoundingClientRect().top)")
    assert len(tops) == 13 and len(set(tops)) > 1
    assert opened.page.pdf()[:4] == b"%PDF"
