from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import result_record

from attar.core.errors import AttarError
from attar.core.portable_paths import portable
from attar.core.store import canonical
from attar.evaluation.records import Record, Trial
from attar.report import charts, write_report
from attar.report.manifest_rows import distill_command, evaluate_commands
from attar.report.maps import noise_maps_of
from attar.report.names import class_title
from attar.report.results import results_tables
from attar.report.set_names import method_names
from attar.report.sprites import BUDGET, SHOWN_CHOICES, fitting, image_of, sheet
from attar.sets.distilled import find_distilled, open_distilled, write_distilled
from attar.sets.near_copies import folder_of

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "$\\frac{1}{",
    "{{ 7 * 7 }}",
    "_under\nline",
)


DATA: dict[str, Any] = {
    "spec": "digits@train",
    "imbalance_factor": None,
    "hold_out": False,
    "images": 100,
    "fingerprint": "ff",
    "skipped": [],
}


def write_set(
    folder: Path,
    name: str = "d3hr",
    ipc: int = 1,
    classes: Sequence[str] = ("cat", "dog"),
    size: int = 8,
    **more: Any,
) -> Path:
    rng = np.random.default_rng(ipc)
    images = (
        (label, index, rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        for label in range(len(classes))
        for index in range(ipc)
    )
    manifest = {
        "attar": "0.1.0",
        "run": "0123456789abcdef",
        "method": {"name": name, "is": "X", "sampler": {"is": "Sampler", "steps": 50, "guided_channels": None}},
        "ipc": ipc,
        "seed": 0,
        "preprocess": "adm",
        "data": DATA,
        "prior": {"source": "my prior", "fingerprint": "ee", "labels": list(range(len(classes)))},
        "compute": {"device": "cpu", "dtype": "float32", "tile": 16},
        "seconds": {"fit": 30.0, "candidates": 3.0},
        "machine": {"device": "cpu", "python": "3.11"},
        "versions": {"torch": "2.11"},
        "written": "2026-01-01T00:00:00Z",
        **more,
    }
    write_distilled(folder, classes, lambda done: images, manifest)
    return folder


def measure(folder: Path) -> None:
    """What `attar nearest` keeps of a set, made up."""
    one = open_distilled(folder)
    ipc = one.manifest["ipc"]
    real, images = (np.random.default_rng(0).normal(size=(count, 2)).round(3).tolist() for count in (100, ipc))
    each = [[0.1 * k for k in range(ipc)] for _ in one.classes]
    found = {
        "kind": "pixels",
        "distances": each,
        "numbers": [list(range(ipc)) for _ in one.classes],
        "real": each,
        "maps": [{"variance": [0.5, 0.2], "real": real, "images": images, "starts": images} for _ in one.classes],
    }
    folder_of(one).mkdir()
    Image.new("RGB", (8, 16)).save(folder_of(one) / "closest-pixels.png")
    kept = {"set": one.manifest["digest"], "measures": [found]}
    (folder_of(one) / "nearest.json").write_text(json.dumps(kept))


def record(folder: Path, mean: float, ipc: int = 1, method: str = "d3hr", random: float = 30.0) -> Record:
    own, baseline = (result_record(middle - 0.5, middle, middle + 0.5) for middle in (mean, random))
    return replace(own, set=str(folder), ipc=ipc, method=method, baseline=baseline)


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of each table cell."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def cells(self) -> dict[str, list[str]]:
        """Row heading -> its cells, of the first results table."""
        body = re.search(r'<table class="results">(.*?)</table>', self.source, re.DOTALL)
        assert body
        found = {}
        for line in re.findall(r"<tr.*?</tr>", body[1], re.DOTALL)[1:]:
            plain = [re.sub(r"<[^>]+>", "", cell) for cell in re.split(r"</t[hd]>", line)]
            found[" ".join(plain[0].split())[1:].strip()] = [" ".join(cell.split()) for cell in plain[1:-1]]
        return found


@pytest.fixture
def page(tmp_path: Path) -> Page:
    folders = [write_set(tmp_path / m / f"ipc-{i:03d}", m, i) for m in ("prior", "d3hr") for i in (1, 10)]
    records = [
        record(folders[0], 29.0, 1, "prior"),
        record(folders[1], 50.2, 10, "prior", 50.0),
        record(folders[2], 40.0, 1),
        record(folders[3], 60.0, 10, "d3hr", 50.0),
        replace(record(Path(), 97.5, method="all data"), set="", ipc=0, baseline=None),
    ]
    write_report([tmp_path / "prior", tmp_path / "d3hr", folders[0]], records, tmp_path / "page.html", "A title")
    return Page(tmp_path / "page.html")


def test_the_table_says_what_the_records_say(page: Page) -> None:
    cells = page.cells()
    assert list(cells) == ["prior", "d3hr", "random real images", "all of the data"]
    points = "points against random n = 3, 12 s"
    assert cells["prior"] == [f"29.0 ± 0.5 \N{MINUS SIGN}1.0 {points}", f"50.2 ± 0.5 +0.2 {points}"]
    assert cells["d3hr"] == [f"40.0 ± 0.5 (best) +10.0 {points}", f"60.0 ± 0.5 (best) +10.0 {points}"]
    assert cells["random real images"] == ["30.0 ± 0.5 n = 3, 12 s", "50.0 ± 0.5 n = 3, 12 s"]
    assert cells["all of the data"][0].startswith("97.5 ± 0.5 ceiling")
    verdicts = re.findall(r'class="difference (\w+)', page.source.partition('id="terms"')[0], re.DOTALL)
    assert verdicts == ["below", "even", "above", "above"]


def test_what_was_not_learnt_is_marked(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    unlearnt = replace(record(folder, 30.0), learnt=(10.0, 9.9, 50.0), chance=13.0)
    write_report([folder], [unlearnt], tmp_path / "page.html")
    words = "2 of 3 networks did not learn their training set (10.0 %, 9.9 %, as by chance): lower lr, or train longer"
    (cell,) = Page(tmp_path / "page.html").cells()["d3hr"]
    assert cell.endswith(f"not learnt: {words}")
    write_report([folder], [replace(unlearnt, learnt=(50.0, 51.0, 52.0))], tmp_path / "page.html")
    (cell,) = Page(tmp_path / "page.html").cells()["d3hr"]
    assert "not learnt" not in cell


def test_the_page_is_self_contained_and_runs_its_own_script_alone(page: Page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert not {"link", "iframe", "img", "object"} & set(tags)
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{allowed}'" in policy
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import", page.source)


def test_references_inside_the_page_lead_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a[n] for _, a in page.tags for n in ("href", "xlink:href") if (a.get(n) or "").startswith("#")}
    targets |= set(re.findall(r"url\((#[^)]+)\)", page.source))
    assert {str(target)[1:] for target in targets} <= set(ids)


def test_pictures_have_words_and_tables_headings(page: Page) -> None:
    assert all(attributes.get("aria-label") for _, attributes in page.tags if attributes.get("role") == "img")
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags)
    assert "d3hr, IPC 10, class dog: 10 of 10 images" in page.source
    assert "d3hr: 40.0 ± 0.5 at IPC 1, 60.0 ± 0.5 at IPC 10" in page.source


def test_the_chart_takes_its_colours_from_the_page(page: Page) -> None:
    chart = re.search(r'<figure class="chart".*?</figure>', page.source, re.DOTALL)
    assert chart
    assert {"var(--series-0)", "var(--series-1)", "var(--muted)", "currentColor"} <= set(
        re.findall(r"var\(--[\w-]+\)|currentColor", chart[0])
    )
    assert not re.search(r"#0000[0-9a-f]{2}", chart[0])


def test_a_set_is_there_once_with_its_settings_and_commands(page: Page, tmp_path: Path) -> None:
    assert len(re.findall(r'<image id="s\d+-\d+"', page.source)) == 4 * 2, "one for each set and class"
    assert "sampler.guided_channels" in page.text
    assert "0123456789abcdef" in page.text
    place = shlex.quote(portable(str(tmp_path / "d3hr" / "ipc-010")))
    assert f"attar verify {place}" in page.text
    assert f"attar evaluate {place} --recipe quick --network convnet3 --seeds 3" in page.text


def test_every_method_has_a_colour_in_light_dark_and_print() -> None:
    style = (Path(charts.__file__).parent / "page.css").read_text()
    assert [style.count(f"--series-{k}:") for k in range(charts.COLOURS)] == [3] * charts.COLOURS


def test_the_page_is_written_the_same_twice(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    for name in ("a", "b"):
        write_report([folder], [record(folder, 40.0), record(tmp_path / "y", 50.0, 10)], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folders = [write_set(tmp_path / f"s{k}", name, 1 + 9 * (k % 2), HOSTILE) for k, name in enumerate(HOSTILE)]
    records = [
        record(one, 40.0, 1 + 9 * (k % 2), name) for k, (one, name) in enumerate(zip(folders, HOSTILE, strict=True))
    ]
    records += [replace(one, ipc=11 - one.ipc, set=f"{one.set}b") for one in records]
    records = [replace(one, network=HOSTILE[0], recipe=HOSTILE[1], device=HOSTILE[1]) for one in records]
    write_report(folders, records, tmp_path / "page.html", HOSTILE[0])
    page = Page(tmp_path / "page.html")
    assert "img" not in {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(name in page.text for name in HOSTILE)
    assert "49" not in page.source.split("<h1>")[1].split("</h1>")[0]


def test_a_thousand_classes_make_a_small_page(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "big", classes=[f"class {k}" for k in range(1000)], size=16)
    write_report([folder], [], tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert len(page.source) < 100_000
    assert sum(attributes.get("class") == "zoom" for _, attributes in page.tags) == 20
    assert "980 more classes" in page.text
    assert "class 950" in page.text
    assert "have not been evaluated yet" in page.text


def test_sets_of_other_classes_show_those_they_share(tmp_path: Path) -> None:
    many = write_set(tmp_path / "many", classes=[f"class {k}" for k in range(100)])
    few = write_set(tmp_path / "few", "prior", classes=["class 17", "class 3"])
    write_report([many, few], [], tmp_path / "page.html")
    headings = re.findall(
        r'<article class="comparison"[^>]*>\s*<h3[^>]*>(.*?)</h3>', (tmp_path / "page.html").read_text()
    )
    assert headings == ["class 3", "class 17"]


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_sprite_holds_the_images_pixel_for_pixel(tmp_path: Path) -> None:
    files = find_distilled(write_set(tmp_path / "set", ipc=12))[0].files()
    sheets = [sheet("cat", [image_of(file) for file in of_class], 12) for of_class in files]
    look, uris = fitting(lambda count: sheets)
    assert look.quality is None
    for made, uri, of_class in zip(sheets, uris, files, strict=True):
        pixels = np.asarray(decoded(uri).convert("RGB"))
        assert pixels.shape == (8 + 1 + 8, 10 * 9 - 1, 3), "ten in a row"
        for index, file in enumerate(of_class):
            x, y = index % 10 * made.step, index // 10 * made.step
            np.testing.assert_array_equal(pixels[y : y + 8, x : x + 8], np.asarray(Image.open(file).convert("RGB")))
        assert made.pixelated


def test_images_of_different_sizes_fit_their_cells() -> None:
    made = sheet("x", [Image.new("RGB", (300, 150), "red"), Image.new("RGB", (20, 30), "red")], 2)
    assert made.cell == 128
    assert not made.pixelated
    assert made.picture.size == (128 + 8 + 128, 128)
    alpha = np.asarray(made.picture)[..., 3] > 0
    assert alpha[:, :128].sum() == 128 * 64
    assert alpha[:, 136:].sum() == 20 * 4 * 30 * 4


def test_a_page_is_as_fine_as_its_budget_allows() -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(50)]

    def draw(count: int) -> list[Any]:
        return [sheet("x", noise[:count], 50)]

    sizes = []
    for budget in (BUDGET, 30_000, 6_000, 1):
        look, uris = fitting(draw, budget)
        sizes.append(len(uris[0]))
        assert (look.images, look.quality) in SHOWN_CHOICES
        assert budget == 1 or sizes[-1] <= budget
    assert sizes == sorted(sizes, reverse=True)
    assert (look.images, look.quality) == SHOWN_CHOICES[-1]


@pytest.mark.slow
def test_ten_classes_by_fifty_images_by_six_methods_stay_below_five_megabytes(tmp_path: Path) -> None:
    """Of noise, the hardest there is to compress, with a map of each class."""
    classes = [f"class {k}" for k in range(10)]
    for method in range(6):
        measure(write_set(tmp_path / str(method), f"method {method}", 50, classes, 32))
    write_report([tmp_path / str(method) for method in range(6)], [], tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 5_000_000
    dots = re.findall(r'<symbol [^>]*><path d="([^"]*)"', (tmp_path / "page.html").read_text())
    assert [path.count("L") for path in dots] == [100] * 6 * 10, "every real image is a dot: a line of no length"


def test_no_path_of_this_machine_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place, other = tmp_path / "my runs", "/home/someone/else/photos"
    data = {**DATA, "spec": f"imagefolder:{other}@train", "skipped": [f"{other}/a.png"]}
    prior = {"source": str(place / "prior"), "fingerprint": "ee", "codec_source": "/opt/models/vae"}
    method = {"name": "confident", "select": {"is": "Select", "rule": "confident", "teacher": "aa"}}
    chosen = {"named": {"teacher": "/home/someone/teacher", "teacher_classes": None, "teacher_normalise": None}}
    folders = [
        write_set(place / name, data=data, prior=prior, method=method, selected_by=chosen) for name in ("one", "two")
    ]
    teacher = {"source": f"{other}/teacher", "digest": "dd"}
    labels = {"scheme": "fp16", "bytes": 9}
    records = [replace(record(one, 40.0), test=f"{other}@test", teacher=teacher, labels=labels) for one in folders]
    write_report(folders, records, tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    assert not re.findall(rf"{re.escape(str(tmp_path))}|/home/|/opt/", source)
    assert "attar verify &#39;my runs/one&#39;" in source, "as seen from the current folder"
    assert "imagefolder:.../else/photos@train" in source


def test_the_real_images_that_a_set_is_made_of_are_named(tmp_path: Path) -> None:
    names = [[[f"{name}/<{number}>.jpg"] for number in range(3)] for name in ("cat", "dog")]
    folder = write_set(tmp_path / "set", ipc=3, real_images=names)
    write_report([folder], [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<dt>dog</dt><dd>dog/&lt;0&gt;.jpg; dog/&lt;1&gt;.jpg; dog/&lt;2&gt;.jpg</dd>" in page
    write_report([write_set(tmp_path / "other", ipc=3)], [], tmp_path / "page.html")
    assert "real images that these are" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("names", [[[["a.png"]]], [[["a.png"]], []], [[[]], [["a.png"]]], [["a.png"], ["b.png"]]])
def test_names_that_are_not_of_each_image_are_damage(tmp_path: Path, names: Any) -> None:
    folder = write_set(tmp_path / "set")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "real_images": names}))
    with pytest.raises(AttarError, match="is damaged: real_images"):
        open_distilled(folder)


def test_starts_that_are_drawn_elsewhere_have_a_map_of_their_own(tmp_path: Path) -> None:
    noise = {"label": 1, "shares": [0.5, 0.2], "real": [[1, 2], [3, 4]], "spread": [[4, 0], [0, 1]], "starts": [[9, 9]]}
    folder = write_set(tmp_path / "set", noise=[noise])
    (drawn,) = noise_maps_of([open_distilled(folder)], [0])
    real, ellipse, starts = re.findall(r'<path d="([^"]*)"', drawn[1].symbol)
    side = float(re.findall(r'viewBox="0 0 (\S+)', drawn[1].symbol)[0])
    x, y = ([float(place) for place in re.findall(r"-?[\d.]+", ellipse)][axis::2] for axis in (0, 1))
    assert (max(x) - min(x)) / (max(y) - min(y)) == pytest.approx(2, rel=0.05), "twice as wide as high"
    every = [float(place) for path in (real, ellipse, starts) for place in re.findall(r"-?[\d.]+", path)]
    assert all(0 <= place <= side for place in every)


@pytest.mark.parametrize(
    "wrong", [{"label": 2}, {"spread": [[4, 0]]}, {"starts": [[1e300, 0]]}, {"shares": [2, 0]}, {"real": [[1]]}]
)
def test_a_map_that_a_page_cannot_draw_is_damage(tmp_path: Path, wrong: dict[str, Any]) -> None:
    noise = {"label": 1, "shares": [0.5, 0.2], "real": [[1, 2]], "spread": [[4, 0], [0, 1]], "starts": [[9, 9]]}
    folder = write_set(tmp_path / "set", noise=[noise])
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "noise": [noise | wrong]}))
    with pytest.raises(AttarError, match="is damaged: noise"):
        open_distilled(folder)


def test_a_wordnet_id_is_told_in_words() -> None:
    assert class_title("n01440764") == "tench"
    assert class_title("n02012849") == "crane (n02012849)", "there are two cranes"
    assert [class_title(name) for name in ("n99999999", "cat")] == ["n99999999", "cat"]


def test_the_page_says_what_was_won_on_how_many_images(page: Page, tmp_path: Path) -> None:
    unsure = "n = 3; 364 test images, ± 2.6 by their choice alone"
    assert f"IPC 10: d3hr 60.0 ± 0.5 %, 10.0 points above random real images (50.0 ± 0.5) ({unsure})." in page.text
    folder = write_set(tmp_path / "only")
    write_report([folder], [record(folder, 30.2)], tmp_path / "one.html")
    assert (
        "IPC 1: d3hr 30.2 ± 0.5 %, within the spread of random real images (30.0 ± 0.5)"
        in Page(tmp_path / "one.html").text
    )


def test_one_ipc_has_a_chart_too(tmp_path: Path) -> None:
    folders = [write_set(tmp_path / f"s{k}", name) for k, name in enumerate(HOSTILE)]
    records = [record(one, 40.0 + k, method=HOSTILE[k]) for k, one in enumerate(folders)]
    write_report(folders, records, tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    (chart,) = re.findall(r'<figure class="chart".*?</figure>', source, re.DOTALL)
    assert "methods at IPC 1" in chart
    assert all(charts.symbol(style) in chart for style in (0, 1, 2, None))


def test_the_terms_are_those_that_the_page_uses(page: Page, tmp_path: Path) -> None:
    terms = page.source.partition('id="terms"')[2]
    assert "<dt>All of the data</dt>" in terms
    assert "<dt>Not learnt</dt>" not in terms
    assert "<dt>Prototypes</dt>" not in terms
    write_report([write_set(tmp_path / "set")], [], tmp_path / "bare.html")
    assert re.findall(r"<dt>(.*?)</dt>", (tmp_path / "bare.html").read_text().partition('id="terms"')[2]) == [
        "IPC",
        "Prior",
    ]


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    file = find_distilled(folder)[0].files()[1][0]
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(AttarError, match=f"{file.name}.*attar verify {re.escape(str(folder))}"):
        write_report([folder], [], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(AttarError, match="is a folder"):
        write_report([], [], folder)


def test_methods_are_told_apart_only_where_they_must_be(tmp_path: Path) -> None:
    folders = [
        write_set(tmp_path / "one" / "ipc-001"),
        write_set(tmp_path / "one" / "ipc-010", ipc=10),
        write_set(tmp_path / "two", "prior"),
    ]
    sets = [find_distilled(folder)[0] for folder in folders]
    assert list(method_names(sets, []).values()) == ["d3hr", "d3hr", "prior"]
    again = find_distilled(write_set(tmp_path / "again", seed=1))
    assert list(method_names(sets[:2] + again, []).values()) == ["d3hr, seed 0", "d3hr, seed 0", "d3hr, seed 1"]
    same = find_distilled(write_set(tmp_path / "same"))
    assert set(method_names(sets[:2] + same, []).values()) == {"d3hr (one)", "d3hr (same)"}
    trial = Trial(item="i", judged="j", label="slow", seeds=(0, 1, 2), distilling=1.0, bytes=1)
    labelled = [replace(record(one.folder, 40.0), trial=trial) for one in sets[:1]]
    assert next(iter(method_names(sets[:2] + same, labelled).values())) == "slow"


@pytest.mark.parametrize("method", ["random", "prior", "d3hr"])
def test_the_command_gives_the_method_back(tmp_path: Path, method: str) -> None:
    from attar.methods import load_method

    asked = load_method(method)
    described = {"name": method, **canonical(asked)}
    folder = write_set(tmp_path / "a folder", method, method=described)
    words = shlex.split(distill_command(find_distilled(folder)[0]))
    changes = dict(words[k + 1].split("=", 1) for k, word in enumerate(words) if word == "--set")
    assert load_method(method, changes) == asked
    assert words[words.index("--out") + 1] == str(folder)
    assert words[words.index("--prior") + 1] == "my prior"
    assert words[words.index("--classes") + 1] == "cat,dog"
    from typer.testing import CliRunner

    from attar.cli import app

    flags = {word for word in words if word.startswith("--")}
    shown = CliRunner().invoke(app, ["distill", "--help"], env={"COLUMNS": "200"}).output
    assert all(flag in shown for flag in flags)


def test_the_report_needs_no_torch() -> None:
    import subprocess

    code = "import sys, attar.report; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_random_real_images_that_are_a_method_too_stand_in_one_row() -> None:
    def record(method: str, accuracy: float) -> Record:
        return result_record(accuracy, set=f"/{method}", method=method, baseline=result_record(20.0))

    names = {"/random": "random", "/prior": "prior"}
    styles = {"random": 0, "prior": 1}
    (table,) = results_tables([record("random", 20.0), record("prior", 25.0)], names, styles)
    assert [row.name for row in table.rows] == ["random", "prior"]
    (table,) = results_tables([record("random", 21.0), record("prior", 25.0)], names, styles)
    assert [row.name for row in table.rows] == ["random", "prior", "random real images"]


def test_tests_on_the_way_make_curves_of_the_mean_over_the_seeds(tmp_path: Path) -> None:
    folder, plain = write_set(tmp_path / "set"), write_set(tmp_path / "plain", "random")
    curves = (((5, 20.0), (10, 46.0), (15, 40.0)), ((5, 30.0), (10, 44.0), (15, 50.0)))
    one, random = replace(record(folder, 45.0), curves=curves, best=(46.0, 50.0)), record(plain, 30.0, method="random")
    assert one.baseline
    baseline = replace(one.baseline, curves=curves[:1], best=(46.0,))
    one = replace(one, recipe="minimax-hard", changes={}, baseline=baseline)
    records = [one, replace(one, network="convnet4"), random]
    write_report([folder, plain], records, tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    (section,) = re.findall(r'<section id="curves">.*?</section>', source, re.DOTALL)
    assert re.findall(r"<td>(.*?)</td>", section) == 2 * ["25.0", "48.0", "45.0", "20.0", "46.0", "40.0"]
    assert [*re.findall(r"<h3>(.*?) <", section)] == ["convnet3, IPC 1", "convnet4, IPC 1"]
    assert section.count("after 5 to 15 epochs") == section.count("random real images</th>") == 2
    assert "against the epochs of training" in section
    write_report([folder], [replace(one, recipe="quick", changes={})], tmp_path / "page.html")
    (section,) = re.findall(r'<section id="curves">.*?</section>', (tmp_path / "page.html").read_text(), re.DOTALL)
    assert "after 5 to 15 steps" in section
    assert "against the steps of training" in section
    assert "epochs" not in section
    by_epochs = replace(one, recipe="quick (modified)", changes={"steps": None, "epochs": 15})
    assert by_epochs.counted_in == "epochs"
    assert replace(by_epochs, changes={"steps": 9}).counted_in == "steps"
    assert replace(one, recipe="of another version").counted_in == "epochs"
    same = replace(
        random, recipe=one.recipe, changes={}, curves=curves, best=(46.0, 50.0), accuracies=baseline.accuracies
    )
    write_report([folder, plain], [one, same], tmp_path / "page.html")
    assert "random real images</th>" not in (tmp_path / "page.html").read_text().split('<section id="curves">')[1]
    write_report([plain], [random], tmp_path / "page.html")
    assert "#curves" not in (tmp_path / "page.html").read_text()


def test_other_changes_and_other_tests_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    changed = replace(record(folder, 50.0), recipe="quick (modified)", changes={"steps": 300, "flip": False})
    records = [
        replace(record(folder, 40.0), test="digits@test", changes={}),
        replace(changed, test="digits@test"),
        replace(changed, changes={"steps": 9}, test="digits@test"),
        replace(changed, test="held-out"),
    ]
    write_report([folder], records, tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    assert re.findall(r'<h3>convnet3 <span class="quiet">(.*?)</span>', source) == [
        "recipe quick; tested on digits@test",
        "recipe quick with flip=false, steps=300; tested on digits@test",
        "recipe quick with steps=9; tested on digits@test",
        "recipe quick with flip=false, steps=300; tested on held-out",
    ]
    assert source.count(">quick with steps=9</td>") == 1
    assert "<dt>convnet3, quick with steps=9; tested on digits@test</dt>" in source


def test_the_evaluate_command_gives_the_recipe_and_the_test_back() -> None:
    from attar.evaluation import RECIPES, changes, modified

    recipe = modified(RECIPES.open("rded-soft"), {"flip": False, "epochs": "9:10, 20", "size": None, "lr": 0.5})
    named = replace(record(Path("a set"), 40.0), recipe=recipe.name, changes=changes(recipe), test="my data@test")
    (command,) = evaluate_commands([named], False)
    words = shlex.split(command)
    given = dict(words[k + 1].split("=", 1) for k, word in enumerate(words) if word == "--set")
    assert modified(RECIPES.open(words[words.index("--recipe") + 1]), given) == recipe
    assert words[words.index("--test") + 1] == "my data@test"
    assert words[2] == "a set"
    old = record(Path("a"), 40.0)
    assert not evaluate_commands(
        [replace(old, recipe="quick (modified)"), replace(old, recipe="mine", changes={})], False
    )
    assert "--test" not in evaluate_commands([old], False)[0]
    trial = Trial(item="i", judged="j", label="d3hr", seeds=(2,), distilling=1.0, bytes=1)
    assert not evaluate_commands([replace(old, accuracies=(40.0,), trial=trial)], False), (
        "evaluate takes the first seeds only"
    )


@pytest.mark.parametrize(("sizes", "told"), [((200, 200), "fixed, 200 bytes"), ((200, 800), "fixed")])
def test_bytes_of_labels_are_told_where_all_have_as_many(sizes: tuple[int, int], told: str, tmp_path: Path) -> None:
    folders = [write_set(tmp_path / name) for name in ("a", "b")]
    labels = [{"scheme": "fixed", "bytes": size} for size in sizes]
    about = {"source": "t", "digest": "d"}
    records = [
        replace(record(folder, 40.0), teacher=about, labels=own, test="digits@test")
        for folder, own in zip(folders, labels, strict=True)
    ]
    write_report(folders, records, tmp_path / "page.html")
    headings = re.findall(r'<h3>convnet3 <span class="quiet">(.*?)</span>', (tmp_path / "page.html").read_text())
    assert headings == [f"recipe quick, labels of t, {told}; tested on digits@test"]


def test_the_distill_command_names_all_sources(tmp_path: Path) -> None:
    data = {"spec": "digits@train", "images": 90, "fingerprint": "ff", "skipped": []}
    prior = {"source": "my prior", "fingerprint": "ee", "labels": [0, 1]}
    view, own = {"hold_out": True, "imbalance_factor": 10.0}, {"codec_source": "my codec", "class_map": "my map.toml"}
    (full,) = find_distilled(write_set(tmp_path / "full", data=data | view, prior=prior | own))
    words = shlex.split(distill_command(full))
    assert "--hold-out" in words
    for flag, value in [("--imbalance-factor", "10.0"), ("--codec", "my codec"), ("--class-map", "my map.toml")]:
        assert words[words.index(flag) + 1] == value
    plain = {"hold_out": False, "imbalance_factor": None}, {"codec_source": None, "class_map": None}
    (none,) = find_distilled(write_set(tmp_path / "none", data=data | plain[0], prior=prior | plain[1]))
    (old,) = find_distilled(write_set(tmp_path / "none2", data=data, prior=prior))
    for one in (none, old):
        flags = {"--hold-out", "--imbalance-factor", "--codec", "--class-map"}
        assert not flags & set(shlex.split(distill_command(one)))
