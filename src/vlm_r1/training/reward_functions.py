"""The rewards as TRL calls them: completions and dataset columns in, numbers out."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerState

from vlm_r1.config import Params
from vlm_r1.errors import ConfigError
from vlm_r1.rec.rewards import REWARDS
from vlm_r1.rec.rewards.batch import Batch
from vlm_r1.rec.rewards.custom import Function, load_function, require_rewards

SAMPLE_COLUMNS = ("record_id", "image", "expression", "completion", "box", "true_box", "reward")


@dataclass
class _Step:
    """One batch of completions and what the rewards asked so far gave for it."""

    completions: list | None
    batch: Batch | None
    given: dict[str, list[float | None]] = field(default_factory=dict)


class RewardFunctions:
    """The rewards of one training, and the tables of sampled completions beside it.

    Logs two metrics through TRL: `parse_rate`, the share of completions with a box, and
    `rewards/<name>/none_rate`, the share that a reward could not judge.

    Args:
        params: `grpo.rewards` names and weighs them, `task.coordinate_space` says how answers are
            read.
        samples: folder for `step-<n>.json`, one table every `grpo.sample_every` steps.
        root: the project's root, which files of own rewards are relative to.

    Raises:
        ConfigError: a reward of one's own cannot be used, or two have one name.
    """

    def __init__(self, params: Params, samples: Path, root: Path) -> None:
        self._space = params.task.coordinate_space
        self._sample_every = params.grpo.sample_every
        self._samples = samples
        self._keys = _by_name(params.grpo.rewards)
        self._weights = {name: params.grpo.rewards[key] for name, key in self._keys.items()}
        self._own: dict[str, Function] = {
            name: load_function(key, root) for name, key in self._keys.items() if name != key
        }
        self._step = _Step(None, None)

    def as_list(self) -> list[Callable[..., list[float | None]]]:
        """The functions in params' order; their names become `rewards/<name>/mean` in the log."""
        return [self._as_trl_calls_it(name) for name in self._keys]

    def try_on(self, row: dict[str, Any]) -> None:
        """Ask own rewards for an empty completion of a training row, before hours are spent.

        Raises:
            ConfigError: one returns another length or type than it should.
        """
        sent = {column: [value] for column, value in row.items() if column != "prompt"}
        sent |= {"prompts": [row["prompt"]], "completion_ids": [[]]}
        sent |= {"completions": [[{"role": "assistant", "content": ""}]]}
        sent |= {"trainer_state": TrainerState(), "log_extra": _ignore, "log_metric": _ignore}
        for name, function in self._own.items():
            require_rewards(self._keys[name], function(**sent), 1)

    def _as_trl_calls_it(self, name: str) -> Callable[..., list[float | None]]:
        def reward(**sent: Any) -> list[float | None]:
            return self._reward(name, sent)

        reward.__name__ = name
        return reward

    def _reward(self, name: str, sent: dict[str, Any]) -> list[float | None]:
        """One reward for every completion; after the last reward, what is told of the step."""
        if sent["completions"] is not self._step.completions:
            self._step = _Step(sent["completions"], self._batch(sent))
        values = self._values(name, sent)
        sent["log_metric"](f"rewards/{name}/none_rate", values.count(None) / len(values))
        self._step.given[name] = values
        if len(self._step.given) == len(self._keys):
            sent["log_metric"]("parse_rate", self._step.batch.parse_rate)
            state = sent["trainer_state"]
            if state.global_step % self._sample_every == 0 and state.is_world_process_zero:
                self._write_samples(state.global_step, sent)
        return values

    def _values(self, name: str, sent: dict[str, Any]) -> list[float | None]:
        if name in self._own:
            returned = self._own[name](**sent)
            return require_rewards(self._keys[name], returned, len(sent["completions"]))
        return REWARDS[name](self._step.batch)

    def _batch(self, sent: dict[str, Any]) -> Batch:
        return Batch(
            texts=[completion[-1]["content"] for completion in sent["completions"]],
            truths=[[box] for box in sent["true_box"]],
            coordinate_space=self._space,
            image_sizes=sent["image_size"],
            input_sizes=sent["input_size"],
        )

    def _write_samples(self, step: int, sent: dict[str, Any]) -> None:
        """Every group's completions of this step: what was asked, said, read and paid."""
        batch, given = self._step.batch, self._step.given
        table = [
            {
                "record_id": sent["record_id"][row],
                "image": sent["image_path"][row],
                "expression": sent["expression"][row],
                "completion": text,
                "box": None if np.isnan(box).any() else box.tolist(),
                "true_box": sent["true_box"][row],
                **{name: values[row] for name, values in given.items()},
                "reward": sum(w * (given[name][row] or 0.0) for name, w in self._weights.items()),
            }
            for row, (text, box) in enumerate(zip(batch.texts, batch.answered, strict=True))
        ]
        self._samples.mkdir(parents=True, exist_ok=True)
        file = self._samples / f"step-{step}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(file)


def _by_name(rewards: dict[str, float]) -> dict[str, str]:
    """Name in logs -> key in params: a function of one's own goes by its own name."""
    names = [key.rpartition(":")[2] for key in rewards]
    taken = [n for n in names if names.count(n) > 1 or n in SAMPLE_COLUMNS]
    own = [n for n, key in zip(names, rewards, strict=True) if n != key and n in REWARDS]
    if taken or own:
        raise ConfigError(
            got=f"grpo.rewards: the name {(taken + own)[0]!r} is taken",
            need="rewards whose functions have names of their own",
            because="a reward goes by that name in the log, in MLflow and in the samples",
            do="rename the function",
        )
    return dict(zip(names, rewards, strict=True))


def _ignore(*_: Any) -> None:
    """Stands in for TRL's log_extra and log_metric."""
