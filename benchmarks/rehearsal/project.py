"""The rehearsal's project folder: photos, records with random boxes, a random base, parameters."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks.middle import wider_config
from vlm_r1.config import parse_params
from vlm_r1.files import write_json
from vlm_r1.rec.prompts import question_for

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "profiles/rehearsal.yaml"
SIZE = (640, 480)
SEED = 0
# share of the photos in each dataset of the profile
SHARES = {"photos_train": 0.5, "photos_val": 0.15, "photos_test": 0.15, "photos_far": 0.2}
COLORS = ("red", "blue", "green", "white", "dark", "bright")
THINGS = ("cup", "dog", "chair", "person", "car", "sign", "plate", "tree")
PLACES = ("on the left", "on the right", "in the middle", "at the top", "at the bottom")
# 53 million parameters, 21 of them the vocabulary's; 10 attention heads of width 64, whose rotary
# sections add up to half of it
TEXT: dict[str, Any] = {
    "vocab_size": 32_768,
    "hidden_size": 640,
    "num_hidden_layers": 6,
    "num_attention_heads": 10,
    "num_key_value_heads": 2,
    "intermediate_size": 1792,
    "max_position_embeddings": 4096,
}
VISION: dict[str, Any] = {
    "hidden_size": 256,
    "depth": 4,
    "num_heads": 4,
    "intermediate_size": 768,
    "fullatt_block_indexes": [1, 3],
    "out_hidden_size": 640,
}
INITIALIZER_RANGE = 0.02


def make_base(folder: Path) -> int:
    """Write the random base with the tiny model's tokenizer; gives its number of parameters."""
    processor = AutoProcessor.from_pretrained(ROOT / "models/base")
    torch.manual_seed(SEED)
    config = base_config(processor.tokenizer)
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.num_parameters()


def base_config(tokenizer: Any) -> Qwen2_5_VLConfig:
    """The tiny model's config, wider and deeper."""
    return wider_config(tokenizer, TEXT, VISION, INITIALIZER_RANGE)


def make_project(root: Path, photos: list[Path], base: Path, train: dict[str, Any]) -> None:
    """Write params.yaml, resized photos and records into `root`, and link the base.

    Args:
        train: values that differ from the profile's section `train`.

    Raises:
        ConfigError: the profile is not valid with these values.
    """
    values = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    values["train"] |= train
    parse_params(values, str(PROFILE))
    (root / "data/photos").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "models/base").symlink_to(base)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    rng = np.random.default_rng(SEED)
    for dataset, part in split_photos(photos).items():
        for photo in part:
            with Image.open(photo) as image:
                image.convert("RGB").resize(SIZE).save(root / f"data/photos/{photo.stem}.jpg")
        names = [f"{photo.stem}.jpg" for photo in part]
        records = [random_record(number, name, rng) for number, name in enumerate(names, start=1)]
        write_json(root / f"data/{dataset}.json", records)


def split_photos(photos: list[Path]) -> dict[str, list[Path]]:
    """Every photo in one dataset, at least one in each."""
    ends = np.round(np.cumsum(list(SHARES.values())) * len(photos)).astype(int)
    starts = [0, *ends[:-1]]
    parts = [photos[start:end] for start, end in zip(starts, ends, strict=True)]
    if not all(parts):
        raise SystemExit(f"got {len(photos)} photos, need at least 8")
    return dict(zip(SHARES, parts, strict=True))


def random_record(number: int, name: str, rng: np.random.Generator) -> dict[str, Any]:
    """A record in VLM-R1's format: a phrase and a box that have nothing to do with the photo."""
    phrase = " ".join(["the", *(str(rng.choice(words)) for words in (COLORS, THINGS, PLACES))])
    low = rng.uniform(0, 0.5, 2) * SIZE
    high = low + rng.uniform(0.1, 0.4, 2) * SIZE
    return {
        "height": SIZE[1],
        "width": SIZE[0],
        "id": number,
        "image": name,
        "problem": question_for(phrase),
        "normal_caption": phrase,
        "solution": [round(float(side), 2) for side in (*low, *high)],
    }
