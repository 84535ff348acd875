"""What training cost, and what each point gained out of domain cost."""

from vlm_r1.report.analysis import LastStep, MethodGain
from vlm_r1.report.schema import Cost, CostPerPoint

NO_GAIN = "no gain is shown: its interval includes zero"
LOSS = "it lost accuracy"
NO_START = "there is no step 0 to gain from"


def cost_per_point(costs: list[Cost], ood: LastStep) -> list[CostPerPoint]:
    """Seconds and tokens of training over points gained since step 0, for each method with a cost.

    A ratio is given only where the gain's whole interval is above zero; elsewhere it would be
    infinite, negative or chance.

    Example: 100 s and a gain of 4 points (2 to 5) -> 25 s a point (20 to 50)
    """
    gains = {move.method: move for move in ood.gains}
    return [_line(cost, ood, gains.get(cost.method)) for cost in costs]


def _line(cost: Cost, ood: LastStep, move: MethodGain | None) -> CostPerPoint:
    place = {"method": cost.method, "dataset": ood.dataset, "step": ood.step}
    if move is None:
        blank = dict.fromkeys(("gain", "gain_ci_low", "gain_ci_high"))
        return CostPerPoint(**place, **blank, reason=NO_START)
    mean, low, high, _ = move.gain
    gain = {"gain": mean, "gain_ci_low": low, "gain_ci_high": high}
    if low <= 0:
        return CostPerPoint(**place, **gain, reason=LOSS if high < 0 else NO_GAIN)
    seconds, tokens = cost.seconds, cost.tokens
    return CostPerPoint(
        **place,
        **gain,
        seconds=seconds / mean,
        seconds_ci_low=seconds / high,
        seconds_ci_high=seconds / low,
        tokens=tokens / mean,
        tokens_ci_low=tokens / high,
        tokens_ci_high=tokens / low,
    )
