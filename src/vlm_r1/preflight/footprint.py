"""Parameters and activation memory of a model, measured on the meta device: no weights needed.

One layer of each kind is run on tensors without content, and the tensors that autograd would keep
for the backward pass are counted. So the numbers follow the modelling code of the installed
transformers.
"""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from vlm_r1.config import Method, Params, Task
from vlm_r1.errors import ModelError
from vlm_r1.models.families import Family, family_of
from vlm_r1.models.hub import snapshot
from vlm_r1.models.trainable import freeze, lora_config

# public config.json files, see docs/training.md
CONFIGS = Path(__file__).with_name("model_configs")


@dataclass(frozen=True)
class Workload:
    """The shape of one micro-batch.

    Attributes:
        rows: sequences.
        tokens: per row, image tokens included.
        patches: image patches per row, before they are merged.
        predicted: tokens per row that have a loss.
    """

    rows: int
    tokens: int
    patches: int
    predicted: int

    @property
    def prompt(self) -> int:
        """Tokens per row without a loss."""
        return self.tokens - self.predicted

    def packed(self, size: int) -> "Workload":
        """The same with `size` rows, which share their prompt, in each (training/packed_groups)."""
        if size == 1:
            return self
        size = min(size, self.rows)
        predicted = size * self.predicted
        tokens = self.prompt - 1 + predicted
        return Workload(math.ceil(self.rows / size), tokens, self.patches, predicted)


def shared_by(params: Params, method: Method) -> int:
    """How many rows share a prompt that is read once: a group's with `grpo.share_prompts`."""
    grpo, has_mask = params.grpo, params.task.attention != "flash_attention_2"
    shares = method == "grpo" and grpo.share_prompts and grpo.rollouts == "transformers"
    return grpo.num_generations if shares and has_mask else 1


class Footprint:
    """The params' model on the meta device, with its frozen parts and adapters."""

    def __init__(self, params: Params, root: Path) -> None:
        self.config: Any = _model_config(params.task, root)
        self.family = _grid_family(self.config.model_type)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(
                self.config, dtype=getattr(torch, params.task.dtype), attn_implementation="eager"
            )
            self.total = _count(model)
            freeze(model, self.family, params.train)
            self.whole: nn.Module = model
            if params.train.lora is not None:
                adapters = lora_config(model, self.family, params.train.lora)
                self.whole = get_peft_model(model, adapters)
        self.model = model
        self.fused_attention = params.task.attention != "eager"
        self.bytes = model.dtype.itemsize  # of one weight in the task's dtype

    @cached_property
    def trainable(self) -> int:
        """Number of parameters that are trained, adapters included."""
        return sum(p.numel() for p in self.whole.parameters() if p.requires_grad)

    @property
    def language(self) -> nn.Module:
        """The language model without its output head."""
        return self.model.model.get_submodule(self.family.language)

    @property
    def vision(self) -> nn.Module:
        """The vision tower."""
        return self.model.model.get_submodule(self.family.vision)

    @property
    def trains_vision(self) -> bool:
        """Whether the backward pass reaches the vision tower, so that activations are kept.

        A tower without a trained weight runs without gradients; its projector does not count.
        """
        modules = [self.model.model.get_submodule(name) for name in self.family.projector]
        inside = {id(p) for module in modules for p in module.parameters()}
        return any(p.requires_grad for p in self.vision.parameters() if id(p) not in inside)

    def text_layer_bytes(self, work: Workload) -> int:
        """Bytes that one text layer keeps for its backward pass."""
        hidden = self._hidden(work.rows, work.tokens, self.config.text_config.hidden_size)
        with torch.device("meta"):
            positions = torch.empty(3, work.rows, work.tokens, dtype=torch.long)
        cosines = self.language.get_submodule("rotary_emb")(hidden, positions)
        inputs = {"attention_mask": None, "position_embeddings": cosines, "position_ids": None}
        layer = self.language.get_submodule("layers.0")
        return self._kept_bytes(layer, hidden, work.tokens, inputs)

    def vision_block_bytes(self, work: Workload) -> int:
        """Bytes that one vision block keeps; the mean of windowed and full-attention blocks."""
        vision = self.config.vision_config
        if self.family.name != "Qwen2.5-VL":
            return self._vision_block_bytes(work, work.patches)
        window = (vision.window_size // vision.patch_size) ** 2
        full = len(vision.fullatt_block_indexes)
        windowed = (vision.depth - full) * self._vision_block_bytes(work, window)
        return (full * self._vision_block_bytes(work, work.patches) + windowed) // vision.depth

    def _vision_block_bytes(self, work: Workload, window: int) -> int:
        """Bytes that one block keeps with attention within windows of `window` patches."""
        vision = self.config.vision_config
        patches = work.rows * work.patches
        hidden = self._hidden(patches, vision.hidden_size)
        with torch.device("meta"):
            angles = torch.empty(patches, vision.hidden_size // vision.num_heads)
        ends = torch.tensor([*range(0, patches, min(window, patches)), patches], dtype=torch.int32)
        inputs = {"cu_seqlens": ends, "position_embeddings": (angles, angles)}
        return self._kept_bytes(self.vision.get_submodule("blocks.0"), hidden, window, inputs)

    def _hidden(self, *shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=self.model.dtype, requires_grad=True)

    def _kept_bytes(
        self, layer: nn.Module, hidden: torch.Tensor, window: int, inputs: dict[str, Any]
    ) -> int:
        """Bytes that autograd keeps of `layer(hidden, **inputs)`, without the weights.

        Fused attention stores no attention scores, so tensors of `window` x `window` are not
        counted for it.
        """
        weights = {p.untyped_storage()._cdata for p in self.whole.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            is_scores = tensor.dim() > 2 and tuple(tensor.shape[-2:]) == (window, window)
            if not (self.fused_attention and is_scores):
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(hidden, **inputs)
        return sum(
            tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in weights
        )


def _count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def _model_config(task: Task, root: Path) -> PreTrainedConfig:
    """The config in the base's folder, or for a name on the hub the public one in `CONFIGS`.

    Raises:
        ModelError: neither exists, and the model was not fetched.
    """
    base_model = task.base_model
    public = CONFIGS / f"{base_model.rpartition('/')[2]}.json"
    if (root / base_model / "config.json").exists():
        return AutoConfig.from_pretrained(root / base_model)
    if public.exists():
        values = json.loads(public.read_text(encoding="utf-8"))
        return AutoConfig.for_model(values.pop("model_type"), **values)
    if task.revision is not None:
        return AutoConfig.from_pretrained(snapshot(base_model, task.revision))
    known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.json")))
    raise ModelError(
        got=f"{base_model}: no config.json in {root}, and none in {CONFIGS.name}/",
        need=f"a folder with a config.json, or one of {known}",
        because="the plan is computed from the model's config",
        do=f"put its config.json into {CONFIGS}, or the checkpoint into the project",
    )


def _grid_family(model_type: str) -> Family:
    """The family of `model_type`, if its images are grids of patches."""
    family = family_of(model_type)
    if family.square_px is None:
        raise ModelError(
            got=f"a plan for {family.name}",
            need="a family whose images are grids of patches (Qwen2-VL, Qwen2.5-VL, Qwen3-VL)",
            because="the plan has no model of image tiles",
            do="train two steps and look at the peak memory",
        )
    return family
