"""Somebody else's evaluator agrees: lmms-eval, in its own environment, on 400 rows.

`make peers` makes the environment and runs this (docs/lmms-eval.md): five minutes on two cores.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.conftest import ROOT, small_values
from vlm_r1.config import Params, parse_params
from vlm_r1.data.images import open_image
from vlm_r1.evaluation.comparison import compare_logs
from vlm_r1.evaluation.prediction_logs import score_file
from vlm_r1.export.lmms_eval import export_tasks, run_arguments
from vlm_r1.inference import generate
from vlm_r1.inference.evaluator import make_evaluator
from vlm_r1.rec.boxes import smart_resize
from vlm_r1.rec.results import ResultRow, write_results
from vlm_r1.stages import draw, prepare

PYTHON = os.environ.get("VLM_R1_LMMS_EVAL_PYTHON")
IN_FLOAT32 = ROOT / "tests/peers/lmms_eval_float32.py"
ROWS = 400
DATASET = "street_test"
METHOD_OF = {"plain": "sft", "r1": "grpo"}

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        PYTHON is None,
        reason="VLM_R1_LMMS_EVAL_PYTHON names no Python with lmms-eval (docs/lmms-eval.md)",
    ),
]
Rows = dict[str | int | None, ResultRow]


class Agreement(NamedTuple):
    """Of how many rows two evaluators have the same text, box-or-none, and right-or-wrong."""

    texts: int
    parsed: int
    verdicts: int


def agreement(ours: Rows, theirs: Rows) -> Agreement:
    assert ours.keys() == theirs.keys()
    assert len(ours) == ROWS
    pairs = [(ours[key], theirs[key]) for key in ours]
    return Agreement(
        sum(a.model_output == b.model_output for a, b in pairs),
        sum((a.extracted_answer is None) == (b.extracted_answer is None) for a, b in pairs),
        sum(a.correct == b.correct for a, b in pairs),
    )


@pytest.fixture(scope="module")
def params() -> Params:
    """The laptop's parameters, with 400 phrases out of domain."""
    values = small_values()
    values["draw"][DATASET]["images"] = ROWS // values["draw"][DATASET]["phrases_per_image"]
    values["evaluate"] |= {"batch_tokens": 16_384, "max_new_tokens": 72}
    return parse_params(values, "peers")


@pytest.fixture(scope="module")
def root(params, tmp_path_factory) -> Path:
    """The drawn data, and the pretrained tiny base."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("peers")
    draw.run(params, root)
    prepare.run(params, root)
    shutil.copytree(ROOT / "models/base", root / "models/base")
    return root


@pytest.fixture(scope="module")
def ours(params, root) -> Callable[..., Rows]:
    """Rows of our own evaluation of the base: (template, dtype) -> record id -> row."""

    def evaluate(template: str, dtype: str = "float32", file: Path | None = None) -> Rows:
        task = params.task.model_copy(update={"dtype": dtype})
        evaluator = make_evaluator(
            params.model_copy(update={"task": task}), root, METHOD_OF[template], device="cpu"
        )
        results = evaluator.evaluate_checkpoint(0, root / "models/base")
        result = next(result for eval_set, result in results if eval_set.name == DATASET)
        if file is not None:
            write_results(file, result)
        return {row.record_id: row for row in result.results}

    return evaluate


@pytest.fixture(scope="module")
def theirs(params, root, tmp_path_factory) -> Callable[..., Path]:
    """lmms-eval's sample log of the base: (template, the program instead of lmms_eval)."""

    def run(template: str, program: Path | None = None) -> Path:
        folder = tmp_path_factory.mktemp("lmms")
        exported = export_tasks(params, root, [DATASET], [template], folder / "tasks")
        logs = str(folder / "logs")
        arguments = run_arguments(exported, params, str(root / "models/base"), logs, "cpu")
        start = [PYTHON, str(program)] if program else [PYTHON, "-m", "lmms_eval"]
        caches = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | caches
        done = subprocess.run(
            [*start, *arguments], env=env, capture_output=True, text=True, check=False
        )
        found = list(Path(logs).glob("*/*_samples_*.jsonl"))
        assert len(found) == 1, done.stderr[-2000:]
        return found[0]

    return run


@pytest.fixture(scope="module")
def plain_in_float32(theirs) -> Path:
    return theirs("plain", IN_FLOAT32)


@pytest.fixture
def resized_by_pillow(monkeypatch, params, tmp_path):
    """Our evaluation opens images in input size, resized by Pillow as qwen_vl_utils does."""

    def opened(path: Path):
        image = open_image(path)
        task = params.task
        height, width = smart_resize(image.height, image.width, task.min_pixels, task.max_pixels)
        return image.resize((width, height))

    monkeypatch.setattr(generate, "open_image", opened)
    monkeypatch.setattr("vlm_r1.paths.COMPLETIONS", tmp_path / "completions")


def rows_of(log: Path) -> Rows:
    return {row.record_id: row for row in score_file(log).result.results}


def test_lmms_eval_as_it_is_agrees_up_to_bfloat16(ours, theirs):
    log = theirs("plain")
    found = agreement(ours("plain"), rows_of(log))
    print("bfloat16 against our float32", found)
    assert found.parsed >= 0.99 * ROWS
    assert found.verdicts >= 0.95 * ROWS


@pytest.mark.parametrize("template", ["plain", "r1"])
def test_in_float32_nearly_all_texts_and_verdicts_are_equal(ours, theirs, request, template):
    plain = template == "plain"
    log = request.getfixturevalue("plain_in_float32") if plain else theirs("r1", IN_FLOAT32)
    found = agreement(ours(template), rows_of(log))
    print(f"float32, {template}", found)
    assert found.texts >= 0.98 * ROWS
    assert found.parsed >= 0.99 * ROWS
    assert found.verdicts >= 0.99 * ROWS


def test_with_the_same_resize_every_text_is_equal(ours, plain_in_float32, resized_by_pillow):
    found = agreement(ours("plain"), rows_of(plain_in_float32))
    assert found == Agreement(ROWS, ROWS, ROWS)


def test_compare_pairs_its_log_with_ours_by_record(ours, plain_in_float32, tmp_path):
    file = tmp_path / "ours.json"
    ours("plain", file=file)
    found = compare_logs(score_file(file), score_file(plain_in_float32))
    assert (len(found.pairing.a), found.pairing.by) == (ROWS, "record id")
    assert len(found.flips) <= 0.01 * ROWS
