"""Records of files that somebody else wrote: another dataset, a benchmark, chats to curate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synthgen.conversation import NoConversation, conversation
from synthgen.project import Project
from synthgen.record import Record
from synthgen.seed_kinds import FileSeed
from synthgen.seeds import FileRows


def read_records(path: Path) -> Iterator[Record]:
    """Each row of a JSONL, JSON, CSV, TSV, Parquet or text file as a record.

    The conversation of a row in one of the usual layouts is its `messages`; of any other row the fields are
    taken as they are. `id` is the row's own, else the number of its line or row. Raises RecipeError, with
    the line, at a row that cannot be read.
    """
    rows = FileRows(FileSeed(path=str(path)), [path], Project(path.parent))
    for place, row in enumerate(rows, 1):
        number = row.source["row"] if row.source else place
        yield record_of(row.value, str(number))


def record_of(value: Any, id: str) -> Record:
    """One row as a record."""
    fields = value if isinstance(value, Mapping) else {"text": value}
    own = fields.get("id")
    name = str(own) if isinstance(own, str | int) and own != "" else id
    for calls in (False, True):
        try:
            return Record(name, fields, {"messages": conversation(value, calls=calls)})
        except NoConversation:
            continue
    return Record(name, {}, fields)
