"""What tests with real processes share: starting synthgen, waiting for what it does, and its journal."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0


def start(
    *arguments: object,
    cwd: Path,
    script: str | None = None,
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> subprocess.Popen[str]:
    """A synthgen process, or a script that does what it does with something changed."""
    begin = ["-m", "synthgen"] if script is None else ["-c", textwrap.dedent(script)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SYNTHGEN_")}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    return subprocess.Popen(
        [sys.executable, *begin, *map(str, arguments)],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT), **(env or {})},
        **options,
    )


@contextlib.contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the test."""
    process = start(*arguments, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(*arguments: object, code: int = 0, patience: float = PATIENCE, **options: Any) -> tuple[str, str]:
    """What a process printed that ended with this code, in sentences."""
    with started(*arguments, **options) as process:
        out, err = process.communicate(timeout=patience)
    assert process.returncode == code, (process.returncode, out, err)
    assert "Traceback" not in err, err
    return out, err


def wait_for(
    condition: Callable[[], Any], process: subprocess.Popen[str] | None = None, *, pace: float = 0.002
) -> Any:
    """What the condition gives once it gives something; it fails if the process ends before."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about"
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(pace)
    return found


def query(directory: Path, sql: str, *values: object) -> list[Any]:
    """Rows of a run's journal; none where there is no journal yet."""
    path = directory / "run.sqlite"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        if not connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master)").fetchone()[0]:
            return []
        return connection.execute(sql, values).fetchall()
