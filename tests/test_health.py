"""Each check of the health monitor driven from health into illness, and what an alarm does."""

import json
import math

import pytest

from tests.conftest import small_values, untracked_training
from vlm_r1.config import parse_params
from vlm_r1.config.training import Health
from vlm_r1.errors import HealthError
from vlm_r1.files import part_of
from vlm_r1.rec.rewards import REWARDS
from vlm_r1.training.health import CHECKS, HealthMonitor
from vlm_r1.training.resume import read_log

HEALTH = parse_params(small_values(), "test").health


class State:
    is_world_process_zero = True
    global_step = 0


class Control:
    should_training_stop = False


WELL = {
    "loss": 0.01,
    "grad_norm": 1.0,
    "reward_std": 0.4,
    "frac_reward_zero_std": 0.3,
    "kl": 0.02,
    "completions/mean_length": 40.0,
    "rewards/format/mean": 0.7,
    "rewards/iou/mean": 0.5,
    "parse_rate": 0.95,
}
ILL = {
    "numbers": {"grad_norm": math.inf},
    "reward_std": {"reward_std": 0.001},
    "equal_groups": {"frac_reward_zero_std": 1.0},
    "kl": {"kl": 7.0},
    "length": {"completions/mean_length": 12.0},
    "format_only": {"rewards/format/mean": 1.0, "rewards/iou/mean": 0.45},
    "parse_rate": {"parse_rate": 0.1},
}


def judged(lines, health=None, earlier=()):
    """Alarms of each line, and whether training was told to stop."""
    monitor, control = HealthMonitor(health or HEALTH, list(earlier)), Control()
    alarms = []
    for step, line in enumerate(lines):
        State.global_step, logs = step, dict(line)
        monitor.on_log(None, State, control, logs=logs)
        alarms.append([name.removeprefix("health/") for name in logs if name not in line])
    return alarms, control.should_training_stop


LAPTOP_QUANTITIES = (
    *("reward_std", "frac_reward_zero_std", "kl", "completions/mean_length"),
    *("rewards/format/mean", "rewards/iou/mean", "parse_rate"),
)
LAPTOP = [  # every second line that GRPO logged in the laptop profile
    (0.5404, 0, 0, 23, 0.9141, 0.5436, 0.9219),
    (0.4481, 0.0125, 0.04502, 22.65, 0.9734, 0.6684, 0.9578),
    (0.4292, 0.0125, 0.03909, 22.42, 0.9797, 0.6972, 0.9781),
    (0.3754, 0.0375, 0.07726, 22.5, 0.9859, 0.7442, 0.9859),
    (0.4111, 0.0125, 0.07308, 22.5, 0.9844, 0.68, 0.9859),
    (0.3898, 0.025, 0.05504, 22.42, 0.9875, 0.717, 0.9875),
    (0.4, 0.0375, 0.07317, 22.28, 0.9922, 0.6813, 0.9938),
    (0.3797, 0.0125, 0.1129, 22.44, 0.9844, 0.7422, 0.9844),
    (0.3929, 0.025, 0.2892, 22.35, 0.9875, 0.7086, 0.9844),
    (0.3377, 0.0375, 0.07107, 22.52, 0.9953, 0.7456, 0.9953),
    (0.376, 0.025, 0.05004, 22.47, 0.9891, 0.7384, 0.9875),
    (0.3947, 0.05, 0.04983, 22.45, 0.9844, 0.7332, 0.9828),
    (0.4061, 0.0625, 0.04868, 22.49, 0.9906, 0.6656, 0.9906),
]


def test_the_laptop_profile_is_well():
    lines = [{"loss": 0.0, **dict(zip(LAPTOP_QUANTITIES, row, strict=True))} for row in LAPTOP]
    assert judged(lines)[0] == [[]] * len(lines)


def test_every_check_has_its_case():
    assert {check.__name__ for check in CHECKS} == set(ILL)


@pytest.mark.parametrize("check", ILL)
def test_a_check_alarms_when_patience_ends_and_is_quiet_when_all_is_well_again(check, caplog):
    ill = {**WELL, **ILL[check]}
    patience = 1 if check == "numbers" else 3
    alarms, stopped = judged([WELL, *[ill] * 4, WELL])
    expected = [[], *[[]] * (patience - 1), *[[check]] * (5 - patience), []]
    assert alarms == expected
    assert not stopped
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"health: step {patience}: ")
    assert warning.endswith(f"({check})")


@pytest.mark.parametrize("check", [check for check in ILL if check != "numbers"])
def test_a_threshold_of_null_is_not_checked(check):
    thresholds = set(Health.model_fields) - {"on_alarm", "patience"}
    off = HEALTH.model_copy(update=dict.fromkeys(thresholds))
    assert judged([WELL, *[{**WELL, **ILL[check]}] * 5], off)[0] == [[]] * 6


def test_other_losses_than_numbers_and_longer_texts_alarm_too():
    assert judged([{**WELL, "loss": math.nan}])[0] == [["numbers"]]
    assert judged([WELL, *[{**WELL, "completions/mean_length": 130.0}] * 3])[0][-1] == ["length"]


def test_what_gains_in_boxes_too_is_no_format_only_gain():
    better = {**WELL, "rewards/format/mean": 1.0, "rewards/iou/mean": 0.6}
    assert judged([WELL, *[better] * 5])[0] == [[]] * 6


def test_lines_of_an_earlier_attempt_count():
    ill = {**WELL, **ILL["kl"]}
    assert judged([ill], earlier=[WELL, ill, ill])[0] == [["kl"]]
    assert judged([ill], earlier=[WELL, ill])[0] == [[]]


def test_lines_within_a_rollout_do_not_count():
    ill, within = {**WELL, **ILL["kl"]}, {"loss": 0.01}
    assert judged([ill, within, ill, within, ill])[0] == [[], [], [], [], ["kl"]]


def test_what_sft_logs_is_well():
    assert judged([{"loss": 2.0, "grad_norm": 3.0, "num_tokens": 10}] * 5)[0] == [[]] * 5


def test_an_alarm_stops_training_when_told_to_and_it_can_go_on(small_root, monkeypatch, caplog):
    monkeypatch.setitem(REWARDS, "iou", lambda batch: [0.0] * len(batch.texts))
    monkeypatch.setitem(REWARDS, "format", lambda batch: [0.0] * len(batch.texts))
    values = small_values()
    values["train"] |= {"steps": 4}
    values["health"] |= {"on_alarm": "stop", "patience": 2, "max_length_drift": None}
    values["health"]["min_parse_rate"] = None
    params = parse_params(values, "ill")
    with pytest.raises(HealthError, match=r"equal_groups at step 2: frac_reward_zero_std 1 is"):
        untracked_training(params, small_root, "grpo")
    growing = part_of(small_root / "models/grpo")
    assert {f.name for f in growing.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    line = read_log(growing / "training_log.jsonl")[-1]
    assert (line["health/reward_std"], line["health/equal_groups"]) == (1.0, 1.0)
    values["health"]["on_alarm"] = "warn"
    caplog.set_level("INFO", logger="vlm_r1")
    untracked_training(parse_params(values, "well"), small_root, "grpo")
    assert "grpo.part: goes on from checkpoint-2" in caplog.text
    cost = json.loads((small_root / "models/grpo/cost.json").read_text())
    assert cost["prompts"] == 8
