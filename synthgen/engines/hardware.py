"""What a processor is called, as far as sums may come out otherwise on another."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path


@cache
def processor() -> str:
    """The processor's name, and where the system tells them 8 hex digits that stand for its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    said: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            said.setdefault(key.strip(), value.strip())
    name = said.get("model name") or platform.processor() or platform.machine()
    flags = said.get("flags") or said.get("Features")
    return f"{name} {hashlib.sha256(flags.encode()).hexdigest()[:8]}" if flags else name
