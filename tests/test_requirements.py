"""Whether an extra is met, by the metadata of what is installed."""

import pytest

from vlm_r1.preflight.requirements import unmet_requirements

EXTRA = 'Requires-Dist: engine<3,>=2; extra == "fast"'


@pytest.fixture
def install(monkeypatch, tmp_path):
    """A function that makes a package look installed: its name, version and what it requires."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, version: str, *requires: str) -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *requires]
        (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]) + "\n")

    return make


def test_an_extra_is_unmet_without_its_package_and_met_without_the_extra(install):
    install("trainer", "1.0", EXTRA)
    assert unmet_requirements("trainer[fast]") == ["engine<3,>=2 for trainer (not installed)"]
    assert unmet_requirements("trainer") == []


def test_a_package_of_the_right_version_with_an_unmet_pin_is_unmet(install):
    install("trainer", "1.0", EXTRA)
    install("engine", "2.5", "Requires-Dist: tensors==2.13.0")
    install("tensors", "2.14.1")
    assert unmet_requirements("trainer[fast]") == [
        "tensors==2.13.0 for engine (2.14.1 is installed)"
    ]


def test_an_extra_is_met_when_every_pin_is(install):
    install("trainer", "1.0", EXTRA)
    install("engine", "2.5", "Requires-Dist: tensors==2.14.1", "Requires-Dist: trainer")
    install("tensors", "2.14.1+cpu")
    assert unmet_requirements("trainer[fast]") == []


def test_another_version_and_another_platform(install):
    elsewhere = 'Requires-Dist: missing; platform_system == "Plan9"'
    install("trainer", "1.0", EXTRA, elsewhere)
    install("engine", "3.0")
    assert unmet_requirements("trainer[fast]") == ["engine<3,>=2 for trainer (3.0 is installed)"]
