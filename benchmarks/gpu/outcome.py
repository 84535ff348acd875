"""What a check found, the machine it ran on, and both as a table and as JSON. Loads no torch."""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

Verdict = Literal["passed", "failed", "not run"]
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "flash_attn", "kernels")


@dataclass(frozen=True)
class Outcome:
    """What one check found: its figure, or why there is none."""

    verdict: Verdict
    figure: str


class NotRun(Exception):
    """Raised by a check that this machine cannot run, with the reason."""


Check = Callable[[], Outcome]


def judged(passed: bool, figure: str) -> Outcome:
    """The outcome of a check that ran."""
    return Outcome("passed" if passed else "failed", figure)


def run_check(check: Check) -> Outcome:
    """The outcome of one check; one that raises has failed, and the others go on."""
    try:
        return check()
    except NotRun as reason:
        return Outcome("not run", str(reason))
    except Exception as error:  # noqa: BLE001  # of any library: the table says which
        first, *_ = str(error).strip().split("\n")
        return Outcome("failed", f"{type(error).__name__}: {first}")


def table(outcomes: dict[str, Outcome]) -> str:
    """The outcomes as a Markdown table."""
    lines = ["| check | verdict | figure |", "|---|---|---|"]
    for name, outcome in outcomes.items():
        figure = outcome.figure.replace("|", r"\|")
        lines.append(f"| {name} | {outcome.verdict} | {figure} |")
    return "\n".join(lines)


def report(outcomes: dict[str, Outcome], gpu: str | None, seconds: float) -> dict[str, Any]:
    """The machine and the outcomes as plain values."""
    return {
        "gpu": gpu,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "seconds": round(seconds),
        "checks": {name: asdict(outcome) for name, outcome in outcomes.items()},
    }


def machine_text(found: dict[str, Any]) -> str:
    """The machine of a `report` in one line."""
    versions = [f"{name} {version}" for name, version in found["versions"].items() if version]
    words = [found["gpu"] or "no GPU", f"Python {found['python']}", *versions]
    return f"{', '.join(words)}; {found['seconds']} s"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
