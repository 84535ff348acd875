"""How the report writes methods, places, differences and p values."""

from vlm_r1.report.schema import Estimate
from vlm_r1.stats.intervals import Difference

NAMES = {"sft": "SFT", "grpo": "GRPO"}
PLACES = {"id": "in domain", "ood": "out of domain"}


def points(value: float) -> str:
    """Percent points with their sign, e.g. "+4.1"; "0.0" if they round to zero."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def span(difference: Difference) -> str:
    """An interval in words, e.g. "-1.2 to +3.4"."""
    return f"{points(difference.low)} to {points(difference.high)}"


def p_text(p_value: float) -> str:
    """E.g. "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def runs_text(seeds: int) -> str:
    """How many training runs a comparison rests on."""
    return "one training run of each method" if seeds == 1 else f"{seeds} seeds of each method"


def mean_of(datasets: list[str]) -> str:
    """E.g. "gta" or "mean of gta, lisa"."""
    return datasets[0] if len(datasets) == 1 else f"mean of {', '.join(datasets)}"


def sign(difference: Difference) -> int:
    """1 or -1 if the whole interval lies on one side of zero, else 0."""
    return int(difference.low > 0) - int(difference.high < 0)


def estimate(found: Difference) -> Estimate:
    """A difference as report.json has it."""
    return Estimate(points=found.mean, ci_low=found.low, ci_high=found.high, p_value=found.p_value)
