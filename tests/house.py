"""The project's own imports, read from its source: what tests of rooms and of dvc.yaml stand on."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module in the house."""
    library = {_dotted(file, SOURCE): file for file in SOURCE.rglob("*.py")}
    shells = [*(ROOT / "flows").glob("*.py"), *(ROOT / "tasks").glob("*.py")]
    return library | {_dotted(file, ROOT): file for file in shells}


@cache
def imports_of(file: Path) -> set[str]:
    """Dotted names that a file imports, also inside functions, but not for type checkers alone."""
    found: set[str] = set()
    for node in _walk_runtime(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {_imported(node.module, alias.name) for alias in node.names}
    return found


def closure(module: str, without: frozenset[str] = frozenset()) -> set[str]:
    """The module and every module of the house that it imports, directly or not.

    What is named in `without` is left out, and with it what it alone imports.
    """
    known, found, waiting = modules(), set(), [module]
    while waiting:
        name = waiting.pop()
        if name in known and name not in found | without:
            found.add(name)
            waiting += imports_of(known[name])
    return found


def _dotted(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(package: str, name: str) -> str:
    """`from package import name` imports a module of ours, or something out of `package`."""
    return f"{package}.{name}" if f"{package}.{name}" in modules() else package


def _walk_runtime(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _walk_runtime(child)
