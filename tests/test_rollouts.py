"""Rollouts: images read once, the dtype they are computed in, and how completions end."""

import copy
import json
import pickle
from functools import partial

import pytest
import torch
from PIL import Image
from transformers.image_processing_backends import TorchvisionBackend

from tests.conftest import ROOT, small_values
from tests.training_jobs import job_of, train, weights
from vlm_r1.config import parse_params
from vlm_r1.data.images import open_image
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.inference.generate import STOP
from vlm_r1.models.loading import chat_text, load_model, load_processor
from vlm_r1.preflight.checks import check_rollouts
from vlm_r1.rec.prompts import fill_template, question_for
from vlm_r1.training import rollout_images
from vlm_r1.training.decoding import StopAtAnswer, generate_with, sample_unfinished
from vlm_r1.training.resume import read_log
from vlm_r1.training.rollout_images import RolloutImages, SharedImage
from vlm_r1.training.trainers import ResumableGRPOTrainer


def params_with(train_options=None, task=None, **grpo):
    values = small_values()
    values["grpo"] |= grpo
    values["train"] |= train_options or {}
    values["task"] |= task or {}
    return parse_params(values, "test")


@pytest.fixture
def opened(monkeypatch):
    """The files that rollouts open, in order."""
    files = []

    def spy(path):
        files.append(str(path))
        return open_image(path)

    monkeypatch.setattr(rollout_images, "open_image", spy)
    return files


@pytest.fixture
def processed(monkeypatch):
    """The files of shared images that the image processor is given, in order."""
    files, real = [], TorchvisionBackend.preprocess

    def spy(self, images, *args, **kwargs):
        flat = [one for row in images for one in (row if isinstance(row, list) else [row])]
        files.extend(image.file for image in flat if isinstance(image, SharedImage))
        return real(self, images, *args, **kwargs)

    monkeypatch.setattr(TorchvisionBackend, "preprocess", spy)
    return files


@pytest.mark.parametrize("workers", [0, 2])
def test_a_rollouts_images_are_opened_and_processed_once(
    small_root, tmp_path, opened, processed, workers
):
    """Two rollouts of 2 prompts x 4 completions, trained on in 4 micro-batches each.

    They have one image in common, which the second one takes from the first.
    """
    job = job_of("grpo", params_with({"workers": workers}, micro_batch=2), small_root, tmp_path)
    train(job)
    tables = [json.loads(f.read_text()) for f in sorted(tmp_path.glob("samples/*.json"))]
    used = [{str(small_root / row["image"]) for row in table} for table in tables]
    assert [len(table) for table in tables] == [8, 8]
    assert [len(images) for images in used] == [2, 2]
    assert sorted(opened) == sorted(used[0] | used[1])
    assert sorted(processed) == sorted(opened)


@pytest.fixture
def processor(small_root, small_params):
    return load_processor(small_root / "models/base", small_params.task)


def test_a_shared_image_is_never_copied_and_leaves_its_pixels_when_it_travels(image, processor):
    shared = SharedImage.open(str(image), processor.image_processor)
    assert shared.tobytes() == open_image(image).tobytes()
    assert copy.deepcopy([{"image": shared}, shared]) == [{"image": shared}, shared]
    assert copy.deepcopy(shared) is shared
    assert pickle.loads(pickle.dumps(shared)) == str(image)
    assert shared.resize((3, 2)).size == (3, 2)


def test_images_are_put_together_as_the_processor_would(tmp_path, processor):
    """Two sizes, one image twice."""
    for number, size in enumerate([(84, 56), (90, 140)]):
        Image.effect_noise(size, 80).convert("RGB").save(tmp_path / f"{number}.png")
    rows = [{"image": str(tmp_path / f"{number}.png")} for number in (0, 1, 1)]
    rollout = RolloutImages(processor.image_processor, workers=0)
    images = [[row["image"]] for row in rollout.begin(rows)]
    texts = [chat_text(processor, "where?")] * 3
    expected = processor(images=images, text=texts, padding=True, return_tensors="pt")
    with rollout.processed_once(processor):
        inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
        plain = processor(images=[[open_image(rows[0]["image"])]], text=texts[:1])
    assert {name: value.dtype for name, value in inputs.items()} == {
        name: value.dtype for name, value in expected.items()
    }
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    assert len(plain["input_ids"]) == 1
    assert type(processor.image_processor).__name__ == "Qwen2VLImageProcessor"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_missing_is_named_when_its_rollout_begins(tmp_path, processor, workers):
    rows = [{"image": str(tmp_path / "gone.png")}]
    rollout = RolloutImages(processor.image_processor, workers)
    assert rollout.read_ahead(rows) == rows
    with pytest.raises(DataError, match=r"gone\.png"):
        rollout.begin(rows)


def test_images_of_a_rollout_that_is_over_are_forgotten(image, tmp_path, processor, opened):
    second = tmp_path / "second.png"
    open_image(image).save(second)
    rollout = RolloutImages(processor.image_processor, workers=1)
    for file in (image, second, image):
        rollout.begin([{"image": str(file)}])
    assert opened == [str(image), str(second), str(image)]


def test_in_half_precision_rollouts_are_computed_as_the_loss_is(small_root, tmp_path, monkeypatch):
    """Weights are in 32 bits, every product in 16: the vision tower's in `generate` too."""
    seen, real = set(), torch.nn.Linear.forward

    def spy(layer, values):
        result = real(layer, values)
        seen.add((layer.weight.dtype, result.dtype, torch.is_grad_enabled()))
        return result

    monkeypatch.setattr(torch.nn.Linear, "forward", spy)
    half = {"dtype": "bfloat16"}
    params = params_with({"steps": 1}, half, beta=0.0, max_completion_tokens=2)
    train(job_of("grpo", params, small_root, tmp_path))
    held, computed = torch.float32, torch.bfloat16
    assert seen == {(held, computed, True), (held, computed, False)}


