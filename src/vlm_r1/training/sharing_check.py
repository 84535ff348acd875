"""Compares both ways of reading prompts before a training, on two prompts of its first rollout.

Sharing rests on how TRL and transformers pass their arguments on. An upgrade that breaks this would
not crash: it would train on wrong log-probabilities.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.utils import pad

from vlm_r1.errors import ModelError
from vlm_r1.training.group_rows import PER_IMAGE, Rows, first_rows

PROMPTS, COMPLETIONS, TOKENS = 2, 2, 16
# Largest difference of a token's log-probability: float32, and the mean of it in 16 bits. A cache
# that was dropped gave 12.
FLOAT32_LIMIT, MEAN_LIMIT = 1e-3, 0.2


@torch.no_grad()
def require_equal_numbers(trainer: Any, rows: list[Rows]) -> None:
    """Write and judge a few completions in both ways.

    Args:
        trainer: a `SharedPromptTrainer` that shares prompts.
        rows: of a rollout, with opened images.

    Raises:
        ModelError: other tokens (float32), or other log-probabilities.
    """
    messages = _messages(rows)
    with _in_evaluation(trainer):
        plain, shared = (_written(trainer, messages, share) for share in (False, True))
        logps = [_logps(trainer, messages, share, plain) for share in (False, True)]
    exact = trainer.whole_model.dtype == torch.float32 and not trainer.accelerator.native_amp
    apart = (logps[0] - logps[1]).abs()
    fault = None
    if exact and plain != shared:
        fault = f"tokens {shared}, not {plain}"
    elif exact and float(apart.max()) > FLOAT32_LIMIT:
        fault = f"log-probabilities up to {float(apart.max()):.2g} apart"
    elif float(apart.mean()) > MEAN_LIMIT:
        fault = f"log-probabilities {float(apart.mean()):.2g} apart on average"
    if fault is not None:
        raise ModelError(
            got=f"grpo.share_prompts: {fault}, of {PROMPTS} prompts read once and read again",
            need="the numbers of both ways to agree",
            because="training would follow other rewards and gradients than those of GRPO",
            do="set grpo.share_prompts: false, or install the locked versions of trl and "
            "transformers",
        )


def _messages(rows: list[Rows]) -> list[Any]:
    """`COMPLETIONS` times the first `PROMPTS` prompts, with their images, as TRL has them."""
    first = first_rows([(row["prompt"], row["image"]) for row in rows])[:PROMPTS]
    return [
        prepare_multimodal_messages(rows[row]["prompt"], images=[rows[row]["image"]])
        for row in first
        for _ in range(COMPLETIONS)
    ]


def _written(trainer: Any, messages: list[Any], share: bool) -> list[list[int]]:
    """Completions of the messages from a seed of their own, at most `TOKENS` tokens each."""
    trainer.shares_prompts = share
    config = trainer.generation_config
    limit, config.max_new_tokens = config.max_new_tokens, TOKENS
    devices = [trainer.accelerator.device] if trainer.accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            inputs = trainer._tokenize_prompts(messages)
            written: list[list[int]] = trainer._generate_single_turn(*inputs, COMPLETIONS)[0]
    finally:
        config.max_new_tokens = limit
    return written


def _logps(trainer: Any, messages: list[Any], share: bool, written: list[list[int]]) -> Tensor:
    """Log-probabilities (rows, tokens) of the completions `written`; 0 behind their ends."""
    trainer.shares_prompts = share
    prompts, images, fields = trainer._tokenize_prompts(messages)
    ids, mask = _padded(prompts, "left")
    completion_ids, completion_mask = _padded(written, "right")
    types = _repeated(fields["mm_token_type_ids"], len(messages))
    rows = {
        "input_ids": torch.cat([ids, completion_ids], dim=1),
        "attention_mask": torch.cat([mask, completion_mask], dim=1),
        "mm_token_type_ids": torch.cat(
            [_padded(types, "left")[0], torch.zeros_like(completion_ids)], dim=1
        ),
        **{name: torch.as_tensor(fields[name]) for name in PER_IMAGE},
    }
    rows = {name: value.to(trainer.accelerator.device) for name, value in rows.items()}
    logps, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        logits_to_keep=completion_ids.shape[1],
        num_images=[len(own or []) for own in images],
        **rows,
    )
    kept: Tensor = logps * completion_mask.to(logps.device)
    return kept


def _padded(rows: Sequence[Any], side: str) -> tuple[Tensor, Tensor]:
    """Lists of numbers as one tensor, and which of its places they fill."""
    tensors = [torch.as_tensor(row) for row in rows]
    values = pad(tensors, padding_value=0, padding_side=side)
    return values, pad([torch.ones_like(one) for one in tensors], 0, padding_side=side)


def _repeated(fields: Sequence[Any], rows: int) -> list[Any]:
    """A field of each row, of one a group or already one a row."""
    return [own for own in fields for _ in range(rows // len(fields))]


@contextmanager
def _in_evaluation(trainer: Any) -> Iterator[None]:
    """Within, dropout is off; afterwards, prompts are shared again, and TRL's metrics as before."""
    metrics = copy.deepcopy(trainer._metrics)
    trainer.model.eval()
    try:
        yield
    finally:
        trainer.model.train()
        trainer.shares_prompts, trainer._metrics = True, metrics
