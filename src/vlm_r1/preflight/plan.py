"""`vlm-r1 plan`: memory of device and host, FLOPs and disk, before they are paid for."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlm_r1.config import Method, Params, standalone
from vlm_r1.models.flops import (
    Load,
    Loads,
    forward_flops,
    image_load,
    parts_of,
    training_flops,
    written_load,
)
from vlm_r1.preflight.disk import plan_disk
from vlm_r1.preflight.footprint import Footprint, Workload, shared_by
from vlm_r1.preflight.host import plan_host
from vlm_r1.preflight.memory import GIB, MemoryPlan, plan_memory

PROMPT_TEXT_TOKENS = 96  # of an R1 prompt with a long expression, without its image
SFT_ANSWER_TOKENS = 48  # of a fenced JSON box
PLANNED: tuple[Method, ...] = ("sft", "grpo")


@dataclass(frozen=True)
class TrainingPlan:
    """What one method's training takes: memory of one device, FLOPs of all together."""

    method: Method
    memory: MemoryPlan
    flops_per_step: float
    flops_total: float
    accumulation: int


def make_plan(params: Params, root: Path, method: Method, image: tuple[int, int]) -> TrainingPlan:
    """The plan for images of a typical size.

    Args:
        image: (width, height) before the resize.

    Raises:
        ModelError: the base's config is missing, or of a family that cannot be planned.
        ConfigError: no such DeepSpeed configuration.
    """
    footprint = Footprint(params, root)
    rows, work = _workload(params, method, footprint, image)
    return plan_work(params, method, footprint, rows, work)


