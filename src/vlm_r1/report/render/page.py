"""Renders report.html, the whole report, and report.md, its summary, from the same values.

The templates print no text of models or data unescaped: the environment escapes every expression.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vlm_r1.evaluation.slices import DIMENSIONS
from vlm_r1.report.analysis import LastStep
from vlm_r1.report.compute import largest_budgets
from vlm_r1.report.render.charts import (
    curve_charts,
    gain_charts,
    published_charts,
    training_charts,
)
from vlm_r1.report.render.cost_charts import flops_charts, flops_text, other_cost_charts
from vlm_r1.report.render.drawing import marks_of, page_svg, size_of
from vlm_r1.report.render.embedding import embed
from vlm_r1.report.render.gallery import TRUE_BOX_COLOR, GalleryCase
from vlm_r1.report.render.labels import (
    CHOICE_LABELS,
    DIMENSION_LABELS,
    MODEL_LABELS,
    RIGHT,
    ROLES,
    TEMPLATE_LABELS,
    TERM_LABELS,
)
from vlm_r1.report.render.sections import sections_of
from vlm_r1.report.render.threshold_charts import threshold_charts
from vlm_r1.report.schema import (
    AnswerLine,
    Comparison,
    GainLine,
    PromptLine,
    Report,
    SliceLine,
)
from vlm_r1.report.training import QUANTITIES
from vlm_r1.report.verdict import VerdictText
from vlm_r1.report.wording import NAMES, p_text, points

TEMPLATES = Path(__file__).parent / "templates"
# What markdown or HTML would act on; as entities these characters are only themselves.
MARKDOWN_MARKS = re.compile(r"[&<>|`*\[\]\\~#$]|_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_|:(?=//)|@")
LINE_ENDS = re.compile(r"[\s\x85\u2028\u2029]+")
FOREST_HALF_PX = 70  # half the width of the drawing of an interval


@dataclass(frozen=True)
class ReportPage:
    """Everything that report.html and report.md show."""

    report: Report
    verdict_text: VerdictText
    last_steps: list[LastStep]
    gallery: list[GalleryCase]
    notes: list[str]  # remarks on the result files
    skipped: list[tuple[str, str]]  # file, why it was not read
    confidence: float
    seed: int  # that chose the cases of the gallery


def render_html(page: ReportPage) -> str:
    """One self-contained page with charts, styles and images inside; nothing needs a script."""
    environment = _environment(autoescape=True)
    images = max(1, sum(case.png is not None for case in page.gallery))
    environment.filters["embedded"] = lambda png: embed(png, images)
    environment.globals |= {
        "curve_charts": curve_charts,
        "gain_charts": gain_charts,
        "flops_charts": flops_charts,
        "largest_budgets": largest_budgets,
        "other_cost_charts": other_cost_charts,
        "published_charts": published_charts,
        "training_charts": training_charts,
        "threshold_charts": threshold_charts,
        "forest": forest,
        "farthest": _farthest,
        "farthest_slice": _farthest_slice,
        "marks_of": marks_of,
        "page_svg": page_svg,
        "size_of": size_of,
        "true_box_color": TRUE_BOX_COLOR,
    }
    return environment.get_template("report.html.j2").render(
        page=page,
        sections=sections_of(
            page.report, notes=bool(page.notes or page.skipped), cases=bool(page.gallery)
        ),
    )


def render_markdown(page: ReportPage) -> str:
    """The summary: verdict, curves (curves.png beside it), equal terms, differences, gains."""
    environment = _environment(autoescape=False, finalize=_markdown)
    return environment.get_template("report.md.j2").render(page=page)


def render_rows(
    index: list[dict[str, Any]], images_a_part: int, unfair: list[str], several: bool
) -> str:
    """rows.html around the data that `viewer` writes; unlike the report it needs its script."""
    template = _environment(autoescape=True).get_template("rows.html.j2")
    return template.render(index=index, images_a_part=images_a_part, unfair=unfair, several=several)


def markdown_text(text: str) -> str:
    """`text` on one line, with nothing left that markdown or HTML would act on."""
    one_line = LINE_ENDS.sub(" ", text)
    return MARKDOWN_MARKS.sub(lambda mark: f"&#{ord(mark[0])};", one_line)


def forest(middle: float, low: float, high: float, farthest: float) -> Markup:
    """An interval and its zero line as SVG, in points; `farthest` from zero is the SVG's edge."""
    per_point = (FOREST_HALF_PX - 6) / (farthest or 1)
    ends = (min(max(value, -farthest), farthest) for value in (low, middle, high))
    left, center, right = (FOREST_HALF_PX + per_point * value for value in ends)
    side = "grpo" if low > 0 else "sft" if high < 0 else "open"
    return Markup(
        f'<svg class="forest {side}" viewBox="0 0 {2 * FOREST_HALF_PX} 18" aria-hidden="true">'
        f'<line class="zero" x1="{FOREST_HALF_PX}" x2="{FOREST_HALF_PX}" y1="0" y2="18"/>'
        f'<line class="span" x1="{left:.1f}" x2="{right:.1f}" y1="9" y2="9"/>'
        f'<circle cx="{center:.1f}" cy="9" r="4"/></svg>'
    )


