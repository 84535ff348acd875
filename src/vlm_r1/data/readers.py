"""Readers: a dataset's own file -> records. One function a format, all of one signature.

`reader(path, dataset, split) -> DataFrame` as in `records`. A reader drops and repairs nothing:
the first row that it cannot read is an error that names the file and the row (from 1).
"""

from pathlib import Path, PurePosixPath
from typing import Annotated

import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from vlm_r1.data.records import BOX, records_frame
from vlm_r1.errors import DataError
from vlm_r1.prompts import QUESTION, expression_in


def _inside_the_folder(image: str) -> str:
    path = PurePosixPath(image)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError("need a path relative to the dataset's picture folder")
    return image


def _says_something(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise ValueError("an empty phrase")
    return text


class _VlmR1Row(BaseModel):
    """The keys of a VLM-R1 record that are read; the other ten are derived or unused."""

    model_config = ConfigDict(strict=True, frozen=True)

    image: Annotated[str, AfterValidator(_inside_the_folder)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    solution: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]
    normal_caption: Annotated[str | None, AfterValidator(_says_something)] = None
    problem: str | None = None
    original_id: int | str | None = None
    id: int | str | None = None

    @model_validator(mode="after")
    def _has_a_phrase(self) -> "_VlmR1Row":
        if self.normal_caption is None:
            if self.problem is None:
                raise ValueError("neither normal_caption nor problem")
            _says_something(bare_expression(self.problem))
        return self

    @property
    def expression(self) -> str:
        return self.normal_caption or bare_expression(self.problem)

    @property
    def source_id(self) -> str:
        """The annotation's id, else the row's own, else nothing."""
        ids = [i for i in (self.original_id, self.id) if i is not None]
        return str(ids[0]) if ids else ""


_ROWS = TypeAdapter(Annotated[list[_VlmR1Row], Field(min_length=1)])


def read_vlm_r1_json(path: Path, dataset: str, split: str) -> pd.DataFrame:
    """Records of a VLM-R1 JSON array (rec_jsons_processed), in the file's order.

    `solution` is taken as it is: xyxy in original pixels. record_id is `<dataset>:<row>`.

    Raises:
        DataError: the file is missing or not JSON, or a row lacks a key or has a wrong value.
    """
    records = []
    for number, row in enumerate(_read_rows(path), start=1):
        record = {
            "record_id": f"{dataset}:{number:06d}",
            "image": row.image,
            "width": row.width,
            "height": row.height,
            "expression": row.expression,
            "split": split,
            "dataset": dataset,
            "source_id": row.source_id,
        }
        records.append(record | dict(zip(BOX, row.solution, strict=True)))
    return records_frame(records)


def bare_expression(problem: str) -> str:
    """The phrase in a `problem` sentence; the inverse of `prompts.question_for`.

    Raises:
        ValueError: the sentence is not VLM-R1's question.
    """
    expression = expression_in(problem)
    if expression is None:
        raise ValueError(f"problem is not the sentence {QUESTION!r}")
    return expression


def _read_rows(path: Path) -> list[_VlmR1Row]:
    try:
        return _ROWS.validate_json(path.read_bytes())
    except FileNotFoundError:
        fault = "no such file"
    except ValidationError as error:
        fault = _first_fault(error)
    raise DataError(
        got=f"{path}: {fault}",
        need="a JSON array of VLM-R1 records: image, width, height, solution [x1, y1, x2, y2] in "
        "original pixels, and normal_caption or problem",
        because="a row that is dropped or guessed would change what is measured",
        do="correct the row in the source file, or point datasets.<name>.records elsewhere",
    )


def _first_fault(error: ValidationError) -> str:
    faults = error.errors(include_url=False)
    where, message = faults[0]["loc"], faults[0]["msg"]
    if not where:
        return message
    row, *keys = where
    text = f"row {row + 1}: {''.join(f'{key}: ' for key in keys)}{message}"
    return text + (f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else "")
