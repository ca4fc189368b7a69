"""Ends an engine's processes when ours is gone, however it went.

vLLM's engine process does not notice that the process which started it was killed. This small process
does: it holds the processes it is told of, and kills them, with all that they started, once its parent is
dead.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Leash:
    """A watcher for as long as this process lives; `release` ends it, and leaves what it holds alone.

    If it has to act, it removes `folder` too.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # -P keeps this folder, whose modules have the names of packages, off the watcher's path; a session
        # of its own keeps Ctrl-C from it. Its output goes nowhere: it may outlive whoever reads ours.
        self._watcher = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", __file__, str(os.getpid()), *([str(folder)] if folder else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def hold(self, pid: int) -> None:
        """End this process too when ours is gone."""
        assert self._watcher.stdin is not None
        with contextlib.suppress(OSError):
            self._watcher.stdin.write(f"{pid}\n".encode())
            self._watcher.stdin.flush()

    def release(self) -> None:
        """End the watcher; may be called twice."""
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            with contextlib.suppress(OSError):
                self._watcher.stdin.close()


def tree(pids: Iterable[int]) -> list[Any]:
    """These processes and all that they started, so that a pid used again is another process."""
    import psutil  # type: ignore[import-untyped]

    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found.update({one.pid: one for one in (process, *process.children(recursive=True))})
    return list(found.values())


def end(processes: Iterable[Any]) -> None:
    """Kill these processes, as `tree` gave them, and all that they started since."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def _watch(parent: int, *folders: str) -> None:
    held: list[Any] = []
    # Both signs are needed: a forked child of our parent keeps the pipe open after its death.
    while os.getppid() == parent:
        if select.select([0], [], [], 0.5)[0]:
            told = os.read(0, 4096)
            if not told:
                break
            held.extend(tree(int(pid) for pid in told.split()))
    end(held)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), *sys.argv[2:])
