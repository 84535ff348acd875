"""The .dvc file of a fetched archive: address, MD5, and the SHA-256 that was verified.

A file whose server gives an ETag is recorded as `dvc import-url` would, so that `dvc update` can
look for a newer version; one without an ETag is recorded as `dvc add` would. `dvc push` and
`dvc pull` work for both. DVC's own commands write the file; the SHA-256 goes under `meta`, which
DVC keeps but ignores.
"""

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlm_r1.errors import FetchError
from vlm_r1.files import write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportRecord:
    """Contents of a .dvc file; `sha256` is None if `dvc update` has replaced the file since."""

    url: str | None
    etag: str | None
    md5: str
    size_bytes: int
    sha256: str | None


def dvc_file(archive: Path) -> Path:
    """The .dvc file of an archive."""
    return archive.with_name(archive.name + ".dvc")


def read_import(archive: Path) -> ImportRecord | None:
    """The record of an archive; None if there is none, or an interrupted run left it incomplete."""
    try:
        content = yaml.safe_load(dvc_file(archive).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    out, meta = content["outs"][0], content.get("meta") or {}
    if "md5" not in out:
        return None
    dep = content.get("deps", [{}])[0]
    return ImportRecord(
        url=dep.get("path", meta.get("url")),
        etag=dep.get("checksum"),
        md5=out["md5"],
        size_bytes=out["size"],
        sha256=meta.get("sha256") if meta.get("md5") == out["md5"] else None,
    )


def record_import(root: Path, archive: Path, url: str, sha256: str, has_etag: bool) -> None:
    """Let DVC track an archive that is already in the workspace, and record its SHA-256.

    Args:
        root: the project. If it does not use DVC, nothing is recorded, and a log line says so.

    Raises:
        FetchError: a DVC command failed.
    """
    if not (root / ".dvc").is_dir():
        log.info("%s: not tracked, %s is no DVC project", archive.name, root)
        return
    name = archive.relative_to(root).as_posix()
    if has_etag:
        _run_dvc(root, "import-url", "--no-exec", "--force", url, name)
        _run_dvc(root, "commit", "--force", f"{name}.dvc")
    else:
        dvc_file(archive).unlink(missing_ok=True)  # otherwise DVC would keep the old address
        _run_dvc(root, "add", "--quiet", name)
    _write_meta(dvc_file(archive), {"url": url, "sha256": sha256})
    log.info("%s: tracked by %s.dvc (commit it)", archive.name, name)


def _write_meta(file: Path, meta: dict[str, Any]) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    # The MD5 says which file the SHA-256 belongs to: `dvc update` changes only the former.
    content["meta"] = meta | {"md5": content["outs"][0]["md5"]}
    write_text(file, yaml.safe_dump(content, sort_keys=False))


def _run_dvc(root: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FetchError(
            got=f"`dvc {' '.join(arguments)}`: {' '.join(done.stderr.split())[-400:]}",
            need="DVC to track the file, which is here and verified",
            because="a result must name the bytes it came from",
            do="fix what DVC reports and run the same command again; nothing is downloaded twice",
        )
