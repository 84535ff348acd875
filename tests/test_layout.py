"""The rules of the house: who imports whom, what an import may do, which names are taken."""

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.layout import ROOT, SOURCE, imports_of, modules

GROUND = {f"vlm_r1.{name}" for name in ("errors", "environment", "paths", "files", "processes")} | {
    "vlm_r1.source_code"
}
# Rooms that load no torch, transformers, TRL, Prefect or MLflow: text, numpy, pandas.
LIGHT_ROOMS = ("rec", "stats", "evaluation", "config", "report")
HEAVY = {"torch", "transformers", "trl", "prefect", "mlflow"}
# A room imports from the rooms above it in this list, and from itself.
FLOORS = (
    ("vlm_r1",),  # modules of no room: paths, errors, launch, ...
    ("vlm_r1.config",),
    ("vlm_r1.rec", "vlm_r1.stats", "vlm_r1.launch"),
    ("vlm_r1.data",),
    ("vlm_r1.models", "vlm_r1.evaluation"),
    ("vlm_r1.experiment",),
    ("vlm_r1.inference", "vlm_r1.preflight", "vlm_r1.report"),
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
SHELLS_MAY_IMPORT = {*GROUND, "vlm_r1.config"}


def floor_of(module: str) -> int:
    """Index of the floor whose entry holds the module; the longest entry counts."""
    entries = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    return entries[room_of(module)]


def room_of(module: str) -> str:
    return max((room for rooms in FLOORS for room in rooms if is_in(module, room)), key=len)


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def house_imports() -> list[tuple[str, str]]:
    return [(name, imported) for name, file in modules().items() for imported in imports_of(file)]


def test_the_house_is_seen():
    assert {"vlm_r1.rec.boxes", "vlm_r1.stages.sft", "flows.generalization"} <= set(modules())
    assert ("flows.generalization", "tasks.stage") in house_imports()


def test_rooms_import_only_from_floors_below():
    wrong = [
        f"{name} imports {imported}"
        for name, imported in house_imports()
        if is_in(name, "vlm_r1") and is_in(imported, "vlm_r1")
        if room_of(name) != room_of(imported) and floor_of(name) <= floor_of(imported)
    ]
    assert wrong == []


def test_the_library_knows_nothing_of_flows_and_tasks():
    assert [n for n, i in house_imports() if not n.startswith("flows") and is_in(i, "flows")] == []
    assert [n for n, i in house_imports() if n.startswith("vlm_r1") and is_in(i, "tasks")] == []


def test_flows_and_tasks_start_stages_and_import_no_room_of_theirs():
    shells = [(n, i) for n, i in house_imports() if n.startswith(("flows", "tasks"))]
    wrong = [(n, i) for n, i in shells if is_in(i, "vlm_r1") and i not in SHELLS_MAY_IMPORT]
    assert wrong == []


@pytest.mark.parametrize(("package", "importers"), ONLY_IMPORTERS.items())
def test_a_package_is_imported_by_its_own_rooms_only(package, importers):
    found = {name for name, imported in house_imports() if is_in(imported, package)}
    assert {name for name in found if not any(is_in(name, room) for room in importers)} == set()
    assert found or package in ("dvc", "deepspeed", "peft"), f"nothing imports {package}"


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_importing_a_light_room_loads_nothing_heavy(room):
    names = sorted(name for name in modules() if is_in(name, f"vlm_r1.{room}")) + sorted(GROUND)
    assert len(names) > len(GROUND)
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
