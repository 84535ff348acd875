"""Peak memory of one device during a training step, by what holds it.

Persistent state follows ZeRO's arithmetic (Rajbhandari et al. 2020, arXiv 1910.02054, section 3):
16-bit weights and gradients, and for AdamW 12 bytes in 32-bit numbers for each trained parameter.
Activations are measured on the modelling code (preflight/footprint.py).
tests/test_memory_plan.py compares the sum with measured peaks.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from vlm_r1.config import Method, Params
from vlm_r1.config.deepspeed import deepspeed_config, is_offloaded, zero_stage
from vlm_r1.config.training import Train
from vlm_r1.preflight.footprint import Footprint, Workload, shared_by

GIB = 2**30
FLOAT32_BYTES = 4
ADAM_BYTES, ADAM_8BIT_BYTES = 8, 2  # two moments
MASTER_BYTES = 4  # ZeRO's own 32-bit copy of a 16-bit weight
LOSS_TOKENS, LOSS_COLUMNS = 4096, 32_768  # a tile of trl/kernels/chunked_logprob.py
CPU_LOSS_COPIES = 7  # of the tile, in _backward_tile there: y, z, log_p, p, grad, two of one line
GPU_OVERHEAD = 2 * GIB  # CUDA context, NCCL's buffers, fragmentation
ZERO3_LIVE_PARAMETERS = 1e9  # DeepSpeed's default of stage3_max_live_parameters


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device at the worst moment of a step."""

    weights: int
    gradients: int
    optimizer: int
    reference: int  # GRPO with beta > 0: the frozen reference model
    copies: int  # autocast's 16-bit copies of trained 32-bit weights, held during a pass
    gathered: int  # ZeRO-3: whole layers, gathered during a step
    activations: int
    loss: int  # the current tile of logits, and its gradients
    rollout: int  # GRPO: KV cache and prefill, and under ZeRO-3 whole weights
    overhead: int
    peak: int


@dataclass(frozen=True)
class _Sharding:
    """How ZeRO divides a model's state among processes, and what it moves to the host."""

    stage: int
    processes: int
    keeps_master_weights: bool
    live_parameters: int
    offloads_weights: bool
    offloads_optimizer: bool

    @classmethod
    def of(cls, deepspeed: str | None, processes: int) -> "_Sharding":
        config = deepspeed_config(deepspeed)
        zero = (config or {}).get("zero_optimization", {})
        return cls(
            stage=zero_stage(config),
            processes=processes,
            keeps_master_weights=config is not None,
            live_parameters=int(zero.get("stage3_max_live_parameters", ZERO3_LIVE_PARAMETERS)),
            offloads_weights=is_offloaded(config, "param"),
            offloads_optimizer=is_offloaded(config, "optimizer"),
        )

    def share(self, size: int, from_stage: int) -> int:
        """One process's part of `size` bytes that ZeRO divides from stage `from_stage` on."""
        return size // self.processes if self.stage >= from_stage else size


@dataclass(frozen=True)
class _State:
    """Bytes that do not depend on the workload; `whole_weights` are those before any division."""

    whole_weights: int
    weights: int
    gradients: int
    optimizer: int
    reference: int
    copies: int
    gathered: int


def plan_memory(
    params: Params, method: Method, footprint: Footprint, work: Workload, accumulation: int
) -> MemoryPlan:
    """Memory of one device that accumulates `accumulation` micro-batches `work` in a step.

    Raises:
        ConfigError: no such DeepSpeed configuration.
    """
    zero = _Sharding.of(params.train.deepspeed, params.launch.processes)
    state = _state(params, method, footprint, zero)
    on_cpu = params.launch.device == "cpu"
    sharing = shared_by(params, method)
    read = work.packed(sharing)
    activations = _activations(footprint, read, params.train.gradient_checkpointing)
    loss = _loss(footprint, read, on_cpu)
    rollout = 0
    if method == "grpo":
        rollout = _rollout(footprint, work, accumulation, sharing)
        rollout += state.whole_weights if zero.stage == 3 else 0
    overhead = 0 if on_cpu else GPU_OVERHEAD
    # Gradients replace the activations during the backward pass. Only when they accumulate over
    # micro-batches are they there from the start of it.
    if accumulation > 1:
        backward = activations + loss + state.gradients
    else:
        backward = max(activations + loss, state.gradients)
    persistent = state.weights + state.optimizer + state.reference + state.copies
    return MemoryPlan(
        weights=state.weights,
        gradients=state.gradients,
        optimizer=state.optimizer,
        reference=state.reference,
        copies=state.copies,
        gathered=state.gathered,
        activations=activations,
        loss=loss,
        rollout=rollout,
        overhead=overhead,
        peak=persistent + max(backward + state.gathered, rollout) + overhead,
    )


