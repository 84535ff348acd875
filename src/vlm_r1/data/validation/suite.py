"""The checks that records must pass before training, as a declared suite.

Each check is one of Great Expectations' own expectations on one of three tables (`tables.py`):
`rows` (every row of the file), `records` (with derived columns about boxes and images) and
`splits` (number of records in each).
"""

from dataclasses import dataclass
from typing import Any, Literal

from vlm_r1.config import Validation
from vlm_r1.data.records import BOX

ROUNDING_PX = 0.01  # COCO rounds boxes to two decimals, so x + w may exceed the width by as much
SPLITS = ["train", "val", "validation", "test", "testA", "testB", "id", "ood", ""]  # "": unnamed
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"]
MODES_16_BIT = ["I;16", "I;16B", "I;16L", "I;16N"]  # `open_image` keeps the upper eight
LEAK_COLUMNS = ["image", "against_image", "by"]
CHOICE_COLUMNS = ["image", "tested_image", "tested_by"]
Table = Literal["rows", "records", "splits"]
OnFailure = Literal["as_configured", "fail", "quarantine"]


@dataclass(frozen=True)
class Check:
    """One expectation of Great Expectations with its arguments.

    Attributes:
        description: the sentence that is true if the check passes.
        columns: shown for each failing row.
        on_failure: follow `validation.on_failure`, or always fail, or always quarantine the rows.
    """

    name: str
    description: str
    columns: list[str]
    expectation: str
    arguments: dict[str, Any]
    table: Table = "records"
    on_failure: OnFailure = "as_configured"


def suite(
    role: str, bounds: Validation, *, images_inspected: bool, counts_published: bool
) -> list[Check]:
    """All checks for a dataset, in the order of the page.

    Args:
        role: the dataset's. By `bounds.on_leak`, an image that training and evaluation share
            either fails the evaluation set or is removed from the training set, and one that
            validation and a test share fails the validation set or is removed from it. Test sets
            are never reduced.
        images_inspected: whether facts of its images are known.
        counts_published: whether the published numbers of records are known.
    """
    checks = [
        _row_check(),
        *_identity_checks(bounds),
        *_phrase_checks(bounds),
        *_box_checks(bounds),
    ]
    if images_inspected:
        checks += _image_checks()
    if role == "train" and bounds.on_leak == "exclude":
        checks.append(_training_leak_check())
    if role != "train" and bounds.on_leak == "fail":
        checks.append(_evaluation_leak_check())
    if role == "validation":
        checks.append(_choice_leak_check(bounds.on_leak == "exclude"))
    if counts_published:
        checks.append(_count_check())
    return checks


def _row_check() -> Check:
    return Check(
        "row_readable",
        "Every row of the file is a record.",
        ["fault"],
        "ExpectColumnValuesToBeNull",
        {"column": "fault"},
        "rows",
    )


def _identity_checks(bounds: Validation) -> list[Check]:
    identity = ["image", "expression", *BOX]
    return [
        Check(
            "record_id_unique",
            "No two records have the same id.",
            ["record_id"],
            "ExpectColumnValuesToBeUnique",
            {"column": "record_id"},
        ),
        Check(
            "id_has_one_box",
            "Records with the same id, or the same source id in the same image, have the same box.",
            ["record_id", "image", "source_id", *BOX],
            "ExpectColumnValuesToBeBetween",
            {"column": "boxes_of_id", "max_value": 1},
        ),
        Check(
            "record_not_repeated",
            "No phrase is repeated for the same box of an image"
            f"{_except_for(bounds.max_repeated_share)}.",
            identity,
            "ExpectCompoundColumnsToBeUnique",
            {"column_list": identity, "mostly": 1 - bounds.max_repeated_share},
        ),
        Check(
            "split_known",
            f"The split is one of {', '.join(filter(None, SPLITS))}, or empty.",
            ["split"],
            "ExpectColumnValuesToBeInSet",
            {"column": "split", "value_set": SPLITS},
        ),
    ]


