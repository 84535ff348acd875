"""The commands `vlm-r1 validate` and `vlm-r1 convert`."""

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import ROOT
from tests.dataset_files import vlm_r1_row, write_refer
from vlm_r1.cli import main as cli
from vlm_r1.errors import DataError

runner = CliRunner()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with three images and their records, and the working directory in it."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        Image.effect_noise((60, 40), 100).save(tmp_path / f"{number}.png")
    (tmp_path / "mine.json").write_text(json.dumps([vlm_r1_row(i) for i in (1, 2, 3)]))
    return tmp_path


def validate(*arguments, root="."):
    done = runner.invoke(
        cli.app, ["validate", *map(str, arguments), "--image-root", root, "--out", "out"]
    )
    with open("out/validation.json", encoding="utf-8") as file:
        return done.exit_code, json.load(file)


def test_good_records_pass_with_code_0(mine):
    code, found = validate("mine.json")

    assert (code, found["verdict"], found["rows"]) == (0, "pass", 3)
    assert found.keys() == {"verdict", "rows", "quarantined", "expectations", "leakage"}
    assert {file.name for file in (mine / "out").iterdir()} == {
        *("validation.json", "validation.html")
    }


def test_bad_row_fails_with_code_1_and_is_named_by_file_row_and_id(mine):
    rows = [vlm_r1_row(1), vlm_r1_row(2, solution=[1, 2, 70, 20])]
    (mine / "mine.json").write_text(json.dumps(rows))

    code, found = validate("mine.json")

    assert (code, found["verdict"]) == (1, "fail")
    (failed,) = [e for e in found["expectations"] if not e["success"]]
    assert (failed["name"], failed["failed"]) == ("box_inside_image", 1)
    (example,) = failed["examples"]
    assert (example["file"], example["row"], example["id"]) == ("mine.json", 2, "mine:000002")
    assert example["value"]["x2"] == 70


BAD_BOXES = {
    "reversed": [30, 2, 10, 20],
    "zero_area": [10, 2, 10, 20],
    "negative": [-5, 2, 10, 20],
    "outside": [10, 2, 30, 50],
    "nan": [10, 2, float("nan"), 20],
    "infinite": [10, 2, float("inf"), 20],
    "text": ["10", 2, 30, 20],
}


@pytest.mark.parametrize("box", BAD_BOXES.values(), ids=BAD_BOXES)
def test_every_bad_box_fails_and_the_other_rows_are_still_checked(mine, box):
    (mine / "mine.json").write_text(json.dumps([vlm_r1_row(1), vlm_r1_row(2, solution=box)]))

    code, found = validate("mine.json", "--metadata-only")

    assert (code, found["rows"]) == (1, 2)
    failed = [e for e in found["expectations"] if not e["success"]]
    assert failed
    assert {example["row"] for e in failed for example in e["examples"]} == {2}


def test_file_that_cannot_be_read_fails_with_the_reason_in_the_verdict(mine):
    (mine / "mine.json").write_text('[{"image": "1.png"}, {"image"')

    code, found = validate("mine.json")

    assert (code, found["verdict"], found["rows"]) == (1, "fail", 0)
    fault = found["expectations"][0]["examples"][0]["value"]["fault"]
    assert fault.startswith("mine.json: row 2: broken JSON")
    assert "broken JSON" in (mine / "out/validation.html").read_text()


def test_a_missing_image_passes_with_metadata_only(mine):
    (mine / "2.png").unlink()

    assert validate("mine.json")[0] == 1
    assert validate("mine.json", "--metadata-only")[0] == 0


def test_an_image_outside_of_the_folder_is_never_opened(mine):
    (mine / "inner").mkdir()
    (mine / "inner/mine.json").write_text(json.dumps([vlm_r1_row(1, image="../1.png")]))

    code, found = validate("inner/mine.json", root="inner")

    assert code == 1
    (example,) = found["expectations"][0]["examples"]
    assert (example["row"], example["value"]["fault"][:18]) == (1, "image: '../1.png':")


def test_against_finds_what_is_shared_by_id_bytes_and_phash(mine):
    Image.open(mine / "2.png").save(mine / "again.png", compress_level=1)  # other bytes
    shutil.copy(mine / "3.png", mine / "copy.png")
    others = [vlm_r1_row(1), vlm_r1_row(2, image="again.png"), vlm_r1_row(3, image="copy.png")]
    (mine / "train.json").write_text(json.dumps(others))

    code, found = validate("mine.json", "--against", "train.json")

    assert code == 1
    assert found["leakage"] == [
        {"image": image, "against": "train.json", "against_image": other, "by": by}
        | {"kind": "training"}
        for image, other, by in [
            ("1.png", "1.png", "id"),
            ("2.png", "again.png", "phash (0 of 256 bits differ)"),
            ("3.png", "copy.png", "bytes"),
        ]
    ]
    assert [leak["image"] for leak in validate_by_id()] == ["1.png"]


def validate_by_id():
    return validate("mine.json", "--against", "train.json", "--metadata-only")[1]["leakage"]


def test_against_others_without_a_shared_image_passes(mine):
    (mine / "train.json").write_text(json.dumps([vlm_r1_row(9, image="3.png")]))
    (mine / "mine.json").write_text(json.dumps([vlm_r1_row(1)]))

    code, found = validate("mine.json", "--against", "train.json")

    assert (code, found["leakage"]) == (0, [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.json", "--metadata-only", "--out", "out"],
        ["mine.json", "--out", "out"],
        ["mine.json", "--image-root", "nowhere", "--out", "out"],
        ["mine.json", "--metadata-only", "--out", "out", "--from", "word"],
        ["mine.json", "--metadata-only"],
        ["mine.json", "--metadata-only", "--out", "out", "--against", "nowhere.json"],
    ],
)
def test_wrong_usage_has_code_2_and_writes_nothing(mine, arguments):
    assert runner.invoke(cli.app, ["validate", *arguments]).exit_code == 2
    assert not (mine / "out").exists()


def test_bounds_come_from_a_params_file(mine):
    text = (ROOT / "params.yaml").read_text()
    strict = text.replace("max_phrase_characters: 300", "max_phrase_characters: 3")
    (mine / "strict.yaml").write_text(strict)

    assert validate("mine.json", "--metadata-only", "--params", "strict.yaml")[0] == 1


def test_convert_writes_the_records_and_prints_their_number(mine):
    write_refer(mine)

    done = runner.invoke(
        cli.app, ["convert", "refs(unc).p", "--to", "vlm-r1", "--out", "a.json", "--split", "train"]
    )

    assert (done.exit_code, done.output) == (0, "2 records: a.json\n")
    assert len(json.loads((mine / "a.json").read_text())) == 2


def test_convert_refuses_a_bad_row_by_name(mine):
    (mine / "mine.json").write_text(json.dumps([vlm_r1_row(1), {}]))

    done = runner.invoke(cli.app, ["convert", "mine.json", "--to", "records", "--out", "r.parquet"])

    assert done.exit_code == 1
    assert isinstance(done.exception, DataError)
    assert "mine.json: row 2: image: Field required" in str(done.exception)
