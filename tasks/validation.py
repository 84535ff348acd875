"""The validation of all datasets as a Prefect artifact: a table, then the failed checks."""

import json

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from vlm_r1.paths import PREPARED

KEY = "data-validation"


@task(cache_policy=NO_CACHE)
def publish_validation() -> None:
    """Publish every data/prepared/*/validation.json under the key `data-validation`."""
    verdicts = {
        file.parent.name: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(PREPARED.glob("*/validation.json"))
    }
    create_markdown_artifact(key=KEY, markdown=verdict_table(verdicts))


def verdict_table(verdicts: dict[str, dict]) -> str:
    """A table of dataset, verdict, rows, quarantined rows and shared images; then failed checks."""
    lines = [
        "| dataset | verdict | rows | set aside | shared images |",
        "|---|---|--:|--:|--:|",
        *(
            f"| {name} | {found['verdict']} | {found['rows']} | {found['quarantined']} |"
            f" {len({leak['image'] for leak in found['leakage']})} |"
            for name, found in verdicts.items()
        ),
    ]
    failures = [
        f"* {name}: `{one['name']}` fails for {one['failed']}, first "
        f"`{json.dumps(one['examples'][0], ensure_ascii=False)}`"
        for name, found in verdicts.items()
        for one in found["expectations"]
        if not one["success"]
    ]
    return "\n".join([*lines, "", *failures])
