"""Great Expectations runs the declared checks over the tables of facts.

It is imported inside functions: it takes seconds to load.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from vlm_r1.data.validation.suite import Check

EXAMPLES_SHOWN = 5


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Attributes:
        failing: positions, in the check's table, of the rows that do not meet it. A check that
            allows for a share of them succeeds nevertheless.
        examples: the first few of them, as validation.json shows them.
    """

    check: Check
    success: bool
    failing: list[int]
    examples: list[dict[str, Any]]

    def to_json_dict(self) -> dict[str, Any]:
        """As validation.json holds it."""
        return {
            "name": self.check.name,
            "success": self.success,
            "failed": len(self.failing),
            "examples": self.examples,
        }


def run_checks(checks: list[Check], tables: Mapping[str, pd.DataFrame]) -> list[Outcome]:
    """The outcome of every check on its table, in the order of `checks`."""
    outcomes = {}
    for name, table in tables.items():
        asked = [check for check in checks if check.table == name]
        if asked:
            outcomes |= _run(asked, table.reset_index(drop=True))
    return [outcomes[check.name] for check in checks]


def _run(checks: list[Check], table: pd.DataFrame) -> dict[str, Outcome]:
    gx = _great_expectations()
    expectations = [
        getattr(gx.expectations, check.kind)(**check.terms, meta={"name": check.name})
        for check in checks
    ]
    suite = gx.ExpectationSuite(name="records", expectations=expectations)
    validated = _batches().get_batch({"dataframe": table}).validate(suite, result_format="COMPLETE")
    # Its answers come in an order of its own.
    answers = {answer.expectation_config.meta["name"]: answer for answer in validated.results}
    return {check.name: _outcome(check, answers[check.name], table) for check in checks}


def _great_expectations() -> ModuleType:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when the package is imported
    import great_expectations

    return great_expectations


@cache
def _batches() -> Any:
    """A batch definition that takes any table; its context lives in memory only."""
    gx = _great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # This module raises its own level, to tell of a folder that it has removed again.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("records").add_dataframe_asset("records")
    return asset.add_batch_definition_whole_dataframe("all")


def _outcome(check: Check, answer: Any, table: pd.DataFrame) -> Outcome:
    if "unexpected_index_list" not in answer.result:
        raise RuntimeError(f"expectation {check.name} did not run: {answer.exception_info}")
    failing = sorted(answer.result["unexpected_index_list"] or [])
    examples = [_example(table.iloc[i], check.shows) for i in failing[:EXAMPLES_SHOWN]]
    return Outcome(check, bool(answer.success), failing, examples)


def _example(row: pd.Series, shows: list[str]) -> dict[str, Any]:
    place = {"file": row["file"], "row": _plain("row", row["row"])}
    value = {column: _plain(column, row[column]) for column in shows}
    return place | {"id": _plain("record_id", row["record_id"]), "value": value}


def _plain(column: str, value: Any) -> Any:
    """A value as JSON has it; sizes, which a table with gaps holds as floats, as whole numbers."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if column.endswith(("width", "height", "row")):
        return int(value)
    return value.item() if isinstance(value, np.generic) else value
