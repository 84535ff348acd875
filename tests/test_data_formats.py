"""Readers of the other formats: refer, RefGTA, rec.yaml, SFT rows, tables."""

import json
import pickle
import re
import typing
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.dataset_files import (
    GOLDEN_BOX,
    GOLDEN_IMAGE,
    GOLDEN_PHRASE,
    INSTANCES,
    REFS,
    ref,
    sft_row,
    vlm_r1_row,
    write_refer,
)
from vlm_r1.config import Format
from vlm_r1.data.readers import BY_SUFFIX, READERS, guess_format, read
from vlm_r1.data.readers.base import InputFile
from vlm_r1.data.readers.llama_factory import relative_name
from vlm_r1.data.records import BOX, write_records
from vlm_r1.errors import DataError


def read_all(name, path, **known):
    result = read(name, InputFile(path, path.name, **known))
    assert result.unread.empty, result.unread.to_dict("records")
    return result.records


def faults(name, path, **known):
    unread = read(name, InputFile(path, path.name, **known)).unread
    return list(zip(unread["row"], unread["fault"], strict=True))


def test_every_format_of_params_has_a_reader():
    assert set(READERS) == set(typing.get_args(Format))
    assert set(BY_SUFFIX.values()) <= set(READERS)


# --- refer and RefGTA ----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_refer_gives_one_record_per_sentence_of_every_split(tmp_path, protocol):
    records = read_all("refer", write_refer(tmp_path, protocol=protocol), dataset="refcoco")

    assert records["expression"].tolist() == [GOLDEN_PHRASE, "blue shirt", "left cup"]
    assert records["split"].tolist() == ["train", "train", "testA"]
    assert records["row"].tolist() == [1, 1, 2]
    assert records["record_id"].tolist() == [f"refcoco:{i:06d}" for i in (10, 11, 20)]
    assert records[BOX].to_numpy().tolist() == [GOLDEN_BOX, GOLDEN_BOX, [10, 20, 40, 60]]
    assert records.loc[0, ["image", "width", "height", "source_id"]].tolist() == [
        *(GOLDEN_IMAGE, 427, 640, "1719310")
    ]


def test_one_split_is_selected_and_an_unknown_one_is_refused(tmp_path):
    path = write_refer(tmp_path)

    assert read_all("refer", path, split="testA")["expression"].tolist() == ["left cup"]
    with pytest.raises(DataError, match=r"no split 'val'\nneed one of its splits: testA, train"):
        read_all("refer", path, split="val")


def test_pickle_of_python_2_is_read(tmp_path):
    """Protocol 0 with `str` and `unicode` as Python 2's cPickle writes them, é in latin-1."""
    path = write_refer(tmp_path)
    sentence = "(dp2\nS'sent'\np3\nS'caf\\xe9 cup'\np4\nsS'sent_id'\np5\nI7\ns"
    text = (
        "(lp0\n(dp1\nS'ann_id'\np6\nI12\nsS'split'\np7\nVval\np8\n"
        f"sS'sentences'\np9\n(lp10\n{sentence}asa."
    )
    path.write_bytes(text.encode("latin-1"))

    (record,) = read_all("refer", path).to_dict("records")

    assert (record["expression"], record["split"]) == ("café cup", "val")


def test_refgta_is_read_by_its_own_name(tmp_path):
    path = write_refer(tmp_path, name="refs(utokyo).p")

    assert len(read_all("refgta", path, split="train")) == 2


class Harm:
    def __reduce__(self):
        return (print, ("harm",))


def test_pickle_that_would_run_code_is_refused_by_the_name_it_asks_for(tmp_path, capsys):
    path = write_refer(tmp_path, refs=[Harm()])

    with pytest.raises(DataError, match=r"refs\(unc\)\.p: .*it asks for (__builtin__|builtins)\.p"):
        read_all("refer", path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [Path("a"), {1}, 1j, bytearray(b"a")])
def test_pickle_of_any_class_is_refused(tmp_path, value):
    with pytest.raises(DataError, match="which could run code"):
        read_all("refer", write_refer(tmp_path, refs=[value]))


