"""MLflow shows what the files hold: live during training, and rebuilt from the files at any time.

One experiment has a parent run per pipeline, found by its contract; a child run per training of a
method; and one LoggedModel per checkpoint, with scores tied to model and dataset. Weights stay
where DVC keeps them. A child run is found by the digests of its checkpoints, so that a training
which DVC brings back is recognized, or recorded again from its files. While a server is down
nothing is lost, because the files have everything. Functions import MLflow only after `configure`
has turned its telemetry off. docs/tracking.md shows the views.
"""

from vlm_r1.tracking.rebuild import rebuild
from vlm_r1.tracking.registry import resolve
from vlm_r1.tracking.stages import (
    after_evaluation,
    register_selection,
    report_run,
    training_run,
)
from vlm_r1.tracking.store import configure

__all__ = [
    "after_evaluation",
    "configure",
    "rebuild",
    "register_selection",
    "report_run",
    "resolve",
    "training_run",
]
