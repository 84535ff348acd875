"""VLM-R1's rec.yaml: a list of JSON files, each with a strategy for sampling its rows."""

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

from vlm_r1.data.readers.base import InputFile, ReadResult, unusable
from vlm_r1.data.readers.json_rows import read_bytes
from vlm_r1.data.readers.vlm_r1 import read_vlm_r1
from vlm_r1.errors import describe_fault, one_line

STRATEGY = re.compile(r"(?P<which>first|end|random):(?P<count>\d+)(?P<percent>%?)")
NEED = (
    "datasets: a list of {json_path, sampling_strategy}, the latter one of all, first:N, end:N or "
    "random:N, N a number of rows or a percentage as 10%"
)


@with_config(ConfigDict(strict=True, extra="forbid"))
class _Entry(TypedDict):
    json_path: str
    sampling_strategy: NotRequired[str]


class _Content(TypedDict):
    datasets: Annotated[list[_Entry], Field(min_length=1)]


_CONTENT = TypeAdapter(_Content)


def read_rec_yaml(source: InputFile) -> ReadResult:
    """The sampled rows of all listed files, in the list's order and each file's own order.

    `json_path` is relative to the YAML file. Record ids begin with the JSON file's stem.

    Raises:
        DataError: the list is wrong, a file cannot be read, or a strategy asks for more rows than
            its file has.
    """
    results = []
    for number, entry in enumerate(_entries(source), start=1):
        path = Path(entry["json_path"])
        file = replace(source, path=source.path.parent / path, name=str(path), prefix=path.stem)
        strategy = entry.get("sampling_strategy", "all")
        where = f"{source.name}: row {number}: {path}"
        results.append(_sample(read_vlm_r1(file), strategy, [source.seed, number], where))
    return ReadResult(
        pd.concat([result.records for result in results], ignore_index=True),
        pd.concat([result.unread for result in results], ignore_index=True),
    )


def _entries(source: InputFile) -> list[_Entry]:
    raw = read_bytes(source.path, source.name)
    try:
        return _CONTENT.validate_python(yaml.safe_load(raw))["datasets"]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fault = one_line(error)
    except ValidationError as error:
        fault = describe_fault(error)
    raise unusable(source.name, fault, NEED)


def _sample(result: ReadResult, strategy: str, seed: list[int], where: str) -> ReadResult:
    """The rows that the strategy selects, in the file's order."""
    if strategy == "all":
        return result
    records, unread = result.records, result.unread
    rows = np.sort(np.concatenate([records["row"], unread["row"]])).astype(int)
    which, count = _parse_strategy(strategy, len(rows), where)
    if which == "first":
        selected = rows[:count]
    elif which == "end":
        selected = rows[-count:]
    else:
        selected = np.random.default_rng(seed).choice(rows, count, replace=False)
    return ReadResult(records[records["row"].isin(selected)], unread[unread["row"].isin(selected)])


def _parse_strategy(strategy: str, rows: int, where: str) -> tuple[str, int]:
    """(first, end or random; number of rows). Percentages are rounded up, as in VLM-R1."""
    match = STRATEGY.fullmatch(strategy)
    if match is None:
        raise unusable(where, f"sampling_strategy {strategy!r}", NEED)
    count = int(match["count"])
    if match["percent"]:
        count = math.ceil(rows * count / 100)
    if not 1 <= count <= rows:
        raise unusable(where, f"sampling_strategy {strategy!r} of {rows} rows", NEED)
    return match["which"], count
