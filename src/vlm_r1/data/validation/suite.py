"""What records must be like before anything is trained on them, declared: a suite a role.

Each check is an expectation that Great Expectations ships, over one of three tables (`facts`):
`rows` (what the file holds, read or not), `records` (with what is known of boxes and images) and
`splits` (how many records each has).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from vlm_r1.config import Validation
from vlm_r1.data.records import BOX

ROUNDING_PX = 0.01  # COCO states boxes with two decimals, so x + w may pass the side by that much
SPLITS = ["train", "val", "validation", "test", "testA", "testB", "id", "ood", ""]  # "": unnamed
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"]
MODES_16_BIT = ["I;16", "I;16B", "I;16L", "I;16N"]  # `open_image` keeps the upper eight
ResultsTable = Literal["rows", "records", "splits"]
# What becomes of records that fail: `settled` as validation.on_failure says, or in one way always.
Remedy = Literal["settled", "fail", "set_aside"]


@dataclass(frozen=True)
class Check:
    """One expectation: a class of Great Expectations and its terms.

    Attributes:
        says: the sentence that holds when the check passes.
        shows: the columns that an offending record is shown with.
    """

    name: str
    says: str
    shows: list[str]
    kind: str
    terms: dict[str, Any]
    table: ResultsTable = "records"
    remedy: Remedy = field(default="settled")


def suite(role: str, bounds: Validation, looked_at: bool, counted: bool) -> list[Check]:
    """Everything that is asked of a dataset, in the page's order.

    Args:
        role: the dataset's. What training and tests share is held against the tests, which stay
            whole, or is taken out of the training set: `bounds.on_leak`.
        looked_at: whether its images were opened.
        counted: whether published counts are known.
    """
    held_against = "train" if bounds.on_leak == "exclude" else "tests"
    return [
        _row_check(),
        *_identity_checks(bounds),
        *_phrase_checks(bounds),
        *_box_checks(bounds),
        *(_image_checks() if looked_at else []),
        *([_leak_check(role)] if (role == "train") == (held_against == "train") else []),
        *([_count_check()] if counted else []),
    ]


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
            "No two records have one id.",
            ["record_id"],
            "ExpectColumnValuesToBeUnique",
            {"column": "record_id"},
        ),
        Check(
            "id_has_one_box",
            "Records with one id, or with one source id in one image, have one box.",
            ["record_id", "image", "source_id", *BOX],
            "ExpectColumnValuesToBeBetween",
            {"column": "boxes_of_id", "max_value": 1},
        ),
        Check(
            "record_not_repeated",
            "No image has the same phrase for the same box twice"
            f"{_but_for(bounds.max_repeated_share)}.",
            identity,
            "ExpectCompoundColumnsToBeUnique",
            {"column_list": identity, "mostly": 1 - bounds.max_repeated_share},
        ),
        Check(
            "split_known",
            f"The split is one of {', '.join(filter(None, SPLITS))}, or not named.",
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
            f"Each side of the box is at least {smallest} px{_but_for(share)}.",
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
    # An image that does not open has no size to compare with; image_opens fails for it.
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
            "exif_space",
            "The stated size is not that of the pixels before EXIF turns them.",
            ["image", "width", "height", "image_width", "image_height"],
            "ExpectColumnValuesToBeInSet",
            {"column": "before_turn", "value_set": [False]},
        ),
        Check(
            "image_mode",
            "The image's mode is one that loading converts to RGB.",
            ["image", "image_mode"],
            "ExpectColumnValuesToBeInSet",
            {"column": "image_mode", "value_set": MODES + MODES_16_BIT},
        ),
        Check(
            "image_suffix",
            "The file's suffix is that of its format.",
            ["image", "suffix_fault"],
            "ExpectColumnValuesToBeNull",
            {"column": "suffix_fault"},
        ),
    ]


def _same_side(side: str) -> Check:
    return Check(
        f"stated_{side}",
        f"The stated {side} is the image's.",
        ["image", side, f"image_{side}"],
        "ExpectColumnPairValuesToBeEqual",
        {
            "column_A": side,
            "column_B": f"image_{side}",
            "ignore_row_if": "either_value_is_missing",
        },
    )


def _leak_check(role: str) -> Check:
    name, says, remedy = (
        ("image_not_tested_on", "No image is in a validation or test set.", "set_aside")
        if role == "train"
        else ("image_not_trained_on", "No image is in the other set.", "fail")
    )
    return Check(
        name,
        says,
        ["image", "against_image", "by"],
        "ExpectColumnValuesToBeNull",
        {"column": "against_image"},
        remedy=remedy,
    )


def _count_check() -> Check:
    return Check(
        "split_rows_published",
        "Each split has as many records as its authors say.",
        ["split", "rows", "published"],
        "ExpectColumnPairValuesToBeEqual",
        {"column_A": "rows", "column_B": "published", "ignore_row_if": "neither"},
        "splits",
        remedy="fail",
    )


def _but_for(share: float) -> str:
    return f", but for {share:.4%}" if share else ""
