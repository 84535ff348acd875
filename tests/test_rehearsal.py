"""The rehearsal's parts: project, probe, table. `make rehearsal` runs the whole."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.rehearsal import __main__ as rehearsal
from benchmarks.rehearsal import commands, probe, project
from tests.conftest import ROOT
from tests.layout import SOURCE
from vlm_r1.config import load_params
from vlm_r1.models.families import QWEN2_5_VL


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        Image.new("RGB", (40, 30), (number * 30, 0, 0)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_the_base_has_50_to_100_million_parameters():
    tokenizer = AutoProcessor.from_pretrained(ROOT / "models/base").tokenizer
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(project.base_config(tokenizer))
    assert 50e6 < model.num_parameters() < 100e6


def test_a_photo_has_several_hundred_visual_tokens():
    task = load_params(project.PROFILE).task
    height, width = QWEN2_5_VL.input_size(project.SIZE[1], project.SIZE[0], task)
    assert height * width // 28**2 == 391


@pytest.mark.parametrize("train", rehearsal.VARIANTS.values(), ids=rehearsal.VARIANTS)
def test_a_project_has_valid_parameters_and_every_photo_once(photos, tmp_path, train):
    root = tmp_path / "project"
    project.make_project(root, photos, tmp_path / "base", train)
    params = load_params(root / "params.yaml")
    assert (params.launch.processes, params.train.deepspeed) == (2, "zero3")
    assert (params.train.lora is None) == (not train)
    assert {file.name for file in root.glob("data/*.json")} == {
        f"{n}.json" for n in params.datasets
    }
    for photo in photos:
        with Image.open(root / f"data/photos/{photo.stem}.jpg") as image:
            assert image.size == project.SIZE


@pytest.mark.parametrize("count", [8, 27])
def test_datasets_share_no_photo(count):
    photos = [Path(f"{number}.jpg") for number in range(count)]
    parts = project.split_photos(photos)
    assert [photo for part in parts.values() for photo in part] == photos
    assert all(parts.values())


def test_too_few_photos_are_refused():
    with pytest.raises(SystemExit, match="got 3 photos, need at least 8"):
        project.split_photos([Path("a"), Path("b"), Path("c")])


def test_random_boxes_lie_in_the_photo():
    rng = np.random.default_rng(0)
    for number in range(50):
        x1, y1, x2, y2 = project.random_record(number, "a.jpg", rng)["solution"]
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 480


PROGRAM = """
import runpy
for name in ("a.jpg", "a.jpg", "b.jpg", "c.txt"):
    open(name).close()
runpy.run_path("modeling_qwen2_5_vl.py")
"""


def test_the_probe_counts_opened_photos_and_memory_above_that_before_the_model(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "modeling_qwen2_5_vl.py").write_text("held = bytearray(64 * 2**20)")
    notes = tmp_path / "notes"
    notes.mkdir()
    search_path = f"{probe.site_folder(tmp_path / 'site')}:{SOURCE}:{ROOT}"
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": search_path, probe.FOLDER: str(notes)},
        cwd=tmp_path,
        check=True,
    )
    peaks_mib, opens = commands.read_notes(notes)
    assert opens == {"a.jpg": 2, "b.jpg": 1}
    assert peaks_mib == [pytest.approx(64, abs=8)]


def test_the_table_has_measured_memory_beside_the_plan():
    seen = commands.Seen(60.4, 99.6, 12.0, [900.0, 1000.0], {"a.jpg": 1, "b.jpg": 2}, "")
    row = rehearsal.Row("LoRA", "sft", seen, 1250.0)
    line = rehearsal.table_line(row)
    assert line == "| LoRA | `sft` | 60 | 100 | 12 | 900, 1000 | 1250 | 0.80 | 3 / 2 |"
    assert rehearsal.HEADER.count("|") == rehearsal.RULE.count("|") == line.count("|")
    assert rehearsal.plan_holds(row)
    assert not rehearsal.plan_holds(rehearsal.Row("LoRA", "sft", seen, 1400.0))
    assert rehearsal.plan_holds(rehearsal.Row("LoRA", "report", seen))
