"""Draws docs/architecture.svg from dvc.yaml and from the imports of src/vlm_r1.

Run by `make deps`, or `python docs/architecture.py`. The stages and their outputs are those of
dvc.yaml. A package of src/vlm_r1 stands in the first row below all packages that import it.
"""

from html import escape
from pathlib import Path

import yaml

from vlm_r1.source_code import PACKAGE, imported_modules

ROOT = Path(__file__).parents[1]
SVG = Path(__file__).with_suffix(".svg")
PACKAGES = {  # package -> what it does, in at most 26 characters or so
    "cli": "vlm-r1: the command line",
    "stages": "one module per DVC stage",
    "training": "GRPO and SFT with TRL",
    "inference": "checkpoint in, boxes out",
    "report": "verdict, curves, the page",
    "tracking": "MLflow runs, registry",
    "preflight": "known faults, memory plan",
    "export": "tasks for lmms-eval",
    "evaluation": "scores, log comparison",
    "models": "loading; the tiny model",
    "stats": "bootstrap, intervals",
    "data": "readers, checks, images",
    "rec": "boxes, parsing, rewards",
    "config": "params.yaml, checked",
}
STARTS = (  # who starts a stage, outermost first
    ("make demo", "a person, or cron"),
    ("flows/ tasks/", "Prefect: runs, logs, pages"),
    ("dvc.yaml", "DVC: order, what is stale"),
    ("vlm-r1 stage NAME", "one process, files in and out"),
)
TORCH = {"torch", "transformers", "trl"}
WIDTH, MARGIN, GAP = 960, 24, 12
BOX_HEIGHT, ROW_HEIGHT = 50, 62
STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de }
  text { font-family: system-ui, sans-serif; font-size: 15px; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .name { font-weight: 600 }
  .small { font-size: 13px; fill: #4d5661 }
  rect.plain { fill: #f3f5f7; stroke: #a9b2bb }
  rect.torch { fill: #fdebd8; stroke: #d39a5b }
  .arrow { stroke: #6b7580; stroke-width: 1.5; fill: none; marker-end: url(#head) }
  #head path { fill: #6b7580 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d }
    text { fill: #e6edf3 }
    .small { fill: #aab4be }
    rect.plain { fill: #1c2229; stroke: #56606b }
    rect.torch { fill: #43301a; stroke: #a9763c }
  }"""


def package_imports() -> dict[str, set[str]]:
    """What each package of ours imports: ours as `vlm_r1.<package>`, others by their first name."""
    packages = [folder for folder in sorted(PACKAGE.iterdir()) if (folder / "__init__.py").exists()]
    found: dict[str, set[str]] = {}
    for package in packages:
        names = {name for file in package.rglob("*.py") for name in imported_modules(file)}
        parts = [name.split(".") for name in names]
        found[package.name] = {
            ".".join(part[:2]) if part[0] == PACKAGE.name else part[0] for part in parts
        }
    return found


def rows_of_packages(imports: dict[str, set[str]]) -> list[list[str]]:
    """Packages by row, from the top: every import of a package leads to a row below its own.

    Raises:
        ValueError: packages import each other in a circle.
    """
    importers = {
        package: {one for one in imports if f"vlm_r1.{package}" in imports[one] and one != package}
        for package in imports
    }
    rows: list[list[str]] = []
    left = set(imports)
    while left:
        row = [package for package in left if not importers[package] & left]
        if not row:
            raise ValueError(f"these packages import each other in a circle: {sorted(left)}")
        rows.append(sorted(row))
        left -= set(row)
    return rows


def stages_and_outputs() -> dict[str, str]:
    """Stage -> its last output, as dvc.yaml has them; `${key}` and the like shown as `*`."""
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    shown = {}
    for name, stage in listed.items():
        if not name.endswith("_seed"):  # those repeat sft, grpo and evaluate for further seeds
            last = stage.get("do", stage)["outs"][-1]
            path = last if isinstance(last, str) else next(iter(last))
            head, variable, rest = path.partition("${")
            shown[name] = head + "*" + rest.partition("}")[2] if variable else path
    return shown


def box(x: float, y: float, width: float, name: str, words: str, kind: str = "plain") -> str:
    """A rectangle with a name and a line of words; x and y are its upper left corner, pixels."""
    middle = x + width / 2
    return (
        f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" '
        f'height="{BOX_HEIGHT}" rx="6"/>\n'
        f'<text class="name" x="{middle:.0f}" y="{y + 21:.0f}" text-anchor="middle">'
        f"{escape(name)}</text>\n"
        f'<text class="small" x="{middle:.0f}" y="{y + 39:.0f}" text-anchor="middle">'
        f"{escape(words)}</text>"
    )


def title(y: float, text: str) -> str:
    """A heading at the left margin; y is its base line."""
    return f'<text class="title" x="{MARGIN}" y="{y:.0f}">{escape(text)}</text>'


def row_of_boxes(y: float, boxes: list[tuple[str, str, str]], columns: int, gap: int) -> list[str]:
    """Boxes (name, words, kind) in the middle of a row that has package for `columns` of them."""
    width = (WIDTH - 2 * MARGIN - (columns - 1) * gap) / columns
    start = (WIDTH - len(boxes) * width - (len(boxes) - 1) * gap) / 2
    return [box(start + i * (width + gap), y, width, *one) for i, one in enumerate(boxes)]


def draw() -> str:
    """The whole picture as SVG text."""
    imports = package_imports()
    parts = [title(36, "A run: who starts what")]
    parts += row_of_boxes(50, [(*one, "plain") for one in STARTS], len(STARTS), 3 * GAP)
    width = (WIDTH - 2 * MARGIN + 3 * GAP) / len(STARTS)
    for i in range(1, len(STARTS)):
        x = MARGIN + i * width
        parts.append(f'<path class="arrow" d="M{x - 3 * GAP + 3:.0f} 75H{x - 9:.0f}"/>')

    y = 136
    parts.append(title(y, "The stages in their order, and what each writes"))
    stages = [(name, path, "plain") for name, path in stages_and_outputs().items()]
    for i in range(0, len(stages), 4):
        y += 14 if i == 0 else ROW_HEIGHT
        parts += row_of_boxes(y, stages[i : i + 4], 4, GAP)

    y += ROW_HEIGHT + 24
    parts.append(title(y, "The packages of src/vlm_r1: each imports only from rows below its own"))
    y += 14 - ROW_HEIGHT
    for row in rows_of_packages(imports):
        y += ROW_HEIGHT
        kinds = ["torch" if imports[package] & TORCH else "plain" for package in row]
        boxes = [
            (f"{package}/", PACKAGES[package], kind)
            for package, kind in zip(row, kinds, strict=True)
        ]
        parts += row_of_boxes(y, boxes, 4, GAP)
    legend_y = y + 20
    parts.append(f'<rect class="torch" x="{MARGIN}" y="{legend_y}" width="16" height="16" rx="3"/>')
    parts.append(
        f'<text class="small" x="{MARGIN + 24}" y="{legend_y + 13}">imports torch or transformers'
        "</text>"
    )
    return _svg(y + ROW_HEIGHT + 4, parts)


def _svg(height: float, parts: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="Architecture">',
            f"<style>{STYLE}\n</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8Z"/></marker></defs>',
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" '
            'rx="10"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    SVG.write_text(draw(), encoding="utf-8")
