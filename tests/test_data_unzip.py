"""Unpacking: complete, inside the folder, bounded; harmful archives are refused."""

import os
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.archive_server import zip_of
from vlm_r1.data.download import unzip as archives
from vlm_r1.data.download.unzip import MANIFEST, Bounds, read_manifest, unpack
from vlm_r1.errors import DataError
from vlm_r1.files import part_of

LINK, DEVICE, PIPE = stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666, stat.S_IFIFO | 0o666


@pytest.fixture
def archive(tmp_path) -> Path:
    """Two folders, one of them nested, and an empty one."""
    path = tmp_path / "raw/some.zip"
    path.parent.mkdir()
    members = {"records.json": b"[]", "a/b/1.jpg": b"one", "a/2.jpg": b"two", "empty/": b""}
    path.write_bytes(zip_of(members))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "unpacked/some"


def files_in(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def odd_zip(path: Path, name: str, mode: int = 0, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("good.txt", b"good")
        member = zipfile.ZipInfo("placeholder")
        member.filename, member.external_attr = name, mode << 16
        packed.writestr(member, content)
    return path


def test_every_file_is_unpacked_and_every_folder_names_its_archive(archive, folder):
    manifest = unpack(archive, folder)
    assert files_in(folder) == {"records.json": b"[]", "a/b/1.jpg": b"one", "a/2.jpg": b"two"}
    assert (manifest.archive, manifest.files, manifest.unpacked_bytes) == ("some.zip", 3, 8)
    assert [read_manifest(folder / place) for place in (".", "a", "a/b")] == [manifest] * 3


def test_an_unpacked_folder_is_left_alone(archive, folder):
    unpack(archive, folder)
    (folder / "a/2.jpg").unlink()
    unpack(archive, folder)
    assert "a/2.jpg" not in files_in(folder)


def test_a_newer_archive_replaces_the_folder_as_a_whole(archive, folder):
    unpack(archive, folder)
    archive.write_bytes(zip_of({"new.jpg": b"new"}))
    unpack(archive, folder)
    assert files_in(folder) == {"new.jpg": b"new"}


@pytest.mark.parametrize(
    "name",
    [
        *("../out.txt", "a/../../out.txt", "/out.txt", "..", "a/.."),
        *("..\\out.txt", "C:\\out.txt", "C:out.txt", "\\out.txt", "good.txt\0../out.txt"),
    ],
)
def test_no_member_leaves_the_folder(tmp_path, folder, name):
    evil = odd_zip(tmp_path / "evil.zip", name)
    with pytest.raises(DataError, match=r"evil\.zip: member .* leaves the folder"):
        unpack(evil, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.zip"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [(LINK, "is a link"), (DEVICE, "is neither a file nor"), (PIPE, "is neither a file nor")],
)
def test_links_and_devices_are_refused(tmp_path, folder, mode, message):
    evil = odd_zip(tmp_path / "evil.zip", "link", mode, b"/etc/passwd")
    with pytest.raises(DataError, match=rf"member 'link' {message}"):
        unpack(evil, folder)
    assert not folder.exists()


def test_an_encrypted_member_is_refused(archive, folder):
    content = bytearray(archive.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 8] |= 1  # flag bits of the directory's entry
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        unpack(archive, folder)


@pytest.mark.parametrize("second", ["a/2.jpg", "a\\2.jpg", "a", "a/2.jpg/deeper", MANIFEST])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_with_one_path_are_refused(archive, folder, second):
    unpack(archive, folder)
    before = files_in(folder)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(second, b"again")
    with pytest.raises(DataError, match=r"some\.zip: .*(exists|directory)"):
        unpack(archive, folder)
    assert files_in(folder) == before
    assert not part_of(folder).exists()


def test_too_many_members_are_refused(archive, folder):
    with pytest.raises(DataError, match="4 members, above 3"):
        unpack(archive, folder, Bounds(members=3))


def test_too_many_bytes_are_refused(archive, folder):
    with pytest.raises(DataError, match="8 bytes unpacked, above 7"):
        unpack(archive, folder, Bounds(unpacked_bytes=7))


def test_an_archive_bomb_is_refused_before_it_is_unpacked(tmp_path, folder):
    bomb = tmp_path / "bomb.zip"
    bomb.write_bytes(zip_of({f"{i}.bin": bytes(10**6) for i in range(20)}))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"bomb\.zip: 20,000,000 bytes out of .*: an archive bomb"):
        unpack(bomb, folder)
    assert not folder.exists()


def test_a_member_larger_than_it_declares_is_refused(tmp_path, folder):
    """No more than the declared bytes are read, and their CRC does not match."""
    liar = tmp_path / "liar.zip"
    content = bytearray(zip_of({"a.bin": bytes(10**6)}))
    for entry, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(entry) + offset, 10)
    liar.write_bytes(content)
    with pytest.raises(DataError, match=r"liar\.zip: Bad CRC-32"):
        unpack(liar, folder)
    assert not folder.exists()


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "text", "missing", "folder"])
def test_a_damaged_archive_is_refused_and_the_folder_stays(archive, folder, how):
    unpack(archive, folder)
    before, content = files_in(folder), archive.read_bytes()
    archive.unlink()
    damaged = {
        "cut": content[: len(content) // 2],
        "flipped": content.replace(b"PK\x03\x04", b"PK\x03\x05", 1),
        "empty": b"",
        "text": b"<html>",
    }
    if how == "folder":
        archive.mkdir()
    elif how != "missing":
        archive.write_bytes(damaged[how])
    with pytest.raises(DataError, match=r"some\.zip: .+\nneed a whole zip archive"):
        unpack(archive, folder)
    assert files_in(folder) == before


def test_any_flipped_byte_is_refused_or_harmless(archive, folder):
    """Never another exception, never other content."""
    content = archive.read_bytes()
    good = {"records.json": b"[]", "a/b/1.jpg": b"one", "a/2.jpg": b"two"}
    refused = 0
    for place in range(0, len(content), 3):
        archive.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            unpack(archive, folder)
        except DataError:
            refused += 1
        else:
            assert set(files_in(folder).values()) <= set(good.values())
    assert refused > len(content) / 3 / 4


def test_a_full_disk_is_reported_before_a_byte_is_written(archive, folder, monkeypatch):
    free = archives.shutil.disk_usage(archive)._replace(free=7)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: free)
    with pytest.raises(DataError, match="8 bytes unpacked, 7 free"):
        unpack(archive, folder)
    assert not part_of(folder).exists()


def test_a_kill_leaves_the_old_folder_and_the_next_call_the_new_one(archive, folder):
    unpack(archive, folder)
    before = files_in(folder)
    many = {f"{i:05d}.bin": os.urandom(64) for i in range(3_000)}
    archive.write_bytes(zip_of(many))
    program = (
        "import sys; from pathlib import Path; from vlm_r1.data.download.unzip import unpack;"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    line = [sys.executable, "-c", program, str(archive), str(folder)]
    with subprocess.Popen(line) as process:
        deadline_s = time.monotonic() + 60
        while not (part_of(folder) / "00050.bin").exists() and time.monotonic() < deadline_s:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "killed while it was unpacking"
    assert files_in(folder) == before
    unpack(archive, folder)
    assert files_in(folder) == many
    assert not part_of(folder).exists()
