"""Pairs the rows of two logs of the same records."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vlm_r1.errors import ResultError
from vlm_r1.rec.results import Box, ResultRow


@dataclass(frozen=True)
class Pairing:
    """Rows of A and B, pair by pair in A's order.

    Attributes:
        a, b: positions in each log, from 0.
        by: what the rows are paired by.
        only_a, only_b: number of rows left out because the other log lacks them.
    """

    a: list[int]
    b: list[int]
    by: str
    only_a: int
    only_b: int


class RowKeys(NamedTuple):
    """What identifies the rows of a log, one entry per row."""

    record_ids: list[str | int | None]
    questions: list[str]
    true_boxes: list[Box]
    images: list[str | None]


@dataclass(frozen=True)
class _Keys:
    """What rows are paired by, and its value for every row of A and B."""

    by: str
    a: Sequence[Hashable]
    b: Sequence[Hashable]


def keys_of(rows: Sequence[ResultRow]) -> RowKeys:
    """What the rows of a log are paired by."""
    return RowKeys(
        record_ids=[row.record_id for row in rows],
        questions=[row.question for row in rows],
        true_boxes=[row.ground_truth for row in rows],
        images=[row.image for row in rows],
    )


def pair_rows(a: RowKeys, b: RowKeys, names: tuple[str, str], common: bool = False) -> Pairing:
    """Pair rows by record id if every row of both logs has one, else by question and true box.

    The image's name counts too if the logs share any. Rows that are equal in all of this are paired
    by occurrence: the first of A with the first of B.

    Args:
        names: of the two logs, for messages.
        common: use the rows that both logs have; without it every row must have a partner.

    Raises:
        ResultError: a record id is repeated, paired rows have different true boxes, a row has no
            partner (without `common`), or no row has one.
    """
    keys = _keys(a, b, names)
    position = {key: i for i, key in enumerate(numbered(keys.b))}
    pairs = [(i, position[key]) for i, key in enumerate(numbered(keys.a)) if key in position]
    only_a, only_b = len(keys.a) - len(pairs), len(keys.b) - len(pairs)
    if not pairs or (not common and only_a + only_b):
        raise _unpaired(keys, names)
    for i, k in pairs:
        if a.true_boxes[i] != b.true_boxes[k]:
            raise ResultError(
                got=f"{keys.by} {keys.a[i]!r}: true box {list(a.true_boxes[i])} in {names[0]}, "
                f"{list(b.true_boxes[k])} in {names[1]}",
                need="one true box per record",
                because="the difference would be between records, not between answers",
                do="score both on the same records",
            )
    return Pairing([i for i, _ in pairs], [k for _, k in pairs], keys.by, only_a, only_b)


def numbered(keys: Iterable[Hashable]) -> list[tuple[Hashable, int]]:
    """Keys made unique by how often each occurred before."""
    seen: Counter[Hashable] = Counter()
    unique = []
    for key in keys:
        unique.append((key, seen[key]))
        seen[key] += 1
    return unique


def _keys(a: RowKeys, b: RowKeys, names: tuple[str, str]) -> _Keys:
    if None not in a.record_ids and None not in b.record_ids:
        for name, rows in zip(names, (a, b), strict=True):
            _require_unique(name, rows.record_ids)
        return _Keys("record id", a.record_ids, b.record_ids)
    share_images = set(a.images) & set(b.images) - {None}
    keys = [
        list(
            zip(
                rows.questions,
                rows.true_boxes,
                rows.images if share_images else [None] * len(rows.images),
                strict=True,
            )
        )
        for rows in (a, b)
    ]
    return _Keys("question and true box", *keys)


def _require_unique(name: str, ids: Sequence[Hashable]) -> None:
    first: dict[Hashable, int] = {}
    for number, record_id in enumerate(ids, start=1):
        if record_id in first:
            raise ResultError(
                got=f"{name}: record id {record_id!r} in rows {first[record_id]} and {number}",
                need="every record once",
                because="a repeated record would count twice",
                do="write the log again",
            )
        first[record_id] = number


def _unpaired(keys: _Keys, names: tuple[str, str]) -> ResultError:
    """The error for logs with different rows, naming the first row without a partner."""
    found = []
    for name, own, others in ((names[0], keys.a, keys.b), (names[1], keys.b, keys.a)):
        known = set(numbered(others))
        alone = [i for i, key in enumerate(numbered(own), start=1) if key not in known]
        first = f", first row {alone[0]}: {own[alone[0] - 1]!r}" if alone else ""
        found.append(f"{name}: {len(own)} rows, {len(alone)} not in the other{first}")
    return ResultError(
        got="; ".join(found),
        need=f"the same rows in both, identified by {keys.by}",
        because="logs are compared row by row",
        do="score both on the same records; `compare --common` takes the rows that both hold",
    )
