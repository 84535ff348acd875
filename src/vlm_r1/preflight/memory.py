"""Will it fit, and what will it cost: memory of a GPU and FLOPs, before the money is spent.

Persistent state by ZeRO's own arithmetic (Rajbhandari et al. 2020, arXiv 1910.02054, section 3):
16-bit weights and gradients, and for AdamW 12 bytes a trained parameter in 32 bits. Activations are
read off the real modelling code (models/footprint.py). tests/test_plan.py holds it against measured
peaks.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from vlm_r1.config import Params, standalone
from vlm_r1.config.deepspeed import deepspeed_config, is_offloaded, zero_stage
from vlm_r1.preflight.footprint import Footprint, Workload

GIB = 2**30
PROMPT_WORDS = 96  # tokens of an R1 prompt with a long phrase, its image aside
ANSWER_TOKENS = 48  # of SFT's fenced JSON box
ADAM_BYTES = 8  # two moments in 32 bits
MASTER_BYTES = 4  # ZeRO's own copy of 16-bit weights
LOSS_TOKENS, LOSS_COLUMNS = 4096, 32_768  # a tile of trl/kernels/chunked_logprob.py
GPU_OVERHEAD = 2 * GIB  # CUDA context, NCCL's buffers, fragments


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, at the worst moment of a step."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    gathered: int  # ZeRO-3's whole layers during a step
    activations: int
    loss: int  # the tile of logits in hand, and its gradients
    rollout: int  # GRPO: whole weights where they are shared out, KV cache, the prompts' first pass
    overhead: int
    peak: int


@dataclass(frozen=True)
class Plan:
    """One method's."""

    method: str
    memory: Memory
    flops_per_step: float
    flops_total: float
    accumulation: int


def make_plan(params: Params, root: Path, method: str, image: tuple[int, int]) -> Plan:
    """Memory of one process's device, and FLOPs of all of them.

    Args:
        image: (width, height) of a typical image, before the resize.

    Raises:
        ModelError: the base's config is not at hand, or of a family that cannot be planned.
        ConfigError: no such DeepSpeed configuration.
    """
    footprint = Footprint(params, root)
    rows, work = _workload(params, method, footprint, image)
    return plan_work(params, method, footprint, rows, work)


