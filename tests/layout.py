"""The modules of the project and what they import, read from their source."""

from functools import cache
from pathlib import Path

from vlm_r1.source_code import imported_modules

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module in src, flows and tasks."""
    library = {_dotted(file, SOURCE): file for file in SOURCE.rglob("*.py")}
    scripts = [*(ROOT / "flows").glob("*.py"), *(ROOT / "tasks").glob("*.py")]
    return library | {_dotted(file, ROOT): file for file in scripts}


def imports_of(file: Path) -> frozenset[str]:
    """Dotted names that a file imports at run time."""
    return imported_modules(file)


def _dotted(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
