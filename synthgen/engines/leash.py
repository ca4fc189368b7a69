"""Ends an engine's processes when ours is gone, however it went.

vLLM's engine process does not notice that the process which started it was killed. This small process
does: it holds the pids it is told, and kills them, with all that they started, once its parent is dead.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys


class Leash:
    """A watcher for as long as this process lives; `release` ends it, and leaves what it holds alone."""

    def __init__(self) -> None:
        # -P keeps this folder, whose modules have the names of packages, off the watcher's path; a session
        # of its own keeps Ctrl-C from it. Its output goes nowhere: it may outlive whoever reads ours.
        self._watcher = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", __file__, str(os.getpid())],
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


def end_tree(pids: list[int], *, grace: float = 0.0) -> None:
    """Kill these processes and all that they started, after `grace` seconds to end by themselves."""
    import psutil  # type: ignore[import-untyped]

    tree = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            tree.update({child.pid: child for child in (process, *process.children(recursive=True))})
    left = psutil.wait_procs(tree.values(), timeout=grace)[1] if grace else tree.values()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _watch(parent: int) -> None:
    held: list[int] = []
    # Both signs are needed: a forked child of our parent keeps the pipe open after its death.
    while os.getppid() == parent:
        if select.select([0], [], [], 0.5)[0]:
            told = os.read(0, 4096)
            if not told:
                break
            held.extend(int(pid) for pid in told.split())
    end_tree(held)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