def _state(params: Params, method: Method, footprint: Footprint, zero: _Sharding) -> _State:
    uses_adapters = params.train.lora is not None
    bytes_each = weight_bytes(params)
    trained_bytes = FLOAT32_BYTES if uses_adapters else bytes_each
    base_weights = footprint.total * bytes_each
    whole_weights = base_weights
    if uses_adapters:
        whole_weights += footprint.trainable * FLOAT32_BYTES
    needs_master = zero.keeps_master_weights and trained_bytes < FLOAT32_BYTES
    master_bytes = footprint.trainable * MASTER_BYTES if needs_master else 0
    optimizer = zero.share(_moment_bytes(params.train, footprint) + master_bytes, from_stage=1)
    # With adapters the base itself is the reference: they are switched off for its forward pass.
    has_reference = method == "grpo" and params.grpo.beta > 0 and not uses_adapters
    gathered = min(footprint.total, zero.live_parameters) * bytes_each if zero.stage == 3 else 0
    return _State(
        whole_weights=whole_weights,
        weights=0 if zero.offloads_weights else zero.share(whole_weights, from_stage=3),
        gradients=zero.share(footprint.trainable * trained_bytes, from_stage=2),
        optimizer=0 if zero.offloads_optimizer else optimizer,
        reference=zero.share(base_weights, from_stage=3) if has_reference else 0,
        copies=footprint.trainable * footprint.bytes if footprint.bytes < bytes_each else 0,
        gathered=gathered,
    )


def _moment_bytes(train: Train, footprint: Footprint) -> int:
    """Bytes of AdamW's moments; transformers leaves those of embeddings in 32 bits."""
    if train.optimizer == "adamw":
        return footprint.trainable * ADAM_BYTES
    embedding: Any = footprint.model.get_input_embeddings().weight
    in_full = embedding.numel() if embedding.requires_grad else 0
    return in_full * ADAM_BYTES + (footprint.trainable - in_full) * ADAM_8BIT_BYTES


def weight_bytes(params: Params) -> int:
    """Bytes of one weight: 32 bits unless ZeRO or adapters keep the trained copy (training.run)."""
    keeps_copy = params.train.deepspeed is not None or params.train.lora is not None
    dtype: torch.dtype = getattr(torch, params.task.dtype)
    return dtype.itemsize if keeps_copy else FLOAT32_BYTES


def _activations(footprint: Footprint, work: Workload, checkpointing: bool) -> int:
    """Bytes kept between forward and backward pass.

    Gradient checkpointing keeps the input of each layer, and all of the one layer that is being
    recomputed.
    """
    text, vision = footprint.config.text_config, footprint.config.vision_config
    layers = [(text.num_hidden_layers, footprint.text_layer_bytes(work))]
    input_numbers = [work.rows * work.tokens * text.hidden_size]
    if footprint.trains_vision:
        layers.append((vision.depth, footprint.vision_block_bytes(work)))
        input_numbers.append(work.rows * work.patches * vision.hidden_size)
    if not checkpointing:
        return sum(count * kept for count, kept in layers)
    inputs = sum(
        count * numbers * footprint.bytes
        for (count, _), numbers in zip(layers, input_numbers, strict=True)
    )
    return inputs + max(kept for _, kept in layers)


def _loss(footprint: Footprint, work: Workload, on_cpu: bool) -> int:
    """Bytes of TRL's chunked loss in its backward pass.

    One tile of logits, whose size does not depend on the vocabulary, and 32-bit gradients of the
    loss's inputs. On a CPU it also computes the loss of the prompts' tokens, and TRL's torch code,
    in place of a kernel that works in the tile, makes 32-bit copies of tile and weight.
    """
    text, head = footprint.config.text_config, footprint.model.lm_head.weight
    tokens = work.rows * (work.tokens if on_cpu else work.predicted)
    tile = min(tokens, LOSS_TOKENS) * LOSS_COLUMNS * footprint.bytes
    if on_cpu:
        columns = min(text.vocab_size, LOSS_COLUMNS)
        copied = CPU_LOSS_COPIES * min(tokens, LOSS_TOKENS) + text.hidden_size
        tile += FLOAT32_BYTES * columns * copied
    head_numbers = head.numel() if head.requires_grad else 0
    return tile + FLOAT32_BYTES * (tokens * text.hidden_size + head_numbers)


def _rollout(footprint: Footprint, work: Workload, accumulation: int, sharing: int) -> int:
    """Bytes of KV cache and prefill: a device samples all completions of a step at once.

    Args:
        sharing: rows whose prompt is prefilled once.
    """
    text = footprint.config.text_config
    rows = work.rows * accumulation
    head_width = text.hidden_size // text.num_attention_heads
    cache_numbers = 2 * text.num_hidden_layers * text.num_key_value_heads * head_width  # per token
    prompt = Workload(math.ceil(rows / sharing), work.prompt, work.patches, 0)
    prefill = max(footprint.text_layer_bytes(prompt), footprint.vision_block_bytes(prompt))
    return rows * work.tokens * cache_numbers * footprint.bytes + prefill
