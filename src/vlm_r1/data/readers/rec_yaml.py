"""VLM-R1's rec.yaml: a list of JSON files, each with a strategy for sampling its rows."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, NotRequired

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from vlm_r1.data.readers.base import InputFile, ReadResult, join_results, unusable
from vlm_r1.data.readers.json_rows import read_bytes
from vlm_r1.data.readers.sampling import NEED as STRATEGIES
from vlm_r1.data.readers.sampling import sample_rows
from vlm_r1.data.readers.vlm_r1 import read_vlm_r1
from vlm_r1.errors import describe_fault, one_line

NEED = f"datasets: a list of {{json_path, sampling_strategy}}, the latter {STRATEGIES}"


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
        results.append(sample_rows(read_vlm_r1(file), strategy, [source.seed, number], where))
    return join_results(results)


def _entries(source: InputFile) -> list[_Entry]:
    raw = read_bytes(source.path, source.name)
    try:
        return _CONTENT.validate_python(yaml.safe_load(raw))["datasets"]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fault = one_line(error)
    except ValidationError as error:
        fault = describe_fault(error)
    raise unusable(source.name, fault, NEED)
