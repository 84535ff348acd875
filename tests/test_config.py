"""Reading params.yaml: what is refused, and what the message says."""

from pathlib import Path

import pytest
import yaml

from vlm_r1.config import load_params, parse_params, standalone
from vlm_r1.config.base import Section
from vlm_r1.config.load import ENTRIES
from vlm_r1.errors import ConfigError

ROOT = Path(__file__).parents[1]
LAPTOP = ROOT / "params.yaml"
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
FREE_KEYS = (
    "grpo.rewards",
    "train.lora",
    "sft.own_terms",
    *ENTRIES,
)  # mappings that differ between profiles


@pytest.fixture
def values():
    return yaml.safe_load(LAPTOP.read_text(encoding="utf-8"))


@pytest.fixture
def project(monkeypatch):
    """The project's root as the working folder, where other params files are looked up."""
    monkeypatch.chdir(ROOT)


def keys_of(values: dict, above: str = "") -> set[str]:
    """Dotted keys of a params file, without those in mappings of the user's own keys."""
    found = set()
    for key, value in values.items():
        dotted = f"{above}{key}"
        found.add(dotted)
        if isinstance(value, dict) and dotted not in FREE_KEYS:
            found |= keys_of(value, f"{dotted}.")
    return found


def sections(parent: type[Section] = Section) -> list[type[Section]]:
    return [s for child in parent.__subclasses__() for s in (child, *sections(child))]


def test_no_parameter_has_a_default_in_the_code():
    assert len(sections()) == 23
    optional = {
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not field.is_required()
    }
    assert optional == set()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_a_profile_has_the_keys_of_the_laptop_profile_and_no_others(path, values):
    assert len(keys_of(values)) > 90
    assert keys_of(yaml.safe_load(path.read_text(encoding="utf-8"))) == keys_of(values)


@pytest.mark.parametrize("path", [LAPTOP, *PROFILES], ids=lambda path: path.name)
def test_every_committed_profile_is_valid(path):
    assert load_params(path).train.step_grid[0] == 0


def test_commands_without_a_params_file_use_the_values_of_the_laptop_profile():
    params = load_params(LAPTOP)
    assert params.validation == standalone.VALIDATION
    assert params.report == standalone.REPORT
    assert load_params(ROOT / "profiles/lora-1gpu.yaml").train.lora == standalone.LORA


def test_the_laptop_profile_has_at_least_six_checkpoints_and_a_thousand_test_records():
    params = load_params(LAPTOP)
    assert len(params.train.step_grid) >= 7
    assert 0 < params.train.step_grid[1] <= 5, "most changes in its first steps"
    for name in params.test_datasets:
        split = params.draw[name]
        assert split.images * split.phrases_per_image >= 1000


@pytest.mark.parametrize(
    ("section", "key", "told"),
    [
        ("grpo", "betta", r"grpo\.betta: no such key; did you mean grpo\.beta\?"),
        ("train", "zzz", r"train\.zzz: no such key\n"),
    ],
)
def test_an_unknown_key_is_named_with_the_closest_known_one(values, section, key, told):
    values[section][key] = 0.1
    with pytest.raises(ConfigError, match=told):
        parse_params(values, "params.yaml")


def test_an_unknown_key_of_a_dataset_is_named_with_the_closest_known_one(values):
    values["datasets"]["street_test"]["exfi"] = "applied"
    told = r"datasets\.street_test\.exfi: no such key; did you mean datasets\.street_test\.exif\?"
    with pytest.raises(ConfigError, match=told):
        parse_params(values, "params.yaml")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("grpo.beta", "0.04"),
        ("datasets.my_test.exif", "applied"),
        ("datasets.my_test.split", "null"),
        ("report", "{confidence: 0.95, gallery: 12, prompt_matrix: false}"),
    ],
)
def test_a_missing_key_is_named_with_the_value_of_the_laptop_profile(values, path, value):
    values["datasets"]["my_test"] = dict(values["datasets"]["street_test"])
    *above, key = path.split(".")
    section = values
    for part in above:
        section = section[part]
    del section[key]
    with pytest.raises(ConfigError) as caught:
        parse_params(values, "mine.yaml")
    assert caught.value.got == f"mine.yaml: {path}: missing (params.yaml has {value})"


@pytest.mark.usefixtures("project")
def test_a_key_missing_in_params_yaml_is_named_with_the_value_of_a_profile(values):
    del values["evaluate"]["max_new_tokens"]
    told = r"evaluate\.max_new_tokens: missing \(profiles/lora-1gpu\.yaml has 256\)"
    with pytest.raises(ConfigError, match=told):
        parse_params(values, "params.yaml")


