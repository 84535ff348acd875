"""The verdict on a dataset: the declared checks as one Great Expectations suite, and its page.

Great Expectations is imported inside functions: it takes seconds to load.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vlm_r1.config import Validation
from vlm_r1.data.checks import Check, declared_checks
from vlm_r1.data.images import open_picture
from vlm_r1.errors import DataError

EXAMPLES_SHOWN = 5

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Candidate:
    """A dataset that asks to be used.

    Attributes:
        records_file: as params.yaml names it, for messages.
        images: folder that `frame.image` is relative to.
    """

    name: str
    records_file: str
    images: Path
    frame: pd.DataFrame


def validate(candidates: list[Candidate], training: str, bounds: Validation) -> dict[str, dict]:
    """The verdict on every candidate, as validation.json holds it.

    Args:
        training: name of the candidate whose pictures the others must not repeat.

    Returns:
        name -> {verdict: "pass" or "fail", rows, quarantined, expectations: [{name, description,
        success, failed, examples: [{file, row, id, value}]}], leakage: [{image, training_image}]}.
        Rows count from 1; examples and leakage are the first few.
    """
    pictures = {c.name: _inspect_pictures(c) for c in candidates}
    trained_on = pictures[training].dropna(subset="sha256").drop_duplicates("sha256")
    trained_on = trained_on.set_index("sha256")["image"]
    gx = _great_expectations()
    checks = declared_checks(bounds)
    batches, suite = _batches(gx), _suite(gx, checks)
    verdicts = {}
    for candidate in candidates:
        twins = trained_on if candidate.name != training else trained_on.iloc[:0]
        facts = _with_facts(candidate.frame, pictures[candidate.name], twins)
        result = batches.get_batch({"dataframe": facts}).validate(suite, result_format=_FORMAT)
        verdicts[candidate.name] = _verdict(candidate, facts, checks, result)
    return verdicts


def render_page(name: str, verdict: dict) -> str:
    """validation.html: one self-contained page, everything in it escaped."""
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("validation.html").render(name=name, **verdict)


def _inspect_pictures(candidate: Candidate) -> pd.DataFrame:
    """One row per distinct picture: image, its size, its bytes' hash, and why it did not open."""
    rows = [_inspect(candidate.images, image) for image in candidate.frame["image"].unique()]
    return pd.DataFrame(rows).astype({"sha256": object, "picture_fault": object})


def _inspect(folder: Path, image: str) -> dict[str, Any]:
    path = folder / image
    facts = dict.fromkeys(("picture_width", "picture_height", "sha256", "picture_fault"))
    try:
        width, height = open_picture(path).size
    except DataError as error:
        # Named as in the records, so that the verdict is the same wherever the project lies.
        return facts | {"image": image, "picture_fault": error.got.replace(str(path), image)}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sizes = {"picture_width": width, "picture_height": height}
    return facts | sizes | {"image": image, "sha256": digest}


def _with_facts(frame: pd.DataFrame, pictures: pd.DataFrame, twins: pd.Series) -> pd.DataFrame:
    """The records with what the suite looks at: row, box sides, overhang, picture, its twin."""
    facts = frame.merge(pictures, on="image", how="left", validate="many_to_one")
    facts["row"] = range(1, len(facts) + 1)
    sides = pd.DataFrame({"x": facts["x2"] - facts["x1"], "y": facts["y2"] - facts["y1"]})
    facts["box_side_px"] = sides.min(axis="columns", skipna=False)
    right, bottom = facts["x2"] - facts["width"], facts["y2"] - facts["height"]
    beyond = pd.concat([-facts["x1"], -facts["y1"], right, bottom], axis="columns")
    facts["overhang_px"] = beyond.max(axis="columns", skipna=False)
    facts["training_image"] = facts["sha256"].map(twins).astype(object)
    return facts


def _great_expectations() -> ModuleType:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when the package is imported
    import great_expectations

    return great_expectations


# Rows of the first few failures, and how many there are; nothing else is read.
_FORMAT = {
    "result_format": "SUMMARY",
    "unexpected_index_column_names": ["row"],
    "partial_unexpected_count": EXAMPLES_SHOWN,
}


def _batches(gx: ModuleType) -> Any:
    """A batch definition that takes any table; the context lives in memory only."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("records").add_dataframe_asset("records")
    return asset.add_batch_definition_whole_dataframe("all")


def _suite(gx: ModuleType, checks: list[Check]) -> Any:
    expectations = [
        getattr(gx.expectations, check.kind)(**check.terms, meta={"name": check.name})
        for check in checks
    ]
    return gx.ExpectationSuite(name="records", expectations=expectations)


def _verdict(
    candidate: Candidate, facts: pd.DataFrame, checks: list[Check], result: Any
) -> dict[str, Any]:
    # Great Expectations answers in an order of its own.
    answers = {entry.expectation_config.meta["name"]: entry for entry in result.results}
    outcomes = [_outcome(candidate, facts, check, answers[check.name]) for check in checks]
    leaks = facts.dropna(subset="training_image").drop_duplicates("image").head(EXAMPLES_SHOWN)
    return {
        "verdict": "pass" if all(outcome["success"] for outcome in outcomes) else "fail",
        "rows": len(facts),
        "quarantined": 0,  # nothing is ever set aside: a dataset passes whole or not at all
        "expectations": outcomes,
        "leakage": leaks[["image", "training_image"]].to_dict("records"),
    }


def _outcome(candidate: Candidate, facts: pd.DataFrame, check: Check, answer: Any) -> dict:
    found = answer.result
    if "unexpected_count" not in found:
        raise RuntimeError(f"expectation {check.name} did not run: {answer.exception_info}")
    rows = sorted(place["row"] for place in found["partial_unexpected_index_list"])
    return {
        "name": check.name,
        "description": check.says,
        "success": bool(answer.success),
        "failed": int(found["unexpected_count"]),
        "examples": [_example(candidate, facts.iloc[row - 1], check.shows) for row in rows],
    }


def _example(candidate: Candidate, record: pd.Series, shows: list[str]) -> dict:
    value = record[shows].astype(object).where(record[shows].notna(), None)
    return {
        "file": candidate.records_file,
        "row": int(record["row"]),
        "id": record["record_id"],
        "value": {c: v.item() if isinstance(v, np.generic) else v for c, v in value.items()},
    }
