"""Command lines that reproduce the report's numbers."""

import shlex
from pathlib import Path

from vlm_r1.report.results_table import ResultsTable
from vlm_r1.report.schema import Command, Lineage


def commands_of_project(table: ResultsTable, unfair: bool, lineage: Lineage) -> list[Command]:
    """From a clone of the project to the report."""
    commit = lineage.git_commit or "COMMIT"
    return [
        Command(what="the code and the parameters", command=f"git checkout {commit}"),
        Command(what="every file, from DVC's cache where it is there", command="dvc repro"),
        *_numbers(table, Path("."), unfair),
        Command(
            what="this report",
            command="vlm-r1 stage report" + " --allow-unfair" * unfair,
        ),
    ]


def commands_of_logs(
    table: ResultsTable, unfair: bool, logs: Path, id_name: str | None, ood_name: str | None
) -> list[Command]:
    """From a folder of logs to the report."""
    names = [("--id", id_name), ("--ood", ood_name)]
    given = [word for option, name in names if name is not None for word in (option, name)]
    command = shlex.join(["vlm-r1", "report-logs", str(logs), *given, "--out", "report-again"])
    return [*_numbers(table, logs, unfair), Command(what="this report", command=command)]


def _numbers(table: ResultsTable, folder: Path, unfair: bool) -> list[Command]:
    """Both methods' accuracies behind the verdict and their difference, for the first seed."""
    ood = table.datasets("ood")[0]
    step = table.common_steps(ood)[-1]
    sft, grpo = (str(folder / table[m, ood, step].first.source) for m in ("sft", "grpo"))
    compare = ["vlm-r1", "compare", sft, grpo, "--json", *["--allow-unfair"] * unfair]
    only = "" if len(table.seeds) == 1 else f" (of seed {table.seeds[0]} alone)"
    commands = {
        "GRPO's accuracy": ["vlm-r1", "score", grpo, "--json"],
        "SFT's accuracy": ["vlm-r1", "score", sft, "--json"],
        "the verdict's difference": compare,
    }
    return [
        Command(what=what + only, command=shlex.join(words)) for what, words in commands.items()
    ]
