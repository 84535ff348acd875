"""Fetching: complete, verified and tracked, or not at all; resumed after any fault or kill."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.archive_server import Fault, serve, zip_of
from tests.test_dvc_pipeline import dvc
from vlm_r1 import files
from vlm_r1.data.download import fetch as fetching
from vlm_r1.data.download import resumable as downloading
from vlm_r1.data.download.catalog import ARCHIVES, Archive
from vlm_r1.data.download.dvc_import import dvc_file, read_import
from vlm_r1.errors import FetchError, TemporaryFetchError

NOISE = os.urandom(300_000)
CONTENT = zip_of({"a.bin": NOISE})
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serve() as archives:
        archives.files["some.zip"] = CONTENT
        yield archives


@pytest.fixture
def archive(server) -> Archive:
    return some_archive(server)


def some_archive(server, **facts) -> Archive:
    base = {"name": "some", "base": server.address, "path": "some.zip", "license": "", "note": ""}
    return Archive(**base | facts)


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder without DVC: nothing is tracked, which keeps the tests fast."""
    return tmp_path


@pytest.fixture(scope="module")
def empty_project(tmp_path_factory) -> Path:
    project = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    dvc(project, "init", "--quiet")
    return project


@pytest.fixture
def project(empty_project, tmp_path) -> Path:
    return Path(shutil.copytree(empty_project, tmp_path / "project"))


def part_of(root: Path) -> Path:
    return files.part_of(root / "data/raw/some.zip")


# --- a download ------------------------------------------------------------------------------


def test_a_fetched_file_is_complete_and_leaves_no_temporary_files(server, archive, root):
    target = fetching.fetch(archive, root)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["some.zip"]


def test_an_existing_file_is_not_downloaded_again(server, archive, root):
    fetching.fetch(archive, root)
    fetching.fetch(archive, root)
    assert server.gets == [None]


def test_redirects_are_followed(server, root):
    fetching.fetch(some_archive(server, base=f"{server.address}/moved"), root)
    assert (root / "data/raw/some.zip").read_bytes() == CONTENT


def test_a_mirror_replaces_the_server_and_keeps_the_path(server, root):
    server.files["copy/deep/some.zip"] = CONTENT
    archive = some_archive(server, base="http://127.0.0.1:1/gone", path="deep/some.zip")
    fetching.fetch(archive, root, mirror=f"{server.address}/copy/")
    assert server.requests[0][1] == "/copy/deep/some.zip"


def test_a_dropped_connection_is_reported_and_the_next_call_resumes(server, archive, root):
    server.faults = [Fault(cut_after=100_000)]
    with pytest.raises(
        TemporaryFetchError, match=r"some\.zip: RemoteProtocolError.*\n.*\n.*\ndo: run"
    ):
        fetching.fetch(archive, root)
    assert part_of(root).stat().st_size == 100_000
    fetching.fetch(archive, root)
    assert server.gets == [None, "bytes=100000-"]
    assert (root / "data/raw/some.zip").read_bytes() == CONTENT


def test_a_download_resumes_through_a_redirect_too(server, root):
    archive = some_archive(server, base=f"{server.address}/moved")
    server.faults = [Fault(cut_after=1000)]
    with pytest.raises(TemporaryFetchError):
        fetching.fetch(archive, root)
    fetching.fetch(archive, root)
    assert server.gets == [None, "bytes=1000-"]


@pytest.mark.parametrize("how", ["changed", "no ranges"])
def test_a_part_of_another_file_is_never_continued(server, archive, root, how):
    server.faults = [Fault(cut_after=1000)]
    with pytest.raises(TemporaryFetchError):
        fetching.fetch(archive, root)
    if how == "changed":
        server.files["some.zip"] = zip_of({"b.bin": NOISE[::-1]})
    else:
        server.ranges = False
    fetching.fetch(archive, root)
    assert server.gets == [None, "bytes=1000-"]
    assert (root / "data/raw/some.zip").read_bytes() == server.files["some.zip"]


def test_without_an_etag_a_download_starts_over(server, archive, root):
    server.etags = False
    server.faults = [Fault(cut_after=1000)]
    with pytest.raises(TemporaryFetchError):
        fetching.fetch(archive, root)
    fetching.fetch(archive, root)
    assert server.gets == [None, None]


def test_a_complete_part_is_only_renamed(server, archive, root):
    """As after a kill between the last byte and the renaming."""
    server.faults = [Fault(cut_after=1000)]
    with pytest.raises(TemporaryFetchError):
        fetching.fetch(archive, root)
    part_of(root).write_bytes(CONTENT)
    fetching.fetch(archive, root)
    assert (root / "data/raw/some.zip").read_bytes() == CONTENT


