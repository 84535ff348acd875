"""report.html in headless Chromium, opened from disk: width, colors, keyboard, print, axe.

The pages are read with scripts turned off; only axe, which is one, is run with them.
"""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.report_files import tiny_params, write_experiment
from tests.test_report_blocks import write_matrix
from tests.test_report_from_logs import NAME, write_log
from vlm_r1 import paths
from vlm_r1.config import standalone
from vlm_r1.report.from_logs import report_from_logs
from vlm_r1.stages import report as stage

PHONE_PX, DESKTOP_PX = 390, 1280
LIMIT_BYTES = 5_000_000
SERIOUS = ("serious", "critical")
PAGES = ("project", "logs", "unfair")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine: `apt-get install chromium` (Debian, Ubuntu)")
    options = ["--disable-dev-shm-usage", *["--no-sandbox"] * (os.geteuid() == 0)]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Name -> folder of a report: of a project with all there is, of logs, of unequal terms."""
    root = tmp_path_factory.mktemp("pages")
    return {
        "project": project_report(root / "project"),
        "logs": logs_report(root / "logs"),
        "unfair": unfair_report(root / "unfair"),
    }


def project_report(root: Path) -> Path:
    """Cases on images that do not compress, training curves, a matrix of prompts."""
    params = tiny_params()
    write_experiment(root, params)
    random = np.random.default_rng(0)
    for dataset in params.test_datasets:
        for file in (root / params.datasets[dataset].images).glob("*.png"):
            pixels = random.integers(0, 255, (360, 640, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, compress_level=1)
    write_matrix(root)
    return stage.run(params, root)


def logs_report(root: Path) -> Path:
    """Logs with VLM-R1's names, so with its published curves, long names and no images."""
    (root / "in").mkdir(parents=True)
    for dataset in ("refcoco_val", "refgta_subsample"):
        for name, hits in (("baseline", 25), ("sft_100", 12), ("r1_100", 38), ("r1_200", 30)):
            write_log(root / "in", NAME.format(dataset, name), hits=hits, size=40)
    (root / "in" / ("a_very_long_name" * 8 + ".txt")).write_text("no log")
    settings = standalone.REPORT.model_copy(update={"gallery": 3})
    report_from_logs(root / "in", root / "out", settings=settings)
    return root / "out"


def unfair_report(root: Path) -> Path:
    params = tiny_params()
    write_experiment(root, params)
    for file in (root / paths.RESULTS / "sft").rglob("*.json"):
        result = json.loads(file.read_text())
        result["meta"]["contract"]["max_pixels"] = 500
        file.write_text(json.dumps(result))
    return stage.run(params, root, allow_unfair=True)


def open_page(
    browser: Browser, folder: Path, width: int = DESKTOP_PX, scheme: str = "light", script=False
) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
    )
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE_PX, DESKTOP_PX])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_as_wide_as_the_screen(browser, folders, tmp_path, name, width, scheme):
    page = open_page(browser, folders[name], width, scheme)
    needed = page.evaluate("document.documentElement.scrollWidth")
    assert needed <= width, f"scrolls sideways: {needed} px"
    image = tmp_path / f"{name}-{width}-{scheme}.png"
    page.screenshot(path=image)
    with Image.open(image) as shown:
        pixels = np.asarray(shown.convert("L"), dtype=float)
    assert pixels.shape == (900, width)
    paper = np.median(pixels)
    assert (paper < 60) if scheme == "dark" else (paper > 200)
    assert (abs(pixels - paper) > 100).mean() > 0.01, "nothing is written on it"
    page.context.close()


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("project", "light"), ("project", "dark"), ("logs", "light"), ("unfair", "dark")],
)
def test_axe_finds_no_serious_fault(browser, folders, name, scheme):
    page = open_page(browser, folders[name], DESKTOP_PX, scheme, script=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(page).response
    assert len(found["passes"]) > 15
    faults = [
        f"{fault['id']}: {fault['nodes'][0]['html'][:120]}"
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
    ]
    assert faults == []
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_one_file_below_five_megabytes_and_asks_for_nothing(browser, folders, name):
    assert (folders[name] / "report.html").stat().st_size < LIMIT_BYTES
    context = browser.new_context(java_script_enabled=False)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folders[name] / "report.html").as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    context.close()


def test_a_point_of_a_curve_says_its_values_by_keyboard_and_by_pointer(browser, folders):
    page = open_page(browser, folders["project"])
    mark = page.locator("#curves .mark.grpo").last
    tip = mark.locator(".tip")
    assert not tip.is_visible()
    mark.focus()
    assert tip.is_visible()
    assert tip.text_content().startswith("GRPO, step 2: 83.3 % (")
    assert mark.get_attribute("aria-label") == tip.text_content()
    other = page.locator("#curves .mark.sft").nth(1)
    other.locator(".hit").hover()
    assert other.locator(".tip").is_visible()
    assert tip.is_visible()  # the other one still has the focus
    page.context.close()


def test_tab_reaches_the_contents_the_verdict_then_the_curves(browser, folders):
    page = open_page(browser, folders["project"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    links = page.locator(".contents a").count()
    for _ in range(links + 1):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('section').id") == "verdict"
    page.keyboard.press("Tab")
    assert "mark" in page.evaluate("document.activeElement.getAttribute('class')")
    page.context.close()


def test_a_case_grows_when_it_is_opened_without_a_script(browser, folders):
    page = open_page(browser, folders["project"])
    image = page.locator(".case img").first
    before = image.bounding_box()["width"]
    page.locator(".case summary").first.focus()
    page.keyboard.press("Enter")
    assert image.bounding_box()["width"] > 2 * before
    page.context.close()


def test_print_is_dark_on_white_and_opens_what_is_folded(browser, folders, tmp_path):
    page = open_page(browser, folders["project"], scheme="dark")
    folded = page.locator("#curves details table")
    assert not folded.is_visible()
    page.emulate_media(media="print")
    assert folded.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(27, 29, 33)"
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
    page.context.close()


def test_headings_have_an_order_and_sections_a_name(browser, folders):
    page = open_page(browser, folders["project"])
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[:2] == [1, 2]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    names = page.evaluate("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert names[:5] == ["verdict", "curves", "fairness", "choices", "comparisons"]
    page.context.close()
