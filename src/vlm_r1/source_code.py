"""Which source files a module's results depend on: its import closure within this package.

`make deps` writes the `deps` of dvc.yaml from it, and a resumed training compares the digest of its
code (training/configuration.py). Modules in NO_RESULT are left out, because an edit of theirs can change
no trained weight, answer or figure.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from vlm_r1.files import sha256_of_files

PACKAGE = Path(__file__).parent
NO_RESULT = {  # module or package -> why its edits make nothing stale
    "vlm_r1.cli": "parses a command line",
    "vlm_r1.config.base": "schema: values are in params.yaml, which DVC compares",
    "vlm_r1.config.load": "schema",
    "vlm_r1.config.sections": "schema",
    "vlm_r1.config.training": "schema",
    "vlm_r1.config": "names the schema's parts",
    "vlm_r1.environment": "thread counts and telemetry",
    "vlm_r1.errors": "an error writes no result",
    "vlm_r1.files": "writes files whole or not at all",
    "vlm_r1.launch": "starts processes; their number is in params.yaml",
    "vlm_r1.paths": "file names; dvc.yaml has them as outs",
    "vlm_r1.preflight": "refuses a run or lets it pass",
    "vlm_r1.processes": "ends processes",
    "vlm_r1.source_code": "this list",
    "vlm_r1.tracking": "MLflow is a view of the files",
}
RESULT_AFTER_ALL = ("vlm_r1.config.deepspeed",)  # holds values that params.yaml only names


def source_files(module: str) -> list[Path]:
    """Files whose edits can change what `module` computes, sorted.

    The module itself, every module it imports at any depth (also inside functions), and data files
    that these name (templates, JSON). An `__init__.py` counts if it holds more than a docstring.

    Args:
        module: dotted name within this package, as `vlm_r1.stages.sft`.
    """
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if file is None or file in found or _is_left_out(name):
            continue
        if not _is_docstring_only(file):
            found.add(file)
        waiting += imported_modules(file)
    return sorted(found | {data for file in found for data in _named_data(file)})


def code_digest(module: str) -> str:
    """SHA-256 of `source_files(module)` and their names within the package; 64 hex digits."""
    named = source_files(module)
    files = [file for path in named for file in ([path] if path.is_file() else _files_in(path))]
    return sha256_of_files({file.relative_to(PACKAGE).as_posix(): file for file in files})


def module_file(name: str) -> Path | None:
    """The file of a module of this package; None for any other module or name."""
    package, *parts = name.split(".")
    if package != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*parts)
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


@cache
def imported_modules(file: Path) -> frozenset[str]:
    """Dotted names that a file imports when it runs, not those for type checkers alone.

    `from package import name` gives `package.name` where that is a module of ours, else `package`.
    A package that lies above an imported module is not listed: of ours, `__init__.py` files re-export.
    """
    found: set[str] = set()
    for node in _runtime_nodes(_parse(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if module_file(name) else node.module for name in names}
    return frozenset(found)


def _is_left_out(name: str) -> bool:
    if name in RESULT_AFTER_ALL:
        return False
    return any(name == one or name.startswith(one + ".") for one in NO_RESULT)


def _is_docstring_only(file: Path) -> bool:
    return file.name == "__init__.py" and len(_parse(file).body) <= 1


def _named_data(file: Path) -> set[Path]:
    """Files and folders beside `file` that one of its string constants names; Python files are not."""
    constants = {
        node.value
        for node in ast.walk(_parse(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    beside = [path for path in file.parent.iterdir() if path.suffix != ".py"]
    return {
        path
        for path in beside
        if path.name in constants and not (path.is_dir() and any(path.glob("*.py")))
    }


def _files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@cache
def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _runtime_nodes(child)
