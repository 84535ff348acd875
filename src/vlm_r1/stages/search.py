"""Stage `search`: the candidates of one method -> results/search/<method>/plan.json.

Without a search the plan is empty. It makes the folder that trainings depend on, into which each
candidate's stage writes its score.
"""

from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.files import write_json


def run(params: Params, root: Path, method: Method) -> None:
    """Write which learning rates are to be tried."""
    plan = {"learning_rate": params.candidates(method)}
    write_json(root / paths.SEARCH / method / "plan.json", plan)
