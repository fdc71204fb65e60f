"""The page in a real browser: it opens from disk, loads nothing else, and reacts to mouse, touch and keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, find_browser

from poise.cli import main
from poise.data.demo import write_demo_data
from poise.models import create_model
from poise.models.files import save_model

READY = "document.body && document.body.dataset.ready !== undefined"
EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two assigners on generated scenes, one image without objects, and a class with a nasty name."""
    find_browser()
    folder = tmp_path_factory.mktemp("lab")
    data = write_demo_data(folder / "scenes", train=1, val=3, size=96)
    annotations = next(path for path in data.rglob("*.json") if "val" in path.name)
    content = json.loads(annotations.read_text())
    last = content["images"][-1]["id"]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != last]
    content["categories"][0]["name"] = EVIL
    annotations.write_text(json.dumps(content))
    out = folder / "page.html"
    model = create_model("atss_r18_fpn", 8, image_size=96, backbone="test_byobnet", channels=16, depth=1)
    save_model(model, folder / "model.pt")
    models = [str(folder / "model.pt"), "task_aligned"]
    words = ["lab", "compare", *models, "--data", str(data), "--split", "val", "--device", "cpu"]
    assert main([*words, "--images", "0", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def detr_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Co-DETR with two auxiliary heads and one without, on two generated scenes."""
    find_browser()
    folder = tmp_path_factory.mktemp("detr")
    data = write_demo_data(folder / "scenes", train=1, val=2, size=96)
    options = {
        "channels": 32,
        "attention_heads": 4,
        "hidden": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "max_auxiliary_queries": 20,
    }
    for name, heads in (("co", "faster_rcnn,atss"), ("plain", "")):
        parts = {"queries": 20, "auxiliary_heads": heads, "backbone": "test_byobnet", **options}
        save_model(create_model("co_deformable_detr_r18", 8, image_size=96, **parts), folder / name / "model.pt")
    words = ["lab", "compare", *(str(folder / name / "model.pt") for name in ("co", "plain")), "--data", str(data)]
    out = folder / "page.html"
    assert main([*words, "--split", "val", "--device", "cpu", "--images", "0", "--out", str(out)]) == 0
    return out


@pytest.fixture
def browser(page: Path, tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as one:
        one.open(page)
        one.wait_for(READY)
        yield one
        assert one.complaints == []


def bright(browser: Browser, number: int) -> int:
    """Pixels of a heat map that have a color."""
    return browser.run(f"""(() => {{ const c = document.querySelectorAll(".pane canvas:first-child")[{number}];
        const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) {{
            const rgb = d.slice(i, i + 3);
            n += Math.max(...rgb) - Math.min(...rgb) > 40;
        }}
        return n }})()""")


def test_the_page_shows_heat_maps_lists_and_numbers(browser: Browser, tmp_path: Path) -> None:
    assert browser.run("document.querySelectorAll('.pane').length") == 6
    assert bright(browser, 0) > 100 and bright(browser, 1) > bright(browser, 0)
    assert browser.run("document.querySelectorAll('.levels canvas').length") == 6 * 5
    headings = browser.run("[...document.querySelectorAll('#panels h3')].map((one) => one.textContent)")
    assert headings[1] == f"assigner task_aligned on the predictions of {headings[0]}"
    assert "w pos: positive weight" in browser.run("document.querySelector('figcaption').textContent")
    assert "ambiguous positive" in browser.run("document.getElementById('key').innerText")
    table = "[...document.querySelectorAll('#charts .scroll tr')].map((row) => row.innerText.split('\\t'))"
    heading, first, *_ = browser.run(table)
    assert heading[:3] == ["class", "method", "objects"] and int(first[2]) > 0 and float(first[7]) > 0
    assert "Agreement" in browser.run("document.getElementById('charts').textContent")
    assert browser.run("document.images.length") == 0  # the class's name is text, not markup
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_selecting_an_object_ranks_its_priors(browser: Browser) -> None:
    browser.click(*browser.center("#list tr.pick"))
    browser.wait_for("document.body.dataset.ready === '0 0'")
    rows = "[...document.querySelectorAll('#list table:first-of-type tr.pick')]"
    weights = browser.run(rows + ".map((row) => Number(row.children[4].textContent))")
    assert weights[0] > 0 and weights == sorted(weights, reverse=True)
    browser.click(*browser.center("#list tr.pick"))
    shown = browser.run("document.getElementById('prior').textContent")
    assert "assigned to#0" in shown and "w pos" in shown and "IoU" in shown
    assert browser.run("document.querySelectorAll('#list tr[aria-selected=true]').length") == 1


def test_pointing_and_touching_a_heat_map(browser: Browser) -> None:
    browser.click(*browser.center(".pane"))
    shown = browser.run("document.getElementById('prior').textContent")
    assert "stride" in shown and "highest IoU" in shown and "predicted box, image pixels" in shown
    browser.run("select(null)")
    assert "Point at" in browser.run("document.getElementById('prior').textContent")
    browser.touch(*browser.center("figure:last-child .pane"))
    assert "stride" in browser.run("document.getElementById('prior').textContent")


def test_keys_and_controls(browser: Browser) -> None:
    for key, ready in (("ArrowDown", "0 0"), ("ArrowDown", "0 1"), ("Escape", "0 -1"), ("ArrowRight", "1 -1")):
        browser.press(key)
        browser.wait_for(f"document.body.dataset.ready === '{ready}'")
    browser.press("]")
    browser.wait_for("document.getElementById('level').value === '8'")
    browser.press("c")
    browser.wait_for("document.getElementById('scale').value === 'log'")
    browser.press("m")
    browser.wait_for("document.querySelectorAll('.pane').length === 3")
    browser.click(*browser.center("#next"))
    browser.wait_for("document.body.dataset.ready === '2 -1'")  # the image without objects
    assert "no objects" in browser.run("document.getElementById('list-title').textContent")
    assert bright(browser, 0) == 0 < bright(browser, 1)


def test_dark_and_narrow(browser: Browser) -> None:
    light = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.run("getComputedStyle(document.body).backgroundColor") != light
    browser.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=2, mobile=True)
    browser.wait_for("innerWidth === 400")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    row = "document.querySelector('.row')"
    assert browser.run(f"{row}.scrollWidth > {row}.clientWidth && {row}.clientWidth > 300")  # to be swiped
    browser.touch(*browser.center(".pane"))  # the values of a prior lie over the page, and can be closed
    extent = "document.getElementById('prior').getBoundingClientRect()"
    browser.wait_for(f"{extent}.bottom <= innerHeight && {extent}.top > 0")
    assert "stride" in browser.run("document.getElementById('prior').textContent")
    browser.touch(*browser.center(".close"))
    browser.wait_for("document.getElementById('prior').textContent.includes('Point at')")


def test_queries_and_encoders_of_detrs(detr_page: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        browser.open(detr_page)
        browser.wait_for(READY)
        stages = browser.run("[...document.getElementById('stage').options].map((one) => one.value)")
        assert stages[:3] == ["encoder", "queries/1", "queries"]
        assert {"atss/dense", "faster_rcnn/rpn", "faster_rcnn/queries"} <= set(stages)
        assert browser.run("document.getElementById('stage').value") == "queries"
        assert "reference of a query" in browser.run("document.getElementById('key').innerText")
        browser.wait_for("document.querySelectorAll('#encoder-panels .pane').length === 4")
        browser.wait_for("document.querySelectorAll('#encoder-panels .legend').length === 2")
        shown = browser.run("document.getElementById('encoders').textContent")
        assert "auxiliary, atss (20)" in shown and "IoF" in shown and "Conflict of heads" in shown
        assert browser.run("document.querySelectorAll('#encoder-charts svg polyline').length") == 2 * 2 + 2
        browser.press("ArrowDown")  # the first object: one query, whose position and box are shown
        browser.wait_for("document.body.dataset.ready === '0 0'")
        assert browser.run("document.querySelectorAll('#list tr.positive').length") == 2
        browser.click(*browser.center("#list tr.pick"))
        shown = browser.run("document.getElementById('prior').textContent")
        assert "query" in shown and "assigned to#0" in shown
        browser.run("select(null)")
        x, y = browser.run("""(() => {
            const stage = stageOf(data.methods[0]), row = selectedPriors(stage).rows[0][0];
            const pane = document.querySelector(".pane").getBoundingClientRect(), zoom = pane.width / scene.size[0];
            const [x, y] = middle(stage.priors.box("cell", row));
            return [pane.x + x * zoom, pane.y + y * zoom] })()""")
        browser.click(x, y)  # a dot can be pointed at
        assert "query" in browser.run("document.getElementById('prior').textContent")
        assert browser.complaints == []
