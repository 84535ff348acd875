"""An estimate of the floating point operations of a training."""

from dataclasses import dataclass

from torch import nn
from transformers import TrainingArguments
from trl import GRPOConfig

from vlm_r1.training.arguments import rollout_micro_batches


@dataclass(frozen=True)
class Size:
    """How many parameters a model has, and how many of them are trained."""

    parameters: int
    trained: int


def size_of(model: nn.Module) -> Size:
    """A model's size; under ZeRO-3 too, where each process holds only a shard of a parameter."""
    counts = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return Size(sum(n for n, _ in counts), sum(n for n, trained in counts if trained))


def estimate_flops(size: Size, tokens: int, arguments: TrainingArguments) -> float:
    """FLOPs of a training on `tokens` tokens (prompts with images, and answers).

    Per token a parameter costs 2 operations forward, and backward 2 more for activations and 2 for
    its own gradient if it is trained (Kaplan et al. 2020, table 1, without attention's share).
    Gradient checkpointing adds a forward pass. GRPO adds one forward pass for generating the
    token, one for the reference model if beta > 0, and one for the old policy if a rollout
    outlasts a step; it trains `num_iterations` times. An upper bound in one respect: every token
    is charged with all parameters, also those of the vision tower.

    Example: 1e6 parameters, all trained, 1e3 tokens: SFT 6e9; GRPO with beta 0.04, one iteration:
        (2 + 2 + 6) x 1e9 = 1e10
    """
    forward = 2 * size.parameters
    training = 2 * forward + 2 * size.trained
    if arguments.gradient_checkpointing:
        training += forward
    if not isinstance(arguments, GRPOConfig):
        return float(tokens * training)
    passes = 1 + (arguments.beta > 0) + _needs_old_policy(arguments)
    return float(tokens * (passes * forward + arguments.num_iterations * training))


def _needs_old_policy(arguments: GRPOConfig) -> bool:
    """True if TRL computes the log-probabilities of the generating policy in a pass of its own."""
    rollout = rollout_micro_batches(arguments)
    return arguments.use_vllm or arguments.gradient_accumulation_steps % rollout != 0
