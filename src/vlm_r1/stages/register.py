"""Stage `register`: choose checkpoints on validation, register them -> reports/selection.json."""

from pathlib import Path

from vlm_r1 import paths, tracking
from vlm_r1.config import Params
from vlm_r1.evaluation.selection import Selection, select
from vlm_r1.files import write_text


def run(params: Params, root: Path) -> Selection:
    """Register the selection and write it, without ids or times: equal files give equal bytes.

    Raises:
        ContractError: checkpoints were trained or evaluated under different contracts.
        ResultError: a validation result is missing or broken.
        MlflowException: the registry cannot be reached; nothing is written then.
    """
    selection = select(params, root)
    tracking.register_selection(root, params, selection)
    write_text(root / paths.SELECTION, selection.model_dump_json(indent=1))
    return selection
