"""The project's own imports, read from its source: what tests of rooms and of dvc.yaml stand on."""

from functools import cache
from pathlib import Path

from vlm_r1.source_code import imported_modules

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module in the house."""
    library = {_dotted(file, SOURCE): file for file in SOURCE.rglob("*.py")}
    shells = [*(ROOT / "flows").glob("*.py"), *(ROOT / "tasks").glob("*.py")]
    return library | {_dotted(file, ROOT): file for file in shells}


def imports_of(file: Path) -> frozenset[str]:
    """Dotted names that a file imports when it runs."""
    return imported_modules(file)


def _dotted(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