def plan_work(params: Params, method: str, footprint: Footprint, rows: int, work: Workload) -> Plan:
    """`make_plan` for `rows` a step of a known shape."""
    accumulation = max(1, rows // (work.rows * params.launch.processes))
    memory = _memory(params, method, footprint, work, accumulation)
    per_step = rows * _row_flops(params, method, footprint, work)
    return Plan(method, memory, per_step, per_step * params.train.steps, accumulation)


def _workload(
    params: Params, method: str, footprint: Footprint, image: tuple[int, int]
) -> tuple[int, Workload]:
    """Rows of a whole step, and what one device takes at once."""
    vision = footprint.config.vision_config
    height, width = footprint.family.input_size(image[1], image[0], params.task)
    patches = (height // vision.patch_size) * (width // vision.patch_size)
    prompt = PROMPT_WORDS + patches // vision.spatial_merge_size**2
    if method == "sft":
        rows, answer = params.train.prompts_per_step, ANSWER_TOKENS
    else:
        rows = params.train.prompts_per_step * params.grpo.num_generations
        answer = params.grpo.max_completion_tokens
    micro_batch = getattr(params, method).micro_batch
    return rows, Workload(micro_batch, prompt + answer, patches, answer)


def _memory(
    params: Params, method: str, footprint: Footprint, work: Workload, accumulation: int
) -> Memory:
    zero = deepspeed_config(params.train.deepspeed)
    stage, shares = zero_stage(zero), params.launch.processes
    held = _held_bytes(params, footprint)
    adapters = footprint.trainable if params.train.lora is not None else 0
    weights = footprint.total * held + adapters * 4
    trained_bytes = 4 if adapters else held
    gradients = footprint.trainable * trained_bytes // (shares if stage >= 2 else 1)
    master = MASTER_BYTES if zero is not None and trained_bytes < 4 else 0
    optimizer = footprint.trainable * (ADAM_BYTES + master) // (shares if stage >= 1 else 1)
    has_reference = method == "grpo" and params.grpo.beta > 0 and not adapters
    reference = footprint.total * held // (shares if stage == 3 else 1) if has_reference else 0
    whole, gathered = weights, 0
    if stage == 3:
        live = int(zero["zero_optimization"].get("stage3_max_live_parameters", 1e9))
        weights, gathered = weights // shares, min(footprint.total, live) * held
    weights = 0 if is_offloaded(zero, "param") else weights
    optimizer = 0 if is_offloaded(zero, "optimizer") else optimizer
    overhead = 0 if params.launch.device == "cpu" else GPU_OVERHEAD
    activations, loss = _activations(params, footprint, work), _loss(params, footprint, work)
    rollout = 0
    if method == "grpo":
        rollout = _rollout(footprint, work, accumulation) + (whole if stage == 3 else 0)
    # Gradients grow as activations go; they are there from the start only where they add up.
    moving = (sum if accumulation > 1 else max)((activations + loss, gradients))
    step = moving + gathered
    peak = weights + optimizer + reference + max(step, rollout) + overhead
    return Memory(
        *(weights, gradients, optimizer, reference, gathered),
        *(activations, loss, rollout, overhead, peak),
    )


def _held_bytes(params: Params, footprint: Footprint) -> int:
    """Of a weight on the device; 32 bits where nothing else keeps a master copy (training.run)."""
    keeps_copy = params.train.deepspeed is not None or params.train.lora is not None
    return footprint.bytes if keeps_copy else 4


def _activations(params: Params, footprint: Footprint, work: Workload) -> int:
    """What is kept between forward and backward pass."""
    text, vision = footprint.config.text_config, footprint.config.vision_config
    layers = [(text.num_hidden_layers, footprint.text_layer_bytes(work))]
    inputs = [work.rows * work.tokens * text.hidden_size]
    if footprint.trains_vision:
        layers.append((vision.depth, footprint.vision_block_bytes(work)))
        inputs.append(work.rows * work.patches * vision.hidden_size)
    if not params.train.gradient_checkpointing:
        return sum(count * kept for count, kept in layers)
    entries = sum(
        count * size * footprint.bytes for (count, _), size in zip(layers, inputs, strict=True)
    )
    return entries + max(kept for _, kept in layers)  # one layer at a time is computed again


def _loss(params: Params, footprint: Footprint, work: Workload) -> int:
    """What TRL's chunked loss takes in its backward pass; on CPUs it also scores the prompts.

    One tile whose size hangs on no vocabulary, and gradients of its inputs in 32 bits.
    """
    text, head = footprint.config.text_config, footprint.model.lm_head.weight
    on_cpu = params.launch.device == "cpu"
    tokens = work.rows * (work.tokens if on_cpu else work.predicted)
    tile = min(tokens, LOSS_TOKENS) * LOSS_COLUMNS * footprint.bytes
    return tile + 4 * (tokens * text.hidden_size + (head.numel() if head.requires_grad else 0))


def _rollout(footprint: Footprint, work: Workload, accumulation: int) -> int:
    """KV cache and first pass of all completions that a device samples at once: a whole step's."""
    text = footprint.config.text_config
    rows = work.rows * accumulation
    head = text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head
    prompt = Workload(rows, work.tokens - work.predicted, work.patches, 0)
    first_pass = max(footprint.text_layer_bytes(prompt), footprint.vision_block_bytes(prompt))
    return rows * work.tokens * cache * footprint.bytes + first_pass


def _row_flops(params: Params, method: str, footprint: Footprint, work: Workload) -> float:
    """Of one row of a step: 2 a parameter and token forwards, as many again for each gradient.

    Kaplan et al. 2020 (arXiv 2001.08361, section 2.1), with attention's own products.
    """
    text, vision = footprint.config.text_config, footprint.config.vision_config
    attention = 2 * text.num_hidden_layers * work.tokens * text.hidden_size  # causal: half of 4
    head = text.vocab_size * text.hidden_size
    language = 2 * (footprint.layer_parameters + attention) * work.tokens
    language += 2 * head * work.predicted
    tower = 2 * sum(p.numel() for p in footprint.vision.blocks.parameters()) * work.patches
    tower += 4 * vision.depth * work.patches**2 * vision.hidden_size
    forward = language + tower
    backward_language = 2 if params.train.lora is None else 1  # frozen weights need no gradient
    backward_tower = 2 if footprint.trains_vision else 0
    step = forward + backward_language * language + backward_tower * tower
    if params.train.gradient_checkpointing:
        step += language + (tower if footprint.trains_vision else 0)
    if method == "grpo":
        step += forward  # sampling: every token once, with a cache
        step += forward if params.grpo.beta > 0 else 0  # the reference
    return float(step)


def changes(params: Params, method: str) -> list[tuple[str, Params]]:
    """What to change to need less memory, the cheapest first; each on top of those before it."""
    found: list[tuple[str, Params]] = []
    train, task = params.train, params.task
    optimizer = getattr(params, method)

    def add(told: str, **sections) -> None:
        before = found[-1][1] if found else params
        found.append((told, before.model_copy(update=sections)))

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
        train = train.model_copy(
            update={"lora": standalone.LORA, "freeze_vision": True, "freeze_projector": True}
        )
        add(f"train.lora: {lora} and freeze_vision: true", train=train)
    return found


def advise(
    params: Params, root: Path, plan: Plan, image: tuple[int, int], gpu_bytes: float
) -> list[str]:
    """The changes, in order, after which it fits; empty where it fits, or where none helps."""
    if plan.memory.peak <= gpu_bytes:
        return []
    told = []
    for change, changed in changes(params, plan.method):
        told.append(change)
        if make_plan(changed, root, plan.method, image).memory.peak <= gpu_bytes:
            return told
    return []


def plan_dict(params: Params, root: Path, gpu_memory_gib: float, image: tuple[int, int]) -> dict:
    """Both methods' plans as plain values; memory in GiB."""
    footprint = Footprint(params, root)
    methods = {}
    for method in ("sft", "grpo"):
        plan = make_plan(params, root, method, image)
        gib = {name: round(size / GIB, 3) for name, size in asdict(plan.memory).items()}
        fits = plan.memory.peak <= gpu_memory_gib * GIB
        methods[method] = {
            "per_gpu_gib": gib,
            "fits": fits,
            "change_first": advise(params, root, plan, image, gpu_memory_gib * GIB),
            "accumulation": plan.accumulation,
            "flops_per_step": plan.flops_per_step,
            "flops_total": plan.flops_total,
        }
    return {
        "model": params.task.base_model,
        "parameters": {"total": footprint.total, "trained": footprint.trainable},
        "gpus": params.launch.processes,
        "gpu_memory_gib": gpu_memory_gib,
        "image_px": list(image),
        "methods": methods,
    }


def plan_text(plan: dict) -> str:
    """The plan for reading."""
    total, trained = plan["parameters"]["total"], plan["parameters"]["trained"]
    lines = [
        f"{plan['model']}: {total / 1e9:.3f} billion parameters, {trained / 1e9:.3f} trained",
        f"{plan['gpus']} x {plan['gpu_memory_gib']:g} GiB, images of"
        f" {plan['image_px'][0]} x {plan['image_px'][1]}",
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
    return "\n".join(lines)
