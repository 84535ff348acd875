"""From nothing to validated, versioned records: fetch, unpack, version, prepare.

Run it from the project's root: `python -m flows.data` for the sources of params.yaml, or
`python -m flows.data refgta lisa_test` for these. The mirror is VLM_R1_MIRROR (docs/data.md).
"""

import sys

from prefect import flow

from tasks.source import SourceFailedError, fetch_source
from tasks.stage import StageFailedError, run_stage
from tasks.validation import publish_validation
from vlm_r1.config import load_params


@flow(name="data")
def data(sources: list[str] | None = None) -> None:
    """Fetch sources, one after the other, and bring the stages on them up to date.

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
        publish_validation()  # above all when data fails


def main() -> None:
    """Run the flow for the sources on the command line; a failure is told without a traceback."""
    try:
        data(sys.argv[1:] or None)
    except (SourceFailedError, StageFailedError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
