"""Does GRPO generalize better than SFT? The whole experiment, stage by stage.

Run it from the project's root with `make demo` or `python -m flows.generalization`, or through a
deployment of prefect.yaml. DVC decides which stages are stale (dvc.yaml); a test asserts that
STAGES names all of them, in an order that their dependencies allow.
"""

import sys

import typer
from prefect import flow, get_run_logger

from tasks.artifact import publish_report
from tasks.lifetime import ends_as_told, start_guardian
from tasks.stage import StageFailedError, is_up_to_date, run_stage
from tasks.validation import publish_validation
from vlm_r1.config import METHODS, Params, load_params
from vlm_r1.errors import ConfigError
from vlm_r1.paths import REPORT

STAGES = (  # without those of experiment.seeds and of search
    "draw",  # images and records of both synthetic worlds
    "unpack",  # archives of real data; the laptop profile has none
    "version",  # digests of every dataset's files
    "prepare",  # read and validate the datasets, look for leakage
    "base",  # pretrain the tiny model that both methods start from (frozen)
    "search@sft",  # which learning rates to try (params section search); none by default
    "search@grpo",
    "sft",  # supervised fine-tuning
    "grpo",  # reinforcement learning from the same base, on the same prompts
    "evaluate@sft",  # every checkpoint on every dataset
    "evaluate@grpo",
    "prompts",  # the same models with every prompt template (report.prompt_matrix)
    "report",  # statistics, curves, gallery, verdict
    "register",  # the checkpoint that is best on validation becomes the champion
)
WHERE = f"""report: {REPORT}/report.html
runs:   make mlflow, then http://127.0.0.1:5000"""


@flow(name="generalization")
@ends_as_told
def generalization() -> None:
    """Bring every stage up to date in turn, and publish the report."""
    seconds = {}
    for stage in stages_of(load_params()):
        try:
            seconds[stage] = run_stage(stage)
        finally:
            if stage == "prepare":  # also when it fails: the page shows which rows are wrong
                publish_validation()
    publish_report()
    get_run_logger().info("done\n%s\n%s", seconds_table(seconds), WHERE)


def stages_of(params: Params) -> list[str]:
    """All stages in order, with those of experiment.seeds and the candidates of a search."""
    candidates = [
        f"candidate_{method}@{rate}" for method in METHODS for rate in params.candidates(method)
    ]
    further = [
        stage
        for seed in params.experiment.seeds
        for stage in (
            *(f"{method}_seed@{seed}" for method in METHODS),
            *(f"evaluate_seed@{method}-{seed}" for method in METHODS),
        )
    ]
    sft, report = STAGES.index("sft"), STAGES.index("report")
    return [*STAGES[:sft], *candidates, *STAGES[sft:report], *further, *STAGES[report:]]


def seconds_table(seconds: dict[str, float]) -> str:
    """Seconds of each stage, one per line, and their sum."""
    rows = [*seconds.items(), ("all", sum(seconds.values()))]
    return "\n".join(f"{name:<22}{value:>8.1f} s" for name, value in rows)


def main() -> None:
    """Run the flow unless nothing is stale; a failed stage is reported without a traceback."""
    if is_up_to_date():
        typer.echo(f"Nothing has changed since the last run.\n{WHERE}")
        return
    start_guardian()  # before Prefect's temporary server, which is to end with this process
    try:
        generalization()
    except (ConfigError, StageFailedError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
