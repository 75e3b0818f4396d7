"""The report in a browser: it sorts, filters, enlarges, and nothing goes wrong. Skipped where there is no Chromium."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, record, write_set

from attar.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open the page in"),
]
HEADS = "table.sortable tbody tr th"
NAMES = f"[...document.querySelectorAll('{HEADS}')].map(cell => cell.textContent.trim().slice(1))"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Three methods of two classes, one of them with hostile names."""
    folders = [write_set(tmp_path / name, name, 12) for name in ("ours", "prior")]
    folders += [write_set(tmp_path / "hostile", HOSTILE[1], 12, HOSTILE)]
    means = (9.5, 40.0, 30.0)
    methods = ("ours", "prior", HOSTILE[1])
    records = [record(one, mean, 12, name) for one, mean, name in zip(folders, means, methods, strict=True)]
    records = [replace(one, n_test=364) for one in records]
    write_report(folders, records, tmp_path / "page.html", HOSTILE[0])
    return tmp_path / "page.html"


def told(page: Path, script: str) -> Any:
    """What a function body returns that runs on the page after its own script; no error may stand in the console."""
    probe = f"document.title = JSON.stringify((() => {{ {script} }})());"
    digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    source = page.read_text(encoding="utf-8").replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    probed = page.with_name("probed.html")
    probed.write_text(source.replace("</body>", f"<script>{probe}</script></body>"), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run([*command, profile, probed.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title
    return json.loads(unescape(title[1]))


def test_a_press_on_a_heading_sorts_the_table(page: Path) -> None:
    press = "document.querySelectorAll('.sortable thead button')[5].click();"
    up, down, sort = told(
        page,
        f"{press} const up = {NAMES}; {press}"
        f"return [up, {NAMES}, document.querySelector('[aria-sort]').getAttribute('aria-sort')];",
    )
    assert up[0::2] == ["ours", "prior"], "9.5 comes before 30 and 40: as numbers"
    assert down == up[::-1]
    assert sort == "descending"


def test_rows_and_classes_are_filtered(page: Path) -> None:
    rows, said, classes = told(
        page,
        """
        const words = document.getElementById("rows-with");
        words.value = "PRIOR quick"; words.dispatchEvent(new Event("input"));
        const rows = [...document.querySelectorAll(".sortable tbody tr")].filter(row => row.offsetParent !== null);
        const chosen = document.getElementById("class-shown");
        chosen.selectedIndex = 2; chosen.dispatchEvent(new Event("change"));
        const parts = [...document.querySelectorAll(".by-set .class")].filter(part => part.offsetParent !== null);
        const said = document.getElementById("rows-shown").textContent;
        return [rows.map(row => row.cells[0].textContent.trim().slice(1)), said,
                parts.map(part => part.querySelector(".name").textContent)];
        """,
    )
    assert rows == ["prior"]
    assert said == "1 of 3 rows"
    assert classes == ["dog", "dog"]


def test_an_image_is_enlarged_and_the_arrow_keys_go_on(page: Path) -> None:
    title, box, after, closed = told(
        page,
        """
        const button = document.querySelector("button.zoom");
        const svg = button.querySelector("svg"), at = svg.getBoundingClientRect();
        const scale = at.width / svg.viewBox.baseVal.width;
        const place = { clientX: at.left + (1 * 9 + 4) * scale, clientY: at.top + (1 * 9 + 4) * scale };
        button.dispatchEvent(new MouseEvent("click", { detail: 1, bubbles: true, ...place }));
        const large = document.getElementById("large"), title = () => large.querySelector("p").textContent;
        const first = title(), box = large.querySelector("svg").getAttribute("viewBox");
        large.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
        const after = title();
        document.getElementById("large-close").click();
        return [first, box, after, !large.open];
        """,
    )
    assert title == "ours, IPC 12, cat: image 12 of 12"
    assert box == "9 9 8 8"
    assert after == "ours, IPC 12, cat: image 1 of 12"
    assert closed


def test_hostile_names_do_nothing_in_a_browser(page: Path) -> None:
    scripts, images, options = told(
        page,
        """return [document.scripts.length, document.images.length,
                   [...document.querySelectorAll("option")].map(option => option.textContent)]""",
    )
    assert scripts == 2, "the page's, and the one that asks"
    assert images == 0
    assert len(options) == 1 + 2 + len(HOSTILE)


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(page: Path, width: int) -> None:
    frame = page.with_name("frame.html")
    frame.write_text(page.read_text(encoding="utf-8").replace("<body>", f'<body style="width: {width}px">'))
    wide = told(
        frame,
        """
        const right = document.body.getBoundingClientRect().right;
        const held = part => part.closest(".scroll, pre, .unseen, .sprites, dialog, figure.chart");
        return [...document.body.querySelectorAll("*")]
            .filter(part => !held(part) && part.getBoundingClientRect().right > right + 1)
            .map(part => part.tagName + "." + part.getAttribute("class"));
        """,
    )
    assert not wide


def test_every_control_has_a_name_and_every_region_its_heading(page: Path) -> None:
    nameless, landmarks, headings = told(
        page,
        """
        const named = part => part.textContent.trim() || part.getAttribute("aria-label") || part.labels?.length
            || part.querySelector("[aria-label]");
        const controls = [...document.querySelectorAll("button, a, input, select, summary, [tabindex]")];
        return [controls.filter(part => !named(part)).map(part => part.outerHTML),
                ["header", "nav", "main", "footer"].filter(name => !document.querySelector(name)),
                [...document.querySelectorAll("main > section")].filter(part => !part.querySelector("h2")).length];
        """,
    )
    assert (nameless, landmarks, headings) == ([], [], 0)
