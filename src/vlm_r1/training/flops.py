"""An estimate of the floating point operations that a training took."""

from dataclasses import dataclass

from torch import nn
from trl import GRPOConfig, SFTConfig


@dataclass(frozen=True)
class Size:
    """How many parameters a model has, and how many of them are trained."""

    parameters: int
    trained: int


def size_of(model: nn.Module) -> Size:
    """A model's size, also where ZeRO-3 keeps each process a part of it."""
    counts = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return Size(sum(n for n, _ in counts), sum(n for n, trained in counts if trained))


def estimate_flops(size: Size, tokens: int, arguments: SFTConfig | GRPOConfig) -> float:
    """Floating point operations of a training on `tokens` tokens (prompt and answer).

    A parameter costs a token 2 operations forward, and backward 2 more for activations and 2 for
    its own gradient (Kaplan et al. 2020, table 1, without attention's share). GRPO writes each
    token once (forward), reads it with the reference where beta > 0, with the old policy where
    a rollout outlasts a step, and trains on it `num_iterations` times. Gradient checkpointing adds
    a forward pass. Every token is charged with all parameters, the vision tower's too.

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
    """Whether TRL asks the policy that wrote a completion once more before training on it."""
    rollout = arguments.steps_per_generation * arguments.num_iterations
    return arguments.use_vllm or arguments.gradient_accumulation_steps % rollout != 0
