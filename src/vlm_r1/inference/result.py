"""Records and their completions -> the result file of one checkpoint on one dataset."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vlm_r1.data.records import BOX
from vlm_r1.evaluation.detection import answered_objects, match_objects
from vlm_r1.inference.questions import Completion
from vlm_r1.rec import prompts
from vlm_r1.rec.boxes import iou, is_hit
from vlm_r1.rec.objects import LabeledBox, boxes_of, hull, read_objects
from vlm_r1.rec.parsing import box_in_original, parse_answer
from vlm_r1.rec.results import ResultFile, ResultObject, ResultRow


def build_result(
    records: pd.DataFrame,
    completions: list[Completion],
    coordinate_space: str,
    meta: dict[str, Any],
    sampled: Sequence[list[Completion]] = (),
) -> ResultFile:
    """Parse and score `completions`, one for each record in the same order.

    Args:
        coordinate_space: the one the model writes boxes in; result rows hold original pixels.
        meta: stored in the file unchanged.
        sampled: further completions of all records, a list for each repeat.
    """
    rows = _result_rows(records, completions, coordinate_space)
    if sampled:
        repeats = [_result_rows(records, one, coordinate_space) for one in sampled]
        rows = [
            row.model_copy(update={"sampled_correct": [answer.correct for answer in answers]})
            for row, *answers in zip(rows, *repeats, strict=True)
        ]
    hits = sum(row.correct == 1 for row in rows)
    return ResultFile(accuracy=100 * hits / len(rows), results=rows, meta=meta)


def _result_rows(
    records: pd.DataFrame, completions: list[Completion], coordinate_space: str
) -> list[ResultRow]:
    return [
        _result_row(record, completion, coordinate_space)
        for record, completion in zip(records.to_dict("records"), completions, strict=True)
    ]


def _result_row(record: dict, completion: Completion, coordinate_space: str) -> ResultRow:
    true_box = tuple(float(record[column]) for column in BOX)
    image_size = (record["height"], record["width"])
    row = ResultRow(
        question=prompts.question_for(record["expression"], bool(record.get("objects"))),
        ground_truth=true_box,
        model_output=completion.text,
        extracted_answer=None,
        correct=0,
        image=record["image"],
        input_size=completion.input_size,
        image_size=image_size,
        record_id=record["record_id"],
        new_tokens=completion.new_tokens,
        cut_off=completion.cut_off,
        split=record["split"],
    )
    if record.get("objects"):
        return _detection_row(row, read_objects(record["objects"]), coordinate_space)
    answer = parse_answer(completion.text, coordinate_space)
    box = box_in_original(answer, row.image_size, row.input_size)
    if np.isnan(box).any():
        return row
    hit = int(is_hit(iou(box, np.array(true_box))))
    return row.model_copy(update={"extracted_answer": tuple(box.tolist()), "correct": hit})


def _detection_row(row: ResultRow, true: list[LabeledBox], coordinate_space: str) -> ResultRow:
    answered = answered_objects(row, coordinate_space)
    found: dict[str, Any] = {
        "true_objects": _for_row(true),
        "answered_objects": _for_row(answered),
        "correct": int(is_hit(match_objects(answered, true).weakest)),
    }
    if answered:
        found["extracted_answer"] = tuple(hull(boxes_of(answered)).tolist())
    return row.model_copy(update=found)


def _for_row(objects: list[LabeledBox]) -> list[ResultObject]:
    return [ResultObject(bbox_2d=box, label=label) for box, label in objects]
