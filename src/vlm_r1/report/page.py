"""report.html and report.md from one set of values; every text is escaped by the environment."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vlm_r1.evaluation.statistics import Resampling
from vlm_r1.report.analysis import LastStep
from vlm_r1.report.gallery import TRUTH_COLOR, Case
from vlm_r1.report.schema import Comparison, Report
from vlm_r1.report.verdict import NAMES, PLACES, Judgement, p_text, points

TEMPLATES = Path(__file__).parent / "templates"
ROLES = PLACES | {"validation": "validation (for choosing a checkpoint; never compared)"}
RIGHT = {
    "grpo": "Only GRPO right",
    "sft": "Only SFT right",
    "neither": "Neither right",
    "both": "Both right",
}
# What markdown or HTML would act on; as entities these characters are only themselves.
MARKDOWN_MARKS = re.compile(r"[&<>|`*\[\]\\~#$]|_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_|:(?=//)|@")
LINE_ENDS = re.compile(r"[\s\x85\u2028\u2029]+")
FOREST_HALF_PX = 70  # half the width of the drawing of an interval


@dataclass(frozen=True)
class Page:
    """All that the two pages show."""

    report: Report
    judgement: Judgement
    last_steps: list[LastStep]
    gallery: list[Case]
    notes: list[str]  # what a reader must know about the files
    skipped: list[tuple[str, str]]  # file, why it was not read
    resampling: Resampling


def render_html(page: Page, figure: Path) -> str:
    """One self-contained page: the figure and the gallery are inside."""
    environment = _environment(autoescape=True)
    environment.filters |= {"data_uri": _data_uri, "forest": lambda c: _forest(c, page.report)}
    template = environment.get_template("report.html.j2")
    return template.render(page=page, figure=figure.read_bytes(), truth_color=TRUTH_COLOR)


def render_markdown(page: Page) -> str:
    """The same as markdown; pictures are the files curves.png and gallery/*.png beside it."""
    environment = _environment(autoescape=False, finalize=_markdown)
    return environment.get_template("report.md.j2").render(page=page)


def markdown_text(text: str) -> str:
    """`text` on one line, with nothing left that markdown or HTML would act on."""
    one_line = LINE_ENDS.sub(" ", text)
    return MARKDOWN_MARKS.sub(lambda mark: f"&#{ord(mark[0])};", one_line)


def _environment(**options: object) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.globals |= {"names": NAMES, "roles": ROLES, "right": RIGHT}
    environment.filters |= {
        "points": points,
        "one": lambda value: f"{value:.1f}",
        "three": lambda value: f"{value:.3f}",
        "count": lambda value: f"{value:,.0f}",
        "p": p_text,
        "box": _box_text,
        "value": _value_text,
    }
    return environment


def _markdown(value: object) -> object:
    """Every printed expression of the markdown template passes here."""
    return markdown_text(value) if isinstance(value, str) else value


def _box_text(box: tuple[float, ...] | None) -> str:
    return "no box" if box is None else f"({', '.join(f'{side:.0f}' for side in box)})"


def _value_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _forest(comparison: Comparison, report: Report) -> Markup:
    """An interval and its zero line as SVG; one scale for all rows of a dataset."""
    rows = [c for c in report.comparisons if c.dataset == comparison.dataset]
    ends = [abs(end) for c in rows for end in (c.ci_low, c.ci_high)]
    per_point = (FOREST_HALF_PX - 6) / (max(ends) or 1)
    low, middle, high = (
        FOREST_HALF_PX + per_point * value
        for value in (comparison.ci_low, comparison.difference, comparison.ci_high)
    )
    side = "grpo" if comparison.ci_low > 0 else "sft" if comparison.ci_high < 0 else "open"
    return Markup(
        f'<svg class="forest {side}" width="{2 * FOREST_HALF_PX}" height="18" aria-hidden="true">'
        f'<line class="zero" x1="{FOREST_HALF_PX}" x2="{FOREST_HALF_PX}" y1="0" y2="18"/>'
        f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="9" y2="9"/>'
        f'<circle cx="{middle:.1f}" cy="9" r="4"/></svg>'
    )
