"""Result rows as columns: what a report keeps of every file that it reads. Numpy and pandas only.

A row as an object takes 2 to 3 kB, and a report reads one file for each method, seed, step and
dataset. As columns, a row is its completion in an Arrow string array and a few numbers. What the
files of a dataset have in common (questions, images, true boxes) is held once: `share`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, overload

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from vlm_r1.evaluation.pairing import RowKeys
from vlm_r1.evaluation.scores import Scores
from vlm_r1.rec.results import ResultRow

KEPT_EXTRAS = ("category", "split")  # fields beyond those of `ResultRow` that reports slice by

Columns = TypeVar("Columns", "RecordColumns", Scores)


@dataclass(frozen=True, eq=False)
class RecordColumns:
    """What result files say about records rather than answers, one entry per row.

    Attributes:
        record_id, category, split: of objects; None where a file has none.
        question, image: of strings; NaN where a log names no image.
        true_boxes: (n, 4) xyxy, original pixels.
        image_size, input_size: (n, 2) as (height, width); NaN where unknown.
    """

    record_id: np.ndarray
    category: np.ndarray
    split: np.ndarray
    question: ExtensionArray
    image: ExtensionArray
    true_boxes: np.ndarray
    image_size: np.ndarray
    input_size: np.ndarray


@dataclass(frozen=True, eq=False)
class RowTable(Sequence[ResultRow]):
    """Rows of one file as columns; an index or an iteration builds the row that it gives.

    Of fields that `ResultRow` does not declare, `KEPT_EXTRAS` are kept.

    Attributes:
        completion: of strings.
        extracted: (n, 4) the boxes that the file holds; NaN where it holds none.
        correct: (n,) as the file states it; NaN where it does not.
        new_tokens, cut_off: (n,); NaN where the file has none.
        sampled_correct: (n, repeats); None if a row has none, or another number of them.
    """

    records: RecordColumns
    completion: ExtensionArray
    extracted: np.ndarray
    correct: np.ndarray
    new_tokens: np.ndarray
    cut_off: np.ndarray
    sampled_correct: np.ndarray | None

    @classmethod
    def of(cls, rows: Sequence[ResultRow], scores: Scores) -> "RowTable":
        """The columns of a file's rows; arrays that its scores hold anyway are not copied."""
        extras = [row.model_extra or {} for row in rows]
        category, split = (_objects([e.get(name) for e in extras]) for name in KEPT_EXTRAS)
        nowhere = (np.nan,) * 4
        extracted = np.array([row.extracted_answer or nowhere for row in rows], dtype=float)
        return cls(
            records=RecordColumns(
                record_id=_objects([row.record_id for row in rows]),
                category=category,
                split=split,
                question=_strings([row.question for row in rows]),
                image=_strings([row.image for row in rows]),
                true_boxes=scores.true_boxes,
                image_size=scores.image_size,
                input_size=scores.input_size,
            ),
            completion=_strings([row.model_output for row in rows]),
            extracted=_same_or_own(scores.boxes, extracted),
            correct=_floats([row.correct for row in rows]),
            new_tokens=_floats([row.new_tokens for row in rows]).astype(np.float32),
            cut_off=_floats([row.cut_off for row in rows]).astype(np.float16),
            sampled_correct=_matrix_or_none([row.sampled_correct for row in rows]),
        )

    def __len__(self) -> int:
        return len(self.correct)

    @overload
    def __getitem__(self, index: int) -> ResultRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[ResultRow]: ...
    def __getitem__(self, index: int | slice) -> ResultRow | list[ResultRow]:
        if isinstance(index, slice):
            return [self._row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._row(index)

    def __iter__(self) -> Iterator[ResultRow]:
        return map(self._row, range(len(self)))

    @property
    def names_all_images(self) -> bool:
        """Whether every row names its image."""
        return not bool(pd.isna(self.records.image).any())

    def keys(self) -> RowKeys:
        """What the rows are paired by with those of another file."""
        return RowKeys(
            record_ids=self.records.record_id.tolist(),
            questions=list(self.records.question),
            true_boxes=[tuple(box) for box in self.records.true_boxes.tolist()],
            images=[_or_none(name) for name in self.records.image],
        )

    def take(self, order: list[int]) -> "RowTable":
        """The rows at positions `order`, in that order."""
        records = {f.name: getattr(self.records, f.name)[order] for f in fields(RecordColumns)}
        return RowTable(
            records=RecordColumns(**records),
            completion=self.completion[order],
            extracted=self.extracted[order],
            correct=self.correct[order],
            new_tokens=self.new_tokens[order],
            cut_off=self.cut_off[order],
            sampled_correct=None if self.sampled_correct is None else self.sampled_correct[order],
        )

    def _row(self, i: int) -> ResultRow:
        records = self.records
        extras = {name: getattr(records, name)[i] for name in KEPT_EXTRAS}
        return ResultRow.model_construct(
            question=records.question[i],
            ground_truth=tuple(records.true_boxes[i].tolist()),
            model_output=self.completion[i],
            extracted_answer=_numbers(self.extracted[i], float),
            correct=None if np.isnan(self.correct[i]) else int(self.correct[i]),
            image=_or_none(records.image[i]),
            input_size=_numbers(records.input_size[i], int),
            image_size=_numbers(records.image_size[i], int),
            record_id=records.record_id[i],
            new_tokens=None if np.isnan(self.new_tokens[i]) else int(self.new_tokens[i]),
            cut_off=None if np.isnan(self.cut_off[i]) else bool(self.cut_off[i]),
            sampled_correct=self._sampled(i),
            **{name: value for name, value in extras.items() if value is not None},
        )

    def _sampled(self, i: int) -> list[int] | None:
        found = self.sampled_correct
        return None if found is None else [int(hit) for hit in found[i]]


def share(reference: RowTable, rows: RowTable) -> RowTable:
    """`rows` with every column of its records that equals `reference`'s replaced by it."""
    names = [field.name for field in fields(RecordColumns)]
    return replace(rows, records=_shared(reference.records, rows.records, names))


def share_scores(reference: Scores, scores: Scores) -> Scores:
    """`scores` with the arrays about records that equal `reference`'s replaced by these."""
    return _shared(reference, scores, ["images", "true_boxes", "image_size", "input_size"])


def _shared(reference: Columns, own: Columns, names: list[str]) -> Columns:
    equal = {name: _same_or_own(getattr(reference, name), getattr(own, name)) for name in names}
    return replace(own, **equal)


def _same_or_own(reference: Any, own: Any) -> Any:
    """`reference` if both arrays are equal, NaN to NaN; else `own`."""
    if own is reference:
        return own
    if isinstance(own, np.ndarray):
        numbers = own.dtype.kind == "f"
        return reference if np.array_equal(reference, own, equal_nan=numbers) else own
    return reference if own.equals(reference) else own


def _strings(values: list[Any]) -> ExtensionArray:
    """Strings in one Arrow buffer; None becomes NaN."""
    strings: ExtensionArray = pd.array(values, dtype="str")
    return strings


def _floats(values: Sequence[float | None]) -> np.ndarray:
    """(n,); None becomes NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _matrix_or_none(rows: Sequence[Sequence[int] | None]) -> np.ndarray | None:
    """(n, k) of bool; None unless every row has the same number of values, at least one."""
    if len({len(row or ()) for row in rows}) != 1 or not rows[0]:
        return None
    return np.array(rows, dtype=bool)


def _objects(values: list[Any]) -> np.ndarray:
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects


def _or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _numbers(values: np.ndarray, kind: type) -> tuple[Any, ...] | None:
    """A tuple of numbers of `kind`; None where they are NaN."""
    return None if np.isnan(values).any() else tuple(map(kind, values.tolist()))
