"""Watches a Python process from inside: photos that it opens, memory before its model and at most.

`site_folder` makes a folder for PYTHONPATH that starts the watch in every Python process, so that
the commands themselves stay as they are. A process writes its lines into a file of its own.
"""

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = "REHEARSAL_PROBE"  # the environment's variable that names the folder of the lines
PHOTO = ".jpg"
MODEL_CODE = "modeling_qwen2_5_vl.py"


def site_folder(folder: Path) -> Path:
    """Make `folder` hold a sitecustomize.py, which Python imports when it starts."""
    folder.mkdir(parents=True)
    text = "from benchmarks.rehearsal import probe\n\nprobe.start()\n"
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    return folder


def start() -> None:
    """Watch this process, if the environment names a folder for its lines."""
    if FOLDER in os.environ:
        file = Path(os.environ[FOLDER]) / f"{os.getpid()}.jsonl"
        sys.addaudithook(lambda event, given: _on_event(file, event, given))
        atexit.register(lambda: _note(file, peak_kb=_status_kb("VmHWM")))


def _on_event(file: Path, event: str, given: tuple[Any, ...]) -> None:
    if event == "open" and str(given[0]).endswith(PHOTO):
        _note(file, opened=Path(given[0]).name)
    elif event == "exec" and given[0].co_filename.endswith(MODEL_CODE):  # the module's import
        _note(file, before_model_kb=_status_kb("VmRSS"))


def _note(file: Path, **line: Any) -> None:
    """Append one line; in a forked child it still goes to the parent's file, whole."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _status_kb(name: str) -> int:
    """A number of /proc/self/status (Linux), in kB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise KeyError(name)
