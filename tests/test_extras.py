"""The extras of pyproject.toml can be installed beside the locked versions."""

import json
import subprocess
import sys
import tomllib

import pytest

from tests.layout import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def dry_run(*requirements: str) -> subprocess.CompletedProcess:
    """What pip would install here, as JSON on standard output; installs nothing."""
    options = ["--quiet", "--dry-run", "--report", "-", "--retries", "2", "--timeout", "15"]
    lock = ["--constraint", str(ROOT / "requirements.lock")]
    command = [sys.executable, "-m", "pip", "install", *options, *lock, *requirements]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_gpu_extra_resolves_and_changes_no_locked_version():
    if dry_run("--ignore-installed", "--no-deps", "pyyaml").returncode:
        pytest.skip("no package index here")
    found = dry_run(*EXTRAS["gpu"])
    assert found.returncode == 0, found.stderr
    added = {one["metadata"]["name"] for one in json.loads(found.stdout)["install"]}
    assert added <= {"bitsandbytes"}
