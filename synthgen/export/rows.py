"""Rows into files: JSON Lines and Parquet, streamed, with the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import orjson

from synthgen.export.durable import create, rename

ROWS_A_SHARD = 250_000
ROWS_A_GROUP = 5_000
JSON = {b"synthgen": b"json"}  # said of a column whose texts are JSON


class RowWriter(Protocol):
    """Takes rows one after the other and leaves complete files, whose rows `counts` has when it is closed."""

    counts: dict[Path, int]

    def write(self, row: Mapping[str, Any], line: bytes | None = None) -> None:
        """Add a row; `line` is its JSON, where that is known already."""

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
    """Shards `<split>-00000-of-0000N.parquet`; messages are a list of structs, JSON is text that says so."""

    def __init__(self, folder: Path, split: str, kinds: Mapping[str, str]) -> None:
        """`kinds` has the row's fields beside its id, in order, each with its kind."""
        import pyarrow as pa

        message = pa.struct([("role", pa.string()), ("content", pa.string())])
        types = {
            "messages": pa.list_(message),
            "boolean": pa.bool_(),
            "integer": pa.int64(),
            "number": pa.float64(),
        }
        self._schema = pa.schema(
            [
                pa.field(name, types.get(kind, pa.string()), metadata=JSON if kind == "json" else None)
                for name, kind in {"id": "text", **kinds}.items()
            ]
        )
        self._json = [name for name, kind in kinds.items() if kind == "json"]
        self._folder = folder
        self._split = split
        self._group: list[Mapping[str, Any]] = []
        self._shards: list[Path] = []
        self._in_shards: list[int] = []
        self.counts: dict[Path, int] = {}
        self._in_shard = 0
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def write(self, row: Mapping[str, Any], line: bytes | None = None) -> None:
        """Add a row."""
        texts = {name: orjson.dumps(row[name]).decode() for name in self._json if row[name] is not None}
        self._group.append({**row, **texts} if texts else row)
        if len(self._group) >= ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            path = self._folder / f".{self._split}-{len(self._shards):05d}.parquet"
            self._shards.append(path)
            self._file = create(path)
            self._writer = pq.ParquetWriter(
                self._file, self._schema, compression="zstd", write_page_index=True
            )
        self._writer.write_table(pa.Table.from_pylist(self._group, schema=self._schema))
        self._in_shard += len(self._group)
        self._group = []
        if self._in_shard >= ROWS_A_SHARD:
            self._end_shard()

    def _end_shard(self) -> None:
        assert self._file is not None
        with self._file:
            self._writer.close()
        self._file = self._writer = None
        self._in_shards.append(self._in_shard)
        self._in_shard = 0

    def close(self) -> None:
        """Complete the files; a split without rows has one file without rows."""
        if self._group or not self._shards:
            self._flush()
        if self._writer is not None:
            self._end_shard()
        for number, path in enumerate(self._shards):
            name = f"{self._split}-{number:05d}-of-{len(self._shards):05d}.parquet"
            rename(path, self._folder / name)
            self.counts[self._folder / name] = self._in_shards[number]
