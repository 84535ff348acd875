"""DeepSpeed's configurations: `zero2`, `zero3`, `zero3_offload` as data, or a file of one's own.

The three JSON files beside this module hold VLM-R1's values (om-ai-lab/VLM-R1,
src/open-r1-multimodal/local_scripts); "auto" is filled in from the trainer's arguments. No torch.
"""

import json
from pathlib import Path

from vlm_r1.errors import ConfigError

FOLDER = Path(__file__).with_name("deepspeed_json")


def deepspeed_config(name: str | None) -> dict | None:
    """The configuration called `name`, or the JSON file at that path; None where none is asked for.

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


def zero_stage(config: dict | None) -> int:
    """What ZeRO shares out: 0 nothing, 1 optimizer, 2 gradients too, 3 parameters too."""
    return (config or {}).get("zero_optimization", {}).get("stage", 0)


def is_offloaded(config: dict | None, what: str) -> bool:
    """Whether `what` (optimizer or param) lives in the host's memory."""
    zero = (config or {}).get("zero_optimization", {})
    return zero.get(f"offload_{what}", {}).get("device", "none") != "none"


def _unusable(name: str, fault: str, known: list[str]) -> ConfigError:
    return ConfigError(
        got=f"train.deepspeed {name!r}: {fault}",
        need=f"{', '.join(known)}, or the path of a DeepSpeed JSON",
        because="DeepSpeed would share out nothing, and the model might not fit",
        do="correct train.deepspeed; `vlm-r1 launch --dry-run --json` shows what will run",
    )
