"""What a session runs on: versions, synthgen's own source, the machine, and the variables on a short list.

It is kept in the journal and in `sessions.jsonl`, never in a dataset: equal runs give equal bytes, whatever
they were made with.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from synthgen import __version__

# Their values are numbers and plain words; no other variable is ever read for this.
VARIABLES = (
    "SYNTHGEN_CONCURRENCY",
    "SYNTHGEN_ENGINE",
    "SYNTHGEN_MAX_FAILURES",
    "SYNTHGEN_PATIENCE",
    "SYNTHGEN_REQUEST_TIMEOUT",
    "SYNTHGEN_RETRY_FAILED",
    "SYNTHGEN_TASKS",
    "CUDA_VISIBLE_DEVICES",
    "GOMP_SPINCOUNT",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTHONHASHSEED",
    "VLLM_BATCH_INVARIANT",
    "VLLM_CPU_OMP_THREADS_BIND",
)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.,_|-]{0,79}")
_NAME, _NAMED = re.compile(r"[-_.]+"), re.compile(r"[^A-Za-z0-9._-]")
_PACKAGE = Path(__file__).parent
_SECONDS = 5.0


def environment() -> dict[str, Any]:
    """What this session runs on, as JSON."""
    return {
        "synthgen": __version__,
        "source": dict(source()),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "pid": os.getpid(),
        "packages": _packages(),
        "variables": {
            name: value for name in VARIABLES if _PLAIN.fullmatch(value := os.environ.get(name, ""))
        },
    }


@cache
def source() -> dict[str, Any]:
    """The state of synthgen's own source: `sha256` over its files of Python, by name.

    Where it runs from a checkout, `commit` too, and whether anything there is other than committed (`dirty`).
    """
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).as_posix().encode()
        with contextlib.suppress(OSError):  # a file that nobody can read does not run either
            digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    found: dict[str, Any] = {"sha256": digest.hexdigest()}
    if (_PACKAGE.parent / ".git").exists() and (commit := _git("rev-parse", "--verify", "HEAD")):
        changed = _git("status", "--porcelain", "--", "synthgen", "filters", "prompts", "recipes")
        found |= {"commit": commit, "dirty": changed != ""}
    return found


def _git(*arguments: str) -> str | None:
    """What git says of the checkout; None where it is not there, or says nothing in time."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
        done = subprocess.run(  # noqa: S603
            ["git", "--no-optional-locks", "-C", str(_PACKAGE.parent), *arguments],  # noqa: S607
            capture_output=True,
            check=True,
            timeout=_SECONDS,
        )
        return done.stdout.decode().strip()
    return None


@cache
def _packages() -> dict[str, str]:
    """The versions of what synthgen needs, and of what that needs in turn, as far as it is installed."""
    from importlib.metadata import Distribution, PackageNotFoundError

    found: dict[str, str] = {}
    waiting = ["synthgen-data"]
    while waiting:
        name = _NAME.sub("-", waiting.pop()).lower()
        if name in found:
            continue
        with contextlib.suppress(PackageNotFoundError):
            package = Distribution.from_name(name)
            found[name] = package.version
            waiting += [_NAMED.split(needed, maxsplit=1)[0] for needed in package.requires or ()]
    found.pop("synthgen-data", None)
    return dict(sorted(found.items()))
