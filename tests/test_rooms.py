"""The rules of the house: who imports whom, what an import may do, which names are taken."""

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.house import ROOT, SOURCE, imports_of, modules

GROUND = {f"vlm_r1.{name}" for name in ("errors", "environment", "paths", "folders", "processes")}
TEXT_ROOMS = {
    *(f"vlm_r1.{name}" for name in ("boxes", "prompts", "answers", "rewards")),
    *(f"vlm_r1.{name}" for name in ("config", "contract", "results")),
    *("vlm_r1.data.synthetic.scenes", "vlm_r1.data.synthetic.phrases", "vlm_r1.rec.vlm_r1_parsers"),
    *(
        f"vlm_r1.evaluation.{name}"
        for name in (
            *("bootstrap", "statistics", "effects", "frames", "correction"),
            *("scoring", "logs", "comparison", "slices", "prompt_matrix"),
        )
    ),
    *GROUND,
}
HEAVY = {"torch", "transformers", "trl", "prefect", "mlflow"}
# A room imports from rooms with a smaller number, and from itself.
FLOORS = {
    "vlm_r1": 0,
    "vlm_r1.data": 1,
    "vlm_r1.models": 2,
    "vlm_r1.training": 3,
    "vlm_r1.evaluation": 3,
    "vlm_r1.report": 4,
    "vlm_r1.tracking": 4,
    "vlm_r1.tracking.registry": 5,
    "vlm_r1.inference.predict": 6,
    "vlm_r1.preflight.doctor": 7,
    "vlm_r1.stages": 6,
    "vlm_r1.cli.data": 8,
    "vlm_r1.cli.stages": 8,
    "vlm_r1.cli.training": 8,
    "vlm_r1.cli": 9,
}
ONLY_IMPORTERS = {
    "mlflow": ("vlm_r1.tracking", "vlm_r1.tracking.registry"),
    "trl": ("vlm_r1.training",),
    "deepspeed": ("vlm_r1.training",),
    "peft": ("vlm_r1.training", "vlm_r1.models"),  # models opens adapters
    "prefect": ("flows", "tasks"),
    "dvc": (),
}
HERE = os.pathsep.join([str(SOURCE), str(ROOT)])  # this checkout, whatever is installed
SHELLS_MAY_IMPORT = {*GROUND, "vlm_r1.config"}


def room_of(module: str) -> str:
    """The longest entry of FLOORS that holds the module."""
    return max((room for room in FLOORS if is_in(module, room)), key=len)


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def house_imports() -> list[tuple[str, str]]:
    return [(name, imported) for name, file in modules().items() for imported in imports_of(file)]


def test_the_house_is_seen():
    assert {"vlm_r1.rec.boxes", "vlm_r1.stages.train", "flows.generalization"} <= set(modules())
    assert ("flows.generalization", "tasks.stage") in house_imports()


def test_rooms_import_only_from_floors_below():
    wrong = [
        f"{name} imports {imported}"
        for name, imported in house_imports()
        if is_in(name, "vlm_r1") and is_in(imported, "vlm_r1")
        if room_of(name) != room_of(imported) and FLOORS[room_of(name)] <= FLOORS[room_of(imported)]
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


def test_importing_the_text_rooms_loads_nothing_heavy():
    assert set(modules()) >= TEXT_ROOMS
    program = f"import sys, {', '.join(sorted(TEXT_ROOMS))}\nprint(*sys.modules)"
    loaded = run_python(program).stdout.split()
    assert "vlm_r1.rec.rewards" in loaded
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
