"""A project small enough for a test: drawn data, an untrained tiny base, two steps a method."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings

from vlm_r1 import environment
from vlm_r1.config import Params, parse_params, standalone

environment.set_defaults()
settings.register_profile("house", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("house")
ROOT = Path(__file__).parents[1]
LORA = standalone.LORA.model_dump()  # a whole `train.lora`


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-snapshots", action="store_true", help="write tests/snapshots anew, then compare"
    )


def small_values() -> dict:
    """The committed parameters, cut down to what a test can wait for."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for split in values["draw"].values():
        split["images"] = 6
    values["train"] |= {"steps": 2, "checkpoints": 1, "prompts_per_step": 2, "log_every": 1}
    values["sft"]["micro_batch"] = 2
    values["grpo"] |= {"micro_batch": 8, "num_generations": 4, "max_completion_tokens": 8}
    values["grpo"]["sample_every"] = 1
    values["evaluate"] |= {"batch_tokens": 400, "max_new_tokens": 8}
    return values


@pytest.fixture(scope="session")
def small_params() -> Params:
    return parse_params(small_values(), "small")


@pytest.fixture(scope="session")
def small_root(tmp_path_factory, small_params) -> Path:
    """Drawn and prepared data, and an untrained tiny base in models/base."""
    from vlm_r1.models.tiny.model import build_model, build_processor, build_tokenizer
    from vlm_r1.stages import draw, prepare

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("project")
    draw.run(small_params, root)
    prepare.run(small_params, root)
    tokenizer = build_tokenizer(["Please provide the box. <think> </think> <answer> </answer>"])
    processor = build_processor(tokenizer, 3136, 12_845_056)
    model = build_model(tokenizer, seed=0)
    model.save_pretrained(root / "models/base")
    processor.save_pretrained(root / "models/base")
    return root


def untracked_training(params: Params, root: Path, method: str, seed: int | None = None) -> None:
    """The stage `sft` or `grpo` without MLflow, for tests that look at files only."""
    from contextlib import nullcontext

    from vlm_r1.stages import grpo, sft
    from vlm_r1.training.callbacks import ignore

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_r1.tracking.training_run", lambda *_: nullcontext(ignore))
        (sft if method == "sft" else grpo).run(params, root, seed)


@pytest.fixture(scope="module")
def no_server() -> Iterator[None]:
    """MLflow on the project's own SQLite file, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="session")
def empty(tmp_path_factory) -> Path:
    """Where `tracking_files.copy_database` keeps the new database that it copies from."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    """A 90 x 60 image file."""
    from PIL import Image

    path = tmp_path_factory.mktemp("image") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