def test_a_broken_or_truncated_pickle_is_refused(tmp_path):
    path = write_refer(tmp_path)
    whole = path.read_bytes()
    for part in (b"", whole[:40], b"hello", pickle.dumps({"a": 1})):
        path.write_bytes(part)
        with pytest.raises(DataError, match=r"refs\(unc\)\.p: "):
            read_all("refer", path)


def test_refs_without_their_annotation_or_image_are_named(tmp_path):
    lost = {"images": INSTANCES["images"][:1], "annotations": INSTANCES["annotations"]}
    refs = [*REFS, ref(3, 99, 9, "val", "nowhere")]

    assert faults("refer", write_refer(tmp_path, refs, instances=lost)) == [
        (2, "image_id: 9 is not in instances.json"),
        (3, "ann_id: 99 is not in instances.json"),
    ]


def test_missing_or_broken_instances_are_named(tmp_path):
    path = write_refer(tmp_path)
    (tmp_path / "instances.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"instances\.json: annotations: Field required"):
        read_all("refer", path)
    (tmp_path / "instances.json").unlink()
    with pytest.raises(DataError, match=r"instances\.json: no such file"):
        read_all("refer", path)


# --- rec.yaml ------------------------------------------------------------------------------


@pytest.fixture
def rec_yaml(tmp_path):
    """Writes rec.yaml over two files of 10 rows, and gives its path."""
    for name in ("a.json", "b.jsonl"):
        rows = [vlm_r1_row(i) for i in range(1, 11)]
        lines = "\n".join(json.dumps(row) for row in rows)
        (tmp_path / name).write_text(lines if name.endswith("l") else json.dumps(rows))

    def write(*strategies):
        entries = [
            {"json_path": name} | ({"sampling_strategy": strategy} if strategy else {})
            for name, strategy in zip(("a.json", "b.jsonl"), strategies, strict=False)
        ]
        (tmp_path / "rec.yaml").write_text(json.dumps({"datasets": entries}))  # JSON is YAML
        return tmp_path / "rec.yaml"

    return write


@pytest.mark.parametrize(
    ("strategy", "rows"),
    [
        (None, list(range(1, 11))),
        ("all", list(range(1, 11))),
        ("first:3", [1, 2, 3]),
        ("end:2", [9, 10]),
        ("first:11%", [1, 2]),  # 1.1 rows, rounded up
        ("end:20%", [9, 10]),
    ],
)
def test_sampling_takes_the_rows_it_names(rec_yaml, strategy, rows):
    records = read_all("rec-yaml", rec_yaml(strategy))

    assert records["row"].tolist() == rows
    assert set(records["file"]) == {"a.json"}


def test_a_single_file_is_sampled_by_the_same_strategies(rec_yaml):
    path = rec_yaml("all").with_name("a.json")
    assert read_all("vlm-r1", path, sampling="end:2")["row"].tolist() == [9, 10]
    with pytest.raises(DataError, match=r"a\.json: sampling_strategy 'first:11' of 10 rows"):
        read_all("vlm-r1", path, sampling="first:11")


def test_random_sampling_is_seeded_without_repeats_and_in_order(rec_yaml):
    path = rec_yaml("random:5")
    rows = read_all("rec-yaml", path, seed=1)["row"].tolist()

    assert rows == read_all("rec-yaml", path, seed=1)["row"].tolist()
    assert rows == sorted(set(rows))
    assert len(rows) == 5
    assert any(rows != read_all("rec-yaml", path, seed=s)["row"].tolist() for s in (2, 3, 4))
    assert len(read_all("rec-yaml", rec_yaml("random:41%"))) == 5


def test_ids_of_several_files_do_not_clash(rec_yaml):
    records = read_all("rec-yaml", rec_yaml("first:2", "end:1"), dataset="mix")

    assert records["record_id"].tolist() == ["a:000001", "a:000002", "b:000010"]
    assert records["file"].tolist() == ["a.json", "a.json", "b.jsonl"]
    assert set(records["dataset"]) == {"mix"}


@pytest.mark.parametrize("strategy", ["some", "first", "first:-1", "first:0", "random:11", "end:x"])
def test_other_strategies_are_refused(rec_yaml, strategy):
    with pytest.raises(DataError, match=rf"rec\.yaml: row 1: a\.json: sampling.*{strategy}"):
        read_all("rec-yaml", rec_yaml(strategy))


@pytest.mark.parametrize("text", ["datasets: [", "datasets: []", "a: 1", "datasets: [{json: a}]"])
def test_broken_lists_are_refused(tmp_path, text):
    (tmp_path / "rec.yaml").write_text(text)
    with pytest.raises(DataError, match=r"rec\.yaml: "):
        read_all("rec-yaml", tmp_path / "rec.yaml")


def test_missing_file_of_a_list_is_named(tmp_path):
    (tmp_path / "rec.yaml").write_text("datasets: [{json_path: gone.json}]")
    with pytest.raises(DataError, match=r"gone\.json: no such file"):
        read_all("rec-yaml", tmp_path / "rec.yaml")


# --- SFT rows ------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "train2014").mkdir()
    Image.new("RGB", (60, 50)).save(tmp_path / "train2014/a.jpg")
    return tmp_path


def test_sft_row_of_the_authors_is_read_under_the_image_folder(coco):
    path = coco / "sft.json"
    path.write_text(json.dumps([sft_row()]))

    (record,) = read_all("llama-factory", path, images=coco).to_dict("records")

    assert (record["image"], record["expression"]) == ("train2014/a.jpg", "left cup")
    assert [record[corner] for corner in BOX] == [1, 2, 30, 40]
    assert (record["width"], record["height"]) == (60, 50)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("train2014/a.jpg", "train2014/a.jpg"),
        ("/data/shz/dataset/coco/train2014/a.jpg", "train2014/a.jpg"),
        ("/photos/mine/b/a.jpg", "b/a.jpg"),
        ("/a.jpg", "a.jpg"),
    ],
)
def test_an_absolute_path_becomes_relative_or_keeps_its_last_folder(image, name):
    assert relative_name(image, Path("/photos/mine")) == name


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (sft_row() | {"images": ["a.jpg", "b.jpg"]}, "images: 2 images"),
        (sft_row() | {"images": []}, "images: 0 images"),
        (sft_row(answer="[" + '{"bbox_2d": [1, 2, 3, 4]},' * 2 + "{}]"), "3 boxes in one answer"),
        (sft_row(answer="no box"), "expected"),
        (sft_row("/x/../../a.jpg"), "need a path relative"),
        ({"messages": []}, "messages: .*at least 2 items"),
    ],
)
def test_sft_row_that_is_no_record_is_named(coco, row, message):
    path = coco / "sft.json"
    path.write_text(json.dumps([sft_row(), row]))

    ((number, fault),) = faults("llama-factory", path, images=coco)

    assert number == 2
    assert re.search(message, fault), fault


