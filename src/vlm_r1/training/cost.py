"""What a training has cost so far: seconds, tokens, FLOPs; written into every checkpoint.

`FlopMeter` looks at every forward pass of the real model, whoever asks for it: the loss, rollouts,
the old policy, the reference model. So it counts what TRL does, padding included.
"""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import nn
from transformers import Trainer, TrainerCallback

from vlm_r1.files import write_json
from vlm_r1.models.families import Family, family_of
from vlm_r1.models.flops import (
    Load,
    Loads,
    Parts,
    forward_flops,
    image_load,
    parts_of,
    training_flops,
    written_load,
)
from vlm_r1.training.dynamic_sampling import FurtherPrompts
from vlm_r1.training.stopwatch import Stopwatch
from vlm_r1.training.trainers import ResumableGRPOTrainer

COST = "cost.json"


class FlopMeter:
    """Adds up this process's FLOPs of the models it watches (models/flops.py has the formula)."""

    def __init__(self, gradient_checkpointing: bool) -> None:
        self.total = 0.0
        self._checkpointing = gradient_checkpointing

    def watch(self, model: Any, family: Family) -> Parts:
        """Count every forward pass of `model` from now on, and the backward pass that follows it.

        A pass that records gradients is taken to be followed by a backward pass. Its parts are seen
        one by one, because TRL's losses skip the head and multiply with its weights themselves.
        """
        parts, inner = parts_of(model, family), model.model
        joint = next(
            module
            for name in family.projector
            for module in inner.get_submodule(name).modules()
            if isinstance(module, nn.Linear)
        )

        def on_image(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            load = _seen_images(model.config, args, kwargs)
            self._count(parts, Loads(patches=Load(load.rows), vision=load))

        def on_text(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self._count(parts, Loads(language=_read_tokens(kwargs)))

        inner.get_submodule(family.vision).register_forward_pre_hook(on_image, with_kwargs=True)
        inner.get_submodule(family.language).register_forward_pre_hook(on_text, with_kwargs=True)
        joint.register_forward_pre_hook(
            lambda _, args: self._count(parts, Loads(projector=_rows(args)))
        )
        model.get_output_embeddings().register_forward_pre_hook(
            lambda _, args: self._count(parts, Loads(head=_rows(args)))
        )
        model.forward = self._with_fused_head(model.forward, parts)
        return parts

    def _with_fused_head(self, forward: Callable[..., Any], parts: Parts) -> Callable[..., Any]:
        """`forward`, counting the head where TRL fuses it with the loss (`add_fused_lm_head`).

        With gradients its logits are computed again in the backward pass. On GPUs only rows with a
        label are computed, else all; of labels that are still to be shifted, not the last.
        """

        @functools.wraps(forward)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("fused_lm_head"):
                shifted = kwargs.get("shift_labels")
                labels = kwargs["labels"][:, 1:] if shifted is None else shifted
                on_gpu = labels.device.type in ("cuda", "xpu")
                load = Load(int((labels != -100).sum()) if on_gpu else labels.numel())
                self._count(parts, Loads(head=load))
                self.total += parts.head.forward(load) if torch.is_grad_enabled() else 0.0
            return forward(*args, **kwargs)

        return counted

    def count_served(self, config: Any, parts: Parts, rollout: dict[str, Any]) -> None:
        """Count completions that another process has written: a vLLM server.

        Each is counted alone, also where the server keeps a prompt's cache for its whole group.

        Args:
            rollout: TRL's, with masks of prompts and completions, (rows, tokens).
        """
        prompts = rollout["prompt_mask"].sum(1).tolist()
        completions = rollout["completion_mask"].sum(1).tolist()
        written = [written_load(*lengths) for lengths in zip(prompts, completions, strict=True)]
        images = _grid_load(config, rollout["image_grid_thw"])
        merged = images.rows // config.vision_config.spatial_merge_size**2
        language = Load(sum(one.rows for one in written), sum(one.pairs for one in written))
        loads = Loads(
            Load(images.rows), images, Load(merged), language, Load(int(sum(completions)))
        )
        self.total += forward_flops(parts, loads)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, nothing is counted."""
        before = self.total
        yield
        self.total = before

    def of_all_processes(self) -> float:
        """The sum over processes; every one of them must ask."""
        own = torch.tensor(self.total, dtype=torch.float64, device=PartialState().device)
        return float(reduce(own, reduction="sum"))

    def _count(self, parts: Parts, loads: Loads) -> None:
        if torch.is_grad_enabled():
            self.total += training_flops(parts, loads, self._checkpointing)
        else:
            self.total += forward_flops(parts, loads)


class CheckpointCost(TrainerCallback):
    """Writes `cost.json` into every checkpoint: what the training has cost up to its step.

    A resumed training goes on from the checkpoint's FLOPs, tokens and further prompts: work that a
    kill has lost does not count. Its seconds do (`Stopwatch`).
    """

    def __init__(
        self, meter: FlopMeter, stopwatch: Stopwatch, further: FurtherPrompts | None = None
    ) -> None:
        self._meter, self._stopwatch, self._further = meter, stopwatch, further

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before the first step, of a resumed training too."""
        if not state.global_step:
            return
        cost = read_cost(_folder(args, state))
        if self._further is not None:
            self._further.read = cost["further_prompts"]
        if state.is_world_process_zero:
            self._meter.total += cost["flops"]
            self._stopwatch.go_on_from(cost["seconds"])

    def on_save(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer in every process, after it has logged this step."""
        flops = self._meter.of_all_processes()
        if state.is_world_process_zero:
            cost = {
                "step": state.global_step,
                "seconds": round(self._stopwatch.seconds, 1),
                "tokens": _tokens(state.log_history),
                "flops": flops,
            }
            if self._further is not None:
                cost["further_prompts"] = self._further.read
            write_json(_folder(args, state) / COST, cost)


def watch_models(trainer: Trainer) -> FlopMeter:
    """A meter of all that `trainer` runs: its model, GRPO's reference, completions of a server."""
    arguments: Any = trainer.args
    meter = FlopMeter(bool(arguments.gradient_checkpointing))
    model: Any = trainer.model
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    family = family_of(model.config.model_type)
    parts = meter.watch(model, family)
    reference = getattr(trainer, "ref_model", None)
    if reference is not None:
        meter.watch(trainer.accelerator.unwrap_model(reference), family)
    if isinstance(trainer, ResumableGRPOTrainer):
        trainer.uncounted = meter.paused
    if isinstance(trainer, ResumableGRPOTrainer) and arguments.use_vllm:
        trainer.on_rollout = lambda rollout: meter.count_served(model.config, parts, rollout)
    return meter


def read_cost(checkpoint: Path) -> dict[str, Any]:
    """The cost of a training up to a checkpoint."""
    return dict(json.loads((checkpoint / COST).read_text(encoding="utf-8")))


def _tokens(log: list[dict[str, Any]]) -> int:
    """Tokens so far: of the last line that has them, as a step without a rollout has not."""
    return next(int(line["num_tokens"]) for line in reversed(log) if "num_tokens" in line)


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _rows(args: tuple) -> Load:
    """Rows of a linear layer's input (..., features)."""
    return Load(args[0].numel() // args[0].shape[-1])


def _read_tokens(kwargs: dict[str, Any]) -> Load:
    """The language model's load: rows x tokens, each attending to all that are cached or read."""
    rows, tokens = kwargs["inputs_embeds"].shape[:2]
    cache = kwargs.get("past_key_values")
    cached = 0 if cache is None else cache.get_seq_length()
    return Load(rows * tokens, float(rows * tokens * (int(cached) + tokens)))


def _seen_images(config: Any, args: tuple, kwargs: dict[str, Any]) -> Load:
    """The vision tower's load: of grids of patches (Qwen), else of square tiles of one size."""
    if (grids := kwargs.get("grid_thw")) is not None:
        return _grid_load(config, grids)
    pixels = kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]
    size: Any = config.vision_config.patch_size
    patch = size if isinstance(size, int) else size[0]
    tiles, _, height, width = pixels.shape
    return image_load(config, [(height // patch, width // patch)] * tiles)


def _grid_load(config: Any, grids: torch.Tensor) -> Load:
    """The load of images whose (time, height, width) in patches are rows of `grids`."""
    return image_load(config, [(t * h, w) for t, h, w in grids.tolist()])
