"""rows.html in headless Chromium, opened from disk: every row, its boxes, and the filters."""

import pytest

from tests.report_files import IMAGES, PHRASES, tiny_params, write_experiment
from tests.test_report_page import browser  # noqa: F401
from vlm_r1 import paths
from vlm_r1.stages import report as stage

ROWS = IMAGES * PHRASES
EVIL = "<img src=x onerror=document.title='evil'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory, browser):  # noqa: F811
    """GRPO is right on rows 0-9 out of domain at step 2, SFT on row 0 alone; row 11 is hostile."""
    root, params = tmp_path_factory.mktemp("project"), tiny_params()

    def poison(result):
        lines = list(result.results)
        lines[11] = lines[11].model_copy(update={"model_output": EVIL})
        return result.model_copy(update={"results": lines})

    write_experiment(root, params, poison)
    folder = stage.run(params, root)
    opened = browser.new_context().new_page()
    opened.failed = []
    opened.on("pageerror", lambda error: opened.failed.append(str(error)))
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto((root / paths.REPORT / "rows.html").as_uri())
    assert folder == root / paths.REPORT
    return opened


@pytest.fixture(autouse=True)
def unfiltered(page):
    for name in ("grpo-right", "sft-right", "slice"):
        page.select_option(f"#{name}", "")
    page.fill("#text", "")
    page.select_option("#dataset", label="street_test, out of domain")
    counted(page, ROWS)


def counted(page, rows: int) -> None:
    page.wait_for_function(f"document.getElementById('count').textContent.startsWith('{rows} of')")
    page.wait_for_function(f"document.querySelectorAll('.case').length === {rows}")


def test_it_shows_every_row_with_image_boxes_and_both_answers(page):
    first = page.locator(".case").first
    assert first.locator("blockquote").text_content() == "“the 0 cup”"
    shapes = first.locator("rect").evaluate_all("all => all.map(r => r.getAttribute('class'))")
    assert shapes == ["halo", "truth", "grpo", "sft"]
    truth = first.locator("rect.truth")
    assert [truth.get_attribute(side) for side in ("x", "y", "width", "height")] == [
        "10", "10", "20", "20",
    ]  # fmt: skip
    assert first.locator("svg").get_attribute("viewBox") == "0 0 80 60"
    assert first.locator("img").evaluate("image => image.naturalWidth") == 80


def test_it_filters_by_who_was_right_at_the_chosen_steps(page):
    assert page.input_value("#grpo-step") == page.input_value("#sft-step") == "2"
    page.select_option("#grpo-right", "1")
    counted(page, 10)
    page.select_option("#sft-right", "0")
    counted(page, 9)
    page.select_option("#sft-step", "0")  # there SFT is right on rows 0-3
    counted(page, 6)
    page.select_option("#sft-step", "2")


def test_it_filters_by_slice_and_text(page):
    labels = page.locator("#slice option").all_text_contents()
    assert labels[0] == "all rows"
    page.select_option("#slice", label=next(one for one in labels if "3 or 4" in one))
    counted(page, ROWS)  # every phrase has three words
    page.fill("#text", "the 7 cup")
    counted(page, 1)


def test_texts_of_models_are_shown_and_never_run(page):
    page.fill("#text", "onerror")
    counted(page, 1)
    assert EVIL in page.locator(".raw").first.text_content()
    assert page.title() == "Every row: SFT and GRPO compared"


def test_it_works_from_disk_and_without_an_error(page):
    assert page.failed == []
    assert {url.partition(":")[0] for url in page.asked} <= {"file", "data"}
