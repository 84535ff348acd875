"""What each method was trained with, as its training recorded it, and what a search tried.

These are no terms of the contract: a learning rate that suits one method may ruin the other. So
they are shown side by side, with how many values were tried for each.
"""

import json
from pathlib import Path
from typing import Any

from vlm_r1 import paths
from vlm_r1.config import METHODS, Method, Params
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.search import Candidate, best_candidate, read_candidates
from vlm_r1.report.schema import CandidateLine, ChoiceLine, Choices

HIDDEN = ("checkpoints", "log_every", "sample_every")  # what is kept and shown, not learned
OTHERS = ("processes", "deepspeed", "own_rewards")  # outside of the sections


def read_choices(params: Params, root: Path) -> Choices:
    """The block `choices`, from both trainings' configuration.json and the candidates' scores.

    Raises:
        ResultError: a training's configuration, or a candidate's score, is missing or broken.
    """
    configurations = {method: _read(root, method) for method in METHODS}
    tried = {method: read_candidates(params, root, method) for method in METHODS}
    return Choices(
        lines=choice_lines(configurations),
        candidates=[line for found in tried.values() for line in candidate_lines(found)],
    )


def choice_lines(configurations: dict[Method, dict[str, Any]]) -> list[ChoiceLine]:
    """One line per setting of either method; what both have comes first.

    Args:
        configurations: method -> its training's configuration.json.
    """
    settings = {method: _settings(method, found) for method, found in configurations.items()}
    names = sorted(
        dict.fromkeys(name for found in settings.values() for name in found),
        key=lambda name: not all(name in found for found in settings.values()),
    )
    return [
        ChoiceLine(
            term=name,
            sft=settings["sft"].get(name),
            grpo=settings["grpo"].get(name),
            only=_only_method(name, settings),
        )
        for name in names
    ]


def _only_method(name: str, settings: dict[Method, dict[str, Any]]) -> Method | None:
    having = [method for method, found in settings.items() if name in found]
    return having[0] if len(having) == 1 else None


def candidate_lines(candidates: list[Candidate]) -> list[CandidateLine]:
    """The candidates of one method, and which of them validation chose."""
    return [
        CandidateLine(**one.model_dump(), chosen=one == best_candidate(candidates))
        for one in candidates
    ]


def _settings(method: Method, configuration: dict[str, Any]) -> dict[str, Any]:
    """Name -> value of what a training was free to choose; its own steps replace the shared."""
    shared, own = dict(configuration["train"]), dict(configuration[method])
    own["steps"] = own.get("steps") or shared["steps"]
    others = {name: configuration[name] for name in OTHERS if configuration.get(name)}
    merged = {**own, **{name: v for name, v in shared.items() if name != "steps"}, **others}
    return {name: value for name, value in merged.items() if name not in HIDDEN}


def _read(root: Path, method: Method) -> dict[str, Any]:
    file = paths.run_dir(method) / "configuration.json"
    try:
        found: dict[str, Any] = json.loads((root / file).read_text(encoding="utf-8"))
        if {"train", method} <= found.keys():
            return found
        fault = f"no sections train and {method}"
    except (OSError, ValueError) as error:
        fault = "no such file" if isinstance(error, FileNotFoundError) else str(error)
    raise ResultError(
        got=f"{file}: {fault}",
        need="the configuration that the training wrote beside its checkpoints",
        because="the report shows what each method was trained with",
        do="`dvc repro` to train again, or `dvc checkout` to bring the file back",
    )