def test_one_download_of_a_file_at_a_time(server, archive, root):
    held = downloading._locked_part(_made(root / "data/raw") / "some.zip")
    with held, pytest.raises(FetchError, match=r"some\.zip\.part, which another process is fill"):
        fetching.fetch(archive, root)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# --- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault(status=404), FetchError, r"HTTP 404 Not Found"),
        (Fault(status=403), FetchError, r"HTTP 403"),
        (Fault(status=500), TemporaryFetchError, r"HTTP 500"),
        (Fault(status=503), TemporaryFetchError, r"HTTP 503"),
        (Fault(stall_after=1000), TemporaryFetchError, r"ReadTimeout"),
        (Fault(trickle_s=0.05), TemporaryFetchError, r"ReadTimeout: below 1024 bytes/s"),
        (
            Fault(claim=len(CONTENT) + 1, cut_after=len(CONTENT)),
            TemporaryFetchError,
            r"RemoteProto",
        ),
        (Fault(claim=len(CONTENT) - 1), FetchError, r"no zip archive"),
    ],
)
def test_a_fault_names_the_address_and_whether_it_is_temporary(
    server, archive, root, fault, kind, message
):
    server.faults = [fault]
    started_s = time.monotonic()
    with pytest.raises(FetchError, match=rf"/some\.zip: .*{message}") as raised:
        fetching.fetch(archive, root, timeout_s=0.3)
    assert type(raised.value) is kind
    assert time.monotonic() - started_s < 10
    assert not (root / "data/raw/some.zip").exists()


def test_an_unreachable_server_is_a_temporary_fault(root):
    with serve() as gone:
        pass
    with pytest.raises(TemporaryFetchError, match="ConnectError"):
        fetching.fetch(some_archive(gone), root)


def test_an_unsupported_address_is_refused(server, root):
    with pytest.raises(FetchError, match="ftp"):
        fetching.fetch(some_archive(server, base="ftp://example.org"), root)


def test_a_size_other_than_declared_is_refused_before_the_body_is_received(server, root):
    with pytest.raises(FetchError, match=rf"{len(CONTENT):,} bytes\nneed 7 bytes"):
        fetching.fetch(some_archive(server, size_bytes=7), root)
    assert part_of(root).stat().st_size == 0


def test_a_wrong_checksum_leaves_nothing_and_names_both(server, root):
    archive = some_archive(server, sha256="0" * 64)
    with pytest.raises(FetchError, match=rf"SHA-256 {SHA256}\nneed SHA-256 0{{64}}"):
        fetching.fetch(archive, root)
    assert list((root / "data/raw").iterdir()) == []


def test_an_existing_file_with_a_wrong_checksum_is_reported_and_kept(server, root):
    (_made(root / "data/raw") / "some.zip").write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"data/raw/some\.zip: SHA-256 .*\nneed SHA-256"):
        fetching.fetch(some_archive(server, sha256=SHA256), root)
    assert (root / "data/raw/some.zip").read_bytes() == b"mine"


def test_a_web_page_in_place_of_an_archive_is_refused(server, archive, root):
    server.files["some.zip"] = b"<html>please log in</html>"
    with pytest.raises(FetchError, match="an answer that is no zip archive"):
        fetching.fetch(archive, root)
    assert list((root / "data/raw").iterdir()) == []


def test_a_full_disk_is_reported_before_a_byte_is_received(server, archive, root, monkeypatch):
    free = shutil.disk_usage(root)._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: free)
    with pytest.raises(
        FetchError, match=rf"{len(CONTENT) - 1:,} bytes free, {len(CONTENT):,} still"
    ):
        fetching.fetch(archive, root)
    assert part_of(root).stat().st_size == 0


def test_a_download_resumes_after_the_disk_was_full(server, archive, root):
    """A limit on the size of files simulates the full disk."""
    program = f"""
import errno, os, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathlib import Path
from vlm_r1.data.download import resumable as downloading
from vlm_r1.data.download import fetch as fetching
from vlm_r1.data.download.catalog import Archive
downloading.DISK_FULL.add(errno.EFBIG)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
fetching.fetch(Archive.model_validate_json('''{archive.model_dump_json()}'''), Path({str(root)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "File too large while writing\nneed room for the whole file" in done.stderr
    assert part_of(root).stat().st_size == 100_000
    fetching.fetch(archive, root)
    assert server.gets == [None, "bytes=100000-"]


# --- retries, kills, the command -------------------------------------------------------------


def test_retries_back_off_and_every_one_is_logged(server, archive, root, caplog, monkeypatch):
    waited = []
    monkeypatch.setattr(fetching.time, "sleep", waited.append)
    server.faults = [Fault(status=500), Fault(cut_after=50_000)]
    with caplog.at_level(logging.WARNING, logger="vlm_r1"):
        fetching.fetch_with_retries(archive, root, None, retries=3)
    assert waited == [2.0, 4.0]
    messages = [record.getMessage() for record in caplog.records]
    assert "HTTP 500" in messages[0]
    assert messages[0].endswith("try 2 of 4 in 2 s")
    assert server.gets == [None, None, "bytes=50000-"]


def test_without_retries_there_is_one_try(server, archive, root):
    server.faults = [Fault(status=500)]
    with pytest.raises(TemporaryFetchError):
        fetching.fetch_with_retries(archive, root, None, retries=0)
    assert len(server.gets) == 1


def test_a_permanent_fault_is_not_retried(server, archive, root):
    server.faults = [Fault(status=404)]
    with pytest.raises(FetchError, match="404"):
        fetching.fetch_with_retries(archive, root, None, retries=5)
    assert len(server.gets) == 1


def command(root: Path, server, *options: str) -> subprocess.Popen:
    """`vlm-r1 fetch lisa_test` in `root`, from the test's server."""
    line = [sys.executable, "-m", "vlm_r1.cli", "fetch", "lisa_test", *options]
    environment = os.environ | {"VLM_R1_MIRROR": server.address}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, cwd=root, env=environment, **pipes)