def slice_groups(report: Report) -> list[tuple[str, list[SliceLine]]]:
    """(dimension, its slices over all datasets), in the order of the dimensions.

    A dimension with a single slice compares nothing and is left out.
    """
    groups = [(d, [x for x in report.slices.lines if x.dimension == d]) for d in DIMENSIONS]
    return [(dimension, lines) for dimension, lines in groups if len({x.name for x in lines}) > 1]


def first_and_last(lines: list[AnswerLine]) -> list[AnswerLine]:
    """The first and the last step of each method on each dataset; `lines` are in step order."""
    groups = groupby(lines, key=lambda line: (line.dataset, line.method))
    both = [list(group) for _, group in groups]
    return [line for group in both for line in (group[:1] + group[1:][-1:])]


def prompt_table(report: Report) -> list[tuple[str, list[list[PromptLine]]]]:
    """(dataset, one row of cells per model) of the prompt matrix."""
    datasets = dict.fromkeys(line.dataset for line in report.prompts)
    return [
        (name, [list(row) for _, row in groupby(_of(report, name), key=_model_of)])
        for name in datasets
    ]


def _model_of(line: PromptLine) -> tuple[str, int, int | None]:
    return line.model, line.step, line.seed


def _of(report: Report, dataset: str) -> list[PromptLine]:
    return [line for line in report.prompts if line.dataset == dataset]


def _farthest(comparisons: Sequence[Comparison | GainLine]) -> float:
    return max(abs(end) for c in comparisons for end in (c.ci_low, c.ci_high))


def _farthest_slice(report: Report) -> float:
    """Of slices that are large enough to be looked at; the others' intervals are cut off."""
    ends = [
        abs(end)
        for line in report.slices.lines
        if line.difference is not None and not line.undecided
        for end in (line.difference.ci_low, line.difference.ci_high)
    ]
    return max(ends, default=100.0)


def _environment(
    autoescape: bool, finalize: Callable[[object], object] | None = None
) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
        finalize=finalize,
    )
    environment.globals |= {
        "names": NAMES,
        "roles": ROLES,
        "right": RIGHT,
        "terms": TERM_LABELS,
        "choice_labels": CHOICE_LABELS,
        "dimensions": DIMENSION_LABELS,
        "models": MODEL_LABELS,
        "templates": TEMPLATE_LABELS,
        "quantities": QUANTITIES,
        "slice_groups": slice_groups,
        "prompt_table": prompt_table,
        "first_and_last": first_and_last,
    }
    environment.filters |= {
        "points": points,
        "one": lambda value: f"{value:.1f}",
        "two": _two_digits,
        "flops": flops_text,
        "three": lambda value: f"{value:.3f}",
        "count": lambda value: f"{value:,.0f}",
        "p": p_text,
        "boxes": _boxes_text,
        "value": _value_text,
        "zip": zip,
    }
    return environment


def _markdown(value: object) -> object:
    """Every printed expression of the markdown template passes here."""
    return markdown_text(value) if isinstance(value, str) else value


def _two_digits(value: float) -> str:
    """A quantity of unknown size: whole from 10 on, else two significant digits."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _boxes_text(boxes: list[Sequence[float]]) -> str:
    return ", ".join(f"({', '.join(f'{side:.0f}' for side in box)})" for box in boxes) or "no box"


def _value_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
