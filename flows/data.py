"""Fetches archives and prepares their data: fetch, unpack, version, prepare.

Run it from the project's root: `python -m flows.data` for the sources of params.yaml, or
`python -m flows.data refgta lisa_test` for those named. VLM_R1_MIRROR: docs/data.md.
"""

import sys

from prefect import flow

from tasks.lifetime import ends_as_told, start_guardian
from tasks.source import SourceFailedError, fetch_source
from tasks.stage import StageFailedError, run_stage
from tasks.validation import publish_validation
from vlm_r1.config import load_params
from vlm_r1.errors import ConfigError


@flow(name="data")
@ends_as_told
def data(sources: list[str] | None = None) -> None:
    """Fetch sources one after the other, then bring the data stages up to date.

    Args:
        sources: names of `vlm-r1 sources`; those of params.yaml if none are given.
    """
    for name in sources or load_params().sources:
        fetch_source(name)
    run_stage("unpack")
    run_stage("version")
    try:
        run_stage("prepare")
    finally:
        publish_validation()  # also when it fails: the page shows which rows are wrong


def main() -> None:
    """Run the flow for the sources on the command line; failures come without a traceback."""
    start_guardian()  # before Prefect's temporary server, which is to end with this process
    try:
        data(sys.argv[1:] or None)
    except (ConfigError, SourceFailedError, StageFailedError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
