"""The borders between packages: who imports whom, what an import may do, which names are taken."""

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.layout import ROOT, SOURCE, imports_of, modules

BASICS = {f"vlm_r1.{name}" for name in ("errors", "environment", "paths", "files", "processes")} | {
    *("vlm_r1.source_code", "vlm_r1.locks", "vlm_r1.nodes")
}
# Packages that load none of HEAVY: they need text, numpy and pandas only.
LIGHT_PACKAGES = ("rec", "stats", "evaluation", "config", "report")
HEAVY = {"torch", "transformers", "trl", "prefect", "mlflow"}
# A package imports from those above it in this list, and from itself.
LAYERS = (
    ("vlm_r1",),  # modules in no package: paths, errors, ...
    ("vlm_r1.config",),
    ("vlm_r1.rec", "vlm_r1.stats", "vlm_r1.launch"),
    ("vlm_r1.data",),
    ("vlm_r1.models", "vlm_r1.evaluation"),
    ("vlm_r1.experiment",),
    ("vlm_r1.inference", "vlm_r1.preflight", "vlm_r1.report", "vlm_r1.export"),
    ("vlm_r1.training", "vlm_r1.tracking"),
    ("vlm_r1.stages",),
    ("vlm_r1.cli",),
)
ONLY_IMPORTERS = {
    "mlflow": ("vlm_r1.tracking",),
    "trl": ("vlm_r1.training",),
    "deepspeed": ("vlm_r1.training",),
    "peft": ("vlm_r1.training", "vlm_r1.models", "vlm_r1.preflight"),
    "prefect": ("flows", "tasks"),
    "dvc": (),
}
HERE = os.pathsep.join([str(SOURCE), str(ROOT)])  # this checkout, whatever is installed
FLOWS_MAY_IMPORT = {*BASICS, "vlm_r1.config"}


def layer_of(module: str) -> int:
    """Index in LAYERS of the module's package."""
    numbers = {name: number for number, names in enumerate(LAYERS) for name in names}
    return numbers[package_of(module)]


def package_of(module: str) -> str:
    """The longest name in LAYERS that holds the module."""
    return max((name for names in LAYERS for name in names if is_in(module, name)), key=len)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def all_imports() -> list[tuple[str, str]]:
    return [(name, imported) for name, file in modules().items() for imported in imports_of(file)]


def test_the_modules_are_found():
    assert {"vlm_r1.rec.boxes", "vlm_r1.stages.sft", "flows.generalization"} <= set(modules())
    assert ("flows.generalization", "tasks.stage") in all_imports()


def test_packages_import_only_from_layers_above_them():
    wrong = [
        f"{name} imports {imported}"
        for name, imported in all_imports()
        if is_in(name, "vlm_r1") and is_in(imported, "vlm_r1")
        if package_of(name) != package_of(imported) and layer_of(name) <= layer_of(imported)
    ]
    assert wrong == []


def test_the_library_imports_no_flows_and_tasks():
    assert [n for n, i in all_imports() if not n.startswith("flows") and is_in(i, "flows")] == []
    assert [n for n, i in all_imports() if n.startswith("vlm_r1") and is_in(i, "tasks")] == []


def test_flows_and_tasks_import_only_config_and_basics():
    scripts = [(n, i) for n, i in all_imports() if n.startswith(("flows", "tasks"))]
    wrong = [(n, i) for n, i in scripts if is_in(i, "vlm_r1") and i not in FLOWS_MAY_IMPORT]
    assert wrong == []


@pytest.mark.parametrize(("package", "importers"), ONLY_IMPORTERS.items())
def test_a_library_is_imported_by_its_own_packages_only(package, importers):
    found = {name for name, imported in all_imports() if is_in(imported, package)}
    assert {name for name in found if not any(is_in(name, one) for one in importers)} == set()
    assert found or package in ("dvc", "deepspeed", "peft"), f"nothing imports {package}"


@pytest.mark.parametrize("package", LIGHT_PACKAGES)
def test_importing_a_light_package_loads_nothing_heavy(package):
    names = sorted(name for name in modules() if is_in(name, f"vlm_r1.{package}")) + sorted(BASICS)
    assert len(names) > len(BASICS)
    loaded = run_python(f"import sys, {', '.join(names)}\nprint(*sys.modules)").stdout.split()
    assert set(names) <= set(loaded)
    assert HEAVY.isdisjoint(loaded)


def test_a_prompt_stage_that_is_off_loads_nothing_heavy():
    loaded = run_python("import sys, vlm_r1.stages.prompts\nprint(*sys.modules)").stdout.split()
    assert HEAVY.isdisjoint(loaded)


def test_importing_any_module_writes_nothing_opens_no_socket_and_is_silent(tmp_path):
    program = f"""
import sys
events = []
sys.addaudithook(lambda event, _: events.append(event))
import {", ".join(sorted(modules()))}
assert "import" in events
assert "socket.connect" not in events
"""
    done = run_python(program, cwd=tmp_path)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def run_python(program: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run a program in a fresh process of this environment, as from the project's root."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": HERE, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_folder_mlflow_holds_no_python():
    assert (ROOT / "mlflow/README.md").exists()
    assert list((ROOT / "mlflow").rglob("*.py")) == []


def test_the_shared_server_has_the_version_of_the_client():
    pin = f"mlflow=={metadata.version('mlflow')} "
    assert pin in (ROOT / "mlflow/docker-compose.yaml").read_text(encoding="utf-8")


def test_import_mlflow_finds_the_installed_package():
    found = importlib.util.find_spec("mlflow")
    assert "site-packages" in found.origin


@pytest.mark.parametrize("folder", ["flows", "tasks"])
def test_no_file_is_named_like_something_importable(folder):
    """Prefect puts a flow's folder at the front of sys.path, where its files hide packages."""
    taken = {*metadata.packages_distributions(), *sys.stdlib_module_names} - {"tasks", "flows"}
    names = {file.stem for file in (ROOT / folder).glob("*.py")}
    assert names
    assert names & taken == set()
