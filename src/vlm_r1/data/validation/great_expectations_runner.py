"""Runs the declared checks with Great Expectations.

The package takes seconds to import, so functions import it when they need it.
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
class ExpectationResult:
    """Result of one check.

    Attributes:
        success: also true if a share of the rows may fail, and no more than that do.
        failing: positions, in the check's table, of the rows that fail.
        examples: the first of these rows, as shown in validation.json.
    """

    check: Check
    success: bool
    failing: list[int]
    examples: list[dict[str, Any]]

    def to_json_dict(self) -> dict[str, Any]:
        """As written to validation.json."""
        return {
            "name": self.check.name,
            "success": self.success,
            "failed": len(self.failing),
            "examples": self.examples,
        }


def run_checks(checks: list[Check], tables: Mapping[str, pd.DataFrame]) -> list[ExpectationResult]:
    """The result of every check on its table, in the order of `checks`."""
    results: dict[str, ExpectationResult] = {}
    for name, table in tables.items():
        selected = [check for check in checks if check.table == name]
        if selected:
            results |= _run(selected, table.reset_index(drop=True))
    return [results[check.name] for check in checks]


def _run(checks: list[Check], table: pd.DataFrame) -> dict[str, ExpectationResult]:
    gx = _great_expectations()
    expectations = [
        getattr(gx.expectations, check.expectation)(**check.arguments, meta={"name": check.name})
        for check in checks
    ]
    suite = gx.ExpectationSuite(name="records", expectations=expectations)
    validated = _batches().get_batch({"dataframe": table}).validate(suite, result_format="COMPLETE")
    # The results do not come in the order of the expectations.
    by_name = {one.expectation_config.meta["name"]: one for one in validated.results}
    return {check.name: _result(check, by_name[check.name], table) for check in checks}


def _great_expectations() -> ModuleType:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when the package is imported
    import great_expectations

    return great_expectations


@cache
def _batches() -> Any:
    """A batch definition for any table, in a context that is kept in memory only."""
    gx = _great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # The module sets its own level to INFO, to log that it has removed a temporary folder.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("records").add_dataframe_asset("records")
    return asset.add_batch_definition_whole_dataframe("all")


def _result(check: Check, validated: Any, table: pd.DataFrame) -> ExpectationResult:
    if "unexpected_index_list" not in validated.result:
        raise RuntimeError(f"expectation {check.name} did not run: {validated.exception_info}")
    failing = sorted(validated.result["unexpected_index_list"] or [])
    examples = [_example(table.iloc[i], check.columns) for i in failing[:EXAMPLES_SHOWN]]
    return ExpectationResult(check, bool(validated.success), failing, examples)


def _example(row: pd.Series, columns: list[str]) -> dict[str, Any]:
    return {
        "file": row["file"],
        "row": _json_value("row", row["row"]),
        "id": _json_value("record_id", row["record_id"]),
        "value": {column: _json_value(column, row[column]) for column in columns},
    }


def _json_value(column: str, value: Any) -> Any:
    """A cell as a JSON value; sizes become integers, though a column with gaps holds floats."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if column.endswith(("width", "height", "row")):
        return int(value)
    return value.item() if isinstance(value, np.generic) else value
