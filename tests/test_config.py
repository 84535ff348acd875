"""params.yaml at the door: what is refused, and how it is told."""

from pathlib import Path

import pytest
import yaml

from vlm_r1.config import load_params, parse_params
from vlm_r1.errors import ConfigError

ROOT = Path(__file__).parents[1]
PROFILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]


@pytest.fixture
def values():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_every_committed_profile_is_valid(path):
    assert load_params(path).train.step_grid[0] == 0


def test_the_laptop_profile_has_at_least_six_checkpoints_and_a_thousand_test_records():
    params = load_params(ROOT / "params.yaml")
    assert len(params.train.step_grid) >= 7
    for name in params.test_datasets:
        split = params.draw[name]
        assert split.images * split.phrases_per_image >= 1000


def test_an_unknown_key_is_named(values):
    values["grpo"]["betta"] = 0.1
    with pytest.raises(ConfigError, match=r"grpo\.betta: Extra inputs are not permitted"):
        parse_params(values, "params.yaml")


def test_a_wrong_type_is_named_with_its_value(values):
    values["train"]["steps"] = "150"
    with pytest.raises(ConfigError, match=r"train\.steps: .*integer.*found '150'"):
        parse_params(values, "params.yaml")


def test_a_grid_that_does_not_end_on_the_last_step_is_refused(values):
    values["train"]["save_every"] = 50
    with pytest.raises(ConfigError, match="not a multiple of save_every 50"):
        parse_params(values, "params.yaml")


def test_a_missing_role_is_named(values):
    del values["datasets"]["street_test"]
    with pytest.raises(ConfigError, match="no dataset has the role 'ood'"):
        parse_params(values, "params.yaml")


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: b: c"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="need a YAML file with one section a stage"):
        load_params(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file(.|\n)*run from the project's root"):
        load_params(tmp_path / "absent.yaml")
