"""VLM-R1's published curves on the datasets of a report; published.json has them with sources.

Datasets are recognized by VLM-R1's own names (`refcoco_val`, `refgta_subsample`, `lisa_test`, ...),
so synthetic datasets have none. A curve of the mean over several datasets needs all of them.
"""

import json
from collections.abc import Collection
from pathlib import Path

from vlm_r1.report.schema import CurvePoint, PublishedSeries

FILE = Path(__file__).with_name("published_curves.json")


def published_series(datasets: Collection[str]) -> list[PublishedSeries]:
    """The published curves on these datasets."""
    known = json.loads(FILE.read_text(encoding="utf-8"))
    return [
        PublishedSeries(
            source=known["sources"][series["source"]]["title"],
            method=series["method"],
            datasets=series["datasets"],
            points=list(zip(series["steps"], series["percent"], strict=True)),
            withdrawn=series.get("withdrawn", False),
            note=known["sources"][series["source"]]["note"],
        )
        for series in known["series"]
        if set(series["datasets"]) <= set(datasets)
    ]


def our_curve(
    curves: list[CurvePoint], method: str, datasets: Collection[str]
) -> list[tuple[int, float]]:
    """(step, percent) of `method`: the mean over `datasets` at the steps that all of them have.

    Example: 80 % and 90 % at step 0 of two datasets, one alone at step 100 -> [(0, 85.0)]
    """
    found = {(c.dataset, c.step): c.accuracy for c in curves if c.method == method}
    steps = sorted({step for _, step in found})
    common = [step for step in steps if all((name, step) in found for name in datasets)]
    return [(s, sum(found[name, s] for name in datasets) / len(datasets)) for s in common]
