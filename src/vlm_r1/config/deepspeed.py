"""DeepSpeed configurations: `zero2`, `zero3`, `zero3_offload`, or a file of the user.

The three JSON files beside this module hold VLM-R1's values (om-ai-lab/VLM-R1,
src/open-r1-multimodal/local_scripts); "auto" is filled in from the trainer's arguments. No torch.
"""

import json
from pathlib import Path
from typing import Any

from vlm_r1.errors import ConfigError

FOLDER = Path(__file__).with_name("deepspeed_json")


def deepspeed_config(name: str | None) -> dict[str, Any] | None:
    """The configuration called `name`, or the JSON file at that path; None if `name` is.

    Raises:
        ConfigError: no such name or file, or no JSON object in it.
    """
    if name is None:
        return None
    known = {file.stem: file for file in sorted(FOLDER.glob("*.json"))}
    file = known.get(name, Path(name))
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(name, str(error), list(known)) from None
    if not isinstance(config, dict):
        raise _unusable(name, f"a {type(config).__name__}", list(known))
    return config


def zero_stage(config: dict[str, Any] | None) -> int:
    """The ZeRO stage: 0 shards nothing, 1 the optimizer, 2 gradients too, 3 parameters too."""
    stage: int = (config or {}).get("zero_optimization", {}).get("stage", 0)
    return stage


def is_offloaded(config: dict[str, Any] | None, what: str) -> bool:
    """True if `what` (optimizer or param) is kept in the host's memory."""
    zero: dict[str, Any] = (config or {}).get("zero_optimization", {})
    device: str = zero.get(f"offload_{what}", {}).get("device", "none")
    return device != "none"


def _unusable(name: str, fault: str, known: list[str]) -> ConfigError:
    return ConfigError(
        got=f"train.deepspeed {name!r}: {fault}",
        need=f"{', '.join(known)}, or the path of a DeepSpeed JSON",
        because="without it DeepSpeed shards nothing, and the model might not fit",
        do="correct train.deepspeed; `vlm-r1 launch --dry-run --json` shows what will run",
    )