def _phrase_checks(bounds: Validation) -> list[Check]:
    longest = bounds.max_phrase_characters
    return [
        Check(
            "phrase_not_blank",
            "The phrase has a visible character.",
            ["expression"],
            "ExpectColumnValuesToMatchRegex",
            {"column": "expression", "regex": r"\S"},
        ),
        Check(
            "phrase_length",
            f"The phrase has at most {longest} characters.",
            ["expression"],
            "ExpectColumnValueLengthsToBeBetween",
            {"column": "expression", "max_value": longest},
        ),
    ]


def _box_checks(bounds: Validation) -> list[Check]:
    smallest, share = bounds.min_box_side_px, bounds.max_degenerate_share
    return [
        Check(
            "box_left_of_right",
            "x1 is less than x2.",
            BOX,
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": "x2", "column_B": "x1"},
        ),
        Check(
            "box_top_above_bottom",
            "y1 is less than y2.",
            BOX,
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": "y2", "column_B": "y1"},
        ),
        Check(
            "box_side",
            f"Each side of the box is at least {smallest} px{_except_for(share)}.",
            BOX,
            "ExpectColumnValuesToBeBetween",
            {"column": "box_side_px", "min_value": smallest, "mostly": 1 - share},
        ),
        Check(
            "box_inside_image",
            f"The box leaves the stated size by at most {ROUNDING_PX} px.",
            [*BOX, "width", "height"],
            "ExpectColumnValuesToBeBetween",
            {"column": "overhang_px", "max_value": ROUNDING_PX},
        ),
    ]


def _image_checks() -> list[Check]:
    # An image that cannot be opened fails image_opens only: it has no size to compare.
    return [
        Check(
            "image_opens",
            "The image exists and can be decoded to its end.",
            ["image", "image_fault"],
            "ExpectColumnValuesToBeNull",
            {"column": "image_fault"},
        ),
        _same_side("width"),
        _same_side("height"),
        Check(
            "exif_orientation",
            "The stated size is not that of the stored pixels before EXIF turns them.",
            ["image", "width", "height", "image_width", "image_height"],
            "ExpectColumnValuesToBeInSet",
            {"column": "before_turn", "value_set": [False]},
        ),
        Check(
            "image_mode",
            "The image has a mode that loading converts to RGB.",
            ["image", "image_mode"],
            "ExpectColumnValuesToBeInSet",
            {"column": "image_mode", "value_set": MODES + MODES_16_BIT},
        ),
        Check(
            "image_suffix",
            "The file's suffix matches its format.",
            ["image", "suffix_fault"],
            "ExpectColumnValuesToBeNull",
            {"column": "suffix_fault"},
        ),
    ]


def _same_side(side: str) -> Check:
    return Check(
        f"stated_{side}",
        f"The stated {side} is that of the image.",
        ["image", side, f"image_{side}"],
        "ExpectColumnPairValuesToBeEqual",
        {
            "column_A": side,
            "column_B": f"image_{side}",
            "ignore_row_if": "either_value_is_missing",
        },
    )


def _training_leak_check() -> Check:
    return Check(
        "image_not_tested_on",
        "No image is in a validation or test set.",
        LEAK_COLUMNS,
        "ExpectColumnValuesToBeNull",
        {"column": "against_image"},
        on_failure="quarantine",
    )


def _evaluation_leak_check() -> Check:
    return Check(
        "image_not_trained_on",
        "No image is in the other set.",
        LEAK_COLUMNS,
        "ExpectColumnValuesToBeNull",
        {"column": "against_image"},
        on_failure="fail",
    )


def _choice_leak_check(exclude: bool) -> Check:
    return Check(
        "image_not_chosen_on",
        "No image, on which checkpoints are chosen, is in a test set.",
        CHOICE_COLUMNS,
        "ExpectColumnValuesToBeNull",
        {"column": "tested_image"},
        on_failure="quarantine" if exclude else "fail",
    )


def _count_check() -> Check:
    return Check(
        "split_rows_published",
        "Each split has the published number of records.",
        ["split", "rows", "published"],
        "ExpectColumnPairValuesToBeEqual",
        {"column_A": "rows", "column_B": "published", "ignore_row_if": "neither"},
        "splits",
        on_failure="fail",
    )


def _except_for(share: float) -> str:
    return f", except for {share:.4%}" if share else ""
