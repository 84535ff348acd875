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
from vlm_r1.models.hub import snapshot

ADAPTER = "adapter_config.json"
# What transformers raises for a broken checkpoint
LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)


def load_model(path: str | Path, task: Task) -> PreTrainedModel:
    """The model at `path`, in the task's dtype and attention.

    An adapter is loaded onto the base that it names.

    Args:
        path: a folder, or the task's own base by its name on the hub.

    Raises:
        ModelError: the folder is missing, truncated or not a checkpoint.
    """
    path = _folder_of(path, task)
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
    path = _folder_of(path, task)
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

    A relative name is looked up in each folder above the adapter, so that a project can move; a
    name on the hub in the local cache, at the adapter's `revision`.

    Raises:
        ModelError: the base is neither a folder nor a model that was fetched.
    """
    file = Path(path) / ADAPTER
    if not file.exists():
        return path
    adapter = json.loads(file.read_text(encoding="utf-8"))
    named, revision = adapter["base_model_name_or_path"], adapter.get("revision")
    for folder in file.resolve().parents:
        if (folder / named / "config.json").exists():
            return folder / named
    if revision is None:
        fault = f"its base {named} is no folder here, and {ADAPTER} names no revision (a commit)"
        raise _unusable(path, fault)
    return snapshot(named, revision)


def require_whole_checkpoint(path: str | Path) -> None:
    """Check a checkpoint's files without loading the model.

    Raises:
        ModelError: the folder is missing, truncated or not a checkpoint.
    """
    folder = Path(path)
    if not folder.exists():
        raise _unusable(path, "no such folder")
    _require_shards(folder)
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


def _require_shards(folder: Path) -> None:
    """Require every file that the index of a model in several files names."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        _require_json(index)
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        missing = sorted(name for name in set(named) if not (folder / name).exists())
        if missing:
            raise _unusable(folder, f"{', '.join(missing)} is missing, which {index.name} names")


def _folder_of(path: str | Path, task: Task) -> str | Path:
    """`path`, or for the task's own base on the hub its folder in the local cache."""
    is_base = str(path) == task.base_model and not Path(path).exists()
    return snapshot(task.base_model, task.revision) if is_base and task.revision else path


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
