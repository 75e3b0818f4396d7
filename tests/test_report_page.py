"""The report in a browser: it sorts, filters, enlarges, and nothing goes wrong. Skipped where there is no Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_report import HOSTILE, measure, record, write_set

from attar.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (the extra `dev` has it)")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open the page in"),
]
THEMES = ("light", "dark")
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods of two classes, one of them with hostile names and one with maps."""
    root = tmp_path_factory.mktemp("page")
    folders = [write_set(root / name, name, 12) for name in ("ours", "prior")]
    folders += [write_set(root / "hostile", HOSTILE[1], 12, HOSTILE)]
    measure(folders[0])
    means = (9.5, 40.0, 30.0)
    methods = ("ours", "prior", HOSTILE[1])
    records = [record(one, mean, 12, name) for one, mean, name in zip(folders, means, methods, strict=True)]
    records = [replace(one, n_test=364) for one in records]
    write_report(folders, records, root / "page.html", HOSTILE[0])
    return root / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Open]:
    """Opens the page in a theme and width; at the end nothing may stand in its console."""
    said: list[str] = []
    pages: list[Page] = []

    def open_page(theme: Any = "light", width: int = 1200) -> Page:
        page = browser.new_page(color_scheme=theme, viewport={"width": width, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


def shown(page: Page, selector: str) -> list[str]:
    """The texts of what matches and is seen."""
    return [" ".join(one.inner_text().split()) for one in page.locator(selector).all() if one.is_visible()]


def methods(page: Page) -> list[str]:
    """The methods in the rows of the table of all results, but for the hostile one."""
    rows = shown(page, "table.sortable tbody th")
    return [row[1:].strip() for row in rows if "img" not in row]


def test_a_heading_sorts_the_table_by_mouse_and_by_keyboard(opened: Open) -> None:
    page = opened()
    heading = page.get_by_role("columnheader", name="Accuracy, %").get_by_role("button")
    heading.click()
    assert methods(page) == ["ours", "prior"], "9.5 comes before 40: as numbers"
    heading.focus()
    page.keyboard.press("Enter")
    assert methods(page) == ["prior", "ours"]
    assert page.locator("[aria-sort]").get_attribute("aria-sort") == "descending"


def test_rows_and_classes_are_filtered(opened: Open) -> None:
    page = opened()
    page.get_by_label("Show rows with").fill("PRIOR quick")
    assert methods(page) == ["prior"]
    assert shown(page, "#rows-shown") == ["1 of 3 rows"]
    page.locator("#class-shown").select_option("dog")
    assert shown(page, ".by-set .class .name") == ["dog", "dog"]
    assert shown(page, ".mapped .name") == ["dog"]
    page.get_by_text("Class by class, side by side").click()
    assert shown(page, ".comparison h3") == ["dog"]


def test_a_row_tells_its_command_and_its_manifest(opened: Open) -> None:
    page = opened()
    row = page.locator("table.sortable tbody tr", has_text="ours")
    row.locator("summary").click()
    (command,) = row.locator("pre").all_inner_texts()
    assert command.startswith("attar evaluate ")
    assert command.endswith("/ours --recipe quick --network convnet3 --seeds 3")
    assert "ours/manifest.json, fingerprint 0123456789abcdef" in row.inner_text()


def test_an_image_is_enlarged_where_it_is_pressed(opened: Open) -> None:
    page = opened()
    button = page.locator("button.zoom").first
    box = button.locator("svg").bounding_box()
    assert box
    step = box["width"] / (10 * 9 - 1) * 9
    button.click(position={"x": 1.4 * step, "y": 1.4 * step})
    large = page.get_by_role("dialog")
    assert large.locator("#large-title").inner_text() == "ours, IPC 12, cat: image 12 of 12"
    assert large.locator("svg").first.get_attribute("viewBox") == "9 9 8 8"
    large.get_by_role("button", name="Close").click()
    assert not large.is_visible()


def test_an_image_is_enlarged_from_the_keyboard(opened: Open) -> None:
    page = opened()
    page.locator("button.zoom").first.focus()
    page.keyboard.press("Enter")
    title = page.locator("#large-title")
    assert title.inner_text() == "ours, IPC 12, cat: image 1 of 12"
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == "ours, IPC 12, cat: image 12 of 12"
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    assert page.evaluate("document.activeElement === document.querySelector('button.zoom')"), "the focus comes back"


def test_hostile_names_do_nothing_in_a_browser(opened: Open) -> None:
    page = opened()
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("img").count() == 1, "the closest pairs of one set"
    assert page.locator("option").count() == 1 + 2 + len(HOSTILE)
    assert page.title() == HOSTILE[0]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(opened: Open, theme: str, width: int) -> None:
    page = opened(theme, width)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    for view in ("Set by set", "Class by class, side by side"):
        page.get_by_text(view, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.querySelectorAll('.by-class .strip')].map(one => one.clientWidth)")
    assert min(widths) > width / 2, "ten images in a row are to be seen, whatever stands beside them"


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [400, 1200])
def test_axe_finds_nothing_serious(opened: Open, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `dev` has it").Axe()
    page = opened(theme, width)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = axe.run(page).response["violations"]
    page.locator("button.zoom").first.click()
    found += axe.run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("theme", THEMES)
def test_text_stands_out_from_its_ground(opened: Open, theme: str) -> None:
    """Where axe cannot tell, as over the shades at the edges of tables: 4.5 of text, 3 of markers (WCAG 2.1 AA)."""
    page = opened(theme)
    colours = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const names = [..."ink muted link above below paper panel".split(" "),
                           ...[...Array(8).keys()].map(k => "series-" + k)];
            return Object.fromEntries(names.map(name => [name, style.getPropertyValue("--" + name).trim()]));
        }"""
    )
    for name, colour in colours.items():
        least = 3 if name.startswith("series") else 4.5
        grounds = ("paper", "panel") if name in ("ink", "muted") else ("paper",)
        assert name in ("paper", "panel") or all(contrast(colour, colours[on]) >= least for on in grounds), name


def contrast(one: str, other: str) -> float:
    """By WCAG 2.1."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_on_paper_there_are_no_controls_and_tables_are_whole(opened: Open) -> None:
    page = opened("dark")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.get_by_label("Show rows with").is_visible()
    assert shown(page, "table.sortable thead th")[-1] == "Judged in", "what has to be pressed to be seen is left out"
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()") == "#fff"


def test_every_region_has_its_heading(opened: Open) -> None:
    page = opened()
    assert all(page.locator(name).count() for name in ("header", "nav", "main", "footer"))
    assert page.locator("main > section").count() == page.locator("main > section > h2").count()
