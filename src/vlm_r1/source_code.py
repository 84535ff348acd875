"""The source files that a module's results depend on: its import closure within this package.

`make deps` writes the `deps` of dvc.yaml from it, and a resumed training compares the digest of its
code (training/configuration.py). Modules in NO_RESULT are left out, because no edit of them can
change a trained weight, an answer or a figure.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from vlm_r1.files import sha256_of_files

PACKAGE = Path(__file__).parent
NO_RESULT = {  # module or package -> why an edit of it makes no stage stale
    "vlm_r1.cli": "parses a command line",
    "vlm_r1.config.base": "schema: the values are in params.yaml, which DVC compares",
    "vlm_r1.config.load": "schema",
    "vlm_r1.config.sections": "schema",
    "vlm_r1.config.standalone": "values of commands that are no stages",
    "vlm_r1.config.training": "schema",
    "vlm_r1.config": "re-exports the schema",
    "vlm_r1.environment": "thread counts and telemetry",
    "vlm_r1.errors": "a stage that raises writes no result",
    "vlm_r1.files": "writes what it is given",
    "vlm_r1.launch": "starts processes; DVC compares their number",
    "vlm_r1.locks": "keeps other processes away",
    "vlm_r1.nodes": "lets nodes wait for each other",
    "vlm_r1.paths": "file names, which dvc.yaml lists as outs",
    "vlm_r1.preflight": "checks that can only refuse to run",
    "vlm_r1.processes": "ends processes",
    "vlm_r1.source_code": "this list",
    "vlm_r1.tracking": "MLflow shows what the files hold",
}
EXCEPT = ("vlm_r1.config.deepspeed",)  # its JSON files hold values that params.yaml only names


def source_files(module: str) -> list[Path]:
    """Files and folders whose edits can change what `module` computes, sorted.

    These are the module itself, every module it imports at any depth (also inside functions), and
    the data beside these that they name (templates, JSON). An `__init__.py` that holds only a
    docstring is left out.

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
    """Dotted names that a file imports at run time; imports for type checkers are left out.

    `from package import name` gives `package.name` if that is a module of this package, else
    `package`. The packages above an imported module are not listed: their `__init__.py` only
    re-export names.
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
    if name in EXCEPT:
        return False
    return any(name == one or name.startswith(one + ".") for one in NO_RESULT)


def _is_docstring_only(file: Path) -> bool:
    return file.name == "__init__.py" and len(_parse(file).body) <= 1


def _named_data(file: Path) -> set[Path]:
    """Files and folders, no Python, in the folder of `file` that its string constants name."""
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
