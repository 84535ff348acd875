"""`make deps`: writes the code in the `deps` of dvc.yaml from what each stage module imports.

Run from the project's root: `python -m tasks.dvc_deps`. A test asserts that dvc.yaml is up to date.
"""

import re
from pathlib import Path

from vlm_r1.source_code import PACKAGE, source_files

STAGE_MODULES = {
    **{"sft_seed": "sft", "grpo_seed": "grpo", "evaluate_seed": "evaluate"},
    **{"candidate_sft": "candidate", "candidate_grpo": "candidate"},
}
CODE = f"src/{PACKAGE.name}"


def module_of(stage: str) -> str:
    """The module in vlm_r1/stages that a stage of dvc.yaml runs: in general that of its name."""
    return STAGE_MODULES.get(stage, stage)


def code_deps(stage: str) -> list[str]:
    """Files and folders of code that a stage of dvc.yaml depends on, relative to the root.

    A folder stands for its files if the stage depends on every one of them.
    """
    module = f"{PACKAGE.name}.stages.{module_of(stage)}"
    files = {file.relative_to(PACKAGE) for file in source_files(module)}
    return sorted(f"{CODE}/{path.as_posix()}" for path in _collapse(files))


def _collapse(found: set[Path]) -> set[Path]:
    """Replace the files of a folder by the folder if all of its files are among them."""
    whole = {folder for folder in {path.parent for path in found} if _is_whole(folder, found)}
    outermost = {f for f in whole if whole.isdisjoint(f.parents)}
    return outermost | {path for path in found if outermost.isdisjoint(path.parents)}


def _is_whole(folder: Path, found: set[Path]) -> bool:
    """True if `found` has two paths or more in `folder` and covers its every file.

    An `__init__.py` need not be there: source_files leaves out those that hold a docstring only.
    """
    if len([path for path in found if path.is_relative_to(folder)]) < 2:
        return False
    files = [path.relative_to(PACKAGE) for path in (PACKAGE / folder).rglob("*") if path.is_file()]
    return all(
        path in found
        or not found.isdisjoint(path.parents)
        or path.name == "__init__.py"
        or "__pycache__" in path.parts
        for path in files
    )


def with_code_deps(text: str) -> str:
    """dvc.yaml with the code of every stage, after its data, written anew; the rest is kept."""
    written, stage, item = [], "", None
    for line in text.splitlines():
        if item is not None and not line.startswith(item):  # the list of deps has ended
            written += [item + dep for dep in code_deps(stage)]
            item = None
        if match := re.match(r"  (\w+):", line):
            stage = match[1]
        if match := re.match(r"( +)deps:(?! \*)", line):
            item = f"{match[1]}  - "
        if item is None or not line.startswith(f"{item}{CODE}/"):
            written.append(line)
    return "\n".join(written) + "\n"


if __name__ == "__main__":
    file = Path("dvc.yaml")
    file.write_text(with_code_deps(file.read_text(encoding="utf-8")), encoding="utf-8")
