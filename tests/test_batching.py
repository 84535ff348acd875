"""Batches under a token budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_r1.inference.batching import plan_batches


@pytest.mark.parametrize(
    ("tokens", "images", "budget", "expected"),
    [
        # 2 x (40 + 10) = 100: b's two rows do not fit next to a's one
        ([40, 30, 30, 20], "abbc", 100, [[0], [1, 2], [3]]),
        ([40, 30, 30, 20], "abcd", 100, [[0, 1], [2, 3]]),
        ([40, 30, 30, 20], "abcd", 99, [[0], [1, 2], [3]]),
        ([20, 30, 40, 30], "abcd", 100, [[2, 1], [3, 0]]),  # longest first
        ([20, 40, 20], "aba", 150, [[1, 0, 2]]),  # rows of one image stay together
        ([20, 20, 20], "aaa", 60, [[0, 1], [2]]),  # unless they exceed the budget together
        ([90, 20], "ab", 60, [[0], [1]]),  # above the budget: a batch of its own
        ([], "", 100, []),
    ],
)
def test_batches_worked_by_hand(tokens, images, budget, expected):
    assert plan_batches(tokens, images, 10, budget) == expected


rows = st.lists(st.tuples(st.integers(1, 300), st.integers(0, 9)), max_size=60)


@given(rows=rows, new=st.integers(1, 64), budget=st.integers(1, 4000))
def test_every_row_is_in_one_batch_and_only_a_single_row_exceeds_the_budget(rows, new, budget):
    tokens = [row[0] for row in rows]
    batches = plan_batches(tokens, [row[1] for row in rows], new, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        cost = len(batch) * (max(tokens[row] for row in batch) + new)
        assert batch
        assert len(batch) == 1 or cost <= budget


@given(rows=rows, new=st.integers(1, 64), budget=st.integers(1, 4000))
def test_an_image_is_split_only_if_its_rows_exceed_the_budget(rows, new, budget):
    tokens, images = [row[0] for row in rows], [row[1] for row in rows]
    batches = plan_batches(tokens, images, new, budget)
    for image in set(images):
        own = [row for row, name in enumerate(images) if name == image]
        holders = [batch for batch in batches if set(batch) & set(own)]
        needed = len(own) * (max(tokens[row] for row in own) + new)
        assert len(holders) == 1 or needed > budget
