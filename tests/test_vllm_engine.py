"""vLLM as an engine, against a small server that stands for it: requests, failures, processes."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tests.conftest import LORA, ROOT, small_values
from tests.layout import SOURCE
from vlm_r1 import paths
from vlm_r1.config import Params, parse_params
from vlm_r1.data.images import open_image
from vlm_r1.errors import ConfigError, ContractError, ModelError
from vlm_r1.inference.chat_prompts import make_prompts
from vlm_r1.inference.checkpoint import Checkpoint
from vlm_r1.inference.engines import vllm_engine, vllm_server
from vlm_r1.inference.engines.transformers_engine import TransformersEngine
from vlm_r1.inference.engines.vllm_environment import (
    require_vllm,
    server_arguments,
    server_variables,
    vllm_versions,
)
from vlm_r1.inference.engines.vllm_requests import expected_ids, image_url, request, sampled
from vlm_r1.inference.evaluator import Evaluation, Evaluator, make_evaluator
from vlm_r1.inference.questions import Question
from vlm_r1.inference.sampling import Sampling
from vlm_r1.rec.contract import require_equal

SERVER = ROOT / "tests/fake_vllm.py"
QUESTIONS = 3 * 12  # validation and two tests, two phrases for each of six images


class Fake:
    """The environment of the server that stands for vLLM, and what it noted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "python"
        script = f"""#!/bin/sh
case "$1" in
  -c) printf 'vllm 9.9.9\\n2.0\\n5.0\\n' ;;
  *) exec {sys.executable} -I {SERVER} "$@" ;;
esac
"""
        self.python.write_text(script)
        self.python.chmod(0o755)
        (folder / "answers.json").write_text("{}")
        self.fail("no")

    def fail(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    def noted(self, kind: str) -> list[dict]:
        file = self.folder / f"{kind}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def pids(self) -> list[int]:
        return [pid for start in self.noted("starts") for pid in start["pids"]]


class Evaluated(NamedTuple):
    """A project whose base was evaluated with a server that answers as transformers does."""

    root: Path
    answers: Path
    evaluations: list[Evaluation]


@pytest.fixture(scope="module")
def evaluated(small_root, tmp_path_factory) -> Evaluated:
    root, folder = tmp_path_factory.mktemp("evaluated"), tmp_path_factory.mktemp("fake")
    for name in ("data", "models/base"):
        shutil.copytree(small_root / name, root / name)
    evaluator = make_evaluator(params_with(Fake(folder)), root, "sft", device="cpu")
    write_answers(evaluator, folder / "answers.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_VLLM", str(folder))
        found = evaluator.evaluate_checkpoint(0, root / "models/base")
    return Evaluated(root, folder / "answers.json", found)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Fake:
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setenv("FAKE_VLLM", str(folder))
    return Fake(folder)


@pytest.fixture
def project(evaluated, tmp_path) -> Path:
    """A copy with transformers' completions alone in the cache."""
    root = Path(shutil.copytree(evaluated.root, tmp_path / "project"))
    keys = list((root / paths.COMPLETIONS).glob("*/key.json"))
    assert len(keys) == 5  # two of the agreement, three datasets
    for key in keys:
        if json.loads(key.read_text())["engine"] != "transformers":
            shutil.rmtree(key.parent)
    return root


@pytest.fixture
def evaluator(project, fake, evaluated) -> Evaluator:
    """Of SFT's run with the engine vllm, whose server answers as transformers does."""
    shutil.copy(evaluated.answers, fake.folder)
    return make_evaluator(params_with(fake), project, "sft", device="cpu")


def write_answers(evaluator: Evaluator, file: Path) -> None:
    """What transformers says to every question of the evaluation."""
    params = evaluator.params
    base = evaluator.root / "models/base"
    engine = TransformersEngine(base, params.task, params.evaluate, evaluator.host)
    questions = [one for eval_set in evaluator.eval_sets for one in eval_set.questions]
    prompts, answers = make_prompts(engine.processor, questions), {}
    for part in engine.answer(questions, set()):
        for row, completion in zip(*part, strict=True):
            answers[questions[row].text + image_url(questions[row].image)] = {
                "ids": expected_ids(engine.processor, prompts[row]),
                "text": completion.text,
                "new_tokens": completion.new_tokens,
                "finish_reason": "length" if completion.cut_off else "stop",
            }
    file.write_text(json.dumps(answers))


def params_with(fake: Fake, **sections: dict) -> Params:
    values = small_values()
    vllm = {"python": str(fake.python), "memory_share": 0.9, "start_timeout_s": 20.0}
    values["evaluate"] |= {"engine": "vllm", "vllm": vllm}
    for name, changes in sections.items():
        values[name] |= changes
    return parse_params(values, "vllm")


def wait_until_gone(pids: list[int], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_results_are_those_of_transformers_but_for_the_engine(evaluated, project, small_params):
    plain = make_evaluator(small_params, project, "sft", device="cpu")
    without = plain.evaluate_checkpoint(0, project / "models/base")
    assert len(without) == 3
    for theirs, ours in zip(evaluated.evaluations, without, strict=True):
        assert theirs.result.results == ours.result.results
        assert theirs.result.meta["contract"]["engine"] == "vllm"
        assert theirs.result.meta["engine_agreement"] == {
            "rows": QUESTIONS,
            "equal_texts": QUESTIONS,
            "same_boxes": QUESTIONS,
        }
        assert "engine_agreement" not in ours.result.meta


def test_results_of_two_engines_are_not_compared(fake, project, small_params):
    ours = make_evaluator(small_params, project, "sft", device="cpu")
    theirs = make_evaluator(params_with(fake), project, "sft", device="cpu")
    terms = {"a": ours.contract.model_dump(), "b": theirs.contract.model_dump()}
    with pytest.raises(ContractError, match="engine: 'transformers, sdpa attention' != 'vllm'"):
        require_equal(terms)


def test_each_checkpoint_has_a_server_of_its_own_that_ends_with_it(evaluator, project, fake):
    evaluator.evaluate_checkpoint(0, project / "models/base")
    second = project / "models/second"
    shutil.copytree(project / "models/base", second)
    settings = json.loads((second / "generation_config.json").read_text())
    (second / "generation_config.json").write_text(json.dumps(settings | {"another": 1}))
    evaluator.evaluate_checkpoint(1, second)
    starts = [start["arguments"] for start in fake.noted("starts")]
    models = [Path(words[words.index("--model") + 1]).name for words in starts]
    assert models == ["base", "base", "second"]  # the first one: agreement of engines
    assert len(fake.pids()) == 6
    wait_until_gone(fake.pids())


def test_each_request_has_a_connection_of_its_own(evaluator, project, fake):
    evaluator.evaluate_checkpoint(0, project / "models/base")
    assert set(fake.noted("connections")) == {"close"}


def test_a_second_evaluation_starts_no_server(evaluator, project, fake):
    evaluator.evaluate_checkpoint(0, project / "models/base")
    before = len(fake.noted("starts"))
    fake.fail("exit")
    again = make_evaluator(evaluator.params, project, "sft", device="cpu")
    again.evaluate_checkpoint(0, project / "models/base")
    assert len(fake.noted("starts")) == before


def test_an_engine_that_answers_otherwise_is_refused_with_a_row_and_both_texts(
    evaluator, project, fake
):
    fake.fail("texts")
    with pytest.raises(ModelError, match="in transformers, 'nothing' in vLLM") as raised:
        evaluator.evaluate_checkpoint(0, project / "models/base")
    assert raised.value.got.startswith(f"0 of {QUESTIONS} texts of the base equal")
    assert len(fake.noted("starts")) == 1  # nothing else was evaluated


def test_another_prompt_than_ours_is_refused(evaluator, project, fake):
    fake.fail("tokens")
    with pytest.raises(ModelError, match=r"a prompt of \d+ tokens in vLLM, which differs"):
        evaluator.evaluate_checkpoint(0, project / "models/base")
    wait_until_gone(fake.pids())


def test_a_server_that_dies_is_shown_and_its_answers_are_kept(
    evaluator, project, fake, monkeypatch
):
    monkeypatch.setattr(vllm_engine, "REQUESTS", 1)
    monkeypatch.setattr(vllm_engine, "SAVED_ROWS", 1)
    fake.fail("die:5")
    with pytest.raises(ModelError, match="exit code 7") as raised:
        evaluator.evaluate_checkpoint(0, project / "models/base")
    assert "\n  out of memory" in raised.value.got
    wait_until_gone(fake.pids())
    fake.fail("no")
    before = len(fake.noted("requests"))
    evaluator.evaluate_checkpoint(0, project / "models/base")
    assert before == 6
    assert len(fake.noted("requests")) == before + (QUESTIONS - 5) + QUESTIONS


@pytest.mark.parametrize(
    ("mode", "timeout_s", "told"),
    [
        (
            "exit",
            20,
            r"did not start; it ended with exit code 3.*\n  ValueError: no such d.*\n  see above",
        ),
        ("mute", 0.3, r"not ready after evaluate.vllm.start_timeout_s 0.3; it still runs"),
    ],
)
def test_a_server_that_does_not_start_is_shown(fake, tmp_path, mode, timeout_s, told):
    fake.fail(mode)
    block = vllm_server.vllm_server(fake.python, [], tmp_path / "logs/v.log", {}, timeout_s)
    with pytest.raises(ModelError, match=f"(?s){told}"), block:
        pass
    assert "loading weights" in (tmp_path / "logs/v.log").read_text()
    wait_until_gone(fake.pids()[:1])


def test_a_wait_is_told_with_the_last_line_of_the_log(fake, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(vllm_server, "TOLD_S", 0.1)
    caplog.set_level("INFO", logger="vlm_r1")
    fake.fail("mute")
    block = vllm_server.vllm_server(fake.python, [], tmp_path / "v.log", {}, 1.0)
    with pytest.raises(ModelError), block:
        pass
    assert any("of at most 1 s  loading weights" in line for line in caplog.messages)


def test_a_server_ends_when_the_process_that_started_it_is_killed(fake, tmp_path):
    program = f"""
from pathlib import Path
from vlm_r1.inference.engines.vllm_server import vllm_server
with vllm_server(Path({str(fake.python)!r}), [], Path({str(tmp_path)!r}) / "v.log", {{}}, 20):
    print("ready", flush=True)
    input()
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as stage:
        assert stage.stdout.readline() == b"ready\n"
        assert len(fake.pids()) == 2
        stage.send_signal(signal.SIGKILL)
    wait_until_gone(fake.pids())


def test_the_server_gets_the_budget_the_dtype_and_one_gpu_for_each_process(small_params, tmp_path):
    words = server_arguments(tmp_path, small_params.task, 0.8, torch.device("cuda"), 4)
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["--model"] == str(tmp_path)
    budget = {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}
    assert json.loads(options["--mm-processor-kwargs"]) == budget
    assert options["--dtype"] == "float32"
    assert options["--gpu-memory-utilization"] == "0.8"
    assert options["--data-parallel-size"] == "4"
    on_cpu = server_arguments(tmp_path, small_params.task, 0.8, torch.device("cpu"), 4)
    assert on_cpu == ["--enforce-eager", *words]


def test_the_server_knows_nothing_of_torchrun_and_this_python(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = vllm_server.server_environment()
    assert found["HF_HUB_OFFLINE"] == "1"
    assert not {"RANK", "LOCAL_RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "PYTHONPATH"} & set(
        found
    )


@pytest.mark.parametrize(
    ("device", "processes", "visible", "expected"),
    [
        ("cpu", 1, None, {}),
        ("cuda:1", 1, None, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("cuda:1", 1, "4,6", {"CUDA_VISIBLE_DEVICES": "6"}),
        ("cuda", 1, "4,6", {"CUDA_VISIBLE_DEVICES": "4"}),
        ("cuda:0", 2, "4,6", {}),
    ],
)
def test_a_server_of_one_process_sees_its_gpu(monkeypatch, device, processes, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = server_variables("Qwen/model", torch.device(device), processes)
    assert found == {"VLLM_NO_USAGE_STATS": "1"} | expected


def test_a_server_of_a_folder_does_not_ask_the_hub(tmp_path):
    assert server_variables(tmp_path, torch.device("cpu"), 1)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in server_variables("Qwen/model", torch.device("cpu"), 1)


def test_a_request_is_greedy_and_ends_with_the_answer(image):
    body = request(Question("where?", image), 48)
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["image_url", "text"]
    assert body["messages"][0]["content"][1]["text"] == "where?"
    assert (body["stop"], body["include_stop_str_in_output"]) == (["</answer>"], True)
    assert (body["max_tokens"], body["top_p"], body["top_k"]) == (48, 1.0, -1)


def test_sampled_rows_have_seeds_of_their_own_the_same_for_both_methods():
    first = Sampling(0.7, seed=42, repeat=1)
    assert sampled(first, 3) == sampled(Sampling(0.7, 42, 1), 3)
    seeds = {sampled(one, row)["seed"] for one in (first, Sampling(0.7, 42, 2)) for row in (0, 1)}
    assert len(seeds) == 4
    assert max(seeds) < 2**63


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_plain_image_is_sent_as_it_is(tmp_path, kind):
    file = tmp_path / "plain"
    noise(3).save(file, kind)
    head, content = image_url(file).split(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(content) == file.read_bytes()


@pytest.mark.parametrize("mode", ["transparent", "turned", "gray", "bmp"])
def test_any_other_image_is_sent_as_the_pixels_that_we_see(tmp_path, mode):
    file = tmp_path / mode
    if mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        noise(3).save(file, "jpeg", exif=exif)
    elif mode == "gray":
        noise(3).convert("L").save(file, "png")
    else:
        noise(4 if mode == "transparent" else 3).save(file, "bmp" if mode == "bmp" else "png")
    head, content = image_url(file).split(",")
    assert head == "data:image/png;base64"
    sent = Image.open(BytesIO(base64.b64decode(content)))
    assert sent.mode == "RGB"
    assert np.array_equal(np.asarray(sent), np.asarray(open_image(file)))


def noise(channels: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_adapters_and_a_missing_environment_are_refused_by_name(fake, project):
    base = project / "models/base"
    require_vllm(params_with(fake), project, base)
    with pytest.raises(ConfigError, match=r"evaluate.engine: vllm with train.lora"):
        require_vllm(params_with(fake, train={"lora": LORA}), project, base)
    fake.python = fake.folder / "nowhere"
    with pytest.raises(ConfigError, match=r"evaluate.vllm.python .*nowhere"):
        require_vllm(params_with(fake), project, base)


def test_an_environment_without_vllm_is_refused():
    with pytest.raises(ConfigError, match=r"evaluate\.vllm\.python"):
        vllm_versions(Path(sys.executable))


def test_a_family_that_cuts_tiles_is_refused(fake, project, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    with pytest.raises(ConfigError, match=r"evaluate\.engine: vllm with InternVL"):
        require_vllm(params_with(fake), project, tmp_path)


def test_the_cache_tells_engines_and_their_versions_apart(fake, project):
    evaluator = make_evaluator(params_with(fake), project, "sft", device="cpu")
    keys = [
        Checkpoint(
            project / "models/base", evaluator.params, evaluator.host, engine
        ).completion_key("q", evaluator.contract)
        for engine in ("transformers", "vllm")
    ]
    assert [key.engine for key in keys] == ["transformers", "vllm 9.9.9"]
    assert (keys[1].torch, keys[1].transformers, keys[1].attention) == ("2.0", "5.0", "")
    assert keys[0].digest != keys[1].digest


def test_only_the_first_process_asks(fake, small_params, project):
    processes = SimpleNamespace(is_main_process=False, num_processes=2)
    host = SimpleNamespace(root=project, distributed=processes, device=torch.device("cpu"))
    params = params_with(fake)
    engine = vllm_engine.VllmEngine("models/base", params.task, params.evaluate, host)
    assert list(engine.answer([Question("a", Path("b"))], set())) == []
    assert fake.noted("starts") == []
