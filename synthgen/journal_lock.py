"""One process at a time writes to a run, and none on a network file system."""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from synthgen.errors import UsageError

_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "ceph",
    "fuse.glusterfs",
    "lustre",
    "afs",
}


def hold(directory: Path) -> int:
    """Hold the run for this process: the system lets go of it when the process ends, however it ends."""
    try:
        handle = os.open(directory / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"the run directory {directory} cannot be written: {error.strerror}") from None
    try:
        _take(handle)
    except OSError:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
        os.close(handle)
        raise UsageError(
            f"another process{f' ({holder})' if holder else ''} is running in {directory}",
            hint="wait for it to end, or give another directory with `-o`",
        ) from None
    with suppress(OSError):  # a full disk; the number is for people alone
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _take(handle: int) -> None:
    """Take the lock; whoever only asks whether the run is running has it for a moment."""
    for _ in range(10):
        with suppress(OSError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.02)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def running(directory: Path) -> str | None:
    """The number of the process that is writing to this run, if one is."""
    try:
        handle = os.open(directory / "run.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(handle)
    return None


def refuse_network(directory: Path) -> None:
    """Raises UsageError where the directory is on a network file system, if the system tells."""
    try:
        mounts = Path("/proc/mounts").read_text()
    except OSError:
        return
    kinds = {
        _unescaped(fields[1]): fields[2] for line in mounts.splitlines() if len(fields := line.split()) > 2
    }
    full = directory.resolve()
    for folder in (full, *full.parents):
        kind = kinds.get(str(folder))
        if kind is not None:
            if kind in _NETWORK:
                raise UsageError(
                    f"{directory} is on a network file system ({kind}), where the journal is not safe",
                    hint="give a directory on a local disk with `-o`, and copy the dataset afterwards",
                )
            return


def _unescaped(place: str) -> str:
    """A mount point as /proc/mounts writes it has spaces and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place)
