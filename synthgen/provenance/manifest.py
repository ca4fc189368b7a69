"""The manifest: an in-toto statement (v1) over every file beneath a folder, in a DSSE envelope."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from synthgen.provenance.keys import signatures
from synthgen.provenance.schema import PAYLOAD_TYPE, PREDICATE, STATEMENT

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

MANIFEST = "manifest.json"
LEDGER = "provenance/ledger.jsonl"
REPORT = (
    "report.html"  # a page about a version, bound by no manifest: it tells of times, and is written on demand
)


def manifest(
    folder: Path,
    predicate: Mapping[str, Any],
    *,
    rows: Mapping[str, int] | None = None,
    leave_out: Sequence[str] = (),
    signer: CryptoSigner | None = None,
    known: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """The envelope, signed where there is a key, over every file beneath `folder` but itself.

    Each has its digest and its size, and where `rows` knows of it its count of rows. `known` are subjects of
    files that have not changed since.
    """
    statement = {
        "_type": STATEMENT,
        "subject": subjects(folder, rows=rows, leave_out=leave_out, known=known),
        "predicateType": PREDICATE,
        "predicate": dict(predicate),
    }
    payload = orjson.dumps(statement)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": signatures(payload, PAYLOAD_TYPE, signer),
    }
    return orjson.dumps(envelope, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def subjects(
    folder: Path,
    *,
    rows: Mapping[str, int] | None = None,
    leave_out: Sequence[str] = (),
    known: Sequence[Mapping[str, Any]] = (),
) -> list[Mapping[str, Any]]:
    """What a manifest says of each file beneath a folder; what is known of one is not found out again."""
    found: list[Mapping[str, Any]] = []
    before = {subject["name"]: subject for subject in known}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name != Path(MANIFEST) and name.parts[0] not in leave_out:
            if name.as_posix() in before:
                found.append(before[name.as_posix()])
                continue
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            annotations = {"bytes": path.stat().st_size}
            if rows is not None and name.as_posix() in rows:
                annotations["rows"] = rows[name.as_posix()]
            found.append({"name": name.as_posix(), "digest": {"sha256": digest}, "annotations": annotations})
    return found


def statement_in(envelope: bytes) -> Any:
    """The statement in an envelope. Raises ValueError, LookupError or TypeError where it is none."""
    return orjson.loads(base64.b64decode(orjson.loads(envelope)["payload"], validate=True))


def files_present(folder: Path) -> bool:
    """Whether every file that `folder/manifest.json` names is there with its size; digests are for audits."""
    try:
        return all(
            (folder / subject["name"]).stat().st_size == subject["annotations"]["bytes"]
            for subject in statement_in((folder / MANIFEST).read_bytes())["subject"]
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False
