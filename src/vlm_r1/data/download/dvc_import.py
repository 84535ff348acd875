"""The .dvc file of a fetched archive: its address, its bytes, and the SHA-256 it was trusted with.

A file with an ETag is recorded as `dvc import-url` would have (so `dvc update` asks its server for
a newer one), one without as `dvc add` would. Either way `dvc push` and `dvc pull` share it. DVC
writes the file, by its command; the SHA-256 is kept under `meta`, which DVC leaves alone.
"""

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlm_r1.errors import FetchError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """What a .dvc file says; `sha256` is null where `dvc update` has brought another file since."""

    url: str | None
    etag: str | None
    md5: str
    size_bytes: int
    sha256: str | None


def dvc_file(archive: Path) -> Path:
    """The .dvc file of an archive."""
    return archive.with_name(archive.name + ".dvc")


def read_import(archive: Path) -> Imported | None:
    """What was recorded of an archive; null if nothing was, or a kill left it half recorded."""
    try:
        written = yaml.safe_load(dvc_file(archive).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    out, meta = written["outs"][0], written.get("meta") or {}
    if "md5" not in out:
        return None
    dep = written.get("deps", [{}])[0]
    return Imported(
        url=dep.get("path", meta.get("url")),
        etag=dep.get("checksum"),
        md5=out["md5"],
        size_bytes=out["size"],
        sha256=meta.get("sha256") if meta.get("md5") == out["md5"] else None,
    )


def record_import(root: Path, archive: Path, url: str, sha256: str, has_etag: bool) -> None:
    """Let DVC track an archive that lies in the workspace, and note its SHA-256.

    Args:
        root: the project; without DVC there nothing is recorded, which is logged.

    Raises:
        FetchError: DVC refuses.
    """
    if not (root / ".dvc").is_dir():
        log.info("%s: not tracked, %s is no DVC project", archive.name, root)
        return
    name = archive.relative_to(root).as_posix()
    if has_etag:
        _dvc(root, "import-url", "--no-exec", "--force", url, name)
        _dvc(root, "commit", "--force", f"{name}.dvc")
    else:
        dvc_file(archive).unlink(missing_ok=True)  # or DVC would keep its old address
        _dvc(root, "add", "--quiet", name)
    _write_meta(dvc_file(archive), {"url": url, "sha256": sha256})
    log.info("%s: tracked by %s.dvc (commit it)", archive.name, name)


def _write_meta(file: Path, meta: dict[str, Any]) -> None:
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    written["meta"] = meta | {"md5": written["outs"][0]["md5"]}  # which file the SHA-256 is of
    part = file.with_name(file.name + ".part")
    part.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    part.replace(file)


def _dvc(root: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FetchError(
            got=f"`dvc {' '.join(arguments)}`: {' '.join(done.stderr.split())[-400:]}",
            need="DVC to track the file, which is here and verified",
            because="a result must name the bytes it came from",
            do="see to what DVC says, then run the same command again: it downloads nothing twice",
        )
