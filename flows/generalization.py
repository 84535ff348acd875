"""Does GRPO generalize better than SFT? From drawn worlds to the report, stage by stage.

Run it from the project's root: `make demo`, or `python -m flows.generalization`, or through one
of the deployments in prefect.yaml. What is stale is DVC's business (dvc.yaml), so is the order:
a test holds that this table of contents agrees with it.
"""

import sys

import typer
from prefect import flow, get_run_logger

from tasks.artifact import publish_report
from tasks.stage import StageFailedError, is_up_to_date, run_stage
from tasks.validation import publish_validation
from vlm_r1.config import METHODS, Params, load_params
from vlm_r1.paths import REPORT

STAGES = (  # of one training run a method
    "draw",  # the images and records of both worlds
    "unpack",  # archives, for profiles of real data
    "version",  # which bytes each dataset is made of
    "prepare",  # one reader, the data's expectations, leakage
    "base",  # the model both methods start from
    "sft",
    "grpo",  # after sft: one training at a time on one machine
    "evaluate@sft",  # every checkpoint on every dataset
    "evaluate@grpo",
    "prompts",  # the same models under other prompts, where asked for
    "report",  # statistics, curves, gallery, verdict
    "register",  # the best on validation becomes the champion
)
WHERE = f"""report: {REPORT}/report.html
runs:   make mlflow, then http://127.0.0.1:5000"""


@flow(name="generalization")
def generalization() -> None:
    """Bring every stage up to date, one after the other, and publish the report."""
    seconds = {}
    for stage in stages_of(load_params()):
        try:
            seconds[stage] = run_stage(stage)
        finally:
            if stage == "prepare":  # above all when data fails
                publish_validation()
    publish_report()
    get_run_logger().info("done\n%s\n%s", seconds_table(seconds), WHERE)


def stages_of(params: Params) -> list[str]:
    """Every stage in order; a training and an evaluation more for each of experiment.seeds."""
    further = [
        stage
        for seed in params.experiment.seeds
        for stage in (
            *(f"{method}_seed@{seed}" for method in METHODS),
            *(f"evaluate_seed@{method}-{seed}" for method in METHODS),
        )
    ]
    report = STAGES.index("report")
    return [*STAGES[:report], *further, *STAGES[report:]]


def seconds_table(seconds: dict[str, float]) -> str:
    """Seconds per stage, one a line, and their sum."""
    rows = [*seconds.items(), ("all", sum(seconds.values()))]
    return "\n".join(f"{name:<22}{value:>8.1f} s" for name, value in rows)


def main() -> None:
    """Run the flow unless nothing has changed; a failed stage is told without a traceback."""
    if is_up_to_date():
        typer.echo(f"Nothing has changed since the last run.\n{WHERE}")
        return
    try:
        generalization()
    except StageFailedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
