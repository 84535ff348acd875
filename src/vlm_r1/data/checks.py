"""What records must be like before anything is trained on them, declared.

The checks run over the records with a few columns added by `expectations` (picture_*, box_side_px,
overhang_px, training_image), so that each is an expectation which Great Expectations ships.
"""

from dataclasses import dataclass
from typing import Any

from vlm_r1.config import Validation
from vlm_r1.data.records import BOX

ROUNDING_PX = 0.01  # COCO states boxes with two decimals, so x + w may pass the side by that much


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


def declared_checks(bounds: Validation) -> list[Check]:
    """Everything that is asked of a dataset, in the page's order."""
    return [*_record_checks(bounds), *_box_checks(bounds), *_picture_checks()]


def _record_checks(bounds: Validation) -> list[Check]:
    longest, identity = bounds.max_phrase_characters, ["image", "expression", *BOX]
    return [
        Check(
            "record_id_unique",
            "No two records have one id.",
            ["record_id"],
            "ExpectColumnValuesToBeUnique",
            {"column": "record_id"},
        ),
        Check(
            "record_not_repeated",
            "No picture has the same phrase for the same box twice.",
            identity,
            "ExpectCompoundColumnsToBeUnique",
            {"column_list": identity},
        ),
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
    smallest = bounds.min_box_side_px
    return [
        Check(
            "box_known",
            "All four corners of the box are numbers.",
            BOX,
            "ExpectColumnValuesToNotBeNull",
            {"column": "box_side_px"},
        ),
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
            f"Each side of the box is at least {smallest} px.",
            BOX,
            "ExpectColumnValuesToBeBetween",
            {"column": "box_side_px", "min_value": smallest},
        ),
        Check(
            "box_inside_picture",
            f"The box leaves the stated size by at most {ROUNDING_PX} px.",
            [*BOX, "width", "height"],
            "ExpectColumnValuesToBeBetween",
            {"column": "overhang_px", "max_value": ROUNDING_PX},
        ),
    ]


def _picture_checks() -> list[Check]:
    # A picture that does not open has no size to compare with; picture_opens fails for it.
    same_size = {"ignore_row_if": "either_value_is_missing"}
    return [
        Check(
            "picture_opens",
            "The picture exists and can be decoded to its end.",
            ["image", "picture_fault"],
            "ExpectColumnValuesToBeNull",
            {"column": "picture_fault"},
        ),
        Check(
            "stated_width",
            "The stated width is the picture's.",
            ["image", "width", "picture_width"],
            "ExpectColumnPairValuesToBeEqual",
            {"column_A": "width", "column_B": "picture_width", **same_size},
        ),
        Check(
            "stated_height",
            "The stated height is the picture's.",
            ["image", "height", "picture_height"],
            "ExpectColumnPairValuesToBeEqual",
            {"column_A": "height", "column_B": "picture_height", **same_size},
        ),
        Check(
            "picture_not_trained_on",
            "No picture of the training set has the same bytes.",
            ["image", "training_image"],
            "ExpectColumnValuesToBeNull",
            {"column": "training_image"},
        ),
    ]
