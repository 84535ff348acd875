"""Stage `register`: choose on validation, write reports/selection.json, register with MLflow."""

from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.evaluation.selection import Selection, select
from vlm_r1.tracking import registry


def run(params: Params, root: Path) -> Selection:
    """Write the choice (no ids, no times: the same files give the same bytes) and register it."""
    selection = select(params, root)
    registry.register(root, params, selection)
    path = root / paths.SELECTION
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(selection.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return selection
