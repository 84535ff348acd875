"""Locks on files, and filesystems that have none."""

import errno
import fcntl
import os

import pytest

from tests.test_cache import KEY
from vlm_r1.inference.cache import CompletionKey, CompletionStore
from vlm_r1.locks import lock
from vlm_r1.training import resume


@pytest.fixture
def nfs(monkeypatch):
    """flock as NFS does it (flock(2)): exclusive only on a file that is open for writing."""
    real = fcntl.flock

    def flock(file, operation):
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def refuse(number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


def test_a_second_lock_on_a_file_is_refused(tmp_path):
    with (tmp_path / "lock").open("ab") as one, (tmp_path / "lock").open("ab") as other:
        lock(one)
        with pytest.raises(BlockingIOError):
            lock(other)
    with (tmp_path / "lock").open("ab") as third:
        lock(third)


def test_a_training_holds_its_folder_on_nfs(tmp_path, nfs):
    with resume.hold(tmp_path), pytest.raises(resume.ModelError, match="another process trains"):
        resume.enter(tmp_path, {}, every=1)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_filesystem_without_locks_is_named_and_used(tmp_path, monkeypatch, caplog, number):
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with resume.hold(tmp_path):
        pass
    (told,) = [record.getMessage() for record in caplog.records]
    assert "lock: its filesystem has no locks" in told
    assert os.strerror(number) in told


def test_any_other_fault_of_a_lock_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), resume.hold(tmp_path):
        pass


def test_completions_are_cached_where_there_are_no_locks(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    with CompletionStore(tmp_path, CompletionKey(**KEY)).appending(rank=0) as append:
        append([], [])
    assert "its filesystem has no locks" in caplog.text
