"""Small files in the layouts of the public sets, for the tests of their readers."""

import json
import pickle

import pandas as pd

from vlm_r1.data.records import COLUMNS, DTYPES
from vlm_r1.rec.prompts import question_for

# VLM-R1's own example, as its sources state it: 427 x 640, annotation 1719310.
GOLDEN_BOX = [103.93, 299.99, 238.15, 477.41]
GOLDEN_THOUSANDTHS = [243, 468, 557, 745]
GOLDEN_PHRASE = "the lady with the blue shirt"
GOLDEN_IMAGE = "COCO_train2014_000000581857.jpg"
INSTANCES = {
    "info": {},
    "images": [
        {"id": 581857, "file_name": GOLDEN_IMAGE, "width": 427, "height": 640, "license": 1},
        {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 640, "height": 480},
    ],
    "annotations": [
        {
            "id": 1719310,
            "image_id": 581857,
            "bbox": [103.93, 299.99, 134.22, 177.42],
            "category_id": 1,
            "segmentation": [[1, 2]],
        },
        {"id": 12, "image_id": 9, "bbox": [10, 20, 30, 40], "category_id": 2},
    ],
    "categories": [{"id": 1, "name": "person"}],
}


def ref(ref_id, ann_id, image_id, split, *sentences):
    """A ref as refs(*).p holds it; its file_name carries the annotation's number."""
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "category_id": 1,
        "image_id": image_id,
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
        "split": split,
        "sent_ids": [ref_id * 10 + i for i in range(len(sentences))],
        "sentences": [
            {"raw": s.upper(), "sent": s, "sent_id": ref_id * 10 + i, "tokens": s.split()}
            for i, s in enumerate(sentences)
        ],
    }


REFS = [
    ref(1, 1719310, 581857, "train", GOLDEN_PHRASE, "blue shirt"),
    ref(2, 12, 9, "testA", "left cup"),
]


def write_refer(folder, refs=REFS, name="refs(unc).p", instances=INSTANCES, protocol=2):
    """`refs(*).p` beside `instances.json`; gives the pickle's path."""
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / name).write_bytes(pickle.dumps(refs, protocol=protocol))
    return folder / name


def sft_row(image="/data/shz/dataset/coco/train2014/a.jpg", answer=None):
    """A row of mllm_rec_json.json."""
    box = answer or '```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "left cup"}\n]\n```'
    return {
        "messages": [
            {"role": "user", "content": f"<image>{question_for('left cup')}"},
            {"role": "assistant", "content": box},
        ],
        "images": [image],
    }


def vlm_r1_row(number=1, **changes):
    """A row of rec_jsons_processed about a 60 x 40 image."""
    row = {
        "id": number,
        "image": f"{number}.png",
        "width": 60,
        "height": 40,
        "normal_caption": f"cup {number}",
        "problem": question_for(f"cup {number}"),
        "solution": [1.0, 2.0, 30.0, 20.0 + number],
    }
    return row | changes


def records_table(rows):
    """Rows with exactly the keys of `COLUMNS` as a table with the types of records.parquet."""
    return pd.DataFrame(rows, columns=COLUMNS).astype(DTYPES)
