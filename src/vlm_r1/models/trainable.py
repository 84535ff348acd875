"""Which parameters are trained: all, all but frozen parts, or LoRA adapters alone."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from vlm_r1.config.training import Lora, Train
from vlm_r1.errors import ConfigError
from vlm_r1.models.families import Family


def freeze(model: PreTrainedModel, family: Family, train: Train) -> None:
    """Freeze the vision tower, the projector or both, as `train` says.

    The projector does not count as part of the tower, even where it is a submodule of it.
    """
    for name, parameter in model.model.named_parameters():
        projector = _is_in(name, family.projector)
        vision = _is_in(name, (family.vision,)) and not projector
        if (vision and train.freeze_vision) or (projector and train.freeze_projector):
            parameter.requires_grad_(False)


def stop_gradients_in_frozen_tower(model: PreTrainedModel, family: Family) -> None:
    """Run a vision tower that is frozen without recording gradients; call it after adapters.

    Gradient checkpointing makes transformers ask for gradients of the tower's input, so that a
    tower without a trained weight would be run again and passed through backward. A projector
    inside the tower goes on recording its own, and so does what follows it there.
    """
    inner: Any = model.model
    projectors = [inner.get_submodule(name) for name in family.projector]
    inside = {id(parameter) for module in projectors for parameter in module.parameters()}
    tower = inner.get_submodule(family.vision)
    if any(p.requires_grad for p in tower.parameters() if id(p) not in inside):
        return
    kept = [m for m in projectors if any(p.requires_grad for p in m.parameters())]
    for module in _outermost_without(tower, kept):
        module.forward = torch.no_grad()(module.forward)


def _outermost_without(module: nn.Module, kept: list[nn.Module]) -> Iterator[nn.Module]:
    """`module` if it is called and holds none of `kept`, else the outermost such inside it."""
    held = {id(inside) for inside in module.modules()}
    if not isinstance(module, nn.ModuleList) and not any(id(one) in held for one in kept):
        yield module
        return
    for child in module.children():
        if not any(child is one for one in kept):
            yield from _outermost_without(child, kept)


def lora_config(model: PreTrainedModel, family: Family, lora: Lora) -> LoraConfig:
    """PEFT's configuration for adapters on linear layers of the language model alone.

    Raises:
        ConfigError: the language model has no layer of a name in `lora.targets`.
    """
    language = getattr(model.model, family.language)
    layers = {n.rpartition(".")[2] for n, m in language.named_modules() if isinstance(m, nn.Linear)}
    chosen = layers if lora.targets is None else set(lora.targets)
    if not chosen or not chosen <= layers:
        raise ConfigError(
            got=f"train.lora.targets {sorted(chosen - layers) or '[]'}",
            need=f"some of {', '.join(sorted(layers))}",
            because=f"those are the linear layers of {family.name}'s language model",
            do="correct train.lora.targets, or set it to null for all of them",
        )
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf"model\.{re.escape(family.language)}\..*\.({'|'.join(sorted(chosen))})",
        task_type="CAUSAL_LM",
    )


def _is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(module + ".") for module in modules)
