"""One declared source as a Prefect task: `vlm-r1 fetch`, retried if that may help.

The command resumes its download, so a retry fetches only what is missing.
"""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from tasks.stage import run_logged
from vlm_r1.errors import TemporaryFetchError

RETRIES = 5
FIRST_DELAY_S = 10  # then 20, 40, 80, 160


class SourceFailedError(RuntimeError):
    """A source was not fetched; `is_temporary` tells whether a later try may help."""

    def __init__(self, name: str, code: int, last: str) -> None:
        super().__init__(f"fetching {name} ended with code {code}; its last lines:\n{last}")
        self.is_temporary = code == TemporaryFetchError.exit_code


async def _is_temporary(_task: Task, _run: TaskRun, state: State[Any]) -> bool:
    """Called by Prefect before each retry: False after a 404 or a wrong checksum."""
    error = await state.aresult(raise_on_failure=False)
    return getattr(error, "is_temporary", False)


@task(
    cache_policy=NO_CACHE,
    task_run_name="fetch {name}",
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(backoff_factor=FIRST_DELAY_S),
    retry_jitter_factor=0.2,
    retry_condition_fn=_is_temporary,
)
def fetch_source(name: str) -> None:
    """Bring one source of `vlm-r1 sources` into data/raw, verified and tracked.

    Raises:
        SourceFailedError: with the command's last lines.
    """
    code, last = run_logged("vlm-r1", "fetch", name)
    if code != 0:
        raise SourceFailedError(name, code, last)
