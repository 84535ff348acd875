"""Which parameters of a model are trained: all, those outside a frozen tower, or adapters alone."""

import re

from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from vlm_r1.config.training import Lora, Train
from vlm_r1.errors import ConfigError
from vlm_r1.models.families import Family


def freeze(model: PreTrainedModel, family: Family, train: Train) -> None:
    """Take the vision tower, the projector or both out of training, as `train` says.

    The projector is no part of the tower here, wherever the family keeps it.
    """
    for name, parameter in model.model.named_parameters():
        projector = _is_in(name, family.projector)
        vision = _is_in(name, (family.vision,)) and not projector
        if (vision and train.freeze_vision) or (projector and train.freeze_projector):
            parameter.requires_grad_(False)


def lora_config(model: PreTrainedModel, family: Family, lora: Lora) -> LoraConfig:
    """PEFT's configuration of adapters on linear layers of the language model alone.

    Raises:
        ConfigError: a target that the language model does not have.
    """
    language = getattr(model.model, family.language)
    layers = {n.rpartition(".")[2] for n, m in language.named_modules() if isinstance(m, nn.Linear)}
    chosen = layers if lora.targets is None else set(lora.targets)
    if not chosen or not chosen <= layers:
        raise ConfigError(
            got=f"train.lora.targets {sorted(chosen - layers) or '[]'}",
            need=f"some of {', '.join(sorted(layers))}",
            because=f"these are the linear layers of {family.name}'s language model",
            do="correct train.lora.targets, or null for all of them",
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
