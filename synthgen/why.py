"""Why a session failed, as its journal keeps it: without secrets, and without folders of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from synthgen.errors import SynthgenError

LONGEST = 500
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_SHORTEST = 6  # characters of a secret: words of fewer stand in every text
# What looks like a key, whoever had it: those of servers and hubs, and what an address carries.
_SECRETS = (
    (re.compile(r"\b(?:sk|pk|hf|gh[a-z]|xox[a-z]|glpat)[-_][A-Za-z0-9_-]{8,}"), "***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 ***"),
    (re.compile(r"//[^/\s@]{1,200}@"), "//***@"),
    (re.compile(r"(https?://[^\s?#\"']{1,400})[?#][^\s\"']{1,2000}"), r"\1?***"),
)
_FOLDERS = re.compile(r"(?<![\w.:/~-])/(?:[^/\s'\":,;()<>]+/)+(?=[^/\s])")


def why(error: BaseException, root: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The error's class and its sentence; paths beneath `root` from there, of others the last name alone."""
    said = error.message if isinstance(error, SynthgenError) else str(error)
    text = " ".join(said.split())[: LONGEST * 8]
    for secret in _secrets(environ):
        text = text.replace(secret, "***")
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    for folder in dict.fromkeys((f"{root.absolute()}/", f"{root.resolve()}/")):
        text = text.replace(folder, "")
    text = _FOLDERS.sub("", text)
    return f"{type(error).__name__}: {text}"[:LONGEST].rstrip(": ")


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    """What variables hold whose names say that nobody is to see it, the longest first."""
    found = {
        value for name, value in environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST
    }
    yield from sorted(found, key=len, reverse=True)
