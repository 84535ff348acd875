"""The checks. Each takes the project of `project.make_project` and gives an outcome."""

import gc
import importlib.util
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from transformers.utils import is_flash_attn_2_available

from benchmarks.gpu import attention, evaluation, training
from benchmarks.gpu.outcome import Check, NotRun, Outcome, judged
from benchmarks.gpu.training import Steps
from vlm_r1.config import Method, Params
from vlm_r1.preflight.memory import GIB, GPU_OVERHEAD
from vlm_r1.preflight.plan import make_plan

TOLERANCE = 0.25  # of the planned peak, as in tests/test_memory_plan.py
SLOWER = 1.1  # times TRL's own step, with the noise of a few steps


@dataclass(frozen=True)
class Bench:
    """What the checks share.

    Attributes:
        size_px: (width, height) of its images.
        gpus: that the host has; this process sees one of them at most.
        done: what `plain_steps` has found.
    """

    root: Path
    params: Params
    size_px: tuple[int, int]
    gpus: int
    done: dict[Method, Steps] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """cpu | cuda."""
        return self.params.launch.device

    def require_gpu(self) -> None:
        """Raise NotRun without a GPU."""
        if self.device == "cpu":
            raise NotRun("no CUDA device")

    def train(self, method: Method, **options: object) -> Steps:
        """A few steps; `options` change the section `train`. Nothing stays on the GPU."""
        train = self.params.train.model_copy(update=options)
        params = self.params.model_copy(update={"train": train})
        try:
            return training.ours(params, self.root, method)
        finally:
            gc.collect()  # trainers have reference cycles

    def plain_steps(self, method: Method) -> Steps:
        """A few steps as the parameters say; several checks read them, so they run once."""
        if method not in self.done:
            self.done[method] = self.train(method)
        return self.done[method]


def all_checks(bench: Bench) -> dict[str, Check]:
    """Name -> check, in the order in which they run."""
    return {
        "one process on a host of several GPUs": partial(one_process, bench),
        "flash attention against eager": partial(flash_attention, bench),
        "sdpa attention against eager": partial(sdpa_attention, bench),
        "bf16 SFT steps": partial(steps, bench, "sft"),
        "bf16 GRPO steps": partial(steps, bench, "grpo"),
        "frozen tower against trained tower": partial(frozen_tower, bench),
        "SFT memory against plan": partial(memory, bench, "sft"),
        "GRPO memory against plan": partial(memory, bench, "grpo"),
        "GRPO step against stock TRL": partial(stock_trl, bench),
        "evaluation against a plain loop": partial(plain_loop, bench),
    }


def one_process(bench: Bench) -> Outcome:
    """A process that is alone must see one GPU, or transformers wraps the model in DataParallel."""
    if bench.gpus < 2:
        raise NotRun(f"the host has {bench.gpus} GPUs; needs 2")
    seen = torch.cuda.device_count()
    learned = bench.plain_steps("sft").learned
    return judged(seen == 1 and learned, f"sees {seen} of {bench.gpus} GPUs, trains: {learned}")


def flash_attention(bench: Bench) -> Outcome:
    """bf16 flash attention may be off from float32 eager no more than twice what bf16 eager is."""
    bench.require_gpu()
    if not (is_flash_attn_2_available() or importlib.util.find_spec("kernels")):
        raise NotRun("neither flash_attn nor kernels is installed")
    return _attention(bench, "flash_attention_2")


def sdpa_attention(bench: Bench) -> Outcome:
    """The same of torch's own attention."""
    return _attention(bench, "sdpa")


def _attention(bench: Bench, name: str) -> Outcome:
    errors = attention.errors_of(name, bench.params, bench.root)
    words = [
        f"{what} off by {own:.2g}, eager by {eager:.2g}" for what, (own, eager) in errors.items()
    ]
    passed = all(own <= 2 * eager for own, eager in errors.values())
    return judged(passed, "; ".join(words))


def steps(bench: Bench, method: Method) -> Outcome:
    """Losses are finite and weights change."""
    found = bench.plain_steps(method)
    losses = ", ".join(f"{loss:.4g}" for loss in found.losses)
    figure = f"{found.seconds:.2f} s a step, losses {losses}, weights moved {found.moved:.2g}"
    return judged(found.learned, figure)


def frozen_tower(bench: Bench) -> Outcome:
    """A frozen tower must cost less time and less memory than a trained one."""
    trained, frozen = bench.plain_steps("sft"), bench.train("sft", freeze_vision=True)
    figure = f"{frozen.seconds / trained.seconds:.2f} of the time of a step"
    if bench.device == "cpu":
        return judged(frozen.seconds < trained.seconds, f"{figure}; memory: no CUDA device")
    passed = frozen.seconds < trained.seconds and frozen.peak_bytes < trained.peak_bytes
    return judged(passed, f"{figure}, {frozen.peak_bytes / trained.peak_bytes:.2f} of the peak")


def memory(bench: Bench, method: Method) -> Outcome:
    """The measured peak must lie within a quarter of the planned one."""
    if bench.device == "cpu":
        raise NotRun("no CUDA device; `make rehearsal` measures it on a CPU")
    measured = bench.plain_steps(method).peak_bytes
    plan = make_plan(bench.params, bench.root, method, bench.size_px)
    planned = plan.memory.peak - GPU_OVERHEAD  # torch does not count CUDA's own memory
    figure = f"{measured / GIB:.1f} GiB, planned {planned / GIB:.1f}: {measured / planned:.2f}"
    return judged(abs(measured / planned - 1) <= TOLERANCE, figure)


def stock_trl(bench: Bench) -> Outcome:
    """A step may take at most `SLOWER` times that of TRL's own trainer."""
    own = bench.plain_steps("grpo").seconds
    stock = training.stock_grpo(bench.params, bench.root).seconds
    gc.collect()
    return judged(own <= SLOWER * stock, f"{own:.2f} s, TRL {stock:.2f} s: {own / stock:.2f}")


def plain_loop(bench: Bench) -> Outcome:
    """Evaluation must be no slower than `generate` on fixed batches."""
    own, plain = evaluation.seconds(bench.params, bench.root)
    return judged(own <= plain, f"{own:.2f} s, plain loop {plain:.2f} s: {own / plain:.2f}")
