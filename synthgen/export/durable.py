"""Files and folders that appear whole or not at all. Every output file is written through this module.

The functions whose names begin with an underscore are all that it asks of the system; whatever fails in one
of them ends as a RunError with a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from synthgen.errors import RunError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

STAGING = ".staging"
OLD = ".old-"
_BUFFER = 2**17
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux; macOS calls it RENAME_SWAP
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What systems and file systems that know no exchange say; EPERM is how some sandboxes say it.
_NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


def _open(path: str, flags: int) -> int:
    return os.open(path, flags, 0o666)


def _write(file: int, data: Buffer) -> int:
    return os.write(file, data)


def _fsync(file: int) -> None:
    os.fsync(file)


def _mkdir(path: Path) -> None:
    path.mkdir()


def _rename(old: Path, new: Path) -> None:
    os.replace(old, new)


def _exchange(one: Path, other: Path) -> None:
    swap = _swap()
    if swap is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    number = swap(os.fsencode(one), os.fsencode(other))
    if number:
        raise OSError(number, os.strerror(number), str(other))


def _unlink(path: Path) -> None:
    path.unlink()


def _rmdir(path: Path) -> None:
    path.rmdir()


@cache
def _swap() -> Callable[[bytes, bytes], int] | None:
    """The system's call that exchanges two names and gives an errno; None where it has none."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        call = libc.renamex_np if sys.platform == "darwin" else libc.renameat2
    except AttributeError:
        return None

    def swap(one: bytes, other: bytes) -> int:
        names = (one, other) if sys.platform == "darwin" else (_AT_FDCWD, one, _AT_FDCWD, other)
        return ctypes.get_errno() if call(*names, _RENAME_EXCHANGE) else 0

    return swap


class _File(io.FileIO):
    """A new file that survives a power cut once it is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), "w", opener=_open)

    def write(self, data: Buffer) -> int:
        return _write(self.fileno(), data)

    def close(self) -> None:
        try:
            if not self.closed:
                _fsync(self.fileno())
        finally:
            super().close()


def create(path: Path) -> BinaryIO:
    """A new file to write into; its folder is made where it is not there yet."""
    make_folder(path.parent)
    return io.BufferedWriter(_File(path), _BUFFER)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with create(path) as file:
        file.write(data)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there yet."""
    if not path.is_dir():
        make_folder(path.parent)
        _mkdir(path)


def rename(old: Path, new: Path) -> None:
    """Give a file or a folder another name; a file of that name is replaced."""
    _rename(old, new)


def exchange(one: Path, other: Path) -> bool:
    """Give each of two the other's name, in one step. False where the system or the file system cannot."""
    try:
        _exchange(one, other)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        for item in sorted(path.iterdir()):
            remove(item)
        _rmdir(path)
    elif path.exists() or path.is_symlink():
        _unlink(path)


def sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def told(directory: Path) -> Iterator[None]:
    """Whatever the system refuses in here is said in a sentence. Raises RunError."""
    try:
        yield
    except OSError as error:
        what = f"the outputs cannot be written to {directory}"
        if error.errno in _FULL:
            what, mend = f"the disk is full: {what}", "free some space"
        else:
            what, mend = f"{what}: {error.strerror or error}", "mend this"
        raise RunError(
            what, hint=f"nothing that was generated is lost; {mend} and run the same command again"
        ) from error


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """An empty folder beside the outputs to write them in; gone afterwards, whatever happens.

    Raises RunError where something in it cannot be written.
    """
    folder = directory / STAGING
    with told(directory):
        remove(folder)
        try:
            _mkdir(folder)
            yield folder
        finally:
            with contextlib.suppress(OSError):  # `recover` removes what is left
                remove(folder)


def publish(staged: Path, directory: Path) -> None:
    """Move everything staged into place, each file and folder in one step.

    What was there under the same name is replaced: a reader sees the old one or the new one. Where folders
    cannot be exchanged the new one takes the place of the old in two steps, and `recover` brings the old one
    back if there was no second.
    """
    for folder, _, _ in os.walk(staged):
        sync(Path(folder))
    for item in sorted(staged.iterdir()):
        place = directory / item.name
        if not item.is_dir() or not place.exists():
            rename(item, place)
        elif not exchange(item, place):
            _replace_folder(item, place)
    sync(directory)
    with contextlib.suppress(OSError):
        for old in directory.glob(f"{OLD}*"):
            remove(old)


def _replace_folder(new: Path, place: Path) -> None:
    old = place.with_name(OLD + place.name)
    remove(old)
    rename(place, old)
    try:
        rename(new, place)
    except BaseException:
        rename(old, place)
        raise


def recover(directory: Path) -> None:
    """Tidy up after a process that ended while it published. Raises RunError."""
    with told(directory):
        for old in directory.glob(f"{OLD}*"):
            place = old.with_name(old.name.removeprefix(OLD))
            if place.exists():
                remove(old)
            else:
                rename(old, place)
        remove(directory / STAGING)
