"""MLflow as a view of the files: live during training, and rebuilt from the files at any time.

One experiment; a parent run per pipeline, found by its contract; a child run per training of a
method; one LoggedModel per checkpoint, its scores tied to model and dataset. The weights stay
where DVC keeps them. What a child run stands for is told by the digests of its checkpoints, so
that a training which DVC brings back is found again, or recorded anew from its files. A server
that is away costs nothing: the files have it all. MLflow is imported by the functions, after its
telemetry is off. docs/tracking.md shows the views.
"""

from vlm_r1.tracking.evaluations import rebuild, track_evaluation, track_report
from vlm_r1.tracking.live_logging import method_run
from vlm_r1.tracking.runs import best_effort, configure, pipeline_run_id, read_contract
from vlm_r1.tracking.samples import draw_sample
from vlm_r1.tracking.trainings import track_training

__all__ = [
    "best_effort",
    "configure",
    "draw_sample",
    "method_run",
    "pipeline_run_id",
    "read_contract",
    "rebuild",
    "track_evaluation",
    "track_report",
    "track_training",
]
