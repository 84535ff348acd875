"""Time and memory to read, validate and leak-check 321,327 rows.

Run from the project's root: OMP_NUM_THREADS=1 python -m benchmarks.data

Makes three files of the size and layout of VLM-R1's training files (120,624, 120,191 and 80,512
rows of RefCOCO, RefCOCO+ and RefCOCOg), the rec.yaml that lists them, and a test file. Each way of
reading runs in a process of its own, so that its peak memory can be measured. No image is opened.

The naive way is `json.load` and a loop over rows: quick checks (keys, types, box inside the image,
expression, ids, repetitions, shared names), and what VLM-R1's dataset does for a row (join the
path, build the conversation). It does not report what is wrong.
"""

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.compare import figure

FILES = {"refcoco_train": 120_624, "refcocop_train": 120_191, "refcocog_train": 80_512}
TEST_ROWS = 10_834
EXPRESSIONS_PER_IMAGE = 7
WORDS = ["left", "right", "man", "woman", "red", "shirt", "next to", "table", "cat", "in front of"]
WAYS = ("naive", "read", "validate")


def main() -> None:
    """Print a line for each way: seconds, rows a second, peak memory."""
    options = _options()
    if options.way:
        run(options.way, Path(options.folder))
        return
    with TemporaryDirectory() as folder:
        for number, (name, rows) in enumerate(FILES.items()):
            write(Path(folder) / f"{name}.json", int(rows * options.share), number)
        write(Path(folder) / "test.json", TEST_ROWS, len(FILES))
        listed = [{"json_path": f"{name}.json"} for name in FILES]
        (Path(folder) / "rec.yaml").write_text(json.dumps({"datasets": listed}))
        print(f"{'':10}{'rows':>10}{'wall s':>9}{'CPU s':>8}{'rows/s':>10}{'peak MB':>10}")
        wall_s: dict[str, list[float]] = {way: [] for way in WAYS}
        for way in WAYS * options.rounds:
            command = [sys.executable, "-m", "benchmarks.data", "--way", way, "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            line, seconds = done.stdout.splitlines()[-2:]
            print(line, flush=True)
            wall_s[way].append(float(seconds))
    for way in ("read", "validate"):
        name = f"data: {way} {options.share:.2g} of 321,327 rows, speed-up over a loop over rows"
        print(figure(name, wall_s["naive"], wall_s[way]).line())


def run(way: str, folder: Path) -> None:
    """One way, in this process."""
    wall = time.perf_counter()
    rows = {"naive": naive, "read": read, "validate": validate}[way](folder)
    wall = time.perf_counter() - wall
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    print(
        f"{way:10}{rows:10,}{wall:9.1f}{cpu:8.1f}{rows / wall:10,.0f}{peak_mb:10,.0f}", flush=True
    )
    print(wall)


def naive(folder: Path) -> int:
    """Read and check in plain Python."""
    tested = {row["image"] for row in json.loads((folder / "test.json").read_text())}
    items, ids, seen, bad, leaks = [], set(), set(), [], set()
    for name in FILES:
        with (folder / f"{name}.json").open() as file:
            rows = json.load(file)
        for row in rows:
            item = dict(row)
            item["image_path"] = str(folder / row["image"])
            item["conversation"] = [{"role": "user", "content": row["problem"]}]
            items.append(item)
            x1, y1, x2, y2 = row["solution"]
            inside = 0 <= x1 < x2 <= row["width"] and 0 <= y1 < y2 <= row["height"]
            finite = all(isinstance(c, int | float) and math.isfinite(c) for c in (x1, y1, x2, y2))
            length = 0 < len(row["normal_caption"].strip()) <= 300
            key = (name, row["image"], row["normal_caption"], x1, y1, x2, y2)
            if not (inside and finite and length) or (name, row["id"]) in ids or key in seen:
                bad.append(row)
            ids.add((name, row["id"]))
            seen.add(key)
            if row["image"] in tested:
                leaks.add(row["image"])
    return len(items)


def read(folder: Path) -> int:
    """Our reader: every row checked for keys and types, records as a table."""
    from vlm_r1.data import readers

    path = folder / "rec.yaml"
    return readers.read("rec-yaml", readers.InputFile(path, path.name, dataset="train")).row_count


def validate(folder: Path) -> int:
    """`vlm-r1 validate rec.yaml --metadata-only --against test.json`, start included."""
    from vlm_r1.config import standalone
    from vlm_r1.data.validation.check_file import check_file

    check = check_file(
        folder / "rec.yaml",
        None,
        folder,
        folder / "out",
        bounds=standalone.VALIDATION.model_copy(update={"max_repeated_share": 1.0}),
        against=[folder / "test.json"],
        metadata_only=True,
    )
    assert check.passed, check.lines
    return json.loads((folder / "out/validation.json").read_text())["rows"]


def write(path: Path, rows: int, number: int) -> None:
    """A file of rec_jsons_processed: every key of its rows, several expressions per image."""
    rng = random.Random(number)
    lines = (json.dumps(row) for row in rows_of(path.stem, rows, number, rng))
    with path.open("w") as file:
        file.write("[")
        file.write(", ".join(lines))
        file.write("]")


def rows_of(name: str, rows: int, number: int, rng: random.Random) -> Iterator[dict]:
    """Rows in the real layout about 640 x 480 images; no two files share an image."""
    from vlm_r1.rec.prompts import question_for

    for i in range(rows):
        x1, y1 = round(rng.uniform(0, 300), 2), round(rng.uniform(0, 200), 2)
        x2, y2 = round(x1 + rng.uniform(20, 300), 2), round(y1 + rng.uniform(20, 250), 2)
        expression = f"{' '.join(rng.choices(WORDS, k=rng.randint(2, 9)))} {i % 97}"
        image = number * 100_000 + i // EXPRESSIONS_PER_IMAGE
        yield {
            "height": 480,
            "width": 640,
            "id": i,
            "original_id": 1_000_000 * number + i,
            "dataset_name": name,
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "image_id": image,
            "category_id": 1,
            "bbox_list": [[x1, y1, x2 - 1, y2 - 1]],
            "text_type": "caption",
            "image": f"train2014/COCO_train2014_{image:012d}.jpg",
            "problem": question_for(expression),
            "normal_caption": expression,
            "solution": [x1, y1, x2, y2],
            "normalized_solution": [int(x1), int(y1), int(x2), int(y2)],
        }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the real number of rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
