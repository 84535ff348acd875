"""Which row of one log is which row of another."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from vlm_r1.errors import ResultError
from vlm_r1.rec.results import ResultRow


@dataclass(frozen=True)
class Pairing:
    """Rows of A and B, pair by pair in A's order.

    Attributes:
        a, b: positions in each log, from 0.
        by: what pairs them.
        only_a, only_b: rows left out because the other log lacks them.
    """

    a: list[int]
    b: list[int]
    by: str
    only_a: int
    only_b: int


def pair_rows(
    a: list[ResultRow], b: list[ResultRow], names: tuple[str, str], common: bool = False
) -> Pairing:
    """Pair rows by record id where every row of both logs has one, else by question and true box.

    The image's name counts too where the logs share any. Rows alike in all that pair by
    occurrence, the first of A with the first of B.

    Args:
        names: of the two logs, for messages.
        common: go on with the rows that both hold; without it every row must have its like.

    Raises:
        ResultError: a record id stands twice, paired rows differ in their true box, a row has no
            like (without `common`), or no row has.
    """
    by, keys_a, keys_b = _keys(a, b, names)
    position = {key: i for i, key in enumerate(numbered(keys_b))}
    pairs = [(i, position[key]) for i, key in enumerate(numbered(keys_a)) if key in position]
    only_a, only_b = len(a) - len(pairs), len(b) - len(pairs)
    if not pairs or (not common and only_a + only_b):
        raise _unpaired(keys_a, keys_b, names, by)
    for i, k in pairs:
        if a[i].ground_truth != b[k].ground_truth:
            raise ResultError(
                got=f"{by} {keys_a[i]!r}: true box {list(a[i].ground_truth)} in {names[0]}, "
                f"{list(b[k].ground_truth)} in {names[1]}",
                need="one true box a record",
                because="a difference would then be one of records, not of answers",
                do="score both on the same records",
            )
    return Pairing([i for i, _ in pairs], [k for _, k in pairs], by, only_a, only_b)


def numbered(keys: Iterable[Hashable]) -> list[tuple[Hashable, int]]:
    """Keys made unique by how often each was seen before."""
    seen: Counter = Counter()
    unique = []
    for key in keys:
        unique.append((key, seen[key]))
        seen[key] += 1
    return unique


def _keys(
    a: list[ResultRow], b: list[ResultRow], names: tuple[str, str]
) -> tuple[str, list[Hashable], list[Hashable]]:
    """What pairs rows, and its value for every row of both."""
    if all(row.record_id is not None for row in [*a, *b]):
        ids = [[row.record_id for row in rows] for rows in (a, b)]
        for name, found in zip(names, ids, strict=True):
            _require_unique(name, found)
        return "record id", *ids
    images = {row.image for row in a} & {row.image for row in b} - {None}
    keys = [
        [(row.question, row.ground_truth, row.image if images else None) for row in rows]
        for rows in (a, b)
    ]
    return "question and true box", *keys


def _require_unique(name: str, ids: list[Hashable]) -> None:
    first: dict[Hashable, int] = {}
    for number, record_id in enumerate(ids, start=1):
        if record_id in first:
            raise ResultError(
                got=f"{name}: record id {record_id!r} in rows {first[record_id]} and {number}",
                need="every record once",
                because="a record that stands twice would count twice",
                do="write the log again",
            )
        first[record_id] = number


def _unpaired(
    keys_a: list[Hashable], keys_b: list[Hashable], names: tuple[str, str], by: str
) -> ResultError:
    """The refusal of logs that do not hold the same rows, with the first row that is alone."""
    told = []
    for name, keys, others in ((names[0], keys_a, keys_b), (names[1], keys_b, keys_a)):
        known = set(numbered(others))
        alone = [i for i, key in enumerate(numbered(keys), start=1) if key not in known]
        first = f", first row {alone[0]}: {keys[alone[0] - 1]!r}" if alone else ""
        told.append(f"{name}: {len(keys)} rows, {len(alone)} not in the other{first}")
    return ResultError(
        got="; ".join(told),
        need=f"the same rows in both, told by {by}",
        because="logs are compared row by row",
        do="score both on the same records; `compare --common` takes the rows that both hold",
    )
