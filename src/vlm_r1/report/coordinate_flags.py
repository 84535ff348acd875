"""Table of results -> the report's block `coordinate_flags`: boxes in another coordinate space."""

from vlm_r1.evaluation.coordinate_space_check import CoordinateSpaceCheck, check_coordinate_space
from vlm_r1.report.results_table import EvalResult, ResultsTable
from vlm_r1.report.schema import CoordinateFlag


def coordinate_flags(table: ResultsTable) -> list[CoordinateFlag]:
    """Every result that scores significantly better in another coordinate space than its own."""
    tests = len(table.results)
    checks = [check_coordinate_space(r.scores.written_boxes, tests=tests) for r in table.results]
    found = [_flag(r, check) for r, check in zip(table.results, checks, strict=True)]
    return [flag for flag in found if flag is not None]


def _flag(result: EvalResult, check: CoordinateSpaceCheck) -> CoordinateFlag | None:
    if check.gain is None:
        return None
    return CoordinateFlag(
        method=result.method,
        dataset=result.dataset,
        step=result.step,
        seed=result.seed,
        assumed=check.assumed,
        better=check.best,
        accuracy=check.accuracy[check.assumed],
        better_accuracy=check.accuracy[check.best],
        gain=check.gain.mean,
        ci_low=check.gain.low,
        ci_high=check.gain.high,
        large=check.is_large,
        file=result.source,
        text=check.sentence,
    )
