"""What training cost per percent point gained out of domain."""

from vlm_r1.report.analysis import LastStep, MethodGain
from vlm_r1.report.schema import Cost, CostPerPoint

NO_GAIN = "no gain is shown: its interval includes zero"
LOSS = "it lost accuracy"
NO_START = "there is no step 0 to gain from"


def cost_per_point(costs: list[Cost], ood: LastStep) -> list[CostPerPoint]:
    """Training seconds and tokens per point gained since step 0, for each method with a cost.

    The ratio is given only if the whole interval of the gain is above zero; otherwise it could be
    infinite or negative.

    Example: 100 s and a gain of 4 points (2 to 5) -> 25 s a point (20 to 50)
    """
    gains = {gain.method: gain for gain in ood.gains}
    return [_line(cost, ood, gains.get(cost.method)) for cost in costs]


def _line(cost: Cost, ood: LastStep, found: MethodGain | None) -> CostPerPoint:
    line = CostPerPoint(
        method=cost.method,
        dataset=ood.dataset,
        step=ood.step,
        gain=None,
        gain_ci_low=None,
        gain_ci_high=None,
        reason=NO_START,
    )
    if found is None:
        return line
    mean, low, high, _ = found.gain
    reason = None if low > 0 else LOSS if high < 0 else NO_GAIN
    gain = {"gain": mean, "gain_ci_low": low, "gain_ci_high": high, "reason": reason}
    if low <= 0:
        return line.model_copy(update=gain)
    return line.model_copy(
        update={
            **gain,
            "seconds": cost.seconds / mean,
            "seconds_ci_low": cost.seconds / high,
            "seconds_ci_high": cost.seconds / low,
            "tokens": cost.tokens / mean,
            "tokens_ci_low": cost.tokens / high,
            "tokens_ci_high": cost.tokens / low,
        }
    )