# --- tables --------------------------------------------------------------------------------

CSV = """image,expression,x,y,w,h,width,height,id,split
a.jpg,"cup, left",1.5,2,30,20.25,60,40,5,val
b.jpg,dog,0,0,60,40,60,40,6,test
"""


def test_csv_of_a_user_is_read_with_xywh(tmp_path):
    (tmp_path / "my.csv").write_text(CSV)

    records = read_all("csv", tmp_path / "my.csv")

    assert records[BOX].to_numpy().tolist() == [[1.5, 2, 31.5, 22.25], [0, 0, 60, 40]]
    assert records["expression"].tolist() == ["cup, left", "dog"]
    assert records["split"].tolist() == ["val", "test"]
    assert records["record_id"].tolist() == ["my:000005", "my:000006"]
    assert records["row"].tolist() == [1, 2]


def test_csv_with_corners_and_no_sizes_reads_the_images(coco):
    (coco / "my.csv").write_text("image,expression,x1,y1,x2,y2\ntrain2014/a.jpg,cup,1,2,30,40\n")

    (record,) = read_all("csv", coco / "my.csv", images=coco).to_dict("records")

    assert [record[k] for k in (*BOX, "width", "height")] == [1, 2, 30, 40, 60, 50]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0,0,60,40,60", "0,zero,60,40,60", "y: Input should be a valid number, unable to parse"),
        ("0,0,60,40,60", "nan,0,60,40,60", "x: Input should be a finite number"),
        ("0,0,60,40,60", ",0,60,40,60", "Value error, only y w h of x y w h"),
        ("0,0,60,40,60", ",,,,60", "Value error, need either x1 y1 x2 y2 or x y w h"),
        ("dog", "", "expression: Field required"),
        ("b.jpg", "../b.jpg", "image: '../b.jpg': need a path relative"),
        ("60,40,6,test", "60.5,40,6,test", "width: Input should be a valid integer"),
    ],
)
def test_bad_cell_is_named_by_its_row(tmp_path, old, new, message):
    assert CSV.count(old) == 1
    (tmp_path / "my.csv").write_text(CSV.replace(old, new))

    ((number, fault),) = faults("csv", tmp_path / "my.csv")

    assert number == 2
    assert fault.startswith(message), fault


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "No columns to parse"),
        (CSV.replace("expression", "phrase").encode(), "columns image, phrase, x, y, w, h"),
        (CSV.replace(",w,", ",x2,").encode(), "columns image, expression, x, y, x2, h"),
        (CSV.replace("dog", "café").encode("latin-1"), "not UTF-8: byte 0xe9"),
        ((CSV + "a.jpg" + ",1" * 12).encode(), "row 3 with 13 fields, header with 10"),
        (
            (CSV.rstrip("\n").replace("\n", ",\n").replace(",\n", "\n", 1) + ",").encode(),
            "row 1 with 11",
        ),
        ((CSV + "a.jpg,cup").encode(), "row 3 with 2 fields, header with 10"),
        (CSV.splitlines()[0].encode(), "no rows"),
    ],
)
def test_csv_that_is_no_table_is_refused(tmp_path, raw, message):
    (tmp_path / "my.csv").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_all("csv", tmp_path / "my.csv")


