"""export/: the task folder for lmms-eval, and the functions that lmms-eval calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.layout import ROOT, SOURCE
from vlm_r1.data.records import BOX, read_records
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.export import lmms_eval_task as task
from vlm_r1.export.lmms_eval import ExportedTasks, export_tasks, run_arguments
from vlm_r1.inference.questions import Completion, question_about
from vlm_r1.inference.result import build_result
from vlm_r1.models.loading import load_processor
from vlm_r1.rec.boxes import smart_resize

DOC = {
    "record_id": "set:1",
    "image": "a.png",
    "image_file": "/images/a.png",
    "question": "Where?",
    "prompt": "Where? Answer in tags.",
    "ground_truth": [10.0, 20.0, 30.0, 40.0],
    "image_size": [100, 200],
    "input_size": [50, 100],  # half of each side, so input pixels count double
    "coordinate_space": "input",
}


class Loader(yaml.SafeLoader):
    """Reads lmms-eval's tag as the name it stands for."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@pytest.fixture(scope="module")
def exported(small_params, small_root, tmp_path_factory) -> ExportedTasks:
    out = tmp_path_factory.mktemp("export") / "tasks"
    return export_tasks(small_params, small_root, ["street_test"], ["plain", "r1"], out)


def docs_of(exported: ExportedTasks, name: str) -> list[dict]:
    lines = (exported.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_an_answer_is_scored_in_original_pixels():
    row = task.process_results(DOC, ['<answer>{"bbox_2d": [5, 10, 15, 20]}</answer> and more'])
    assert (row["vlm_r1_accuracy"], row["vlm_r1_mean_iou"], row["vlm_r1_parse_rate"]) == (1, 1, 1)
    assert row["vlm_r1_row"]["extracted_answer"] == [10, 20, 30, 40]
    assert row["vlm_r1_row"]["model_output"].endswith("</answer>")


@pytest.mark.parametrize("text", ["", "nowhere", "<think>[5, 10, 15, 20]"])
def test_an_answer_without_a_box_is_wrong(text):
    row = task.process_results(DOC, [text])
    assert (row["vlm_r1_accuracy"], row["vlm_r1_mean_iou"], row["vlm_r1_parse_rate"]) == (0, 0, 0)
    assert row["vlm_r1_row"]["extracted_answer"] is None


def test_the_folder_holds_a_task_for_each_prompt(exported):
    assert exported.tasks == ["vlm_r1_street_test_plain", "vlm_r1_street_test_r1"]
    for name in exported.tasks:
        text = (exported.folder / f"{name}.yaml").read_text(encoding="utf-8")
        config = yaml.load(text, Loader)
        assert config["task"] == name
        data = config["dataset_kwargs"]["data_files"]["test"]
        assert Path(data) == exported.folder.resolve() / f"{name}.jsonl"
        assert config["process_results"] == "utils.process_results"
        assert config["reasoning_tags"] == "none"
        assert config["generation_kwargs"]["max_new_tokens"] == 8


def test_records_and_prompts_are_those_of_our_evaluation(exported, small_params, small_root):
    records = read_records(small_root / "data/prepared/street_test/records.parquet")
    for template, name in zip(("plain", "r1"), exported.tasks, strict=True):
        docs = docs_of(exported, name)
        assert len(docs) == len(records) == 12
        for doc, record in zip(docs, records.to_dict("records"), strict=True):
            image = small_root / small_params.datasets["street_test"].images / record["image"]
            asked = question_about(template, record["expression"], image)
            assert (task.doc_to_text(doc), Path(doc["image_file"])) == (asked.text, asked.image)
            assert task.doc_to_target(doc) == [record[side] for side in BOX]
            assert task.doc_to_visual(doc)[0].size == (record["width"], record["height"])


def test_input_sizes_are_those_of_the_processor(exported, small_params, small_root):
    processor = load_processor(small_root / "models/base", small_params.task)
    budget = small_params.task.min_pixels, small_params.task.max_pixels
    for doc in docs_of(exported, exported.tasks[0]):
        pixels = processor.image_processor(task.doc_to_visual(doc), return_tensors="pt")
        _, rows, columns = pixels["image_grid_thw"][0].tolist()
        assert doc["input_size"] == [14 * rows, 14 * columns]
        assert tuple(doc["input_size"]) == smart_resize(*doc["image_size"], *budget)


def test_rows_are_scored_as_our_evaluation_scores_them(exported, small_params, small_root):
    records = read_records(small_root / "data/prepared/street_test/records.parquet")
    docs = docs_of(exported, exported.tasks[1])
    rng = np.random.default_rng(0)
    texts = [f"<answer>{box}</answer>" for box in rng.integers(0, 60, (len(docs), 4)).tolist()]
    texts[0] = str([int(side) for side in docs[0]["ground_truth"]])
    completions = [
        Completion(text, tuple(doc["input_size"])) for text, doc in zip(texts, docs, strict=True)
    ]
    ours = build_result(records, completions, small_params.task.coordinate_space, {}).results
    assert {row.correct for row in ours} == {0, 1}
    for row, doc, text in zip(ours, docs, texts, strict=True):
        theirs = task.process_results(doc, [text])["vlm_r1_row"]
        expected = row.model_dump(mode="json", include=set(theirs))
        assert theirs == expected | {"coordinate_space": "input"}


def test_the_code_in_the_folder_is_ours_and_runs_by_itself(exported):
    copies = sorted(exported.folder.glob("vlm_r1/**/*.py"))
    names = {file.relative_to(exported.folder).as_posix() for file in copies}
    assert {"vlm_r1/rec/parsing.py", "vlm_r1/rec/boxes.py", "vlm_r1/data/images.py"} <= names
    for file in copies:
        assert file.read_bytes() == (SOURCE / file.relative_to(exported.folder)).read_bytes()
    program = (
        "import sys, utils, vlm_r1\n"
        f"print(utils.process_results({DOC!r}, ['[5, 10, 15, 20]'])['vlm_r1_accuracy'])\n"
        "print(vlm_r1.__file__, 'torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=exported.folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    file = exported.folder.resolve() / "vlm_r1/__init__.py"
    assert done.stdout.splitlines() == ["1", f"{file} False False"], done.stderr


def test_the_command_names_the_pixel_budget_of_the_records(exported, small_params):
    arguments = run_arguments(exported, small_params, "models/base", "logs", "cpu")
    model = arguments[arguments.index("--model_args") + 1]
    assert model.startswith("pretrained=models/base,min_pixels=3136,max_pixels=12845056,")
    assert arguments[arguments.index("--tasks") + 1] == ",".join(exported.tasks)


@pytest.mark.parametrize(
    ("dataset", "template", "error", "match"),
    [
        ("studio_train", "plain", ConfigError, "got dataset 'studio_train'"),
        ("street_test", "chatty", ConfigError, "got template 'chatty'"),
        ("street_test", "plain", DataError, "no such file"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    small_params, small_root, tmp_path, dataset, template, error, match
):
    root = tmp_path if error is DataError else small_root
    (tmp_path / "models").symlink_to(small_root / "models")
    with pytest.raises(error, match=match):
        export_tasks(small_params, root, [dataset], [template], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_an_earlier_export_is_replaced(exported, small_params, small_root, tmp_path):
    arguments = small_params, small_root, ["street_test"], ["plain", "r1"]
    assert export_tasks(*arguments, exported.folder) == exported
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="a folder with other files"):
        export_tasks(*arguments, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_the_lock_file_pins_every_package_and_the_tested_version():
    lines = (ROOT / "tests/peers/lmms_eval.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "lmms_eval==0.7.3" in pins
    assert all(pin.count("==") == 1 for pin in pins)
