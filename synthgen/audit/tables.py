"""Parquet of a hostile person: rows as synthgen wrote them, and statements as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.lines import LONGEST_LINE, Broken, no_pipe
from synthgen.export.rows import holds_calls, holds_json, without_gaps
from synthgen.export.stated import as_row, schema

ROWS_AT_A_TIME = 256
BUFFER = 1_000_000


def rows_of_parquet(paths: Sequence[Path]) -> Iterator[bytes]:
    """Every row of some shards as the JSON line that synthgen writes for it. Raises Broken.

    Types and numbers that JSON would show as others are none of synthgen's.
    """
    import pyarrow as pa

    number = 0
    for path, batch in _ahead(paths):
        try:
            _check_types(batch)
            encoded = [field.name for field in batch.schema if holds_json(field)]
            calling = [field.name for field in batch.schema if holds_calls(field)]
            for row in batch.to_pylist():
                number += 1
                for name in encoded:
                    if row[name] is not None:
                        row[name] = orjson.loads(row[name])
                for name in calling:
                    row[name] = without_gaps(row[name])
                line = orjson.dumps(row)
                if len(line) > LONGEST_LINE:
                    raise Broken("is too long", number)
                yield line
        except MemoryError:
            raise _too_large(path, number + 1) from None
        except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _none(path, error, number + 1) from None


def _check_types(batch: Any) -> None:
    """Raises ValueError at what synthgen never writes: a date reads like a text, NaN like no value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_floating(field.type):
            if field.type != pa.float64() or pc.all(pc.is_finite(column)).as_py() is False:
                raise ValueError(f"{field.name} has numbers that are none")
        elif not _plain(field.type):
            raise ValueError(f"{field.name} is of the type {field.type}"[:120])


def _plain(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_plain(field.type) for field in kind)
    return kind in (pa.string(), pa.int64(), pa.bool_())


class StatedTable:
    """What is stated of the rows of a split, as columns: compared with its lines, as those come by."""

    def __init__(self, paths: Sequence[Path], *, grows: bool) -> None:
        self._schema = schema(grows=grows)
        self._batches = _ahead(paths)
        self._batch: Any = None
        self._waiting: list[Mapping[str, Any]] = []

    def differs(self, said: Mapping[str, Any]) -> str | None:
        """Take the next statement. Gives the id of the first that is not the table's. Raises Broken."""
        if self._batch is None:
            _, self._batch = next(self._batches, (None, ()))
        self._waiting.append(said)
        return self._compared() if len(self._waiting) >= len(self._batch) else None

    def ends(self) -> str | None:
        """After the last statement, as `differs`; empty where the table goes on. Raises Broken."""
        if self._waiting:
            return self._compared()
        return None if self._batch is None and next(self._batches, None) is None else ""

    def _compared(self) -> str | None:
        import pyarrow as pa

        batch, waiting = self._batch, self._waiting
        self._batch, self._waiting = None, []
        try:
            stated = pa.RecordBatch.from_pylist([as_row(said) for said in waiting], schema=self._schema)
            if len(batch) and batch.equals(stated):
                return None
            there = range(len(waiting))
            other = (at for at in there if at >= len(batch) or batch[at : at + 1] != stated[at : at + 1])
            first = next(other, None)
            return "" if first is None else str(waiting[first]["id"])
        except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            return str(waiting[0].get("id"))


def _ahead(paths: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    """Batches, of which the next is decoded while one is looked at. Raises Broken."""
    batches = _batches(paths)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (each := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield each


def _batches(paths: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    """Raises Broken. Read through a buffer and not mapped, so that memory does not grow with a shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    for path in paths:
        no_pipe(path)
        try:
            with pq.ParquetFile(path, buffer_size=BUFFER) as table:
                for batch in table.iter_batches(batch_size=ROWS_AT_A_TIME):
                    if len(batch):
                        yield path, batch
                        number += len(batch)
        except MemoryError:
            raise _too_large(path, number + 1) from None
        except (pa.ArrowException, OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _none(path, error, number + 1) from None


def _too_large(path: Path, number: int) -> Broken:
    return Broken(f"{path.name} takes more memory than there is", number)


def _none(path: Path, error: Exception, number: int) -> Broken:
    return Broken(f"{path.name} is not Parquet that synthgen wrote: {error}"[:400], number)
