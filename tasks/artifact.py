"""The report as a Prefect artifact: report.md with its curves embedded."""

import base64
import io
import re
from pathlib import Path

from PIL import Image
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from vlm_r1.paths import REPORT

KEY = "generalization-report"
WIDTH_PX = 900  # the image is stored in Prefect's database
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<file>[\w./-]+\.png)\)")


@task(cache_policy=NO_CACHE)
def publish_report() -> None:
    """Publish reports/generalization/report.md under the key `generalization-report`."""
    create_markdown_artifact(key=KEY, markdown=embed_curves(REPORT / "report.md"))


def embed_curves(page: Path) -> str:
    """The page's text with its first image as a data URI and the others as file names.

    Relative links would be broken: Prefect does not show the report's folder.
    """
    text = page.read_text(encoding="utf-8")
    embedded = IMAGE.sub(lambda link: _embedded(page, link), text, count=1)
    return IMAGE.sub(r"`\g<file>`", embedded)  # a data URI is no file name: it does not match


def _embedded(page: Path, link: re.Match[str]) -> str:
    return f"![{link['alt']}]({_data_uri(page.parent / link['file'])})"


def _data_uri(image: Path) -> str:
    buffer = io.BytesIO()
    with Image.open(image) as opened:
        opened.thumbnail((WIDTH_PX, 4 * WIDTH_PX))
        opened.convert("RGB").quantize(64).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
