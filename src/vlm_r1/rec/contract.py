"""The fairness contract: terms that must be equal before two methods may be compared."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vlm_r1.config import EngineName, Method, Params
from vlm_r1.errors import ContractError, ModelError

# Raise them when `rec.parsing.parse_answer` or a score can give another result for the same text.
# They stand here because SFT, which parses nothing, would otherwise depend on the parser.
PARSER_VERSION = "2"
SCORING_VERSION = "1"
STOP = "</answer>"  # the parser reads nothing after it, so generation stops there
STOPS = f"to {STOP}"


class TrainingContract(BaseModel):
    """The terms of training, written into every checkpoint as contract.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_digest: str
    base_revision: str | None  # commit of a base on the Hugging Face hub
    training_records_digest: str
    min_pixels: int
    max_pixels: int
    coordinate_space: str
    prompts_per_step: int
    step_grid: list[int]
    seed: int
    dtype: str
    prompts: dict[str, str]  # method -> template name
    # what training really had: the task's, unless the params give the method terms of its own
    trained_min_pixels: int
    trained_max_pixels: int
    trained_coordinate_space: str

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the terms."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Contract(TrainingContract):
    """The terms of training and of evaluation, written into every result's metadata."""

    max_new_tokens: int
    decoding: Literal["greedy, to </answer>"] = "greedy, to </answer>"
    engine: str  # "vllm", or "transformers" with its attention
    repeats: str  # sampled answers besides the greedy one: "none", or "3 at temperature 1"
    parser_version: str = PARSER_VERSION
    scoring_version: str = SCORING_VERSION


def training_contract(
    params: Params, base_digest: str, records_digest: str, method: Method | None = None
) -> TrainingContract:
    """The contract that `params` sets for training from this base on these records.

    Args:
        method: whose training it is; None: of a method without terms of its own.
    """
    trained = params.task if method is None else params.task_in_training(method)
    return TrainingContract(
        base_digest=base_digest,
        base_revision=params.task.revision,
        training_records_digest=records_digest,
        min_pixels=params.task.min_pixels,
        max_pixels=params.task.max_pixels,
        coordinate_space=params.task.coordinate_space,
        prompts_per_step=params.train.prompts_per_step,
        step_grid=params.train.step_grid,
        seed=params.experiment.seed,
        dtype=params.task.dtype,
        prompts=params.task.prompts.model_dump(),
        trained_min_pixels=trained.min_pixels,
        trained_max_pixels=trained.max_pixels,
        trained_coordinate_space=trained.coordinate_space,
    )


def evaluation_contract(training: TrainingContract, params: Params) -> Contract:
    """The terms of `training` and those of evaluation."""
    asked = params.evaluate
    repeats = f"{asked.repeats} at temperature {asked.temperature:g}" if asked.repeats else "none"
    return Contract(
        **training.model_dump(),
        max_new_tokens=asked.max_new_tokens,
        engine=_engine(asked.engine, params.task.attention),
        repeats=repeats,
    )


def _engine(engine: EngineName, attention: str) -> str:
    return f"{engine}, {attention} attention" if engine == "transformers" else engine


def read_terms(root: Path, checkpoint: Path) -> dict[str, Any]:
    """The terms in a checkpoint's contract.json; `checkpoint` is relative to `root`.

    Raises:
        ModelError: the checkpoint or its contract.json is missing.
    """
    try:
        terms = json.loads((root / checkpoint / "contract.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            got=f"{checkpoint}: no contract.json",
            need="every checkpoint of the step grid, as training wrote it",
            because="a checkpoint without its contract cannot be compared with another",
            do="`dvc checkout`, or `dvc repro` to train again",
        ) from None
    return dict(terms)


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """One "field: value of a != value of b" for every term in which two contracts differ."""
    fields = sorted(set(a) | set(b))
    return [f"{f}: {a.get(f)!r} != {b.get(f)!r}" for f in fields if a.get(f) != b.get(f)]


def require_equal(contracts: dict[str, dict[str, Any]]) -> None:
    """Require equal terms of all results of a comparison.

    Args:
        contracts: name of each result -> its contract as a dict.

    Raises:
        ContractError: names the first differing pair, every differing field and both values.
    """
    (first_name, first), *others = contracts.items()
    for name, contract in others:
        found = differences(first, contract)
        if found:
            raise ContractError(
                got=f"{first_name} and {name} differ in {'; '.join(found)}",
                need="one contract for all results of a comparison",
                because="a difference between methods would then be a difference of terms",
                do="evaluate again under one params.yaml, or pass --allow-unfair and be stamped",
            )
