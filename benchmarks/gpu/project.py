"""A project folder for the checks: a random model, images of noise, records, parameters.

With a GPU the model has the widths of Qwen2.5-VL-3B and as many layers as the GPU's memory trains;
without one it is the tiny model. Both have the tiny model's tokenizer.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig

from vlm_r1.config import Params, parse_params
from vlm_r1.data.records import BOX, COLUMNS, write_records
from vlm_r1.models.tiny.model import tiny_config
from vlm_r1.paths import records_file
from vlm_r1.preflight.footprint import CONFIGS

ROOT = Path(__file__).parents[2]
REWARD = "benchmarks.gpu.rewards:even_tokens"
IMAGES = 8
SIZE_PX = {"cpu": (112, 112), "cuda": (640, 480)}
COMPLETION_TOKENS = {"cpu": 16, "cuda": 128}
COMPLETIONS_AT_ONCE = {"cpu": 16, "cuda": 4}  # of the 16 of a step
STEPS = 3  # the first of which is not timed
VISION_DEPTH, FULL_ATTENTION = 8, [3, 7]
# Bytes that full fine-tuning takes for each parameter: 32-bit weights, gradients and AdamW, a
# reference; as much again for activations and the rollout.
BYTES_EACH = 40
OUTSIDE_LAYERS, EACH_LAYER = 0.55e9, 0.077e9  # parameters of a 3B with 8 vision blocks


def make_project(root: Path, device: str, gpu_bytes: int = 0) -> None:
    """Write base, images, records and params.yaml into `root`.

    Args:
        device: cpu | cuda.
    """
    processor = AutoProcessor.from_pretrained(ROOT / "models/base")
    tokenizer = processor.tokenizer
    config = tiny_config(tokenizer) if device == "cpu" else scaled_config(tokenizer, gpu_bytes)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(root / "models/base")
    processor.save_pretrained(root / "models/base")
    params = make_params(device)
    text = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
    (root / "params.yaml").write_text(text, encoding="utf-8")
    _write_records(root, params, SIZE_PX[device])


def scaled_config(tokenizer: Any, gpu_bytes: int) -> PreTrainedConfig:
    """Qwen2.5-VL-3B with fewer layers: 0.5 to 1.5 billion parameters, by the GPU's memory."""
    text = (CONFIGS / "Qwen2.5-VL-3B-Instruct.json").read_text(encoding="utf-8")
    values = json.loads(text)
    layers = int((gpu_bytes / BYTES_EACH - OUTSIDE_LAYERS) / EACH_LAYER)
    values["num_hidden_layers"] = min(max(layers, 1), 12)
    depth = {"depth": VISION_DEPTH, "fullatt_block_indexes": FULL_ATTENTION}
    values["vision_config"] |= depth
    tiny = tiny_config(tokenizer)
    for name in ("image", "video", "vision_start"):
        values[f"{name}_token_id"] = getattr(tiny, f"{name}_token_id")
    values["eos_token_id"], values["pad_token_id"] = tokenizer.eos_token_id, tokenizer.pad_token_id
    return AutoConfig.for_model(values.pop("model_type"), **values)


def make_params(device: str) -> Params:
    """The laptop's parameters with bfloat16, few rows and a reward that random weights earn."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["task"] |= {"dtype": "bfloat16", "attention": "sdpa"}
    values["train"] |= {"steps": STEPS, "checkpoints": STEPS, "prompts_per_step": 4, "log_every": 1}
    values["launch"]["device"] = device
    values["sft"]["micro_batch"] = 4
    values["grpo"] |= {
        "micro_batch": COMPLETIONS_AT_ONCE[device],
        "num_generations": 4,
        "max_completion_tokens": COMPLETION_TOKENS[device],
        "rewards": {REWARD: 1.0},
    }
    return parse_params(values, "benchmarks.gpu")


def _write_records(root: Path, params: Params, size: tuple[int, int]) -> None:
    """One record an image, in the training dataset's place."""
    name = params.train_datasets[0]
    rng = np.random.default_rng(0)
    folder = root / params.datasets[name].images
    folder.mkdir(parents=True)
    width, height = size
    rows = []
    for number in range(IMAGES):
        noise = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        box = [float(side) for side in (width / 4, height / 4, width / 2, height / 2)]
        row = {"record_id": str(number), "image": f"{number}.png", "expression": f"thing {number}"}
        row |= {"width": width, "height": height, "split": "", "dataset": name, "source_id": ""}
        rows.append(row | dict(zip(BOX, box, strict=True)))
    file = root / records_file(name)
    file.parent.mkdir(parents=True)
    write_records(file, pd.DataFrame(rows)[COLUMNS])
