"""Both trainers on an untrained tiny model: what moves, what does not, what is left behind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainerState

from tests.conftest import small_values
from tests.image_files import save_turned
from tests.training_jobs import job_of, train, weights
from vlm_r1.config import parse_params
from vlm_r1.data.images import open_image
from vlm_r1.data.records import read_records
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.experiment import contract_of
from vlm_r1.inference.generate import generate_batch, make_prompts
from vlm_r1.inference.questions import question_about
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.paths import records_file
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.rec.parsing import parse_answer
from vlm_r1.rec.rewards import REWARDS
from vlm_r1.training.dataset import training_order
from vlm_r1.training.grpo import grpo_arguments, grpo_rows
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.rollout_images import RolloutImages
from vlm_r1.training.sft import sft_arguments, sft_rows


def test_sft_moves_every_parameter_and_leaves_what_it_should(small_root, small_params, tmp_path):
    values = small_values()
    values["sft"]["learning_rate"] = 0.1  # gradients are tiny: make every step visible
    train(job_of("sft", parse_params(values, "test"), small_root, tmp_path))
    before, after = weights(small_root / "models/base"), weights(tmp_path / "checkpoint-2")
    unmoved = [name for name in before if torch.equal(before[name], after[name])]
    assert unmoved == []
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert {p.name for p in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    contract = TrainingContract.model_validate_json(
        (tmp_path / "checkpoint-1/contract.json").read_text()
    )
    assert contract == contract_of(small_params, small_root)
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["prompts"], cost["completions"]) == (4, 4)
    assert cost["tokens"] > 0
    lines = [
        json.loads(line) for line in (tmp_path / "training_log.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]


def test_grpo_moves_nothing_when_all_rewards_are_equal(
    small_root, small_params, tmp_path, monkeypatch
):
    for name in ("iou", "format"):
        monkeypatch.setitem(REWARDS, name, lambda batch: [0.0] * len(batch.texts))
    train(job_of("grpo", small_params, small_root, tmp_path))
    before, after = weights(small_root / "models/base"), weights(tmp_path / "checkpoint-2")
    assert all(torch.equal(before[name], after[name]) for name in before)
    table = json.loads((tmp_path / "samples/step-0.json").read_text())
    assert len(table) == 8  # 2 prompts x 4 completions
    assert {row["reward"] for row in table} == {0.0}
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["prompts"], cost["completions"]) == (4, 16)


def test_grpo_moves_the_weights_when_rewards_differ(
    small_root, small_params, tmp_path, monkeypatch
):
    monkeypatch.setitem(REWARDS, "iou", lambda batch: [float(len(t) % 3) for t in batch.texts])
    train(job_of("grpo", small_params, small_root, tmp_path))
    before, after = weights(small_root / "models/base"), weights(tmp_path / "checkpoint-2")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    log = (tmp_path / "training_log.jsonl").read_text()
    for quantity in (
        "reward",
        "reward_std",
        "rewards/iou/mean",
        "rewards/format/mean",
        "kl",
        "parse_rate",
    ):
        assert f'"{quantity}"' in log


def test_both_methods_read_the_same_records_in_the_same_order(small_root, small_params):
    records = read_records(small_root / records_file("studio_train"))
    order = training_order(len(records), 4, seed=1)
    ordered = records.iloc[order].reset_index(drop=True)
    images = small_root / small_params.datasets["studio_train"].images
    sft = sft_rows(ordered, images, small_params.task)
    grpo = grpo_rows(ordered, images, small_root, small_params.task)
    for a, b in zip(sft, grpo, strict=True):
        question = a["prompt"][0]["content"]
        assert b["prompt"][0]["content"].startswith(question + " First output the thinking")
        assert a["image"].tobytes() == open_image(Path(b["image"])).tobytes()


def test_the_training_order_is_whole_passes_and_depends_on_the_seed_alone():
    order = training_order(4, 10, seed=3)
    assert sorted(order[:4]) == sorted(order[4:8]) == [0, 1, 2, 3]
    assert list(order) == list(training_order(4, 10, seed=3))
    assert list(order) != list(training_order(4, 10, seed=4))


def test_sft_is_taught_the_box_in_the_models_coordinate_space(small_root, small_params):
    """Studio images are 80 x 80 and seen as 84 x 84: a box grows by 5 %."""
    records = read_records(small_root / records_file("studio_train")).head(1)
    records = records.assign(x1=0.0, y1=0.0, x2=40.0, y2=20.0, expression="red one")
    images = small_root / small_params.datasets["studio_train"].images
    answer = sft_rows(records, images, small_params.task)[0]["completion"][0]["content"]
    assert answer == '```json\n[\n\t{"bbox_2d": [0, 0, 42, 21], "label": "red one"}\n]\n```'


def test_the_arguments_give_both_methods_equal_prompts_per_step(small_params, tmp_path):
    sft, grpo = sft_arguments(small_params, tmp_path), grpo_arguments(small_params, tmp_path)
    assert sft.per_device_train_batch_size * sft.gradient_accumulation_steps == 2
    assert grpo.per_device_train_batch_size * grpo.gradient_accumulation_steps == 2 * 4
    for name in ("max_steps", "seed", "bf16", "fp16", "max_grad_norm"):
        assert getattr(sft, name) == getattr(grpo, name)
    assert (grpo.beta, grpo.loss_type, grpo.shuffle_dataset) == (0.04, "grpo", False)


def test_a_step_that_does_not_split_into_micro_batches_is_refused(tmp_path):
    values = small_values()
    values["grpo"]["micro_batch"] = 3
    with pytest.raises(ConfigError, match=r"got 8 rows per step, 1 x grpo\.micro_batch 3"):
        grpo_arguments(parse_params(values, "test"), tmp_path)


def sent_by_trl(texts, metrics, step=1):
    """What TRL passes with completions about an image of 84 x 84; metrics land in the dict."""
    n = len(texts)
    return {
        "prompts": [[{"role": "user", "content": "?"}]] * n,
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[]] * n,
        "true_box": [[0, 0, 10, 5]] * n,
        "true_boxes": [[[0, 0, 10, 5]]] * n,
        "true_labels": [None] * n,
        "image_size": [[84, 84]] * n,
        "input_size": [[84, 84]] * n,
        "record_id": ["a"] * n,
        "image_path": ["a.png"] * n,
        "expression": ["dot"] * n,
        "accuracy_reward": [""] * n,
        "trainer_state": TrainerState(global_step=step, is_world_process_zero=True),
        "log_metric": metrics.__setitem__,
    }


def with_rewards(params, **rewards):
    grpo = params.grpo.model_copy(update={"rewards": rewards, "sample_every": 1})
    return params.model_copy(update={"grpo": grpo})


def reward_functions(params, samples, root):
    return RewardFunctions(params.grpo, params.task.coordinate_space, samples, root)


def test_rewards_are_chosen_weighed_and_sampled_by_name(small_params, tmp_path):
    params = with_rewards(small_params, iou_hard=1.0, giou=0.5)
    metrics = {}
    functions = reward_functions(params, tmp_path / "samples", tmp_path).as_list()
    sent = sent_by_trl(["[0, 0, 10, 6]", "?"], metrics)
    assert [f.__name__ for f in functions] == ["iou_hard", "giou"]
    assert [f(**sent) for f in functions] == [[1.0, 0.0], pytest.approx([5 / 6, -1.0])]
    assert metrics == {
        "parse_rate": 0.5,
        "rewards/iou_hard/none_rate": 0.0,
        "rewards/giou/none_rate": 0.0,
    }
    table = json.loads((tmp_path / "samples/step-1.json").read_text())
    assert [row["reward"] for row in table] == pytest.approx([1 + 5 / 12, -0.5])
    assert [row["box"] for row in table] == [[0, 0, 10, 6], None]
    assert grpo_arguments(params, tmp_path).reward_weights == [1.0, 0.5]


def test_a_row_that_names_its_accuracy_reward_is_judged_by_no_other(small_params, tmp_path):
    params = with_rewards(small_params, iou=1.0, map=1.0, format=1.0)
    rewards = reward_functions(params, tmp_path / "samples", tmp_path)
    metrics = {}
    sent = sent_by_trl(["[0, 0, 10, 5]"] * 3, metrics) | {"accuracy_reward": ["", "iou", "map"]}
    values = [function(**sent) for function in rewards.as_list()]
    assert values == [[1.0, 1.0, None], [pytest.approx(1.0), None, pytest.approx(1.0)], [0.0] * 3]
    assert metrics["rewards/map/none_rate"] == pytest.approx(1 / 3)
    table = json.loads((tmp_path / "samples/step-1.json").read_text())
    assert [row["reward"] for row in table] == pytest.approx([2.0, 1.0, 1.0])
    rewards.require_known(["", "iou"])
    with pytest.raises(ConfigError, match="with the accuracy reward center"):
        rewards.require_known(["iou", "center"])


@pytest.fixture
def parsed(monkeypatch):
    """The texts that were parsed for a box, in order."""
    texts = []

    def spy(text, *args):
        texts.append(text)
        return parse_answer(text, *args)

    monkeypatch.setattr("vlm_r1.rec.rewards.batch.parse_answer", spy)
    return texts


def test_all_rewards_of_a_batch_share_what_was_parsed(small_params, tmp_path, parsed):
    """Each call gets equal content in other objects."""
    params = with_rewards(small_params, iou=1.0, giou=1.0, iou_hard=1.0)
    for function in reward_functions(params, tmp_path, tmp_path).as_list():
        function(**sent_by_trl(["[0, 0, 10, 6]", "?"], {}))
    assert parsed == ["[0, 0, 10, 6]", "?"]
    assert [file.name for file in tmp_path.iterdir()] == ["step-1.json"]


def test_another_batch_of_the_same_step_is_judged_anew(small_params, tmp_path, parsed):
    params = with_rewards(small_params, iou=1.0, iou_hard=1.0)
    iou, iou_hard = reward_functions(params, tmp_path, tmp_path).as_list()
    metrics = {}
    sent = sent_by_trl(["[0, 0, 10, 5]"], metrics)
    assert [iou(**sent), iou_hard(**sent)] == [[1.0], [1.0]]
    sent["completions"][0][0]["content"] = "[0, 0, 5, 5]"  # the same objects, other content
    assert [iou(**sent), iou_hard(**sent)] == [[0.5], [0.0]]
    sent["completions"][0][0]["content"] = "?"
    assert [iou(**sent), iou_hard(**sent)] == [[0.0], [0.0]]
    assert metrics["parse_rate"] == 0.0
    sent["true_box"] = [[0, 0, 5, 5]]  # equal completions about another box
    assert [iou(**sent), iou_hard(**sent)] == [[0.0], [0.0]]
    assert parsed == ["[0, 0, 10, 5]", "[0, 0, 5, 5]", "?", "?"]


def test_equal_batches_are_two_batches(small_params, tmp_path):
    """Within a step, or at two steps: each logs its own rates."""
    params = with_rewards(small_params, iou=1.0, format=1.0)
    functions = reward_functions(params, tmp_path, tmp_path).as_list()
    logged = []
    for step in (1, 1, 2):
        for function in functions:
            sent = sent_by_trl(["[0, 0, 10, 5]"], {}, step)
            function(**sent | {"log_metric": lambda name, _: logged.append(name)})
    rates = ["rewards/iou/none_rate", "rewards/format/none_rate", "parse_rate"]
    assert logged == rates * 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["step-1.json", "step-2.json"]


OWN = """
def shout(prompts, completions, completion_ids, expression, **columns):
    return [None if c[0]["content"] == "" else len(e) / 2 for c, e in zip(completions, expression)]

