"""The stage `prompts`: every model with every prompt; a model's own prompt from the cache."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import small_values
from tests.test_evaluate_stage import write_checkpoint
from vlm_r1 import paths
from vlm_r1.config import METHODS, Params, parse_params
from vlm_r1.errors import ModelError
from vlm_r1.evaluation.prompt_matrix_file import read_matrix
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.evaluation.selection import select
from vlm_r1.inference.engines import transformers_engine
from vlm_r1.rec.prompts import TEMPLATES
from vlm_r1.rec.results import read_results
from vlm_r1.stages import evaluate, prompts

ROWS = 12  # 6 images, 2 phrases each


@pytest.fixture(scope="module")
def params() -> Params:
    values = small_values()
    values["report"]["prompt_matrix"] = True
    return parse_params(values, "small")


@pytest.fixture(scope="module")
def evaluated(small_root, params, tmp_path_factory) -> Path:
    """A project with two checkpoints of both methods, evaluated."""
    root = tmp_path_factory.mktemp("evaluated") / "project"
    for name in ("data", "models/base"):
        shutil.copytree(small_root / name, root / name)
    for number, method in enumerate(METHODS):
        for step in (1, 2):
            folder = root / paths.checkpoint_dir(method, step)
            write_checkpoint(root, params, folder, step + 10 * number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_r1.tracking.after_evaluation", lambda *_: None)
        for method in METHODS:
            evaluate.run(params, root, method)
    return root


@pytest.fixture(scope="module")
def after_stage(evaluated, params) -> tuple[Path, int]:
    """The project after the stage, and for how many rows the stage ran a model."""
    generated = []
    original = transformers_engine.generate_prepared

    def count(model, processor, batch, *more):
        generated.extend(batch.ids)
        return original(model, processor, batch, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers_engine, "generate_prepared", count)
        prompts.run(params, evaluated)
    return evaluated, len(generated)


def test_when_off_the_stage_writes_an_empty_matrix_and_needs_no_files(tmp_path, small_params):
    assert not small_params.report.prompt_matrix
    prompts.run(small_params, tmp_path)
    assert [file.name for file in (tmp_path / paths.PROMPTS).iterdir()] == ["matrix.json"]
    assert read_matrix(tmp_path / paths.PROMPTS).cells == []


def test_every_model_is_evaluated_with_every_prompt_in_and_out_of_domain(after_stage, params):
    root, _ = after_stage
    cells = read_matrix(root / paths.PROMPTS).cells
    chosen = select(params, root)
    best = {(c.method, c.step) for c in (chosen.champion, chosen.challenger)}
    models = {("base", 0), *best, ("sft", 2), ("grpo", 2)}  # 2: the last step
    expected = {
        (model, step, None if model == "base" else 42, template, dataset)
        for model, step in models
        for template in TEMPLATES
        for dataset in ("studio_test", "street_test")
    }
    found = [(c.model, c.step, c.seed, c.template, c.dataset) for c in cells]
    assert set(found) == expected
    assert len(found) == len(expected)
    for cell in cells:
        result = read_results(root / paths.PROMPTS / cell.file)
        assert result.meta["template"] == cell.template
        assert score_results(result).n == ROWS


def test_prompts_that_were_evaluated_already_come_from_the_cache(after_stage):
    """The base with both methods' prompts is cached, and every checkpoint with its own."""
    root, generated = after_stage
    models = {(c.model, c.step) for c in read_matrix(root / paths.PROMPTS).cells}
    cached = 2 + len(models - {("base", 0)})
    assert generated == (3 * len(models) - cached) * 2 * ROWS


def test_a_models_own_prompt_gives_the_completions_of_the_stage_evaluate(after_stage, params):
    root, _ = after_stage
    for cell in read_matrix(root / paths.PROMPTS).cells:
        if cell.model in METHODS and getattr(params.task.prompts, cell.model) == cell.template:
            usual = paths.result_file(cell.model, cell.dataset, cell.step)
            texts = [
                [row["model_output"] for row in json.loads((root / file).read_text())["results"]]
                for file in (usual, paths.PROMPTS / cell.file)
            ]
            assert texts[0] == texts[1]


def test_a_missing_checkpoint_is_named_and_the_old_matrix_stays(after_stage, params, tmp_path):
    root = Path(shutil.copytree(after_stage[0], tmp_path / "project"))
    before = (root / paths.PROMPTS / "matrix.json").read_text()
    for step in (1, 2):
        shutil.rmtree(root / paths.checkpoint_dir("grpo", step))
    with pytest.raises(ModelError, match="models/grpo/checkpoint-"):
        prompts.run(params, root)
    assert (root / paths.PROMPTS / "matrix.json").read_text() == before
