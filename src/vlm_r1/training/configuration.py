"""Everything that a training's weights and curve depend on, to compare before resuming."""

import os
from importlib import metadata
from pathlib import Path
from typing import Any

from vlm_r1.config import Method, Params
from vlm_r1.config.deepspeed import deepspeed_config
from vlm_r1.files import sha256_of_file
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.source_code import code_digest

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "deepspeed")
DIGEST_CHARACTERS = 16


def configuration_of(
    params: Params, contract: TrainingContract, method: Method, own_files: dict[str, Path]
) -> dict[str, Any]:
    """The configuration of a training as plain values; an attempt resumes only under an equal one.

    Args:
        own_files: name -> user-written code that shapes the result, as custom rewards.
    """
    settings = params.model_dump(include={"task", "train", method}, mode="json")
    for key in ("save_only_model", "workers"):  # these change nothing of what is learned
        del settings["train"][key]
    own = {name: sha256_of_file(file) for name, file in own_files.items()}
    return {
        **settings,
        "contract": contract.model_dump(),
        "own_rewards": {name: digest[:DIGEST_CHARACTERS] for name, digest in own.items()},
        "deepspeed": deepspeed_config(params.train.deepspeed),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "code": code_digest(f"vlm_r1.stages.{method}")[:DIGEST_CHARACTERS],
    }
