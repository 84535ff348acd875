"""Sampled answers: seeded noise per row that makes greedy decoding draw from the model instead.

The token with the largest logit / temperature + Gumbel noise is a draw from the softmax (Gumbel
1954; Maddison et al. 2014, arXiv 1411.0030). So one way of decoding serves both, and a row's draws
depend on its own seed, not on the batch that it is in.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.generation import LogitsProcessor

from vlm_r1.rec.contract import STOPS

TINY = torch.finfo(torch.float32).tiny  # a draw of 0 would choose its token whatever the logits


@dataclass(frozen=True)
class Sampling:
    """One of several sampled passes over the questions.

    Attributes:
        seed: that of the training run; both methods have the same, so rows share their noise.
        repeat: number of the pass, from 1.
    """

    temperature: float
    seed: int
    repeat: int

    @property
    def decoding(self) -> str:
        """As the cache's key names it."""
        return (
            f"sampled at temperature {self.temperature:g}, seed {self.seed}, "
            f"repeat {self.repeat}, {STOPS}"
        )

    def row_seed(self, row: int) -> int:
        """The seed of a row's draws, 63 bits; `row` is its number among all questions."""
        entropy = [self.seed, self.repeat, row]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def noise(self, rows: list[int], device: torch.device) -> "GumbelNoise":
        """The noise of a batch; `rows` are the rows' numbers among all questions."""
        return GumbelNoise(self, rows, device)


class GumbelNoise(LogitsProcessor):
    """Divides logits by the temperature and adds each row's own noise, one draw per token."""

    def __init__(self, sampling: Sampling, rows: list[int], device: torch.device) -> None:
        self._temperature = sampling.temperature
        self._generators = [
            torch.Generator(device).manual_seed(sampling.row_seed(row)) for row in rows
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (rows, vocabulary) whose largest entry in each row is a draw."""
        noise = torch.stack(
            [
                torch.empty(scores.shape[1], device=scores.device).exponential_(generator=one)
                for one in self._generators
            ]
        )
        return (
            scores.float() / self._temperature - noise.clamp_min(TINY).log()
        )  # -log of exponential is Gumbel
