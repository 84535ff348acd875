"""VLM-R1's rec.yaml: a list of JSON files, each with how many of its rows to take."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
import pandas as pd
import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from vlm_r1.data.readers.base import Reading, Source, unusable
from vlm_r1.data.readers.json_rows import read_bytes
from vlm_r1.data.readers.vlm_r1 import read_vlm_r1
from vlm_r1.errors import describe_fault

STRATEGY = re.compile(r"(?P<which>first|end|random):(?P<count>\d+)(?P<percent>%?)")
NEED = (
    "datasets: a list of {json_path, sampling_strategy}, the latter one of all, first:N, end:N or "
    "random:N, N a number of rows or a percentage as 10%"
)


@with_config(ConfigDict(strict=True, extra="forbid"))
class _Entry(TypedDict):
    json_path: str
    sampling_strategy: NotRequired[str]


_LIST = TypeAdapter(TypedDict("_List", {"datasets": Annotated[list[_Entry], Field(min_length=1)]}))


def read_mixture(source: Source) -> Reading:
    """The rows of all files, in the list's order; each file's rows stay in its own order.

    `json_path` is relative to the YAML file. Record ids begin with the JSON file's stem.

    Raises:
        DataError: the list is wrong, a file cannot be read, or it has fewer rows than are asked.
    """
    readings = []
    for number, entry in enumerate(_entries(source), start=1):
        path = Path(entry["json_path"])
        part = replace(source, path=source.path.parent / path, name=str(path), prefix=path.stem)
        strategy = entry.get("sampling_strategy", "all")
        where = f"{source.name}: row {number}: {path}"
        readings.append(_sample(read_vlm_r1(part), strategy, [source.seed, number], where))
    return Reading(
        pd.concat([one.records for one in readings], ignore_index=True),
        pd.concat([one.unread for one in readings], ignore_index=True),
    )


def _entries(source: Source) -> list[_Entry]:
    raw = read_bytes(source.path, source.name)
    try:
        return _LIST.validate_python(yaml.safe_load(raw))["datasets"]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fault = " ".join(str(error).split())
    except ValidationError as error:
        fault = describe_fault(error, whole="")
    raise unusable(source.name, fault, NEED)


def _sample(reading: Reading, strategy: str, seed: list[int], where: str) -> Reading:
    """The rows that the strategy names, in the file's order."""
    if strategy == "all":
        return reading
    rows = np.sort(np.concatenate([reading.records["row"], reading.unread["row"]])).astype(int)
    which, count = _rows_wanted(strategy, len(rows), where)
    if which == "first":
        taken = rows[:count]
    elif which == "end":
        taken = rows[-count:]
    else:
        taken = np.random.default_rng(seed).choice(rows, count, replace=False)
    records, unread = reading.records, reading.unread
    return Reading(records[records["row"].isin(taken)], unread[unread["row"].isin(taken)])


def _rows_wanted(strategy: str, rows: int, where: str) -> tuple[str, int]:
    """(first, end or random; how many): a percentage is rounded up, as VLM-R1 does."""
    match = STRATEGY.fullmatch(strategy)
    if match is None:
        raise unusable(where, f"sampling_strategy {strategy!r}", NEED)
    count = int(match["count"])
    if match["percent"]:
        count = math.ceil(rows * count / 100)
    if not 1 <= count <= rows:
        raise unusable(where, f"sampling_strategy {strategy!r} of {rows} rows", NEED)
    return match["which"], count
