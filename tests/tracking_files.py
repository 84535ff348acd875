"""A tiny experiment's files, written by hand: what tests of tracking and registry look at."""

import json
import shutil
from pathlib import Path

import yaml
from PIL import Image

from vlm_r1 import paths, tracking
from vlm_r1.config import METHODS, Params, parse_params
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.rec.contract import TrainingContract, evaluation_contract, training_contract
from vlm_r1.rec.results import ResultFile, write_results

TRUE_BOX = (0.0, 0.0, 28.0, 28.0)
HIT, MISS = '{"bbox_2d": [0, 0, 28, 28]}', '{"bbox_2d": [28, 28, 56, 56]}'
RECORDS = 4
# Hits among four records, per method and dataset, at steps 0, 1 and 2.
HITS = {
    ("sft", "studio_val"): (1, 2, 3),
    ("sft", "studio_test"): (1, 4, 2),
    ("sft", "street_test"): (1, 1, 0),
    ("grpo", "studio_val"): (1, 4, 3),
    ("grpo", "studio_test"): (1, 2, 3),
    ("grpo", "street_test"): (1, 1, 2),
}


def copy_database(empty: Path, root: Path) -> Path:
    """Give `root` a copy of `empty`'s new database: MLflow takes 8 s to set one up."""
    if not (empty / ".mlflow").exists():
        tracking.configure(empty).search_experiments()
    shutil.copytree(empty / ".mlflow", root / ".mlflow")
    return root


def tiny_params(name: str = "tiny") -> Params:
    """The committed parameters with a grid of steps 0, 1 and 2."""
    values = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text("utf-8"))
    values["experiment"]["name"] = name
    values["train"].update(steps=2, checkpoints=1)
    return parse_params(values, "params.yaml")


def write_experiment(root: Path, params: Params, weights: str = "first") -> TrainingContract:
    """Everything that two trainings and their evaluation leave behind."""
    base = root / params.task.base_model
    write_checkpoint(base, "base")
    contract = training_contract(params, checkpoint_digest(base), "d" * 64)
    for method in METHODS:
        write_training(root, method, contract, weights)
    write_all_results(root, params, contract)
    return contract


def write_training(root: Path, run: str, contract: TrainingContract, weights: str) -> None:
    for step in contract.step_grid[1:]:
        folder = root / paths.checkpoint_dir(run, step)
        write_checkpoint(folder, f"{weights} {run} {step}")
        (folder / "contract.json").write_text(contract.model_dump_json())
    log = [
        {"step": step, "loss": 1.0 / step, "rewards/iou/mean": 0.1 * step, "odd(key)": step}
        for step in contract.step_grid[1:]
    ]
    folder = root / paths.run_dir(run)
    (folder / "training_log.jsonl").write_text("\n".join(json.dumps(line) for line in log) + "\n")
    method = run.partition("-")[0]
    cost = {"method": method, "seconds": 12.5, "prompts": 32, "completions": 256, "tokens": 999}
    steps = contract.step_grid[1:]
    cost["flops"] = 1e12
    cost["checkpoints"] = [
        {"step": step, "seconds": 6.25 * step, "tokens": 500 * step, "flops": 5e11 * step}
        for step in steps
    ]
    (folder / "cost.json").write_text(json.dumps(cost))
    if method == "grpo":
        write_samples(root, folder / "samples" / "step-1.json")


def write_checkpoint(folder: Path, weights: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "config.json").write_text("{}")


def write_samples(root: Path, file: Path) -> None:
    image = Path("data/drawn/studio_train/0.png")
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (56, 56), "white").save(root / image)
    shared = {"record_id": "a", "image": str(image), "expression": "the dot"}
    rows = [
        {**shared, "completion": HIT, "box": list(TRUE_BOX), "true_box": list(TRUE_BOX)},
        {**shared, "completion": "no", "box": None, "true_box": list(TRUE_BOX)},
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([{**row, "iou": 1.0, "format": 0.0, "reward": 1.0} for row in rows]))


def write_all_results(root: Path, params: Params, contract: TrainingContract) -> None:
    for (method, dataset), hits in HITS.items():
        for step, n in zip(contract.step_grid, hits, strict=True):
            write_result(root, params, contract, method, dataset, step, n)


def write_result(
    root: Path,
    params: Params,
    contract: TrainingContract,
    method: str,
    dataset: str,
    step: int,
    hits: int,
) -> None:
    """One result file with `hits` right answers of RECORDS, of the run that `contract` tells."""
    run = params.run_name(method, contract.seed)
    folder = paths.checkpoint_dir(run, step) if step else Path(params.task.base_model)
    meta = {
        "method": method,
        "dataset": dataset,
        "role": params.datasets[dataset].role,
        "step": step,
        "checkpoint_digest": checkpoint_digest(root / folder),
        "records": RECORDS,
        "images": RECORDS,
        "records_digest": (dataset * 10)[:64],
        "contract": evaluation_contract(contract, params).model_dump(),
    }
    rows = [
        {
            "question": f"the dot {i}",
            "ground_truth": TRUE_BOX,
            "model_output": HIT if i < hits else MISS,
            "extracted_answer": None,
            "correct": int(i < hits),
            "image": f"{i}.png",
            "input_size": (56, 56),
            "image_size": (56, 56),
        }
        for i in range(RECORDS)
    ]
    result = ResultFile(accuracy=100 * hits / RECORDS, results=rows, meta=meta)
    write_results(root / paths.result_file(run, dataset, step), result)
