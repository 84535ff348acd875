"""GRPO in which a prompt is read once for all completions of its group (`grpo.share_prompts`).

TRL 1.16 on transformers reads it, and encodes its image, once for each: in the rollout, for the
reference's log-probabilities, for the policy's and in the backward pass. The rows stay TRL's; what
differs is what the model is given:

    _tokenize_prompts                       one row a group; its first row carries the image
    _generate_single_turn                   a group's prompt is prefilled once, its cache copied
    processing_class                        TRL's second call of it gets one row a group, too
    _prepare_inputs                         rows as the rollout had them, not TRL's shuffled ones
    _get_per_token_logps_and_entropies      a group's completions packed into one row

Micro-batches are cut where the reference pass was, or the same weights would give the policy and
the reference other last bits. Then a group of equal rewards has a gradient of 1e-8 in place of 0,
and Adam makes whole steps of it.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer

from vlm_r1.models.decoding import decode, empty_cache, supports_shared_prefix
from vlm_r1.training.decoding import generate_with
from vlm_r1.training.group_rows import (
    ROW,
    OncePerGroup,
    Rows,
    carriers,
    first_rows,
    images_of,
    in_rollout_order,
    leading,
    sizes_of,
)
from vlm_r1.training.packed_groups import Groups, pack
from vlm_r1.training.sharing_check import require_equal_numbers

logger = logging.getLogger(__name__)


class SharedPromptTrainer(GRPOTrainer):
    """TRL's trainer, whose prompts are read once a group where `shares_prompts` is true.

    Attributes:
        uncounted: within it, what the model computes is no part of the training's cost.
    """

    shares_prompts = False
    uncounted: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)
    _is_compared = False

    def share_prompts(self, wanted: bool) -> None:
        """Share prompts from now on, if that is wanted and possible; else say why not."""
        reason = why_not(self.whole_model, self.args) if wanted else None
        self.shares_prompts = wanted and reason is None
        if reason is not None:
            logger.info("grpo.share_prompts is off: %s", reason)

    @property
    def whole_model(self) -> PreTrainedModel:
        """The model without wrappers of processes and adapters."""
        model: Any = self.accelerator.unwrap_model(self.model)
        whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        return whole

    def _generate_and_score_completions(self, inputs: list[Rows]) -> Rows:
        """Called by TRL for every rollout."""
        if not self.shares_prompts:
            return super()._generate_and_score_completions(inputs)
        if not self._is_compared:
            with self.uncounted():
                require_equal_numbers(self, inputs)
            self._is_compared = True
        processor: Any = self.processing_class
        once: Any = OncePerGroup(processor)
        self.processing_class = once
        try:
            rollout: Rows = super()._generate_and_score_completions(inputs)
        finally:
            self.processing_class = processor
        return rollout | {ROW: torch.arange(len(rollout["advantages"]))}

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, Rows]:
        """Called by TRL: token ids and images of each prompt, and what else the processor gives.

        Only the first row of a group has images, and the rest is one row a group.
        """
        if not self.shares_prompts:
            found: tuple[list[list[int]], Any, Rows] = super()._tokenize_prompts(prompts)
            return found
        first = first_rows(prompts)
        ids, images, fields = super()._tokenize_prompts([prompts[row] for row in first])
        sizes = sizes_of(first, len(prompts))
        return (
            [own for own, size in zip(ids, sizes, strict=True) for _ in range(size)],
            [own for one, size in zip(images, sizes, strict=True) for own in leading(one, size)],
            fields,
        )

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Rows, *further: Any
    ) -> tuple[list[list[int]], Any]:
        """Called by TRL to write a rollout's completions: token ids of every row."""
        generate = super()._generate_single_turn
        if not self.shares_prompts:
            return generate(prompt_ids, images, multimodal_fields, *further)
        first = carriers(images)
        ids, own = [prompt_ids[row] for row in first], [images[row] for row in first]
        whole: Any = self.whole_model
        sizes = torch.tensor(sizes_of(first, len(prompt_ids)))
        with generate_with(whole, partial(generate_groups, whole, whole.generate, sizes)):
            return generate(ids, own, multimodal_fields, *further)

    def _prepare_inputs(self, generation_batch: Any) -> Rows:
        """Called by the Trainer for every micro-batch."""
        before = self._buffered_inputs
        inputs: Rows = super()._prepare_inputs(generation_batch)
        if not self.shares_prompts or self._buffered_inputs is before:
            return inputs
        batches: Any = in_rollout_order(self._buffered_inputs)
        self._buffered_inputs = batches
        return dict(batches[self._step % len(batches)])

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **fields: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Called by TRL for old policy, reference and policy: (rows, completion tokens) each."""
        if not self.shares_prompts:
            found: tuple[Tensor, Tensor | None, Tensor | None]
            found = super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **fields,
            )
            return found
        rows = {"input_ids": input_ids, "attention_mask": attention_mask, **fields}
        size = batch_size or len(input_ids)
        parts = [
            self._packed_logps(model, rows, slice(start, start + size), logits_to_keep)
            for start in range(0, len(input_ids), size)
        ]
        logps = torch.cat([logps for logps, _ in parts])
        entropies = [entropy for _, entropy in parts if entropy is not None]
        return logps, torch.cat(entropies) if compute_entropy else None, None

    def _packed_logps(
        self, model: Any, rows: Rows, part: slice, completion: int
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of a part of the rows, (rows, completion); entropies of a policy."""
        groups, images = _groups_of(rows, part, completion, self.whole_model.base_model)
        packed = pack(groups)
        mask: Any = packed.mask[:, None]
        if self.whole_model.config._attn_implementation == "eager":  # adds its mask to the scores
            dtype = self.whole_model.dtype
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        with self.accelerator.autocast():
            output = model(
                input_ids=packed.input_ids,
                attention_mask=mask,
                position_ids=packed.position_ids,
                labels=packed.labels,
                shift_labels=packed.labels,
                fused_lm_head=True,
                **images,
            )
        entropy = None if output.entropy is None else packed.unpack(output.entropy)
        return packed.unpack(output.log_probs), entropy


