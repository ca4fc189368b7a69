"""A virtual environment for each peer, of the versions in `<name>.txt`, made once and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("SYNTHGEN_BENCH_CACHE") or HERE.parent.parent / ".bench").absolute()


class Unavailable(Exception):
    """A sentence on why a peer cannot be measured here."""


def environment(name: str) -> Path:
    """The Python that has the peer; made when it is not there, or not of the versions asked for."""
    wanted = (HERE / f"{name}.txt").read_text()
    folder = CACHE / name
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if installed.is_file() and installed.read_text() == wanted:
        return python
    print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    # Wheels alone, so that what has none for this Python is said at once instead of compiled for an hour.
    options = ["--disable-pip-version-check", "--quiet", "--only-binary=:all:", "--no-deps"]
    _run([str(python), "-m", "pip", "install", *options, "-r", str(HERE / f"{name}.txt")])
    installed.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"it cannot be installed here: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} failed"]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise Unavailable(f"it cannot be installed here: {said}")
