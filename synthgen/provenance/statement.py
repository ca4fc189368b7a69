"""What is stated of a record, whatever its fate, and its entry in the ledger, which commits to that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from synthgen.journal_entries import RecordEntry
from synthgen.provenance.merkle import Growing, leaf_hash

SALT = b"synthgen record\0"
SALT_BYTES = 16


ROW = b',"row":'


def row_bytes(id: str, body: bytes) -> bytes:
    """A record's row as the dataset's JSON Lines have it, without the line's end.

    Contents are `{"fields":...,"row":...}` as orjson writes them, so that the row need not be read: where
    this key stands but once, it is the row's, since inside a string the quotes of such a text are escaped.
    """
    _, found, row = body.partition(ROW)
    if found and row.startswith(b"{") and row.endswith(b"}}") and ROW not in row and b'"id":' not in row:
        rest = row[1:-1]
        return b'{"id":%s%s%s' % (orjson.dumps(id), b"," if rest != b"}" else b"", rest)
    return orjson.dumps({"id": id, **orjson.loads(body)["row"]})


def with_provenance(row: bytes, stated: bytes) -> bytes:
    """A row that bears what is stated of it, as a text, as `output: {provenance: column}` wants it."""
    return row[:-1] + _column(stated)


def without_provenance(row: bytes, stated: bytes) -> bytes:
    """The row that this is stated of: what `with_provenance` added is taken away; else as it is."""
    column = _column(stated)
    return row[: -len(column)] + b"}" if row.endswith(column) else row


def _column(stated: bytes) -> bytes:
    return b',"provenance":%s}' % orjson.dumps(stated.decode(errors="replace"))


def statement(entry: RecordEntry, body: bytes | None, row: bytes | None = None) -> bytes:
    """The line. Equal records give equal lines; nothing in it holds times, tries or sessions.

    `row` is what `row_bytes` gives, where that is known already. `schema.RecordStatement` is its form.

    The salt depends on all of the record's contents, its seeds among them, and stands in no other place: who
    has neither the contents nor this line learns nothing from its digest, however little the row may hold.
    """
    if row is None and body is not None:
        row = row_bytes(entry.id, body)
    said: dict[str, Any] = {
        "id": entry.id,
        "task": entry.task,
        "branch": entry.branch,
        "state": entry.state,
        "dropped_by": entry.dropped_by,
        "content_sha256": entry.content.hex() if entry.content else None,
        "row_sha256": None if row is None else hashlib.sha256(row).hexdigest(),
        "sources": entry.sources,
        "requests": [key.hex() for key in entry.requests],
        "measurements": entry.verdicts,
        "synthetic": is_synthetic(entry.requests, entry.sources),
        "salt": hashlib.sha256(SALT + (body or b"")).hexdigest()[: 2 * SALT_BYTES],
    }
    return orjson.dumps(said)


def is_synthetic(requests: Sequence[Any], sources: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a model wrote any of a record, here or in a dataset that it was taken from."""
    return bool(requests) or any(map(_was_synthetic, sources))


def _was_synthetic(source: Mapping[str, Any]) -> bool:
    """Whether a model wrote any of a row in the dataset that it was taken from."""
    origin = source.get("origin")
    stated = origin.get("statement") if isinstance(origin, dict) else None
    return isinstance(stated, dict) and stated.get("synthetic") is True


def ledger_entry(entry: RecordEntry, stated: bytes) -> bytes:
    """The record's line in the ledger, whose hash is its leaf: id, state, and the statement's digest.

    Of a record whose contents were erased the journal has that digest alone.
    """
    digest = entry.erased.hex() if entry.erased else hashlib.sha256(stated).hexdigest()
    return orjson.dumps({"id": entry.id, "state": entry.state, "statement": digest})


def leaf_of(entry: RecordEntry, body: bytes | None) -> bytes:
    """The record's leaf hash (RFC 6962: 0x00 before the data)."""
    return leaf_hash(ledger_entry(entry, statement(entry, body)))


def tree_of(records: Iterable[tuple[RecordEntry, bytes | None]]) -> Growing:
    """The tree of records in order, their leaves computed anew."""
    tree = Growing()
    for entry, body in records:
        tree.append(leaf_of(entry, body))
    return tree
