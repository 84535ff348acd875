"""The fairness contract: each field that differs is named with both values."""

import pytest

from vlm_r1.contract import Contract, differences, require_equal
from vlm_r1.errors import ContractError

TERMS = {
    "base_digest": "b1",
    "training_records_digest": "r1",
    "min_pixels": 1,
    "max_pixels": 2,
    "frame": "input",
    "prompts_per_step": 16,
    "step_grid": [0, 5],
    "seed": 1,
    "dtype": "float32",
    "prompts": {"sft": "plain", "grpo": "r1"},
    "max_new_tokens": 64,
}
OTHER = {
    "base_digest": "b2",
    "training_records_digest": "r2",
    "min_pixels": 2,
    "max_pixels": 3,
    "frame": "unit",
    "prompts_per_step": 8,
    "step_grid": [0, 9],
    "seed": 2,
    "dtype": "bfloat16",
    "prompts": {"sft": "json", "grpo": "r1"},
    "max_new_tokens": 32,
    "parser_version": "0",
    "scoring_version": "0",
}


def test_every_field_of_the_contract_is_tried_here():
    assert set(OTHER) | {"decoding"} == set(Contract.model_fields)


@pytest.mark.parametrize("field", sorted(OTHER))
def test_a_difference_in_one_field_is_refused_with_both_values(field):
    ours = Contract(**TERMS).model_dump()
    theirs = ours | {field: OTHER[field]}
    with pytest.raises(ContractError, match=f"a and b differ in {field}") as raised:
        require_equal({"a": ours, "b": theirs})
    assert repr(ours[field]) in str(raised.value)
    assert repr(OTHER[field]) in str(raised.value)


def test_equal_contracts_have_one_digest_and_no_differences():
    assert Contract(**TERMS).digest == Contract(**TERMS).digest
    assert Contract(**TERMS).digest != Contract(**TERMS | {"seed": 2}).digest
    assert differences(TERMS, dict(TERMS)) == []


def test_a_missing_field_is_a_difference():
    assert differences({"a": 1}, {}) == ["a: 1 != None"]
