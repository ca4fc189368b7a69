"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthgen.errors import RunError


def sync(path: Path) -> None:
    """Make a file's or folder's contents survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make a folder and everything in it survive a power cut."""
    for place, _, files in os.walk(folder):
        for name in files:
            sync(Path(place) / name)
        sync(Path(place))


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """An empty folder beside the outputs to write them in; gone afterwards, whatever happens."""
    folder = directory / ".staging"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise RunError(
            f"the outputs cannot be written to {directory}: {error.strerror or error}",
            hint="nothing that was generated is lost; mend this and run the same command again",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, directory: Path) -> None:
    """Move everything staged into place, each file and folder in one step.

    What was there under the same name is replaced; a reader sees the old one or the new one.
    """
    sync_tree(staged)
    for item in sorted(staged.iterdir()):
        place = directory / item.name
        if item.is_dir() and place.exists():
            old = directory / f".old-{item.name}"
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
            try:
                item.rename(place)
            except BaseException:
                old.rename(place)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(item, place)
    sync(directory)