def test_what_follows_an_answers_tag_is_cut(processor):
    """A 3-token prompt; the first row ends with its second token, the second one never."""
    tag = processor.tokenizer(STOP)["input_ids"]
    word = processor.tokenizer("box")["input_ids"][0]
    pad = processor.tokenizer.pad_token_id
    stop, prompt = StopAtAnswer(processor.tokenizer), [word] * 3
    for tokens in range(1, len(tag) + 3):
        answered = [word, *tag, pad, pad][:tokens]
        done = stop(torch.tensor([prompt + answered, prompt + [word] * tokens]), None)
        assert done.tolist() == [answered[-1] == tag[-1] and tokens == len(tag) + 1, False]
    assert stop.lengths.tolist() == [len(tag) + 1, 0]
    cut = stop.cut([[word, *tag, pad, pad], [word] * 4])
    assert cut == [[word, *tag], [word] * 4]


@pytest.fixture(scope="module")
def trained():
    """The committed base, which answers with tags, its processor, and a batch of two questions."""
    task = params_with().task
    model, processor = (load(ROOT / "models/base", task) for load in (load_model, load_processor))
    images = [Image.new("RGB", size, "red") for size in [(80, 80), (120, 80)]]
    text = chat_text(processor, fill_template("r1", question_for("the red circle")))
    inputs = processor(
        text=[text] * 2, images=[[one] for one in images], padding=True, return_tensors="pt"
    )
    return (
        model,
        processor,
        {k: v.repeat_interleave(4, 0) for k, v in inputs.items()}
        | {
            "pixel_values": torch.cat(
                [
                    part
                    for part in inputs["pixel_values"].split(
                        inputs["image_grid_thw"].prod(1).tolist()
                    )
                    for _ in range(4)
                ]
            )
        },
    )


def written(trained, **arguments):
    """(tokens, rows of every forward pass after the first) of sampling with a fixed seed."""
    model, _, inputs = trained
    rows = []
    hook = model.lm_head.register_forward_hook(lambda *passed: rows.append(len(passed[-1])))
    torch.manual_seed(1)
    with generate_with(model, partial(model.generate, **arguments)):
        tokens = model.generate(
            **inputs, do_sample=True, top_k=0, max_new_tokens=72, disable_compile=True
        )
    hook.remove()
    assert "generate" not in vars(model)
    return tokens, rows


def test_completions_that_have_ended_leave_the_batch_and_the_tokens_stay(trained):
    whole, all_rows = written(trained)
    tokens, rows = written(trained, custom_generate=sample_unfinished)
    assert torch.equal(tokens, whole)
    assert set(all_rows) == {8}
    assert len(rows) == len(all_rows)
    assert rows == sorted(rows, reverse=True)
    assert rows[0] == 8
    assert rows[-1] < 8


def test_completions_end_at_their_answer_also_where_they_leave(trained):
    _, processor, inputs = trained
    found = []
    for decode in ({}, {"custom_generate": sample_unfinished}):
        stop = StopAtAnswer(processor.tokenizer)
        tokens, _ = written(trained, stopping_criteria=[stop], **decode)
        completions = stop.cut(tokens[:, inputs["input_ids"].shape[1] :].tolist())
        found.append(processor.batch_decode(completions))
        ended = [text for text, length in zip(found[-1], stop.lengths, strict=True) if length]
        assert len(ended) >= 4
        assert all(text.endswith(STOP) for text in ended)
    assert found[0] == found[1]


def test_training_on_answers_that_end_at_their_tag(small_root, tmp_path, monkeypatch):
    """Neither an end of turn nor padding is trained on after the tag; the log counts such rows."""
    rollouts = []
    monkeypatch.setattr(ResumableGRPOTrainer, "on_rollout", staticmethod(rollouts.append))
    root = tmp_path / "project"
    (root / "models").mkdir(parents=True)
    (root / "models/base").symlink_to(ROOT / "models/base")
    (root / "data").symlink_to(small_root / "data")
    params = params_with(max_completion_tokens=64, stop_at_answer=True, drop_finished=True)
    train(job_of("grpo", params, root, tmp_path / "out"))
    processor = load_processor(root / "models/base", params.task)
    lengths = rollouts[0]["completion_mask"].sum(1).tolist()
    ids = [row[:n] for row, n in zip(rollouts[0]["completion_ids"], lengths, strict=True)]
    texts = processor.batch_decode(ids)
    stopped = [text.endswith(STOP) for text in texts]
    assert sum(stopped) >= 4
    assert all(text.count(STOP) <= 1 for text in texts)
    line = read_log(tmp_path / "out/training_log.jsonl")[0]
    assert line["completions/stopped_at_answer"] == sum(stopped) / len(stopped)
    assert line["completions/clipped_ratio"] >= line["completions/stopped_at_answer"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"stop_at_answer": True, "mask_truncated_completions": True}, "train on none that ends"),
        ({"drop_finished": True, "rollouts": "vllm_server"}, "not how a server does"),
    ],
)
def test_ends_that_another_option_does_not_know_are_refused(options, fault):
    with pytest.raises(ConfigError, match=fault):
        check_rollouts(params_with(**options).grpo, 1)


def test_rows_that_worker_processes_prepare_train_the_same(small_root, tmp_path):
    for workers in (0, 2):
        params = params_with({"workers": workers})
        train(job_of("sft", params, small_root, tmp_path / str(workers)))
    first, second = (weights(tmp_path / f"{workers}/checkpoint-2") for workers in (0, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
