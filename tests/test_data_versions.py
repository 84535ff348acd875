"""Digests of source files, and the digests that `prepare` writes for later stages."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import small_values
from tests.image_files import save_turned
from vlm_r1.config import Dataset, parse_params
from vlm_r1.data.download.unzip import MANIFEST, Manifest
from vlm_r1.data.images import open_image
from vlm_r1.data.records import BOX, read_records, records_digest
from vlm_r1.data.versions import images_version, version_of
from vlm_r1.errors import DataError
from vlm_r1.paths import inputs_file, records_file
from vlm_r1.stages import prepare, version


def own_folder(root):
    (root / "images/deep").mkdir(parents=True)
    (root / "images/deep/1.jpg").write_text("one")
    (root / "records.json").write_text("[]")
    return Dataset(
        role="ood",
        records="records.json",
        images="images",
        format="vlm-r1",
        split=None,
        sampling="all",
        published=None,
        exif="applied",
        accuracy_reward=None,
    )


def test_the_version_of_a_folder_changes_with_every_byte_and_name(tmp_path):
    own_folder(tmp_path)
    seen = {images_version(tmp_path / "images")}
    for step in range(3):
        if step == 0:
            (tmp_path / "images/deep/1.jpg").write_text("two")
        elif step == 1:
            (tmp_path / "images/deep/1.jpg").rename(tmp_path / "images/2.jpg")
        else:
            (tmp_path / "images/3.jpg").touch()
        seen.add(images_version(tmp_path / "images"))
    assert len(seen) == 4
    assert {archive for _, archive in seen} == {None}


def test_an_unpacked_folder_has_the_version_of_its_archive(tmp_path):
    own_folder(tmp_path)
    manifest = Manifest(archive="a.zip", sha256="a" * 64, files=1, unpacked_bytes=3)
    (tmp_path / "images" / MANIFEST).write_text(manifest.model_dump_json())
    assert images_version(tmp_path / "images") == ("a" * 64, "a.zip")


def test_the_stage_writes_the_version_of_one_dataset(small_root, small_params):
    version.run(small_params, small_root, "street_test")
    written = json.loads((small_root / "data/versions/street_test.json").read_text())
    dataset = small_params.datasets["street_test"]
    assert written == version_of(dataset, small_root).model_dump()
    assert written["records"] == dataset.records


@pytest.mark.parametrize("gone", ["records.json", "images"])
def test_missing_data_is_named(tmp_path, gone):
    dataset = own_folder(tmp_path)
    shutil.rmtree(tmp_path / gone) if gone == "images" else (tmp_path / gone).unlink()
    with pytest.raises(DataError, match=rf"{gone}: not there\nneed the records and the image"):
        version_of(dataset, tmp_path)


def test_prepare_writes_the_digests_of_what_training_and_evaluation_read(small_root, small_params):
    for consumer, names in (
        ("training", ["studio_train"]),
        ("evaluation", ["studio_val", "studio_test", "street_test"]),
    ):
        inputs = json.loads((small_root / inputs_file(consumer)).read_text())
        assert list(inputs) == names
        for name in names:
            records = read_records(small_root / records_file(name))
            folder = small_root / small_params.datasets[name].images
            assert inputs[name]["records_digest"] == records_digest(records)
            assert inputs[name]["role"] == small_params.datasets[name].role
            assert inputs[name]["images_sha256"] == images_version(folder)[0]


def test_boxes_that_ignore_exif_are_prepared_for_the_upright_image(small_root, tmp_path):
    """An image that EXIF turns upside down: the box must still hold the same pixels."""
    shutil.copytree(small_root / "data/drawn", tmp_path / "data/drawn")
    values = small_values()
    values["datasets"]["street_test"]["exif"] = "ignored"
    params = parse_params(values, "test")
    before = read_records(small_root / records_file("street_test")).iloc[0]
    file = tmp_path / params.datasets["street_test"].images / before["image"]
    stored = np.asarray(Image.open(file).convert("RGB"))
    save_turned(file, stored, 3)

    prepare.run(params, tmp_path)

    after = read_records(tmp_path / records_file("street_test")).iloc[0]
    x1, y1, x2, y2 = before[BOX].astype(int)
    assert after[BOX].tolist() == [90 - x2, 60 - y2, 90 - x1, 60 - y1]
    shown = open_image(file).crop(after[BOX].astype(int).tolist())
    assert np.array_equal(np.asarray(shown)[::-1, ::-1], stored[y1:y2, x1:x2])