@torch.no_grad()
def generate_groups(
    model: PreTrainedModel,
    generate: Callable[..., Tensor],
    sizes: Tensor,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    mm_token_type_ids: Tensor,
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    **options: Any,
) -> Tensor:
    """`generate` for `sizes[i]` completions of prompt i, each prompt prefilled once.

    Args:
        generate: of the model.
        sizes: (prompts,)
        input_ids, attention_mask, mm_token_type_ids: (prompts, tokens), left-padded.
        pixel_values, image_grid_thw: of all prompts, one after the other.
        options: of `generate`.

    Returns:
        Prompts and completions, (rows, tokens), right-padded; rows of a prompt are neighbors.
    """
    base: Any = model.base_model
    cache = empty_cache(model)
    positions, _ = base.get_rope_index(
        input_ids, mm_token_type_ids, image_grid_thw=image_grid_thw, attention_mask=attention_mask
    )
    base(
        input_ids=input_ids[:, :-1],
        attention_mask=attention_mask[:, :-1],
        position_ids=positions[:, :, :-1],
        pixel_values=pixel_values,
        image_grid_thw=image_grid_thw,
        past_key_values=cache,
        use_cache=True,
    )
    rows = torch.arange(len(sizes)).repeat_interleave(sizes).to(input_ids.device)
    cache.batch_select_indices(rows)
    further = options | {"custom_generate": decode, "past_key_values": cache}
    return generate(
        input_ids=input_ids[rows],
        attention_mask=attention_mask[rows],
        position_ids=positions[0, rows, -1:],
        **further,
    )


def _groups_of(rows: Rows, part: slice, completion: int, base: Any) -> tuple[Groups, Rows]:
    """The groups of a part of the rows and their images, as the model takes them.

    The rows of a group follow the one that carries its images.

    Args:
        completion: tokens that completions are padded to.
    """
    carries = torch.tensor(rows["num_images"]).gt(0)
    group = (carries.cumsum(0) - 1)[part]
    first, last = int(group[0]), int(group[-1])
    images = images_of(rows, first, last + 1)
    ids, mask = rows["input_ids"][part], rows["attention_mask"][part]
    own = (group - first).to(ids.device)
    heads = torch.searchsorted(own, torch.arange(last - first + 1, device=ids.device))
    types = rows["mm_token_type_ids"][part][heads, :-completion]
    prompt_ids, prompt_mask = ids[heads, :-completion], mask[heads, :-completion]
    positions, _ = base.get_rope_index(
        prompt_ids, types, image_grid_thw=images["image_grid_thw"], attention_mask=prompt_mask
    )
    completions = ids[:, -completion:], mask[:, -completion:]
    return Groups(prompt_ids, prompt_mask, positions, *completions, own), images


def why_not(model: PreTrainedModel, arguments: Any) -> str | None:
    """Why prompts cannot be shared, or None.

    Args:
        model: without a wrapper of adapters.
        arguments: TRL's.
    """
    reasons = {
        "completions are written by vLLM": arguments.use_vllm,
        f"attention {model.config._attn_implementation} takes no mask for every pair of tokens": (
            model.config._attn_implementation not in ("eager", "sdpa")
        ),
        f"{model.config.model_type} has no get_rope_index, or layers with a sliding window": (
            not supports_shared_prefix(model)
        ),
        "the model routes tokens to experts": hasattr(
            model.config.get_text_config(), "output_router_logits"
        ),
        "ZeRO-3 without ds3_gather_for_generation": not arguments.ds3_gather_for_generation,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