def short(prompts, completions, **columns):
    return []

def iou(prompts, completions, **columns):
    return [0.0] * len(completions)
"""


def test_a_reward_of_ones_own_gets_what_trl_sends(small_params, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    params = with_rewards(small_params, **{"iou": 1.0, "own.py:shout": 2.0})
    metrics = {}
    functions = reward_functions(params, tmp_path, tmp_path).as_list()
    sent = sent_by_trl(["", "x"], metrics)
    assert [f(**sent) for f in functions] == [[0.0, 0.0], [None, 1.5]]
    assert metrics["rewards/shout/none_rate"] == 0.5
    table = json.loads((tmp_path / "step-1.json").read_text())
    assert [(row["shout"], row["reward"]) for row in table] == [(None, 0.0), (1.5, 3.0)]


def test_an_own_reward_of_a_wrong_length_is_refused_before_training(
    small_root, small_params, tmp_path
):
    (small_root / "own.py").write_text(OWN)
    params = with_rewards(small_params, **{"own.py:short": 1.0})
    with pytest.raises(ConfigError, match=r"own\.py:short: it returned 0 values for 1 completions"):
        train(job_of("grpo", params, small_root, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_two_rewards_of_one_name_are_refused(small_params, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    params = with_rewards(small_params, **{"own.py:iou": 1.0})
    with pytest.raises(ConfigError, match="the name 'iou' is taken"):
        reward_functions(params, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("rewards", "fault"),
    [
        ({"iuo": 1.0}, "no reward 'iuo': need one of iou, iou_hard"),
        ({"iou": 0.0}, "a reward of weight 0"),
        ({}, "at least 1 item"),
    ],
)
def test_rewards_are_checked_with_params(rewards, fault):
    values = small_values()
    values["grpo"]["rewards"] = rewards
    with pytest.raises(ConfigError, match=rf"grpo\.rewards.*{fault}"):
        parse_params(values, "test")


def odd_images(folder):
    """File name -> the kind of image that two loaders are most likely to read differently."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 4), dtype=np.uint8)
    save_turned(folder / "turned.jpg", noise[..., :3], 6)
    save_turned(folder / "print.jpg", Image.fromarray(noise, "CMYK"), 3)
    Image.fromarray(noise, "RGBA").save(folder / "clear.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 256).save(folder / "deep.png")
    Image.fromarray(noise[..., :3]).quantize(16).save(folder / "palette.gif")
    return sorted(path.name for path in folder.iterdir())


def test_training_and_evaluation_show_a_model_the_same_pixels(
    small_root, small_params, tmp_path, monkeypatch
):
    names = odd_images(tmp_path)
    assert len(names) == 5
    records = read_records(small_root / records_file("studio_train")).iloc[:5]
    records = records.assign(image=names).reset_index(drop=True)
    base = small_root / "models/base"
    model, processor = load_model(base, small_params.task), load_processor(base, small_params.task)
    shown = []
    process = type(processor.image_processor).__call__

    def spy(self, images, **options):
        shown.extend(np.asarray(image) for image in images)
        return process(self, images, **options)

    monkeypatch.setattr(type(processor.image_processor), "__call__", spy)
    questions = [question_about("plain", "thing", tmp_path / name) for name in names]
    generate_batch(model, processor, make_prompts(processor, questions), 1)

    task = small_params.task
    monkeypatch.undo()
    sft, grpo = sft_rows(records, tmp_path, task), grpo_rows(records, tmp_path, tmp_path, task)
    rollout = RolloutImages(processor.image_processor, workers=0)
    for rows in (sft, rollout.begin(list(grpo))):
        trained_on = [row["image"] for row in rows]
        assert [image.mode for image in trained_on] == ["RGB"] * 5
        same = [np.array_equal(*pair) for pair in zip(shown, trained_on, strict=True)]
        assert same == [True] * 5


def test_a_broken_image_stops_training_with_its_name(small_root, small_params, tmp_path):
    records = read_records(small_root / records_file("studio_train")).iloc[:1]
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    rows = sft_rows(records.assign(image=["cut.jpg"]), tmp_path, small_params.task)
    with pytest.raises(DataError, match=r"cut\.jpg: "):
        rows[0]
