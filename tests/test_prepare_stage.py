"""Stage prepare: from drawn files to records, or to an outcome that withholds them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from vlm_r1.config import DrawnSplit, load_params
from vlm_r1.data.readers import read
from vlm_r1.data.readers.base import InputFile
from vlm_r1.data.records import read_records
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.report.lineage import dataset_lines_from_validation
from vlm_r1.stages import draw, prepare


@pytest.fixture
def project(tmp_path):
    """A project of four tiny drawn datasets; gives its params and root."""
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    drawn = {
        name: DrawnSplit(
            world=split.world, images=3, phrases_per_image=2, detection=False, sizes=None
        )
        for name, split in params.draw.items()
    }
    params = params.model_copy(update={"draw": drawn})
    draw.run(params, tmp_path)
    return params, tmp_path


def prepared(root):
    folder = root / "data/prepared"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_prepare_writes_three_files_a_dataset_and_the_same_bytes_again(project):
    params, root = project
    prepare.run(params, root)
    first = {name: (root / "data/prepared" / name).read_bytes() for name in prepared(root)}
    prepare.run(params, root)

    assert {name: (root / "data/prepared" / name).read_bytes() for name in prepared(root)} == first
    assert sorted(first) == sorted(
        f"{dataset}/{file}"
        for dataset in params.datasets
        for file in ("records.parquet", "validation.html", "validation.json")
    )
    path = root / "data/drawn/studio_val/records.json"
    source = read("vlm-r1", InputFile(path, path.name, "studio_val", role="validation")).records
    written = read_records(root / "data/prepared/studio_val/records.parquet")
    pd.testing.assert_frame_equal(written, source[list(written)])


def test_a_box_outside_withholds_the_records_of_that_dataset_only(project):
    params, root = project
    prepare.run(params, root)
    path = root / "data/drawn/street_test/records.json"
    rows = json.loads(path.read_text())
    rows[3]["solution"][2] = 500.0
    path.write_text(json.dumps(rows))

    with pytest.raises(
        DataError,
        match=r"got street_test: box_inside_image fails for 1 of 6 rows,"
        r" first data/drawn/street_test/records\.json row 4 \{.*\"x2\": 500\.0",
    ):
        prepare.run(params, root)

    assert len(prepared(root)) == 4 * 3 - 1
    assert "street_test/records.parquet" not in prepared(root)
    verdict = json.loads((root / "data/prepared/street_test/validation.json").read_text())
    assert verdict["verdict"] == "fail"
    assert "fail" in (root / "data/prepared/street_test/validation.html").read_text()


def test_every_failing_dataset_is_named(project):
    params, root = project
    (root / "data/drawn/studio_val/images/studio_val_000002.png").unlink()
    twin = root / "data/drawn/studio_train/images/studio_train_000001.png"
    shutil.copy(twin, root / "data/drawn/studio_test/images/studio_test_000003.png")

    with pytest.raises(DataError) as caught:
        prepare.run(params, root)

    assert "studio_val: image_opens fails for 2 of 6 rows, first" in caught.value.got
    assert "studio_test: image_not_trained_on fails for 2 of 6 rows, first" in caught.value.got
    assert "records.json row 5" in caught.value.got
    leakage = json.loads((root / "data/prepared/studio_test/validation.json").read_text())[
        "leakage"
    ]
    assert leakage == [
        {
            "image": "images/studio_test_000003.png",
            "against": "studio_train",
            "against_image": "images/studio_train_000001.png",
            "by": "bytes",
            "kind": "training",
        }
    ]


def test_unreadable_row_fails_its_dataset_and_is_named(project):
    params, root = project
    path = root / "data/drawn/studio_val/records.json"
    rows = json.loads(path.read_text())
    del rows[1]["solution"]
    path.write_text(json.dumps(rows))

    with pytest.raises(DataError, match=r"studio_val/records\.json row 2 .*solution: Field requ"):
        prepare.run(params, root)

    assert "studio_val/records.parquet" not in prepared(root)


def test_a_truncated_file_leaves_the_earlier_output(project):
    params, root = project
    prepare.run(params, root)
    before = prepared(root)
    path = root / "data/drawn/studio_val/records.json"
    path.write_text(path.read_text()[:-30])

    with pytest.raises(DataError, match=r"studio_val/records\.json: row 6: broken JSON"):
        prepare.run(params, root)

    assert prepared(root) == before


def test_quarantine_writes_the_passing_records_and_the_other_rows(project):
    params, root = project
    quarantine = params.validation.model_copy(update={"on_failure": "quarantine"})
    params = params.model_copy(update={"validation": quarantine})
    path = root / "data/drawn/street_test/records.json"
    rows = json.loads(path.read_text())
    rows[3]["solution"][2] = 500.0
    path.write_text(json.dumps(rows))

    prepare.run(params, root)

    folder = root / "data/prepared/street_test"
    assert len(read_records(folder / "records.parquet")) == 5
    lines = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [4]
    assert json.loads((folder / "validation.json").read_text())["quarantined"] == 1
    assert not (root / "data/prepared/studio_val/quarantine.jsonl").exists()


def test_the_report_counts_quarantined_rows_and_shared_images(project):
    params, root = project
    exclude = params.validation.model_copy(update={"on_leak": "exclude"})
    params = params.model_copy(update={"validation": exclude})
    twin = root / "data/drawn/studio_train/images/studio_train_000001.png"
    shutil.copy(twin, root / "data/drawn/studio_test/images/studio_test_000003.png")
    chosen = root / "data/drawn/studio_val/images/studio_val_000001.png"
    shutil.copy(chosen, root / "data/drawn/studio_test/images/studio_test_000002.png")
    prepare.run(params, root)

    lines = dataset_lines_from_validation(root, params.datasets)

    counts = {
        name: (line.records, line.quarantined, line.leakage, line.choice_leakage)
        for name, line in lines.items()
    }
    assert counts == {
        "studio_train": (4, 2, 1, 0),
        "studio_val": (4, 2, 0, 1),
        "studio_test": (6, 0, 1, 1),
        "street_test": (6, 0, 0, 0),
    }
    assert lines["studio_train"].role == "train"


def test_unknown_published_counts_are_refused(project):
    params, root = project
    changed = params.datasets["studio_val"].model_copy(update={"published": "refcoco"})
    params = params.model_copy(update={"datasets": params.datasets | {"studio_val": changed}})

    with pytest.raises(ConfigError, match=r"studio_val\.published: refcoco\nneed one of r"):
        prepare.run(params, root)


@pytest.mark.parametrize("name", ["rec-yaml", "refer", "refgta"])
def test_a_dataset_in_several_files_is_refused_and_the_conversion_named(project, name):
    params, root = project
    changed = params.datasets["studio_val"].model_copy(update={"format": name})
    params = params.model_copy(update={"datasets": params.datasets | {"studio_val": changed}})

    with pytest.raises(
        ConfigError, match=rf"(?s)studio_val\.format: {name}.*convert --from {name}"
    ):
        prepare.run(params, root)
    assert not (root / "data/prepared").exists()
