"""The rewards as TRL calls them: completions and dataset columns in, floats out."""

import json
from pathlib import Path

import numpy as np

from vlm_r1 import rewards
from vlm_r1.answers import box_in_original, parse_answer
from vlm_r1.config import Grpo, Params


class RewardFunctions:
    """`iou` and `format` for one training, and the tables of sampled completions beside it.

    Args:
        params: `grpo.iou_reward` says soft or hard, `task.frame` how answers are read.
        samples: folder for `step-<n>.json`, one table every `grpo.sample_every` steps.
    """

    def __init__(self, params: Params, samples: Path) -> None:
        self._frame = params.task.frame
        self._settings: Grpo = params.grpo
        self._samples = samples

    def as_list(self) -> list:
        """The functions in the order TRL logs them; their names become `rewards/<name>/mean`."""
        return [self.iou, self.format]

    def iou(self, completions: list, true_box: list, image_size: list, input_size: list, **columns):
        """Soft IoU or hard hit per completion, and a table of them at every sampled step."""
        texts = [completion[-1]["content"] for completion in completions]
        rows = list(zip(texts, true_box, image_size, input_size, strict=True))
        soft = [rewards.iou_reward(t, b, self._frame, i, n) for t, b, i, n in rows]
        hard = self._settings.iou_reward == "hard"
        given = [rewards.hard_iou_reward(value) for value in soft] if hard else soft
        state = columns["trainer_state"]
        if state.global_step % self._settings.sample_every == 0 and state.is_world_process_zero:
            self._write_samples(state.global_step, rows, soft, given, columns)
        return given

    def format(self, completions: list, **columns) -> list[float]:
        """1.0 per completion with a thought and a tagged JSON box."""
        return [rewards.format_reward(completion[-1]["content"]) for completion in completions]

    def _write_samples(self, step: int, rows: list, soft: list, given: list, columns: dict) -> None:
        """Every group's completions of this step: what was asked, said, read and paid."""
        formats = [rewards.format_reward(text) for text, *_ in rows]
        table = [
            {
                "record_id": columns["record_id"][i],
                "image": columns["image_path"][i],
                "expression": columns["expression"][i],
                "completion": text,
                "box": self._box_of(text, image_size, input_size),
                "true_box": true_box,
                "iou": soft[i],
                "format": formats[i],
                "reward": given[i] + formats[i],
            }
            for i, (text, true_box, image_size, input_size) in enumerate(rows)
        ]
        self._samples.mkdir(parents=True, exist_ok=True)
        file = self._samples / f"step-{step}.json"
        file.write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")

    def _box_of(self, text: str, image_size: list, input_size: list) -> list[float] | None:
        """The answered box in original pixels, None where there is none."""
        box = box_in_original(parse_answer(text, self._frame), image_size, input_size)
        return None if np.isnan(box).any() else box.tolist()
