"""The page: whole, the same each time, of any state of a run, and in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ddrep import cli
from ddrep.reporting.report.documents import markdown_html
from ddrep.reporting.report.page import render, run
from ddrep.reporting.report.results import Results
from tests.reporting.report.make_results import CLASSES, experiment

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def page(small: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(small), encoding="utf-8")
    return path


class Headings(HTMLParser):
    """Text of the headings of sections; what scripts hold is none."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.within = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.within = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self.within and data.strip():
            self.found.append(data.strip())


def test_every_section_is_there_and_nothing_more_than_once(page: Path, small: Results) -> None:
    text = page.read_text(encoding="utf-8")
    found = Headings(text).found
    assert found == SECTIONS
    assert page.stat().st_size < 3e6 and len(re.findall(r'id="([^"]+)"', text)) == len(
        set(re.findall(r'id="([^"]+)"', text))
    )
    assert text == render(small)


SECTIONS = ["Answer", "Before you believe it", "Results", "Samples", "Nearest real images", "What is kept", "Tables",
            "Training and judges", "Costs", "What was run"]  # fmt: skip


def test_an_experiment_that_has_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(experiment(), Path("report.html"))
    text = Path("report.html").read_text(encoding="utf-8")
    assert "There is no answer yet." in text and "tables/table4.parquet" in text
    assert re.search(r"0 of \d+ jobs are done", text)


def test_by_hand_it_is_of_config_yaml_and_its_overlays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report"]) == 2 and "config.yaml: no such configuration file" in capsys.readouterr().err
    Path("config.yaml").write_text("experiment: first\nparts: [masks]\n")
    Path("mine.yaml").write_text("experiment: mine\nseed: 7\n")
    assert cli.main(["report", "--configfile", "mine.yaml"]) == 0
    text = Path("results/mine/report.html").read_text(encoding="utf-8")
    assert "<title>mine: what was found</title>" in text and "seed: 7" in text


def test_markdown_is_text_but_for_its_tables() -> None:
    html = markdown_html("## A\n\n| a | b |\n|---|---:|\n| **1** | <i>2 |\n")
    assert "<h4>A</h4>" in html and "<strong>1</strong>" in html and "&lt;i&gt;2" in html and "<i>" not in html


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not BROWSER:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_in_a_browser(browser: Any, page: Path, width: int, scheme: str) -> None:
    """No error, no request, no serious finding of axe-core, nothing wider than the window; and keys are enough."""
    from axe_playwright_python.sync_playwright import Axe

    said: list[str] = []
    asked: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.set_default_timeout(300_000)  # busy machines are slow, not wrong
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    for place in tab.locator(".vega").all():
        place.scroll_into_view_if_needed()
        place.locator("svg").wait_for()
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()] and said == []
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    text = page.read_text(encoding="utf-8")
    assert text.index("<h1") < text.index("<script"), "the answer is shown before a script is read"
    found = Axe().run(tab).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    _by_keys(tab)
    tab.close()


def _by_keys(tab: Any) -> None:
    """The first stop is the way to the answer; arrows choose a source, letters a class."""
    tab.evaluate("window.scrollTo(0, 0)")
    tab.locator("body").press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.locator("#wall .refused li").count() == 2
    tab.locator("#sources input:checked").focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#about").inner_text().startswith("real: ") and tab.locator("#wall .refused").count() == 0
    tab.locator("#class").focus()
    tab.keyboard.press("c")
    assert tab.locator("#class").evaluate("e => e.selectedOptions[0].text") == CLASSES[1]
    tab.locator(".plot summary").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".plot details").first.get_attribute("open") is not None
