"""Memory of a report's results: rows as columns against one object a row, in one run.

Run from the project's root: OMP_NUM_THREADS=1 python -m benchmarks.report_memory

The files are like those of our evaluation: two methods, five test and validation sets of 5,000
rows, 33 steps, which makes 1,650,000 answers. Each file is read anew for every step. The object
form (every row a `ResultRow`, every file its own arrays and keys) is measured on a tenth of the
steps and scaled; the column form at full size, then with the whole report built from it. Every form
runs in a process of its own; memory is resident memory above that of the process before it reads
anything.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import psutil

from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.boxes import iou, is_hit
from vlm_r1.rec.prompts import box_answer, question_for, r1_answer
from vlm_r1.rec.results import ResultFile, ResultRow, read_results, write_results
from vlm_r1.report.build import ReportContext, build_report
from vlm_r1.report.results_table import EvalResult, make_eval_result, share_columns
from vlm_r1.report.schema import Lineage

METHODS = ("sft", "grpo")
ROLES = {"val": "validation", "test_a": "id", "test_b": "id", "far_a": "ood", "far_b": "ood"}
LIMIT_MB = 1000  # for 1.65 million answers
HEIGHT, WIDTH = 480, 640
WORDS = ["the", "small", "large", "red", "left", "right", "man", "dog", "cup", "standing", "near"]


class Plan(NamedTuple):
    """How many rows a dataset has, and how many steps each method."""

    folder: Path
    rows: int
    steps: int

    @property
    def answers(self) -> int:
        """Number of answers in all files."""
        return len(METHODS) * len(ROLES) * self.rows * self.steps


class Memory(NamedTuple):
    """Resident megabytes: kept and at most, above those before reading; and the time it took."""

    kept_mb: float
    peak_mb: float
    process_mb: float  # peak of the whole process, interpreter and libraries included
    seconds: float


def main() -> None:
    """Print megabytes of every form, for the number of answers asked for."""
    options = _options()
    with TemporaryDirectory() as folder:
        plan = Plan(Path(folder), options.rows, options.steps)
        for dataset in ROLES:
            write_files(plan, dataset)
        part = plan._replace(steps=max(1, plan.steps // 10))
        objects = _in_own_process(keep_objects, part)
        columns = _in_own_process(keep_columns, plan)
        report = _in_own_process(make_report, plan) if options.report else None
    scale = plan.answers / part.answers
    print(f"{plan.answers:,} answers, {plan.rows:,} rows in each of {len(ROLES)} datasets")
    _print(f"objects, from {part.answers:,} answers", objects.kept_mb * scale, None, plan.answers)
    _print("columns", columns.kept_mb, columns, plan.answers)
    if report is not None:
        _print("columns, and the whole report", report.kept_mb, report, plan.answers)
    print(f"objects / columns: {objects.kept_mb * scale / columns.kept_mb:.1f}")
    highest = max(columns.process_mb, report.process_mb if report else 0)
    print(f"peak of the process {highest:.0f} MB, at most {LIMIT_MB}: {highest <= LIMIT_MB}")


def _print(form: str, kept_mb: float, memory: Memory | None, answers: int) -> None:
    rest = ""
    if memory is not None:
        rest = f", peak {memory.peak_mb:.0f} MB, whole process {memory.process_mb:.0f} MB"
        rest += f", {memory.seconds:.0f} s"
    print(f"{form}: {kept_mb:.0f} MB ({1e4 * kept_mb / answers:.2f} MB per 10,000 rows){rest}")


def write_files(plan: Plan, dataset: str) -> None:
    """One result file for each method, of the same records."""
    rng = np.random.default_rng(len(dataset))
    low = rng.uniform(0, 0.5, (plan.rows, 2)) * (WIDTH, HEIGHT)
    high = low + rng.uniform(40, 200, (plan.rows, 2))
    true_boxes = np.round(np.hstack([low, high]), 2)
    phrases = [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(plan.rows)]
    for method in METHODS:
        boxes = np.round(true_boxes + rng.normal(0, 25, true_boxes.shape)).astype(int)
        rows = [
            _row(dataset, method, i, phrases[i], true_boxes[i], boxes[i]) for i in range(plan.rows)
        ]
        accuracy = 100 * float(np.mean([row.correct for row in rows]))
        contract = {"coordinate_space": "original"}
        meta = {"contract": contract, "records": len(rows), "records_digest": dataset}
        write_results(
            _file(plan, method, dataset), ResultFile(accuracy=accuracy, results=rows, meta=meta)
        )


def _row(
    dataset: str, method: str, i: int, phrase: str, true_box: np.ndarray, box: np.ndarray
) -> ResultRow:
    thought = f"The sentence describes {phrase}. I look for it in the image and take its box."
    corners = tuple(box.tolist())
    text = r1_answer(thought, corners) if method == "grpo" else box_answer(corners, phrase)
    return ResultRow(
        question=question_for(phrase),
        ground_truth=tuple(true_box.tolist()),
        model_output=text,
        extracted_answer=corners,
        correct=int(is_hit(iou(box, true_box))),
        image=f"train2014/COCO_train2014_{i // 3:012d}.jpg",
        input_size=(476, 644),
        image_size=(HEIGHT, WIDTH),
        record_id=f"{dataset}:{i:06d}",
    )


def _file(plan: Plan, method: str, dataset: str) -> Path:
    return plan.folder / f"{method}-{dataset}.json"


def results_of(plan: Plan) -> Iterator[EvalResult]:
    """The results, in the order in which the stage `report` reads them."""
    for dataset, role in ROLES.items():
        for method in METHODS:
            for step in range(plan.steps):
                yield make_eval_result(
                    read_results(_file(plan, method, dataset)),
                    method=method,
                    dataset=dataset,
                    role=role,
                    step=step,
                    source=f"{method}/{dataset}/{step}",
                )


def keep_columns(plan: Plan) -> Any:
    """What a report keeps now."""
    return share_columns(results_of(plan))


def keep_objects(plan: Plan) -> Any:
    """What it kept before: every row as an object, every file's arrays, and a key of each row."""
    kept = []
    for dataset in ROLES:
        for method in METHODS:
            for _ in range(plan.steps):
                rows = read_results(_file(plan, method, dataset))
                keys = [(row.question, row.ground_truth, row.image) for row in rows.results]
                kept.append((rows.results, score_results(rows), keys))
    return kept


def make_report(plan: Plan) -> Any:
    """The column form, and the report built from it."""
    results = share_columns(results_of(plan))
    build_report(
        results,
        ReportContext(lineage=Lineage(versions={})),
        out=plan.folder / "report",
        confidence=0.95,
        seed=0,
        gallery=12,
    )
    return results


def measure(job: Callable[[Plan], Any], plan: Plan) -> Memory:
    """Run a job; its result stays alive until memory was read."""
    process = psutil.Process()
    before, started = process.memory_info().rss, time.monotonic()
    kept = job(plan)
    after = process.memory_info().rss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    del kept
    seconds = time.monotonic() - started
    return Memory((after - before) / 1e6, (peak - before) / 1e6, peak / 1e6, seconds)


def _in_own_process(job: Callable[[Plan], Any], plan: Plan) -> Memory:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (job, plan))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000, help="of a dataset")
    parser.add_argument("--steps", type=int, default=33, help="of a method")
    parser.add_argument("--no-report", dest="report", action="store_false")
    return parser.parse_args()


if __name__ == "__main__":
    main()
