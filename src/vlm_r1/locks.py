"""Locks on files, which the OS releases when their process dies; some filesystems have none."""

import errno
import fcntl
import logging
from typing import IO

# No lock manager (NFS), no locks at all (Lustre without -o flock, some FUSE filesystems)
WITHOUT_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

logger = logging.getLogger(__name__)


def lock(file: IO, wait: bool = False) -> None:
    """Lock a file until it is closed; where the filesystem has no locks, warn and go on.

    Args:
        file: opened for writing. NFS makes byte-range locks of flock(2), and an exclusive one needs
            that (flock(2), NFS details).
        wait: wait while another process holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is false.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        logger.warning(
            "%s: its filesystem has no locks (%s); nothing keeps two processes from writing there",
            file.name,
            error.strerror,
        )
