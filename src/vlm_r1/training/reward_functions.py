"""The rewards as TRL calls them: completions and columns in, one number per completion out."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from transformers import TrainerState

from vlm_r1.config.training import Grpo
from vlm_r1.errors import ConfigError
from vlm_r1.files import whole_file
from vlm_r1.rec.rewards import REWARDS, only_named
from vlm_r1.rec.rewards.batch import Batch
from vlm_r1.rec.rewards.custom import Function, load_function, require_rewards

SAMPLE_COLUMNS = ("record_id", "image", "expression", "completion", "box", "true_box", "reward")


@dataclass
class _ScoredBatch:
    """A batch of completions, read once, and the values of the rewards called so far."""

    step: int
    batch: Batch
    values: dict[str, list[float | None]] = field(default_factory=dict)


class RewardFunctions:
    """The rewards of one training, and the tables of sampled completions.

    Logs two metrics through TRL: `parse_rate`, the share of completions with a box, and
    `rewards/<name>/none_rate`, the share that a reward could not judge.

    Args:
        grpo: `rewards` names and weighs the functions.
        coordinate_space: how boxes in completions are read.
        samples: folder for `step-<n>.json`, one table every `grpo.sample_every` steps.
        root: the project's root, which files of custom rewards are relative to.

    Raises:
        ConfigError: a custom reward cannot be used, or two rewards have one name.
    """

    def __init__(self, grpo: Grpo, coordinate_space: str, samples: Path, root: Path) -> None:
        self._coordinate_space = coordinate_space
        self._sample_every = grpo.sample_every
        self._samples = samples
        self._keys = _keys_by_name(grpo.rewards)
        self._weights = {name: grpo.rewards[key] for name, key in self._keys.items()}
        self._custom: dict[str, Function] = {
            name: load_function(key, root) for name, key in self._keys.items() if name != key
        }
        self._scored: _ScoredBatch | None = None

    def require_known(self, accuracy_rewards: Iterable[str]) -> None:
        """Refuse records whose accuracy reward is not among the rewards of this training.

        Raises:
            ConfigError: names it.
        """
        unknown = sorted(set(accuracy_rewards) - {"", *self._keys})
        if unknown:
            raise ConfigError(
                got=f"training records with the accuracy reward {', '.join(unknown)}",
                need=f"one of grpo.rewards: {', '.join(self._keys)}",
                because="no reward would compare their answers with their boxes",
                do="add it to grpo.rewards with a weight, or correct the records",
            )

    def as_list(self) -> list[Callable[..., list[float | None]]]:
        """The functions in the order of params; TRL logs each as `rewards/<its name>/mean`."""
        return [self._as_trl_calls_it(name) for name in self._keys]

    def try_on(self, row: dict[str, Any]) -> None:
        """Call custom rewards on an empty completion of a training row, before training starts.

        Raises:
            ConfigError: one returns another length or type than it should.
        """
        sent: dict[str, Any] = {
            **{column: [value] for column, value in row.items() if column != "prompt"},
            "prompts": [row["prompt"]],
            "completions": [[{"role": "assistant", "content": ""}]],
            "completion_ids": [[]],
            "trainer_state": TrainerState(),
            "log_extra": _ignore,
            "log_metric": _ignore,
        }
        for name, function in self._custom.items():
            require_rewards(self._keys[name], function(**sent), 1)

    def _as_trl_calls_it(self, name: str) -> Callable[..., list[float | None]]:
        def reward(**sent: Any) -> list[float | None]:
            return self._reward(name, sent)

        reward.__name__ = name
        return reward

    def _reward(self, name: str, sent: dict[str, Any]) -> list[float | None]:
        """One value per completion; after the last reward of a batch, its metrics and samples."""
        scored = self._scored_batch(name, sent)
        values = self._values(name, scored.batch, sent)
        sent["log_metric"](f"rewards/{name}/none_rate", values.count(None) / len(values))
        scored.values[name] = values
        if len(scored.values) == len(self._keys):
            sent["log_metric"]("parse_rate", scored.batch.parse_rate)
            state = sent["trainer_state"]
            if state.global_step % self._sample_every == 0:
                self._write_samples(scored, sent)
        return values

    def _scored_batch(self, name: str, sent: dict[str, Any]) -> _ScoredBatch:
        """The batch that TRL is calling the rewards for, so that completions are parsed only once.

        TRL calls every reward once per batch. So a batch is new if step or content differ from the
        last call's, or if this reward has already judged it: two batches of a step can be equal.
        """
        step, batch, last = sent["trainer_state"].global_step, self._batch(sent), self._scored
        if last is None or (last.step, last.batch) != (step, batch) or name in last.values:
            last = self._scored = _ScoredBatch(step, batch)
        return last

    def _values(self, name: str, batch: Batch, sent: dict[str, Any]) -> list[float | None]:
        if name in self._custom:
            returned = self._custom[name](**sent)
            return require_rewards(self._keys[name], returned, len(sent["completions"]))
        return only_named(name, REWARDS[name](batch), sent["accuracy_reward"])

    def _batch(self, sent: dict[str, Any]) -> Batch:
        return Batch(
            texts=[completion[-1]["content"] for completion in sent["completions"]],
            true_boxes=sent["true_boxes"],
            coordinate_space=self._coordinate_space,
            image_sizes=sent["image_size"],
            input_sizes=sent["input_size"],
            true_labels=sent["true_labels"],
        )

    def _write_samples(self, scored: _ScoredBatch, sent: dict[str, Any]) -> None:
        """Write every completion of all processes, the box read from it, and its rewards.

        Every process calls this, for they exchange their rows; the first one writes.
        """
        batch, values = scored.batch, scored.values
        table = [
            {
                "record_id": sent["record_id"][row],
                "image": sent["image_path"][row],
                "expression": sent["expression"][row],
                "completion": text,
                "box": None if np.isnan(box).any() else box.tolist(),
                "true_box": sent["true_box"][row],
                **{name: given[row] for name, given in values.items()},
                "reward": sum(w * (values[name][row] or 0.0) for name, w in self._weights.items()),
            }
            for row, (text, box) in enumerate(zip(batch.texts, batch.answered, strict=True))
        ]
        table = gather_object(table)
        if not sent["trainer_state"].is_world_process_zero:
            return
        with whole_file(self._samples / f"step-{scored.step}.json") as part:
            part.write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")


def _keys_by_name(rewards: dict[str, float]) -> dict[str, str]:
    """Name in logs -> key in params; a custom reward is logged by the name of its function.

    Raises:
        ConfigError: two rewards share a name, or one has that of a built-in reward or a column.
    """
    names = [key.rpartition(":")[2] for key in rewards]
    taken = [n for n in names if names.count(n) > 1 or n in SAMPLE_COLUMNS]
    custom = [n for n, key in zip(names, rewards, strict=True) if n != key and n in REWARDS]
    if taken or custom:
        raise ConfigError(
            got=f"grpo.rewards: the name {(taken + custom)[0]!r} is taken",
            need="rewards whose functions have names of their own",
            because="a reward goes by that name in the log, in MLflow and in the samples",
            do="rename the function",
        )
    return dict(zip(names, rewards, strict=True))


def _ignore(*_: Any) -> None:
    """Stands in for TRL's log_extra and log_metric."""