def test_every_fault_is_named(values):
    values["train"]["steps"], values["grpo"]["beta"] = "150", -1.0
    with pytest.raises(ConfigError, match=r"train\.steps: .*; grpo\.beta: .*equal to 0 "):
        parse_params(values, "params.yaml")


def test_a_wrong_type_is_named_with_its_value(values):
    values["train"]["steps"] = "150"
    with pytest.raises(ConfigError, match=r"train\.steps: .*integer.*found '150'"):
        parse_params(values, "params.yaml")


@pytest.mark.parametrize(
    ("checkpoints", "grid"),
    [
        (40, [0, 40, 80, 120]),
        (50, [0, 50, 100, 120]),
        (120, [0, 120]),
        ([2, 20], [0, 2, 20, 120]),
        ([2, 20, 120], [0, 2, 20, 120]),
    ],
)
def test_the_step_grid_starts_at_the_base_and_ends_at_the_last_step(values, checkpoints, grid):
    values["train"] |= {"steps": 120, "checkpoints": checkpoints}
    assert parse_params(values, "params.yaml").train.step_grid == grid


@pytest.mark.parametrize(
    ("checkpoints", "told"),
    [
        (0, r"need a number of steps, or a list of steps from 1 on \(found 0\)"),
        ([], r"need a number of steps, or a list of steps from 1 on \(found \[\]\)"),
        ([0, 20], r"from 1 on \(found \[0, 20\]\)"),
        ([2.5], r"from 1 on \(found \[2\.5\]\)"),
        ("20", r"from 1 on \(found '20'\)"),
        (True, r"from 1 on \(found True\)"),
        ([20, 5], r"must ascend, each once \(found \[20, 5\]\)"),
        ([5, 5], r"must ascend, each once \(found \[5, 5\]\)"),
        (121, r"step 121 is after the last one, 120 \(.*"),
        ([2, 140], r"step 140 is after the last one, 120 \(.*"),
    ],
)
def test_a_step_grid_that_cannot_be_trained_is_refused_with_its_value(values, checkpoints, told):
    values["train"] |= {"steps": 120, "checkpoints": checkpoints}
    with pytest.raises(ConfigError, match=rf"train\.checkpoints: .*{told}\n"):
        parse_params(values, "params.yaml")


def test_a_method_may_train_on_after_the_steps_that_both_have(values):
    values["train"] |= {"steps": 60, "checkpoints": [2, 20, 80]}
    values["sft"]["steps"] = 100
    params = parse_params(values, "params.yaml")
    assert params.train.step_grid == params.step_grid("grpo") == [0, 2, 20, 60]
    assert params.step_grid("sft") == [0, 2, 20, 60, 80, 100]


@pytest.mark.parametrize(
    ("sft", "grpo", "told"),
    [
        ([1e-4], [1e-4], r"search\.sft\.learning_rate: .*two or more different values"),
        ([1e-4, 1e-4], [1e-5, 1e-4], r"search\.sft\.learning_rate: .*two or more different"),
        ([1e-4, 1e-5], [], "2 candidates for sft and 0 for grpo: more tries are an advantage"),
    ],
)
def test_a_search_that_is_not_equal_care_is_refused(values, sft, grpo, told):
    values["search"] |= {"sft": {"learning_rate": sft}, "grpo": {"learning_rate": grpo}}
    with pytest.raises(ConfigError, match=told):
        parse_params(values, "params.yaml")


def test_unequal_numbers_of_candidates_must_be_stated(values):
    values["search"]["sft"]["learning_rate"] = [1e-4, 1e-5]
    values["search"]["unequal"] = True
    params = parse_params(values, "params.yaml")
    assert (params.candidates("sft"), params.candidates("grpo")) == ([1e-4, 1e-5], [])


@pytest.mark.parametrize("path", [LAPTOP, *PROFILES], ids=lambda path: path.name)
def test_no_committed_profile_searches(path):
    assert [load_params(path).candidates(method) for method in ("sft", "grpo")] == [[], []]


def test_a_method_with_fewer_steps_than_both_share_is_refused(values):
    values["grpo"]["steps"] = 100
    with pytest.raises(ConfigError, match=r"grpo\.steps 100 is below train\.steps 120"):
        parse_params(values, "params.yaml")


def test_a_missing_role_is_named(values):
    del values["datasets"]["street_test"]
    with pytest.raises(ConfigError, match="no dataset has the role 'ood'"):
        parse_params(values, "params.yaml")


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: b: c"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="need a YAML file with one section per stage"):
        load_params(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file(.|\n)*run from the project's root"):
        load_params(tmp_path / "absent.yaml")
