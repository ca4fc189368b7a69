"""Rows into files: JSON Lines, Parquet and Arrow, streamed, with the same bytes for the same rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol

import orjson

from synthgen.errors import RunError
from synthgen.export.durable import create, rename, write_bytes

SHARD_BYTES = 500_000_000  # of rows as JSON: what `datasets` puts into a shard, too
GROUP_BYTES = 64_000_000
GROUP_ROWS = 5_000
LARGE_ROW = 2_000_000  # bytes of JSON: rows beyond it are more than the Hub's viewer shows
JSON_FIELD = {b"synthgen": b"json"}

Kind = Literal[
    "text", "boolean", "integer", "number", "json",
    "messages", "tool messages", "turns", "tool turns", "message", "turn", "pairs",
]  # fmt: skip
"""What a column holds: a value of one type, or any as JSON in a text; {role, content} or {from, value}, one
or many, with calls of tools whose arguments are JSON; pairs of texts.
"""
CALLING = ("role", "content", "tool_calls", "tool_call_id", "name")  # what a message among calls may have


class RowWriter(Protocol):
    """Takes rows one after the other and leaves complete files, whose rows `counts` has when it is closed."""

    counts: dict[Path, int]

    def write(self, row: Mapping[str, Any], line: bytes) -> None:
        """Add a row; `line` is its JSON."""

    def close(self) -> None:
        """Complete the files."""


class JsonlWriter:
    """One row a line, UTF-8, keys in the order of the row."""

    def __init__(self, path: Path) -> None:
        self.counts = {path: 0}
        self._path = path
        self._file = create(path)

    def write(self, row: Mapping[str, Any], line: bytes | None = None) -> None:
        """Add a row; `line` is its JSON, where that is known already."""
        self.line(orjson.dumps(row) if line is None else line)

    def line(self, row: bytes) -> None:
        """Add a row that is JSON already."""
        self._file.write(row + b"\n")
        self.counts[self._path] += 1

    def close(self) -> None:
        """Complete the file."""
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ParquetWriter:
    """Shards `<split>-00000-of-0000N.parquet`, each of SHARD_BYTES or little more; `id` is a text.

    With a page index, and with pages cut by what is in them, so that a store that knows parts of files
    (the Hub's) takes of a grown dataset what is new.
    """

    def __init__(self, folder: Path, split: str, schema: Any) -> None:
        self._rows = _Rows(schema)
        self._folder = folder
        self._split = split
        self._shards: list[Path] = []
        self._in_shards: list[int] = []
        self.counts: dict[Path, int] = {}
        self._in_shard = 0
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def write(self, row: Mapping[str, Any], line: bytes) -> None:
        """Add a row; `line` is its JSON. Raises RunError where a column cannot hold all of its value."""
        if self._rows.add(row, len(line)):
            self._flush()

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            path = self._folder / f".{self._split}-{len(self._shards):05d}.parquet"
            self._shards.append(path)
            self._file = create(path)
            self._writer = pq.ParquetWriter(
                self._file,
                self._rows.schema,
                compression="zstd",
                write_page_index=True,
                use_content_defined_chunking=True,
            )
        self._in_shard += self._rows.count
        self._bytes += self._rows.bytes
        self._writer.write_table(self._rows.table())
        if self._bytes >= SHARD_BYTES:
            self._end_shard()

    def _end_shard(self) -> None:
        assert self._file is not None
        with self._file:
            self._writer.close()
        self._file = self._writer = None
        self._in_shards.append(self._in_shard)
        self._in_shard = self._bytes = 0

    def close(self) -> None:
        """Complete the files; a split without rows has one file without rows."""
        if self._rows.count or not self._shards:
            self._flush()
        if self._writer is not None:
            self._end_shard()
        for number, path in enumerate(self._shards):
            name = f"{self._split}-{number:05d}-of-{len(self._shards):05d}.parquet"
            rename(path, self._folder / name)
            self.counts[self._folder / name] = self._in_shards[number]


class ArrowWriter:
    """One split of a dataset as `datasets.load_from_disk` opens it: a folder of that name."""

    def __init__(self, folder: Path, split: str, schema: Any) -> None:
        import pyarrow as pa

        self._rows = _Rows(schema)
        self._folder = folder / split
        self._split = split
        self._path = self._folder / "data-00000-of-00001.arrow"
        self._file = create(self._path)
        self._writer = pa.ipc.new_stream(self._file, self._rows.schema)
        self.counts = {self._path: 0}

    def write(self, row: Mapping[str, Any], line: bytes) -> None:
        """Add a row; `line` is its JSON. Raises RunError where a column cannot hold all of its value."""
        self.counts[self._path] += 1
        if self._rows.add(row, len(line)):
            self._writer.write_table(self._rows.table())

    def close(self) -> None:
        """Complete the files."""
        if self._rows.count:
            self._writer.write_table(self._rows.table())
        with self._file:
            self._writer.close()
        state: dict[str, Any] = {
            "_data_files": [{"filename": self._path.name}],
            "_fingerprint": hashlib.sha256(self._path.read_bytes()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": self._split,
        }
        write_bytes(self._folder / "state.json", orjson.dumps(state))
        write_bytes(self._folder / "dataset_info.json", orjson.dumps({"features": None}))


class _Rows:
    """Rows that gather to a table of a group's size."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.count = 0
        self.bytes = 0
        self._rows: list[Mapping[str, Any]] = []
        self._json = [field.name for field in schema if holds_json(field)]
        conversation = arrow_schema({"messages": "messages"}).field("messages").type
        self._conversations = [field.name for field in schema if field.type == conversation]
        self._calling = [field.name for field in schema if holds_calls(field)]

    def add(self, row: Mapping[str, Any], size: int) -> bool:
        """Whether it is time for a group."""
        for name in self._conversations:
            for message in row[name] or ():
                if len(message) != 2:  # Arrow would leave the rest behind without a word
                    raise RunError(f"a message of {row.get('id')} has more than a role and a content")
        for name in self._calling:
            for message in row[name] or ():
                if more := message.keys() - {*CALLING}:
                    raise RunError(f"a message of {row.get('id')} has {', '.join(sorted(more))}")
        if self._json:
            values = {name: value for name in self._json if (value := row.get(name)) is not None}
            row = {**row, **{name: orjson.dumps(value).decode() for name, value in values.items()}}
        self._rows.append(row)
        self.count += 1
        self.bytes += size
        return self.count >= GROUP_ROWS or self.bytes >= GROUP_BYTES

    def table(self) -> Any:
        """Those that have gathered, which are not here any more."""
        import pyarrow as pa

        table = pa.Table.from_pylist(self._rows, schema=self.schema)
        self._rows, self.count, self.bytes = [], 0, 0
        return table


def arrow_schema(columns: Mapping[str, Kind]) -> Any:
    """The schema of rows that have an `id` and these columns."""
    import pyarrow as pa

    text = pa.string()
    message = pa.struct([("role", text), ("content", text)])
    turn = pa.struct([("from", text), ("value", text)])
    function = pa.struct([("name", text), ("arguments", text)])
    call = pa.struct([("id", text), ("type", text), ("function", function)])
    calling = [*message, ("tool_calls", pa.list_(call)), ("tool_call_id", text), ("name", text)]
    types = {
        "text": text,
        "json": text,
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "message": message,
        "messages": pa.list_(message),
        "tool messages": pa.list_(pa.struct(calling)),
        "turn": turn,
        "turns": pa.list_(turn),
        "tool turns": pa.list_(turn),
        "pairs": pa.list_(pa.list_(text)),
    }
    fields = [
        pa.field(name, types[kind], metadata=JSON_FIELD if kind == "json" else None)
        for name, kind in columns.items()
    ]
    return pa.schema([pa.field("id", text), *fields])


def holds_json(field: Any) -> bool:
    """Whether a field of a schema was of the kind `json`."""
    return bool((field.metadata or {}).items() >= JSON_FIELD.items())


def holds_calls(field: Any) -> bool:
    """Whether a field of a schema was of the kind `tool messages`."""
    return bool(field.type == arrow_schema({"messages": "tool messages"}).field("messages").type)


def without_gaps(messages: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Messages as they were written: what a message has not is null in a column that others have it in."""
    if messages is None:
        return None
    return [{key: value for key, value in each.items() if value is not None} for each in messages]
