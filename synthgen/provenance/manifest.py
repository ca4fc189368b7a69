"""The manifest: an in-toto statement (v1) over every file beneath a folder, not signed yet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import orjson

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:synthgen:manifest:v1"


def write_manifest(folder: Path, into: Path, leave_out: Sequence[str] = ()) -> None:
    """Write the digests and sizes of every file beneath `folder`, sorted by path, but for some folders."""
    subjects = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path != into and name.parts[0] not in leave_out:
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
    into.write_bytes(orjson.dumps(statement, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def files_present(folder: Path) -> bool:
    """Whether every file that `folder/manifest.json` names is there with its size; digests are for audits."""
    try:
        statement = orjson.loads((folder / "manifest.json").read_bytes())
        return all(
            (folder / subject["name"]).stat().st_size == subject["annotations"]["bytes"]
            for subject in statement["subject"]
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False