def plan_work(
    params: Params, method: Method, footprint: Footprint, rows: int, work: Workload
) -> TrainingPlan:
    """The plan for `rows` rows in a step, in micro-batches of the shape `work`."""
    accumulation = max(1, rows // (work.rows * params.launch.processes))
    memory = plan_memory(params, method, footprint, work, accumulation)
    per_step = rows * _row_flops(params, method, footprint, work)
    return TrainingPlan(method, memory, per_step, per_step * params.steps_of(method), accumulation)


def plan_dict(
    params: Params, root: Path, gpu_memory_gib: float, image: tuple[int, int]
) -> dict[str, Any]:
    """Both methods' plans as plain values, with host and disk; memory and disk in GiB."""
    footprint = Footprint(params, root)
    return {
        "model": params.task.base_model,
        "parameters": {"total": footprint.total, "trained": footprint.trainable},
        "gpus": params.launch.processes,
        "gpu_memory_gib": gpu_memory_gib,
        "image_px": list(image),
        "methods": {
            method: _method_dict(params, root, method, gpu_memory_gib, image) for method in PLANNED
        },
        "host_gib": {method: _host_dict(params, method, footprint) for method in PLANNED},
        "disk_gib": _disk_dict(params, root, footprint),
    }


def plan_text(plan: dict[str, Any]) -> str:
    """`plan_dict` as text."""
    total, trained = plan["parameters"]["total"], plan["parameters"]["trained"]
    width, height = plan["image_px"]
    lines = [
        f"{plan['model']}: {total / 1e9:.3f} billion parameters, {trained / 1e9:.3f} trained",
        f"{plan['gpus']} x {plan['gpu_memory_gib']:g} GiB, images of {width} x {height}",
    ]
    for method, found in plan["methods"].items():
        gib = found["per_gpu_gib"]
        parts = ", ".join(f"{name} {gib[name]:.1f}" for name in gib if name != "peak" and gib[name])
        verdict = "fits" if found["fits"] else "DOES NOT FIT"
        lines += [
            f"{method}: peak {gib['peak']:.1f} GiB a GPU: {verdict}",
            f"  {parts} (GiB; not all at once)",
            f"  {found['flops_per_step']:.3g} FLOPs a step, {found['flops_total']:.3g} in all",
        ]
        if not found["fits"]:
            advice = ", then ".join(found["change_first"])
            lines.append(f"  change first: {advice}" if advice else "  no single change helps")
    return "\n".join([*lines, *_host_lines(plan["host_gib"]), *_disk_lines(plan["disk_gib"])])


def _host_lines(host: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"host, {method}: {gib['peak']:.1f} GiB of memory a node: models while they are loaded "
        f"{gib['models']:.1f}, offloaded {gib['offloaded']:.1f}, programs {gib['programs']:.1f}"
        for method, gib in host.items()
    ]


def _disk_lines(disk: dict[str, Any]) -> list[str]:
    copy = f"DVC's copy of them {disk['dvc']:.1f}" if disk["dvc"] else "linked by DVC"
    known = disk["results"] is not None
    results = f"{disk['results']:.1f} at most" if known else "known once data is prepared"
    return [
        f"disk: {disk['peak']:.1f} GiB at most: checkpoints {disk['models']:.1f} "
        f"({disk['checkpoints']} of {disk['weights']:.1f}, {copy}), state of the optimizer "
        f"{disk['states']:.1f} while a training saves, results {results}"
    ]


def advise(
    params: Params, root: Path, plan: TrainingPlan, image: tuple[int, int], gpu_bytes: float
) -> list[str]:
    """The changes, in order, after which it fits; empty if it fits, or if they do not suffice."""
    if plan.memory.peak <= gpu_bytes:
        return []
    descriptions = []
    for description, changed in changes(params, plan.method):
        descriptions.append(description)
        if make_plan(changed, root, plan.method, image).memory.peak <= gpu_bytes:
            return descriptions
    return []


def changes(params: Params, method: Method) -> list[tuple[str, Params]]:
    """Changes that save memory, the cheapest first, each with the params after all so far."""
    found: list[tuple[str, Params]] = []
    train, task = params.train, params.task
    optimizer = getattr(params, method)

    def add(description: str, **sections: Any) -> None:
        before = found[-1][1] if found else params
        found.append((description, before.model_copy(update=sections)))

    if task.attention == "eager":
        add("task.attention: sdpa", task=task.model_copy(update={"attention": "sdpa"}))
    if not train.gradient_checkpointing:
        train = train.model_copy(update={"gradient_checkpointing": True})
        add("train.gradient_checkpointing: true", train=train)
    if optimizer.micro_batch > 1:
        small = optimizer.model_copy(update={"micro_batch": 1})
        add(f"{method}.micro_batch: 1", **{method: small})
    for name in ("zero3", "zero3_offload"):
        if params.launch.processes > 1 and train.deepspeed not in (name, "zero3_offload"):
            train = train.model_copy(update={"deepspeed": name})
            add(f"train.deepspeed: {name}", train=train)
    if train.lora is None:
        lora = standalone.LORA.model_dump_json().replace('"', "")
        frozen = {"lora": standalone.LORA, "freeze_vision": True, "freeze_projector": True}
        train = train.model_copy(update=frozen)
        add(f"train.lora: {lora} and freeze_vision: true", train=train)
    return found


def _method_dict(
    params: Params, root: Path, method: Method, gpu_memory_gib: float, image: tuple[int, int]
) -> dict[str, Any]:
    plan = make_plan(params, root, method, image)
    gpu_bytes = gpu_memory_gib * GIB
    return {
        "per_gpu_gib": {k: round(size / GIB, 3) for k, size in asdict(plan.memory).items()},
        "fits": plan.memory.peak <= gpu_bytes,
        "change_first": advise(params, root, plan, image, gpu_bytes),
        "accumulation": plan.accumulation,
        "flops_per_step": plan.flops_per_step,
        "flops_total": plan.flops_total,
    }


def _host_dict(params: Params, method: Method, footprint: Footprint) -> dict[str, float]:
    plan = plan_host(params, method, footprint.total, footprint.trainable)
    return {k: round(size / GIB, 3) for k, size in {**asdict(plan), "peak": plan.peak}.items()}


def _disk_dict(params: Params, root: Path, footprint: Footprint) -> dict[str, Any]:
    plan = plan_disk(params, root, footprint.total, footprint.trainable)
    sizes = {
        "weights": plan.checkpoint.weights,
        "state": plan.checkpoint.state,
        **{name: getattr(plan, name) for name in ("models", "states", "dvc", "peak")},
    }
    results = None if plan.results is None else round(plan.results / GIB, 3)
    gib = {name: round(size / GIB, 3) for name, size in sizes.items()}
    return {**gib, "results": results, "checkpoints": plan.models // plan.checkpoint.weights}


def _workload(
    params: Params, method: Method, footprint: Footprint, image: tuple[int, int]
) -> tuple[int, Workload]:
    """Rows of a whole step on all devices, and one device's micro-batch."""
    vision = footprint.config.vision_config
    height, width = footprint.family.input_size(image[1], image[0], params.task)
    patches = (height // vision.patch_size) * (width // vision.patch_size)
    prompt_tokens = PROMPT_TEXT_TOKENS + patches // vision.spatial_merge_size**2
    if method == "sft":
        rows, answer_tokens = params.train.prompts_per_step, SFT_ANSWER_TOKENS
    else:
        rows = params.train.prompts_per_step * params.grpo.num_generations
        answer_tokens = params.grpo.max_completion_tokens
    micro_batch = getattr(params, method).micro_batch
    return rows, Workload(micro_batch, prompt_tokens + answer_tokens, patches, answer_tokens)


def _row_flops(params: Params, method: Method, footprint: Footprint, work: Workload) -> float:
    """FLOPs of one row of a step, by the formula of models/flops.py.

    A row of GRPO is written, read by the reference and, where a rollout outlasts a step, by the old
    policy: once in `num_iterations` steps. TRL's loss computes logits of answers alone, and once
    more in the backward pass. Rows that share a prompt are counted together.
    """
    parts = parts_of(footprint.model, footprint.family)
    sharing = min(shared_by(params, method), work.rows)
    seen = _loads(footprint, replace(work, rows=sharing).packed(sharing))
    step = training_flops(parts, seen, params.train.gradient_checkpointing)
    step += parts.head.forward(seen.head)
    if method == "sft":
        return step
    grpo = params.grpo
    reads = (grpo.beta > 0) + (grpo.num_iterations > 1 or grpo.rollouts != "transformers")
    language = written_load(work.prompt, work.predicted, sharing)
    written = forward_flops(parts, seen._replace(language=language))
    return (step + (written + reads * forward_flops(parts, seen)) / grpo.num_iterations) / sharing


def _loads(footprint: Footprint, row: Workload) -> Loads:
    """What one row sends through the parts of the model."""
    side = math.isqrt(row.patches)
    images = image_load(footprint.config, [(side, row.patches // side)])
    return Loads(
        patches=Load(row.patches),
        vision=images._replace(rows=row.patches),
        projector=Load(row.patches // footprint.config.vision_config.spatial_merge_size**2),
        language=Load(row.tokens, float(row.tokens**2)),
        head=Load(row.predicted),
    )
