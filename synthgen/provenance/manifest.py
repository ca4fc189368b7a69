"""The manifest: an in-toto statement (v1) over every file beneath a folder, not signed yet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import orjson

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:synthgen:manifest:v1"
MANIFEST = "manifest.json"


def manifest(folder: Path, leave_out: Sequence[str] = ()) -> bytes:
    """Digests and sizes of every file beneath `folder` but itself, sorted by path, some folders left out."""
    subjects = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name != Path(MANIFEST) and name.parts[0] not in leave_out:
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            subjects.append(
                {
                    "name": name.as_posix(),
                    "digest": {"sha256": digest},
                    "annotations": {"bytes": path.stat().st_size},
                }
            )
    statement = {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {"signed": False},
    }
    return orjson.dumps(statement, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def files_present(folder: Path) -> bool:
    """Whether every file that `folder/manifest.json` names is there with its size; digests are for audits."""
    try:
        statement = orjson.loads((folder / MANIFEST).read_bytes())
        return all(
            (folder / subject["name"]).stat().st_size == subject["annotations"]["bytes"]
            for subject in statement["subject"]
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False
