"""The verdicts on the data as Prefect shows them."""

from tasks.validation import verdict_table

FOUND = {
    "verdict": "fail",
    "rows": 7,
    "quarantined": 2,
    "expectations": [
        {"name": "box_side", "success": True, "failed": 0, "examples": []},
        {
            "name": "image_opens",
            "success": False,
            "failed": 3,
            "examples": [{"file": "a.json", "row": 4, "id": "a:1", "value": {"image": "x.png"}}],
        },
    ],
    "leakage": [{"image": "x.png"}, {"image": "x.png"}],
}


def test_table_has_a_line_a_dataset_and_one_for_what_is_not_met():
    text = verdict_table({"mine": FOUND})

    assert "| mine | fail | 7 | 2 | 1 |" in text
    assert '* mine: `image_opens` fails for 3, first `{"file": "a.json", "row": 4' in text
    assert "box_side" not in text
