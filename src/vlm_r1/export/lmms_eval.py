"""Writes prepared datasets as tasks for lmms-eval (EvolvingLMMs-Lab/lmms-eval).

A task folder holds, for each dataset and template, `vlm_r1_<dataset>_<template>.yaml` and `.jsonl`,
one `utils.py` whose functions the YAML names, and a copy of the modules of this package that they
import. Paths of records and images are absolute: the folder may move, the images may not.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.data.records import BOX, detects, read_records
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.experiment import base_path
from vlm_r1.files import whole_folder, write_text
from vlm_r1.models.families import Family, family_of
from vlm_r1.rec.prompts import TEMPLATES, fill_template, question_for
from vlm_r1.source_code import PACKAGE, imported_modules, module_file

TASK_MODULE = "vlm_r1.export.lmms_eval_task"
SPLIT = "test"  # the only split of the JSONL file
# A function that the YAML names, as lmms-eval's loader knows it: !function utils.doc_to_text
FUNCTION_TAG = "!function"
UTILS = f'''"""Written by `vlm-r1 export lmms-eval`: the functions, copied beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from {TASK_MODULE} import (  # noqa: E402, F401
    doc_to_target,
    doc_to_text,
    doc_to_visual,
    process_results,
)
'''
METRICS = ("vlm_r1_accuracy", "vlm_r1_mean_iou", "vlm_r1_parse_rate")


@dataclass(frozen=True)
class ExportedTasks:
    """The folder and the names of its tasks."""

    folder: Path
    tasks: list[str]


class _Function(str):
    """Name of a function in utils.py."""


class _Dumper(yaml.SafeDumper):
    """Writes `_Function` with lmms-eval's tag."""


_Dumper.add_representer(
    _Function, lambda dumper, name: dumper.represent_scalar(FUNCTION_TAG, f"utils.{name}")
)


def export_tasks(
    params: Params, root: Path, datasets: list[str], templates: list[str], out: Path
) -> ExportedTasks:
    """Write a task for every dataset in every template.

    Args:
        datasets: names in params.yaml, of datasets that are prepared.
        templates: names of `prompts.TEMPLATES`.
        out: a new folder, or one of an earlier export, which is replaced.

    Raises:
        ConfigError: a dataset is not evaluated, there is no such template, or `out` holds other
            files.
        DataError: a dataset is not prepared, or asks for several boxes.
        ModelError: the base model's family is unknown.
    """
    out = out.resolve()
    _require_names(params, datasets, templates)
    _require_own_folder(out)
    from vlm_r1.models.loading import model_type_at  # loads torch

    family = family_of(model_type_at(base_path(params, root)))
    tasks = []
    with whole_folder(out) as folder:
        for dataset in datasets:
            records = read_records(root / paths.records_file(dataset))
            _require_expressions(dataset, records)
            images = (root / params.datasets[dataset].images).resolve()
            for template in templates:
                name = f"vlm_r1_{dataset}_{template}"
                docs = _docs(records, images, template, params, family)
                lines = [json.dumps(doc, ensure_ascii=False) for doc in docs]
                write_text(folder / f"{name}.jsonl", "\n".join(lines))
                write_text(folder / f"{name}.yaml", _task_yaml(name, out, params))
                tasks.append(name)
        write_text(folder / "utils.py", UTILS)
        _copy_modules(folder)
    return ExportedTasks(out, tasks)


def _require_expressions(dataset: str, records: pd.DataFrame) -> None:
    if any(detects(records)):
        raise DataError(
            got=f"{dataset}: rows that ask for several boxes",
            need="rows with an expression and its one box",
            because="the exported task scores the first box of an answer",
            do="leave the dataset out",
        )


def _docs(
    records: pd.DataFrame, images: Path, template: str, params: Params, family: Family
) -> list[dict[str, Any]]:
    """One JSON object for each record; `input_size` is what the task's pixel budget gives."""
    docs = []
    for record in records.to_dict("records"):
        size = int(record["height"]), int(record["width"])
        question = question_for(record["expression"])
        docs.append(
            {
                "record_id": record["record_id"],
                "image": record["image"],
                "image_file": str(images / record["image"]),
                "question": question,
                "prompt": fill_template(template, question),
                "ground_truth": [float(record[side]) for side in BOX],
                "image_size": size,
                "input_size": family.input_size(*size, params.task),
                "coordinate_space": params.task.coordinate_space,
            }
        )
    return docs


def _task_yaml(name: str, folder: Path, params: Params) -> str:
    """The task's configuration; generation is greedy, the answer's text is not cut by lmms-eval."""
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {SPLIT: str(folder / f"{name}.jsonl")}},
        "test_split": SPLIT,
        "output_type": "generate_until",
        "doc_to_visual": _Function("doc_to_visual"),
        "doc_to_text": _Function("doc_to_text"),
        "doc_to_target": _Function("doc_to_target"),
        "process_results": _Function("process_results"),
        "generation_kwargs": {
            "max_new_tokens": params.evaluate.max_new_tokens,
            "do_sample": False,
            "temperature": 0,
            "until": [],  # lmms-eval's default, a blank line, would cut a thought
        },
        "reasoning_tags": "none",  # lmms-eval would take thoughts out before our parser reads them
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in METRICS
        ],
        "metadata": {
            "min_pixels": params.task.min_pixels,
            "max_pixels": params.task.max_pixels,
            "coordinate_space": params.task.coordinate_space,
        },
    }
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _copy_modules(folder: Path) -> None:
    """Copy the task's functions and every module they import, unchanged."""
    for file in _closure(TASK_MODULE):
        target = folder / PACKAGE.name / file.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _closure(module: str) -> set[Path]:
    """Files of a module, of all modules of this package it imports, and of their packages."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        file = module_file(waiting.pop())
        if file is not None and file not in found:
            found.add(file)
            waiting += imported_modules(file)
    folders = {folder for file in found for folder in file.parents}
    return found | {f / "__init__.py" for f in folders if f == PACKAGE or PACKAGE in f.parents}


def run_arguments(
    exported: ExportedTasks, params: Params, checkpoint: str, logs: str, device: str
) -> list[str]:
    """Arguments of `python -m lmms_eval`, with the pixel budget that the docs' sizes are for."""
    task = params.task
    model = {
        "pretrained": checkpoint,
        "min_pixels": task.min_pixels,
        "max_pixels": task.max_pixels,
        "attn_implementation": task.attention,
        "device": device,
        "device_map": device,
    }
    # fmt: off
    return [
        "--include_path", str(exported.folder),
        "--tasks", ",".join(exported.tasks),
        "--model", "qwen2_5_vl",
        "--model_args", ",".join(f"{name}={value}" for name, value in model.items()),
        "--batch_size", "1",
        "--log_samples",
        "--output_path", logs,
    ]
    # fmt: on


def _require_names(params: Params, datasets: list[str], templates: list[str]) -> None:
    known = [(datasets, params.evaluated_datasets, "dataset"), (templates, TEMPLATES, "template")]
    for given, allowed, kind in known:
        for name in given:
            if name not in allowed:
                raise ConfigError(
                    got=f"{kind} {name!r}",
                    need=f"one of {', '.join(allowed)}",
                    because="a task is made of a prepared dataset and a template",
                    do="correct the name",
                )


def _require_own_folder(out: Path) -> None:
    """Refuse a folder with files of others, which would be removed."""
    utils = out / "utils.py"
    is_ours = utils.is_file() and utils.read_text(encoding="utf-8").strip() == UTILS.strip()
    if out.exists() and any(out.iterdir()) and not is_ours:
        raise ConfigError(
            got=f"{out}: a folder with other files",
            need="a new folder, or one that this command wrote",
            because="the folder is replaced as a whole",
            do="name another folder",
        )
