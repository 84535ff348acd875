"""Both stages of training as a process that torchrun may start: ROOT PARAMS METHOD..., no MLflow.

GRPO's rollouts are scripted: a completion depends only on its prompt and its place in the group.
Real ones are sampled from each process's own random state, so different numbers of processes could
not be compared. The model's own generation still runs, and its result is thrown away.
"""

import logging
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from vlm_r1 import environment, tracking
from vlm_r1.config import load_params
from vlm_r1.rec import rewards
from vlm_r1.stages import grpo, sft
from vlm_r1.training.callbacks import ignore

ORDINARY_TOKENS = range(40, 140)  # neither special nor an end of turn
SCRIPT_TOKENS = 8


def script_rollouts() -> None:
    """Replace what is generated, and reward it by its letters."""
    generate = Qwen2_5_VLForConditionalGeneration.generate

    def scripted(model, *args, **kwargs):
        output = generate(model, *args, **kwargs)
        prompts = kwargs["input_ids"]
        seen: dict[bytes, int] = {}
        rows = []
        for prompt, mask in zip(prompts, kwargs["attention_mask"], strict=True):
            key = prompt[mask.bool()].cpu().numpy().tobytes()
            place = seen[key] = seen.get(key, -1) + 1
            dice = torch.Generator().manual_seed(zlib.crc32(key) + place)
            picks = torch.randint(len(ORDINARY_TOKENS), (SCRIPT_TOKENS,), generator=dice)
            rows.append(picks + ORDINARY_TOKENS.start)
        return torch.cat([prompts, torch.stack(rows).to(output.device)], dim=1)

    Qwen2_5_VLForConditionalGeneration.generate = scripted
    rewards.REWARDS["iou"] = lambda batch: [sum(map(ord, text)) % 7 / 7 for text in batch.texts]


def main(root: Path, params_file: Path, methods: list[str]) -> None:
    """Train every method into root/models/<method>."""
    environment.set_defaults()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tracking.training_run = lambda *_: nullcontext(ignore)
    script_rollouts()
    for method in methods:
        (sft if method == "sft" else grpo).run(load_params(params_file), root)
        unset_hf_deepspeed_config()  # or the next model would be loaded in shares


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
