"""Loads the model and the processor of a checkpoint, and writes prompts in its chat format."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from vlm_r1.config import Task
from vlm_r1.errors import ModelError
from vlm_r1.models.families import family_of

ADAPTER = "adapter_config.json"
# What transformers raises for a broken checkpoint
LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)


def load_model(path: str | Path, task: Task) -> PreTrainedModel:
    """The model at `path` (a folder or a hub name), in the task's dtype and attention.

    An adapter is loaded onto the base that it names.

    Raises:
        ModelError: the folder is missing, truncated or not a checkpoint.
    """
    require_whole_checkpoint(path)
    base = base_of(path)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            base, dtype=getattr(torch, task.dtype), attn_implementation=task.attention
        )
        if base != path:
            model.load_adapter(str(path))
        return model
    except LOADING_ERRORS as error:
        raise _unusable(path, _first_line(error)) from error


def load_processor(path: str | Path, task: Task) -> ProcessorMixin:
    """The processor at `path`, left-padding, with the task's pixel budget set.

    Raises:
        ModelError: there is no processor, or one of an unknown family.
    """
    require_whole_checkpoint(path)
    try:
        processor = AutoProcessor.from_pretrained(path)
    except LOADING_ERRORS as error:
        raise _unusable(path, _first_line(error)) from error
    # Right padding misaligns Qwen2.5-VL's token types in batched generation (TRL #5785).
    processor.tokenizer.padding_side = "left"
    family_of(model_type_at(path)).set_budget(processor.image_processor, task)
    return processor


def chat_text(processor: ProcessorMixin, user_text: str) -> str:
    """The prompt up to the assistant's first token, with the image before the text."""
    content = [{"type": "image"}, {"type": "text", "text": user_text}]
    messages: Any = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def model_type_at(path: str | Path) -> str:
    """The `model_type` in the config at `path`; for an adapter, in its base's.

    Raises:
        ModelError: there is no config.
    """
    try:
        return AutoConfig.from_pretrained(base_of(path)).model_type
    except LOADING_ERRORS as error:
        raise _unusable(path, _first_line(error)) from error


def base_of(path: str | Path) -> str | Path:
    """The base model of an adapter at `path`; `path` itself if it is a whole model.

    A relative name is looked up in each folder above the adapter, so that a project can move.
    """
    file = Path(path) / ADAPTER
    if not file.exists():
        return path
    named = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    for folder in file.resolve().parents:
        if (folder / named / "config.json").exists():
            return folder / named
    return named


def require_whole_checkpoint(path: str | Path) -> None:
    """Check a checkpoint's files without loading the model; a hub name is not checked.

    Raises:
        ModelError: the folder is missing, truncated or not a checkpoint.
    """
    folder = Path(path)
    if not folder.exists():
        if _looks_like_hub_name(str(path)):
            return
        raise _unusable(path, "no such folder")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise _unusable(path, "no *.safetensors file in the folder")
    for file in weights:
        try:
            with safe_open(file, "pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise _unusable(path, f"{file.name} cannot be read ({error})") from None
    for name in ("config.json", ADAPTER):
        if (folder / name).exists():
            _require_json(folder / name)


def _require_json(file: Path) -> None:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unusable(file.parent, f"{file.name} is not JSON ({error})") from None


def _looks_like_hub_name(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "models/"))


def _first_line(error: BaseException) -> str:
    first, *_ = str(error).split("\n")
    return f"{type(error).__name__}: {first}"


def _unusable(path: str | Path, fault: str) -> ModelError:
    return ModelError(
        got=f"{path}: {fault}",
        need="a whole Hugging Face checkpoint (config.json, *.safetensors, processor files)",
        because="missing weights would be filled with random ones",
        do="name another checkpoint, or make this one again (`dvc repro`, `dvc checkout`)",
    )
