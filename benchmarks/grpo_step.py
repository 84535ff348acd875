"""GRPO's step with prompts read once a group, beside the same step as TRL computes it.

Run from the project's root, on one core:
OMP_NUM_THREADS=1 python -m benchmarks.grpo_step --model laptop

One training whose steps are in turn TRL's own (`share_prompts: false`) and shared ones, with a
learning rate that moves nothing, so that all of them do the same work. CPU seconds of this process
are measured, so that other work on the machine does not count. Memory is that of two processes of
their own, each with one of the two ways.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from benchmarks.compare import Figure, figure
from benchmarks.gpu.training import make_trainer
from benchmarks.middle import ROOT, make_middle
from vlm_r1 import environment
from vlm_r1.config import Params, load_params, parse_params
from vlm_r1.stages import draw, prepare

# prompts of a step; size of the drawn images and of their objects, px; attention; tokens
MODELS: dict[str, dict[str, Any]] = {
    "laptop": {"prompts": 16, "sizes": None, "attention": "eager", "tokens": 256},
    "middle": {
        "prompts": 2,
        "sizes": {"images": [[640, 480]], "objects": [60, 200]},
        "attention": "sdpa",
        "tokens": 64,
    },
}
PARTS = {"_generate_single_turn": "rollout", "compute_loss": "policy", "backward": "policy"}
BOTH = "both log-probability passes"
NOTHING = 1e-12  # a learning rate


def main() -> None:
    """Print a table of seconds for each number of completions, then a line for each figure."""
    options = _options()
    if options.way is not None:
        train_in_one_way(options)
        return
    if options.memory:
        print("\n".join(_memory(options.model, one).line() for one in options.generations))
        return
    figures, passes = [], []
    for generations in options.generations:
        with TemporaryDirectory(prefix="grpo-step-") as folder:
            params = make_project(Path(folder), options.model, generations, options.rounds)
            seconds = measure(params, Path(folder), options.rounds, share)
        print(f"{options.model}, {generations} completions a prompt, float32, one thread")
        for part, (plain, shared) in seconds.items():
            print(f"{part:26}{median(plain):9.2f} s as TRL{median(shared):9.2f} s shared")
        name = f"GRPO, {options.model}, {generations} completions"
        figures += [
            figure(f"{name}: {part}", shared, plain) for part, (plain, shared) in seconds.items()
        ]
        passes.append(seconds[BOTH])
    if len(passes) == 2:
        figures.append(_one_more(options.model, *passes))
    print("\n".join(one.line() for one in figures))


def make_project(root: Path, name: str, generations: int, rounds: int) -> Params:
    """Write base and prepared records; give the parameters."""
    values, model = load_params().model_dump(mode="json"), MODELS[name]
    for split in values["draw"].values():
        split |= {"images": 24, "phrases_per_image": 2, "sizes": model["sizes"]}
    steps = 2 * (rounds + 1)
    values["task"]["attention"] = model["attention"]
    values["train"] |= {"steps": steps, "checkpoints": steps, "log_every": 1}
    values["train"]["prompts_per_step"] = model["prompts"]
    values["sft"]["micro_batch"] = model["prompts"]
    values["grpo"] |= {
        "num_generations": generations,
        "micro_batch": model["prompts"] * generations,
        "max_completion_tokens": model["tokens"],
        "learning_rate": NOTHING,
    }
    params = parse_params(values, "benchmarks.grpo_step")
    draw.run(params, root)
    prepare.run(params, root)
    if name == "laptop":
        shutil.copytree(ROOT / "models/base", root / "models/base")
    else:
        make_middle(root / "models/base")
    return params


def share(trainer: Any, ours: bool) -> None:
    """Switch a trainer between TRL's way and shared prompts."""
    trainer.shares_prompts = ours


def measure(
    params: Params, root: Path, rounds: int, switch: Callable[[Any, bool], None]
) -> dict[str, tuple[list[float], list[float]]]:
    """CPU seconds of each part in each round, of the baseline and of ours; the first is left out.

    Args:
        switch: is given the trainer and whether the next step is ours.
    """
    trainer = make_trainer(params, root, "grpo")
    watch = _Watch(trainer, switch)
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    assert len(watch.steps) == 2 * (rounds + 1)
    baseline, ours = watch.steps[2::2], watch.steps[3::2]
    return {part: ([s[part] for s in baseline], [s[part] for s in ours]) for part in ours[0]}


class _Watch(TrainerCallback):
    """Changes the way at every step, and adds up the CPU seconds of its parts."""

    def __init__(self, trainer: Any, switch: Callable[[Any, bool], None]) -> None:
        self.steps: list[dict[str, float]] = []
        self._trainer, self._switch, self._now = trainer, switch, defaultdict(float)
        trainer._is_compared = True  # the comparison before the first step is no part of it
        for name, part in PARTS.items():
            owner = trainer.accelerator if name == "backward" else trainer
            setattr(owner, name, self._timed(getattr(owner, name), part))
        judged = trainer._get_per_token_logps_and_entropies
        trainer._get_per_token_logps_and_entropies = self._timed(judged, "reference")

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if part == "reference" and torch.is_grad_enabled():  # the policy's
                return function(*args, **kwargs)
            began = time.process_time()
            found = function(*args, **kwargs)
            self._now[part] += time.process_time() - began
            return found

        return timed

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Called by the Trainer before a step."""
        self._switch(self._trainer, len(self.steps) % 2 == 1)
        self._now = defaultdict(float, {"step": -time.process_time()})

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called by the Trainer after a step."""
        self._now["step"] += time.process_time()
        both = self._now["reference"] + self._now["policy"]
        self.steps.append(dict(self._now) | {BOTH: both})


def train_in_one_way(options: argparse.Namespace) -> None:
    """Two steps in the way that is asked for; prints the highest memory of this process, bytes."""
    with TemporaryDirectory(prefix="grpo-step-") as folder:
        (generations,) = options.generations
        params = make_project(Path(folder), options.model, generations, rounds=0)
        trainer: Any = make_trainer(params, Path(folder), "grpo")
        trainer._is_compared = True
        trainer.shares_prompts = options.way == "shared"
        trainer.train()
    # not ru_maxrss, which a process takes over from the one that started it
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": int(kib) * 1024}))


def _memory(model: str, generations: int) -> Figure:
    """The highest memory of a process that trains in one way, of one for each way."""
    peaks = {}
    for way in ("plain", "shared"):
        command = [sys.executable, "-m", "benchmarks.grpo_step", "--model", model]
        command += ["--generations", str(generations), "--way", way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[way] = json.loads(done.stdout.splitlines()[-1])["peak"]
        print(f"{way}: at most {peaks[way] / 2**20:.0f} MiB")
    name = f"GRPO, {model}, {generations} completions: peak memory"
    return figure(name, [peaks["shared"]], [peaks["plain"]])


def _one_more(
    model: str, few: tuple[list[float], list[float]], many: tuple[list[float], list[float]]
) -> Figure:
    """What more completions cost, both passes over their log-probabilities."""
    plain, shared = (
        [b - a for a, b in zip(less, more, strict=True)]
        for less, more in zip(few, many, strict=True)
    )
    return figure(f"GRPO, {model}: cost of one more completion", shared, plain)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="laptop")
    parser.add_argument(
        "--generations", type=int, nargs="+", default=[8], help="one or two numbers"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory of each way instead")
    parser.add_argument("--way", choices=["plain", "shared"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    environment.set_defaults()
    main()
