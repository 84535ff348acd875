"""How far an attention implementation is off from eager attention in 32 bits."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm_r1.config import Params, Task
from vlm_r1.data.images import open_image
from vlm_r1.models.loading import chat_text, load_model, load_processor
from vlm_r1.training.job import load_job

ROWS = 2
IGNORED_LABEL = -100  # transformers' label of tokens without loss


def errors_of(name: str, params: Params, root: Path) -> dict[str, tuple[float, float]]:
    """Relative errors in bfloat16 of logits and gradients: of `name`, and of eager attention."""
    task = params.task.model_copy(update={"dtype": "bfloat16"})
    inputs = prompts_with_padding(task, root, params)
    true, eager, own = (
        passes(task.model_copy(update={"attention": kind, "dtype": dtype}), root, inputs, params)
        for kind, dtype in (("eager", "float32"), ("eager", "bfloat16"), (name, "bfloat16"))
    )
    return {what: (_off(own[what], true[what]), _off(eager[what], true[what])) for what in true}


def prompts_with_padding(task: Task, root: Path, params: Params) -> dict[str, Tensor]:
    """Prompts of different lengths, so that there is padding, each with its image."""
    job = load_job(params, root, "sft")
    processor = load_processor(job.base, task)
    words = [" ".join(["thing"] * (1 + 9 * row)) for row in range(ROWS)]
    images = [open_image(job.images / name) for name in job.records["image"][:ROWS]]
    texts = [chat_text(processor, text) for text in words]
    return processor(text=texts, images=images, padding=True, return_tensors="pt")


def passes(task: Task, root: Path, inputs: dict[str, Tensor], params: Params) -> dict[str, Tensor]:
    """Logits of one forward pass, and gradients of a first text layer and of the vision tower."""
    device = params.launch.device
    model: Any = load_model(root / task.base_model, task).to(device)
    given = {name: tensor.to(device) for name, tensor in inputs.items()}
    real = given["attention_mask"].bool()
    # The first token is predicted from a padding's position, which attends to nothing: eager
    # attention takes the mean there, others zero.
    predicted = real & real.roll(1, dims=1)
    labels = given["input_ids"].masked_fill(~predicted, IGNORED_LABEL)
    output = model(**given, labels=labels)
    output.loss.backward()
    projections = {
        "text gradient": model.model.language_model.layers[0].self_attn.q_proj.weight,
        "vision gradient": model.model.visual.blocks[0].attn.qkv.weight,
    }
    gradients = {what: weight.grad.float().cpu() for what, weight in projections.items()}
    return {"logits": output.logits[real].detach().float().cpu(), **gradients}


def _off(found: Tensor, true: Tensor) -> float:
    """Distance, relative to the size of what is true."""
    return float(torch.linalg.vector_norm(found - true) / torch.linalg.vector_norm(true))
