"""Result files, costs and images of a tiny experiment, written by hand for the report's tests."""

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from PIL import Image

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params, parse_params
from vlm_r1.evaluation.prompt_matrix_file import PromptMatrix
from vlm_r1.rec.prompts import question_for
from vlm_r1.rec.results import ResultFile, ResultRow, write_results

IMAGES, PHRASES = 6, 2  # per dataset, per image
STEPS = (0, 1, 2)
TRUTH = (10.0, 10.0, 30.0, 30.0)
HIT, MISS = '{"bbox_2d": [10, 10, 30, 30]}', '{"bbox_2d": [40, 40, 60, 50]}'
CONTRACT = {
    "coordinate_space": "original",
    "max_pixels": 1000,
    "prompts": {"sft": "plain", "grpo": "r1"},
}
# Rows (of 12) that are right, per method and role, at each of STEPS.
HITS = {
    ("sft", "id"): (4, 8, 10),
    ("sft", "ood"): (4, 3, 1),
    ("grpo", "id"): (4, 6, 9),
    ("grpo", "ood"): (4, 8, 10),
    ("sft", "validation"): (1, 2, 3),
    ("grpo", "validation"): (1, 2, 3),
}


def tiny_params(**report: int) -> Params:
    """The committed parameters with three steps and few resamples."""
    values = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text("utf-8"))
    values["train"].update(steps=2, checkpoints=1)
    values["report"].update(gallery=6, **report)
    return parse_params(values, "params.yaml")


def rows(hits: int, text: str = "the {} cup") -> list[ResultRow]:
    """Twelve rows on six images, the first `hits` of them right."""
    return [
        ResultRow(
            question=question_for(text.format(i)),
            ground_truth=TRUTH,
            model_output=HIT if i < hits else MISS,
            extracted_answer=TRUTH if i < hits else (40, 40, 60, 50),
            correct=int(i < hits),
            image=f"{i // PHRASES}.png",
        )
        for i in range(IMAGES * PHRASES)
    ]


def write_experiment(
    root: Path, params: Params, change: Callable[[ResultFile], ResultFile] = lambda result: result
) -> None:
    """All that the report stage reads; `change` may alter every result before it is written."""
    for dataset in params.evaluated_datasets:
        write_images(root / params.datasets[dataset].images)
        for method in METHODS:
            hits = HITS[method, params.datasets[dataset].role]
            for step, count in zip(STEPS, hits, strict=True):
                result = change(result_file(method, dataset, step, rows(count)))
                write_results(root / paths.result_file(method, dataset, step), result)
    for method, completions in (("sft", 32), ("grpo", 256)):
        cost = {"method": method, "seconds": 12.5, "prompts": 32, "completions": completions}
        file = root / paths.run_dir(method) / "cost.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        cost |= {"tokens": 1000, "flops": 1e12, "checkpoints": checkpoint_costs(method)}
        file.write_text(json.dumps(cost), encoding="utf-8")
        configuration = params.model_dump(include={"train", method}, mode="json")
        text = json.dumps({**configuration, "processes": 1})
        (file.parent / "configuration.json").write_text(text, encoding="utf-8")
        log = [{"step": step, "loss": 1 / step, "num_tokens": 9.0} for step in (1, 2)]
        lines = [json.dumps(line) + "\n" for line in log]
        (file.parent / "training_log.jsonl").write_text("".join(lines), encoding="utf-8")
    (root / paths.PROMPTS).mkdir(parents=True)
    PromptMatrix(cells=[]).write(root / paths.PROMPTS)


def checkpoint_costs(method: str) -> list[dict]:
    """A step of GRPO takes four times the FLOPs of one of SFT."""
    per_step = {"sft": 1e11, "grpo": 4e11}[method]
    return [
        {"step": step, "seconds": 6.25 * step, "tokens": 500 * step, "flops": per_step * step}
        for step in STEPS[1:]
    ]


def result_file(method: str, dataset: str, step: int, lines: list[ResultRow]) -> ResultFile:
    """A result file with the metadata that evaluation writes."""
    meta = {"method": method, "dataset": dataset, "step": step, "records_digest": f"d-{dataset}"}
    accuracy = 100 * sum(line.correct for line in lines) / len(lines)
    return ResultFile(accuracy=accuracy, results=lines, meta={**meta, "contract": CONTRACT})


def write_images(folder: Path) -> None:
    """Gray images of 80 x 60 px."""
    folder.mkdir(parents=True)
    for i in range(IMAGES):
        Image.new("RGB", (80, 60), (100 + i, 100, 100)).save(folder / f"{i}.png")
