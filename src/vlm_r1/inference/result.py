"""One unit, (checkpoint, dataset): records in, a result file's content out."""

import pandas as pd

from vlm_r1.data.records import BOX
from vlm_r1.inference.questions import Completion
from vlm_r1.rec import prompts
from vlm_r1.rec.boxes import iou, is_hit
from vlm_r1.rec.parsing import box_in_original, parse_answer
from vlm_r1.rec.results import ResultFile, ResultRow


def build_result(
    records: pd.DataFrame, completions: list[Completion], coordinate_space: str, meta: dict
) -> ResultFile:
    """Parse and score `completions` (one a record, same order) into a result file.

    Args:
        coordinate space: the coordinate space the model speaks in; boxes are stored in original
            pixels.
        meta: the unit's metadata, stored as it is.
    """
    rows = [
        _row(record, completion, coordinate_space)
        for record, completion in zip(records.to_dict("records"), completions, strict=True)
    ]
    hits = sum(row.correct for row in rows)
    return ResultFile(accuracy=100 * hits / len(rows), results=rows, meta=meta)


def _row(record: dict, completion: Completion, coordinate_space: str) -> ResultRow:
    truth = tuple(float(record[column]) for column in BOX)
    row = ResultRow(
        question=prompts.question_for(record["expression"]),
        ground_truth=truth,
        model_output=completion.text,
        extracted_answer=None,
        correct=0,
        image=record["image"],
        input_size=completion.input_size,
        image_size=(record["height"], record["width"]),
        record_id=record["record_id"],
        split=record["split"],
    )
    answer = parse_answer(completion.text, coordinate_space)
    box = box_in_original(answer, row.image_size, row.input_size)
    if pd.isna(box).any():
        return row
    hit = int(is_hit(iou(box, truth)))
    return row.model_copy(update={"extracted_answer": tuple(box.tolist()), "correct": hit})