def test_parquet_of_a_user_is_read(tmp_path):
    rows = {"image": ["a.jpg"], "expression": ["cup"], "width": [60], "height": [40]}
    pd.DataFrame(rows | {"x": [1], "y": [2], "w": [3], "h": [4]}).to_parquet(tmp_path / "m.parquet")

    records = read_all("parquet", tmp_path / "m.parquet")

    assert records[BOX].to_numpy().tolist() == [[1, 2, 4, 6]]
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"m\.parquet: not a parquet file"):
        read_all("parquet", tmp_path / "m.parquet")


def test_our_own_records_are_read_as_they_are(tmp_path):
    write = tmp_path / "records.parquet"
    records = read_all("refer", write_refer(tmp_path), dataset="refcoco")
    write_records(write, records)

    again = read_all("records", write)

    columns = [column for column in records if column not in ("file", "row")]
    pd.testing.assert_frame_equal(again[columns], records[columns])


def test_our_records_with_an_unknown_corner_are_named(tmp_path):
    records = read_all("refer", write_refer(tmp_path))
    write_records(tmp_path / "r.parquet", records.assign(x2=[1.0, float("nan"), 2.0]))

    ((number, fault),) = faults("records", tmp_path / "r.parquet")

    assert (number, fault) == (2, "x2: Input should be a finite number (found nan)")


# --- which format --------------------------------------------------------------------------


def test_the_format_is_guessed_by_suffix_and_sft_rows_by_their_key(tmp_path):
    (tmp_path / "sft.json").write_text(json.dumps([sft_row()]))
    (tmp_path / "rows.json").write_text(json.dumps([vlm_r1_row(normal_caption='"messages":')]))

    assert guess_format(tmp_path / "sft.json") == "llama-factory"
    assert guess_format(tmp_path / "rows.json") == "vlm-r1"
    assert guess_format(Path("refs(unc).p")) == "refer"
    with pytest.raises(DataError, match=r"suffix '\.txt'"):
        guess_format(Path("rows.txt"))
