"""The fairness contract: each field that differs is named with both values."""

import pytest

from tests.conftest import small_values
from vlm_r1.config import Params, parse_params
from vlm_r1.errors import ContractError
from vlm_r1.rec.contract import (
    Contract,
    differences,
    evaluation_contract,
    require_equal,
    training_contract,
)

TERMS = {
    "base_digest": "b1",
    "base_revision": None,
    "training_records_digest": "r1",
    "min_pixels": 1,
    "max_pixels": 2,
    "coordinate_space": "input",
    "prompts_per_step": 16,
    "step_grid": [0, 5],
    "seed": 1,
    "dtype": "float32",
    "prompts": {"sft": "plain", "grpo": "r1"},
    "trained_min_pixels": 1,
    "trained_max_pixels": 2,
    "trained_coordinate_space": "input",
    "max_new_tokens": 64,
    "engine": "transformers, eager attention",
    "repeats": "none",
}
OTHER = {
    "base_digest": "b2",
    "base_revision": "a" * 40,
    "training_records_digest": "r2",
    "min_pixels": 2,
    "max_pixels": 3,
    "coordinate_space": "unit",
    "prompts_per_step": 8,
    "step_grid": [0, 9],
    "seed": 2,
    "dtype": "bfloat16",
    "prompts": {"sft": "json", "grpo": "r1"},
    "trained_min_pixels": 2,
    "trained_max_pixels": 3,
    "trained_coordinate_space": "original",
    "max_new_tokens": 32,
    "engine": "vllm",
    "repeats": "3 at temperature 1",
    "parser_version": "0",
    "scoring_version": "0",
    "decoding": "sampled",
}


def test_every_field_of_the_contract_is_tried_here():
    assert set(OTHER) == set(Contract.model_fields)


@pytest.mark.parametrize("field", sorted(OTHER))
def test_a_difference_in_one_field_is_refused_with_both_values(field):
    ours = Contract(**TERMS).model_dump()
    theirs = ours | {field: OTHER[field]}
    with pytest.raises(ContractError, match=f"a and b differ in {field}") as raised:
        require_equal({"a": ours, "b": theirs})
    assert repr(ours[field]) in str(raised.value)
    assert repr(OTHER[field]) in str(raised.value)


# What in params.yaml sets each term; digests come from files, versions and decoding from the code.
SETTINGS = {
    "base_revision": ("task", "revision", "a" * 40),
    "min_pixels": ("task", "min_pixels", 4000),
    "max_pixels": ("task", "max_pixels", 99_999),
    "coordinate_space": ("task", "coordinate_space", "thousand"),
    "prompts_per_step": ("train", "prompts_per_step", 4),
    "step_grid": ("train", "checkpoints", 2),
    "seed": ("experiment", "seed", 7),
    "dtype": ("task", "dtype", "bfloat16"),
    "prompts": ("task", "prompts", {"sft": "json", "grpo": "r1"}),
    "max_new_tokens": ("evaluate", "max_new_tokens", 9),
    "engine": ("evaluate", "engine", "vllm"),
    "repeats": ("evaluate", "repeats", 3),
}
FROM_FILES = {"base_digest", "training_records_digest"}
FROM_TASK = {  # while no method has terms of its own: tests/test_own_terms.py has the other case
    "trained_min_pixels": "min_pixels",
    "trained_max_pixels": "max_pixels",
    "trained_coordinate_space": "coordinate_space",
}
FROM_CODE = {"decoding", "parser_version", "scoring_version"}


def contract_of(params: Params, base: str = "b", records: str = "r") -> dict:
    return evaluation_contract(training_contract(params, base, records), params).model_dump()


def test_every_term_has_a_source():
    named = set(SETTINGS) | set(FROM_TASK) | FROM_FILES | FROM_CODE
    assert named == set(Contract.model_fields)


@pytest.mark.parametrize("field", sorted(SETTINGS))
def test_a_changed_parameter_changes_its_term_and_no_other(field):
    section, key, value = SETTINGS[field]
    values = small_values()
    before = contract_of(parse_params(values, "before"))
    values[section][key] = value
    after = contract_of(parse_params(values, "after"))
    found = [line.partition(":")[0] for line in differences(before, after)]
    assert [FROM_TASK.get(term, term) for term in found] in ([field], [field, field])


def test_the_temperature_is_a_term_only_where_answers_are_sampled():
    values = small_values()
    values["evaluate"]["temperature"] = 0.7
    assert contract_of(parse_params(values, "t"))["repeats"] == "none"
    values["evaluate"]["repeats"] = 3
    assert contract_of(parse_params(values, "t"))["repeats"] == "3 at temperature 0.7"


def test_the_attention_is_part_of_the_engine_unless_vllm_chooses_it():
    values = small_values()
    values["task"]["attention"] = "sdpa"
    assert contract_of(parse_params(values, "t"))["engine"] == "transformers, sdpa attention"
    values["evaluate"]["engine"] = "vllm"
    assert contract_of(parse_params(values, "t"))["engine"] == "vllm"


def test_another_base_and_other_records_change_their_digests_alone():
    params = parse_params(small_values(), "small")
    changed = differences(contract_of(params), contract_of(params, "b2", "r2"))
    assert changed == ["base_digest: 'b' != 'b2'", "training_records_digest: 'r' != 'r2'"]


def test_equal_contracts_have_one_digest_and_no_differences():
    assert Contract(**TERMS).digest == Contract(**TERMS).digest
    assert Contract(**TERMS).digest != Contract(**TERMS | {"seed": 2}).digest
    assert differences(TERMS, dict(TERMS)) == []


def test_a_missing_field_is_a_difference():
    assert differences({"a": 1}, {}) == ["a: 1 != None"]
