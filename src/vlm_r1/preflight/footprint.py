"""What a model holds and computes, read off its real code on the meta device: no weights needed.

One layer of each kind is run on tensors that have a shape and no content, and what autograd would
keep for the backward pass is counted. So a change of the modelling code changes the answer.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from vlm_r1.config import Params
from vlm_r1.errors import ModelError
from vlm_r1.models.families import Family, family_of
from vlm_r1.models.trainable import freeze, lora_config

CONFIGS = Path(__file__).with_name(
    "model_configs"
)  # public config.json files, see docs/training.md


@dataclass(frozen=True)
class Workload:
    """What goes through a model at once.

    Attributes:
        rows: sequences.
        tokens: a row's tokens, its image's included.
        patches: a row's image patches, before they are merged.
        predicted: a row's tokens that the loss looks at.
    """

    rows: int
    tokens: int
    patches: int
    predicted: int


class Footprint:
    """The params' model on the meta device, with its frozen parts and adapters."""

    def __init__(self, params: Params, root: Path) -> None:
        self.config = _config_of(params, root)
        self.family = _grid_family(self.config.model_type)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(
                self.config, dtype=getattr(torch, params.task.dtype), attn_implementation="eager"
            )
            self.total = sum(p.numel() for p in model.parameters())
            freeze(model, self.family, params.train)
            if params.train.lora is not None:
                adapters = lora_config(model, self.family, params.train.lora)
                self.whole: nn.Module = get_peft_model(model, adapters)
            else:
                self.whole = model
        self.model = model
        self.fused_attention = params.task.attention != "eager"
        self.bytes = model.dtype.itemsize

    @cached_property
    def trainable(self) -> int:
        """Parameters that training moves."""
        return sum(p.numel() for p in self.whole.parameters() if p.requires_grad)

    @property
    def language(self) -> nn.Module:
        """The language model without its head."""
        return self.model.model.get_submodule(self.family.language)

    @property
    def vision(self) -> nn.Module:
        """The vision tower."""
        return self.model.model.get_submodule(self.family.vision)

    @property
    def layer_parameters(self) -> int:
        """Of all text layers: what every token is multiplied with."""
        return sum(p.numel() for p in self.language.layers.parameters())

    @property
    def trains_vision(self) -> bool:
        """Whether anything is kept of the vision tower's forward pass."""
        return any(p.requires_grad for p in self.vision.parameters())

    def text_layer_bytes(self, work: Workload) -> int:
        """What one text layer keeps for its backward pass, bytes."""
        text = self.config.text_config
        hidden = self._hidden(work.rows, work.tokens, text.hidden_size)
        with torch.device("meta"):
            positions = torch.empty(3, work.rows, work.tokens, dtype=torch.long)
        cosines = self.language.rotary_emb(hidden, positions)
        run = {"attention_mask": None, "position_embeddings": cosines, "position_ids": None}
        return self._kept(self.language.layers[0], hidden, work.tokens, **run)

    def vision_block_bytes(self, work: Workload) -> int:
        """What one block of the vision tower keeps, bytes; the mean of windowed and full ones."""
        vision = self.config.vision_config
        if self.family.name != "Qwen2.5-VL":
            return self._vision_block_bytes(work, work.patches)
        window = (vision.window_size // vision.patch_size) ** 2
        full = len(vision.fullatt_block_indexes)
        windowed = (vision.depth - full) * self._vision_block_bytes(work, window)
        return (full * self._vision_block_bytes(work, work.patches) + windowed) // vision.depth

    def _vision_block_bytes(self, work: Workload, window: int) -> int:
        """With attention among `window` patches at a time."""
        vision = self.config.vision_config
        patches = work.rows * work.patches
        hidden = self._hidden(patches, vision.hidden_size)
        with torch.device("meta"):
            angles = torch.empty(patches, vision.hidden_size // vision.num_heads)
        ends = torch.tensor([*range(0, patches, min(window, patches)), patches], dtype=torch.int32)
        run = {"cu_seqlens": ends, "position_embeddings": (angles, angles)}
        return self._kept(self.vision.blocks[0], hidden, window, **run)

    def _hidden(self, *shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=self.model.dtype, requires_grad=True)

    def _kept(self, layer: nn.Module, hidden: torch.Tensor, window: int, **run) -> int:
        """Bytes that autograd keeps of `layer(hidden)`, weights aside.

        Fused attention keeps no scores: tensors of `window` x `window` are not counted then.
        """
        weights = {p.untyped_storage()._cdata for p in self.whole.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            is_scores = tensor.dim() > 2 and tuple(tensor.shape[-2:]) == (window, window)
            if not (self.fused_attention and is_scores):
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(hidden, **run)
        return sum(
            tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in weights
        )


def _config_of(params: Params, root: Path) -> PreTrainedConfig:
    """The base's config: of its folder, or for a hub name the public file that is kept here.

    Raises:
        ModelError: neither is there.
    """
    name = params.task.base_model
    public = CONFIGS / f"{name.rpartition('/')[2]}.json"
    if (root / name / "config.json").exists():
        return AutoConfig.from_pretrained(root / name)
    if public.exists():
        values = json.loads(public.read_text(encoding="utf-8"))
        return AutoConfig.for_model(values.pop("model_type"), **values)
    known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.json")))
    raise ModelError(
        got=f"{name}: no config.json in {root}, and none kept here",
        need=f"a folder with a config.json, or one of {known}",
        because="the plan is read off the real config",
        do=f"put its config.json into {CONFIGS}, or the checkpoint into the project",
    )


def _grid_family(model_type: str) -> Family:
    family = family_of(model_type)
    if family.square_px is None:
        raise ModelError(
            got=f"a plan for {family.name}",
            need="a family whose images are grids of patches (Qwen2-VL, Qwen2.5-VL, Qwen3-VL)",
            because="tiles are not modelled here",
            do="measure: run two steps and look at the peak",
        )
    return family
