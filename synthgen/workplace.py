"""A folder beside a file or folder to be, where it is made by one process at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """An empty folder on `target`'s file system, for what is moved to `target` once it is whole.

    Others who make the same target, processes and threads alike, wait until this one is done: look again
    for the target here, they may have made it. What a killed process left behind is cleared by the next.
    Raises `OSError` where nothing can be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.making")
    with FileLock(target.with_name(f".{target.name}.lock")):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
