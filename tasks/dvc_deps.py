"""`make deps`: writes the code in the `deps` of dvc.yaml from what each stage module imports.

Run from the project's root: `python -m tasks.dvc_deps`. A test asserts that dvc.yaml is as written.
"""

import re
from pathlib import Path

from vlm_r1.source_code import PACKAGE, source_files

STAGE_MODULES = {  # other stages are named like their module in vlm_r1/stages
    "train_seed": ("sft", "grpo"),
    "evaluate_seed": ("evaluate",),
}
CODE = f"src/{PACKAGE.name}"


def code_deps(stage: str) -> list[str]:
    """The code that a stage of dvc.yaml depends on, relative to the project's root.

    A folder stands for its files where the stage depends on every one of them.
    """
    modules = [f"{PACKAGE.name}.stages.{name}" for name in STAGE_MODULES.get(stage, (stage,))]
    files = {file.relative_to(PACKAGE) for name in modules for file in source_files(name)}
    return sorted(f"{CODE}/{path.as_posix()}" for path in _collapse(files))


def _collapse(files: set[Path]) -> set[Path]:
    """Replace files by their folder where that holds nothing else, from the inside out."""
    folders = sorted({f.parent for f in files} - {Path(".")}, key=lambda f: -len(f.parts))
    for folder in folders:
        inside = {file for file in files if file.is_relative_to(folder)}
        there = {
            path.relative_to(PACKAGE)
            for path in (PACKAGE / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        covered = {path for path in there if any(path.is_relative_to(one) for one in inside)}
        empty = {path for path in there if path.name == "__init__.py"}
        if len(inside) > 1 and there - covered <= empty:
            files = files - inside | {folder}
    return files


def with_code_deps(text: str) -> str:
    """dvc.yaml with the code of every stage written anew behind its data; all else stays as it is."""
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