def test_a_killed_command_resumes(server, root):
    """Killed in the middle of the body; the second call requests only the rest."""
    server.files["lisa_test.zip"] = CONTENT
    server.faults = [Fault(stall_after=200_000)]
    part = files.part_of(_made(root / "data/raw") / "lisa_test.zip")
    with command(root, server) as first:
        deadline_s = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    have = part.stat().st_size
    assert 0 < have <= 200_000
    with command(root, server) as second:
        _, errors = second.communicate(timeout=60)
    assert server.gets == [None, f"bytes={have}-"]
    # the file is complete, but not the one that the catalog declares
    assert second.returncode == 1
    assert f"SHA-256 {SHA256}\n  need: SHA-256 16567839" in errors


def test_a_temporary_fault_has_its_own_exit_code(server, root):
    server.faults = [Fault(status=503)]
    server.files["lisa_test.zip"] = CONTENT
    with command(root, server) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors.splitlines()[0].endswith("/lisa_test.zip: HTTP 503 Service Unavailable")


# --- tracked by DVC --------------------------------------------------------------------------


def test_a_fetched_archive_is_an_import_that_dvc_updates_pushes_and_pulls(server, archive, project):
    target = fetching.fetch(archive, project)
    recorded = read_import(target)
    assert recorded.url == f"{server.address}/some.zip"
    assert recorded.etag == server.etag("some.zip")
    assert recorded.sha256 == SHA256
    assert yaml.safe_load(dvc_file(target).read_text())["frozen"] is True
    assert json.loads(dvc(project, "status", "--json").stdout) == {}

    dvc(project, "remote", "add", "--default", "shared", str(project.parent / "shared"))
    dvc(project, "push")
    target.unlink()
    shutil.rmtree(project / ".dvc/cache")
    dvc(project, "pull")
    assert target.read_bytes() == CONTENT

    server.files["some.zip"] = zip_of({"a.bin": b"newer"})
    dvc(project, "update", "data/raw/some.zip.dvc")
    assert target.read_bytes() == server.files["some.zip"]
    assert read_import(target).sha256 is None, "the old SHA-256 does not belong to the new file"
    fetching.fetch(archive, project)
    assert read_import(target).sha256 == hashlib.sha256(target.read_bytes()).hexdigest()


def test_the_first_file_is_trusted_and_a_different_one_later_is_not(server, archive, project):
    target = fetching.fetch(archive, project)
    target.unlink()  # as in a clone: the .dvc file is there, the archive is not
    server.files["some.zip"] = zip_of({"a.bin": b"other"})
    with pytest.raises(
        FetchError, match=rf"need SHA-256 {SHA256}\n.*\ndo: .*delete the \.dvc file"
    ):
        fetching.fetch(archive, project)
    server.files["some.zip"] = CONTENT
    fetching.fetch(archive, project)
    assert json.loads(dvc(project, "status", "--json").stdout) == {}


def test_a_kill_before_the_record_costs_no_second_download(server, archive, project, monkeypatch):
    """Also without an ETag, where DVC cannot update the file."""
    server.etags = False
    (_made(project / "data/raw") / "some.zip").write_bytes(CONTENT)
    half = {"frozen": True, "deps": [{"path": "http://x"}], "outs": [{"path": "some.zip"}]}
    (project / "data/raw/some.zip.dvc").write_text(yaml.safe_dump(half))  # import-url, no commit
    monkeypatch.delattr(fetching, "download")
    target = fetching.fetch(archive, project)
    assert read_import(target).sha256 == SHA256
    assert read_import(target).url == f"{server.address}/some.zip"
    assert "deps" not in yaml.safe_load(dvc_file(target).read_text())


# --- the catalog -----------------------------------------------------------------------------


def test_the_catalog_names_every_archive_once_with_its_license():
    names = [archive.name for archive in ARCHIVES]
    expected = {"train2014", "rec_jsons_processed", "refgta", "lisa_test", "mllm_rec_json"}
    assert expected < set(names)
    assert len(names) == len(set(names)) == 9
    assert len({archive.url() for archive in ARCHIVES}) == 9
    assert all(archive.license and archive.note for archive in ARCHIVES)
    assert all(archive.url().startswith("https://") for archive in ARCHIVES)


def test_coco_is_declared_as_published():
    coco = ARCHIVES[0]
    assert coco.url() == "https://huggingface.co/datasets/omlab/VLM-R1/resolve/main/train2014.zip"
    assert (coco.file, coco.size_bytes) == ("train2014.zip", 13_510_573_713)
    assert coco.sha256.startswith("ede4087e640bddba")
