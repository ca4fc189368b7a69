"""Seeds: the rows of files and lists that tasks go through, and the choices drawn for each."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson

from synthgen.chunks import Cutter, cutter
from synthgen.digests import draw, value_digest
from synthgen.documents import NotReadable, plain, read_document, reader_version
from synthgen.errors import Problem, RecipeError
from synthgen.project import Project
from synthgen.seed_kinds import ChoiceSeed, FileSeed, ValuesSeed
from synthgen.yamlfile import did_you_mean

MAX_ROW_BYTES = 64_000_000
CONVERT = "convert the file, for example with: iconv -f cp1252 -t utf-8; or set `on_bad_row: skip`"
BATCH_BYTES = 64_000_000
MANY = 100_000
_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}
DOCUMENTS = ("text", "markdown", "html", "pdf")


Located = tuple[int, Any, Mapping[str, Any]]  # line or row, value, and what part of it


@dataclass(frozen=True, slots=True)
class SeedRow:
    """One value with its digest and, for a row of a file, where it came from.

    `parts` are the rows that a list was made of.
    """

    value: Any
    digest: bytes
    source: Mapping[str, Any] | None = None
    parts: Sequence[SeedRow] = ()


def seed_row(value: Any) -> SeedRow:
    """A value that comes from no file."""
    return SeedRow(value, value_digest(value))


class BadRow(Exception):
    """A row that cannot be read; `line` counts from 1."""

    def __init__(self, message: str, line: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint


@dataclass(frozen=True)
class FileRows:
    """The rows of a recipe's file seed, read as they are asked for and always in the same order."""

    spec: FileSeed
    files: Sequence[Path]
    project: Project
    tokenizer: Path | None = None

    def __iter__(self) -> Iterator[SeedRow]:
        """Every row. Raises RecipeError, with file and line, at one that cannot be read."""
        left = self.spec.limit if self.spec.limit is not None else -1
        for file in self.files:
            shown = self.project.relative(file)
            for line, row, span in self._rows(file):
                left -= 1
                origin, value = self._origin(row)
                digest = value_digest(value)
                source: dict[str, Any] = {"path": shown, "row": line, "sha256": digest.hex(), **span}
                if origin is not None:
                    source["origin"] = origin
                if self.spec.licence:
                    source["licence"] = self.spec.licence
                yield SeedRow(value, digest, source)
                if left == 0:
                    return

    def _origin(self, value: Any) -> tuple[Any, Any]:
        """What a row says of its own provenance, and the rest of it."""
        name = self.spec.origin
        if name is None or not isinstance(value, dict) or name not in value:
            return None, value
        return value[name], {key: item for key, item in value.items() if key != name}

    @cached_property
    def _scan(self) -> tuple[int, Mapping[bytes, int]]:
        digests = array("Q")
        for row in self:
            digests.frombytes(row.digest[:8])
        if not digests:
            named = ", ".join(self.project.relative(file) for file in self.files)
            raise RecipeError([Problem(f"has no rows: {named}", self.files[0])])
        again = that_come_again(digests)
        repeats = Counter(row.digest for row in self if row.digest[:8] in again) if again else {}
        return len(digests), repeats

    @property
    def repeats(self) -> Mapping[bytes, int]:
        """How often each row is there, by its digest, of those that are there more than once."""
        return self._scan[1]

    @cached_property
    def skipped(self) -> int:
        """How many rows were skipped as asked. Raises RecipeError on a bad one."""
        if self.spec.on_bad_row == "stop":
            return 0
        return sum(1 for file in self.files for item in self._read(file) if isinstance(item, BadRow))

    def __len__(self) -> int:
        """How many rows there are. Raises RecipeError on a bad one."""
        return self._scan[0]

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file."""
        found = {}
        for file in self.files:
            with file.open("rb") as handle:
                found[self.project.relative(file)] = hashlib.file_digest(handle, "sha256").hexdigest()
        return found

    @property
    def readers(self) -> list[str]:
        """The libraries, with their versions, on which the text of these files depends."""
        return sorted({found for file in self.files if (found := reader_version(self._kind(file)))})

    def _rows(self, file: Path) -> Iterator[Located]:
        for item in self._read(file):
            if isinstance(item, BadRow):
                if self.spec.on_bad_row == "skip":
                    continue
                hint = item.hint or "mend the row, or set `on_bad_row: skip`"
                raise RecipeError([Problem(str(item), file, item.line, hint=hint)])
            yield item

    def _kind(self, file: Path) -> str:
        return self.spec.format or _FORMATS.get(file.suffix.lower(), "")

    def _read(self, file: Path) -> Iterator[Located | BadRow]:
        kind = self._kind(file)
        if not kind:
            raise RecipeError(
                [Problem(f"its format cannot be told from {file.suffix!r}", file, hint="set `format:`")]
            )
        try:
            if kind in DOCUMENTS:
                yield from self._document(file, kind)
                return
            for item in _READERS[kind](file, self.project):
                taken = item if isinstance(item, BadRow) else self._take(item)
                if isinstance(taken, BadRow):
                    yield taken
                elif self._cutter is None:
                    yield (*taken, {})
                else:
                    yield from self._cut(*taken)
        except OSError as error:
            raise RecipeError([Problem(f"cannot be read: {error.strerror}", file)]) from None

    @cached_property
    def _cutter(self) -> Cutter | None:
        return cutter(self.spec.chunk, self.tokenizer) if self.spec.chunk is not None else None

    def _cut(self, line: int, value: Any) -> Iterator[Located | BadRow]:
        if not isinstance(value, str):
            hint = None if self.spec.field else "say with `field:` which text is to be cut"
            yield BadRow("has no text to cut into chunks", line, hint)
            return
        assert self._cutter is not None
        for chunk in self._cutter.cut(plain(value)):
            yield line, chunk.text, {"start": chunk.start, "end": chunk.end}

    def _document(self, file: Path, kind: str) -> Iterator[Located | BadRow]:
        try:
            document = read_document(file, kind)
        except NotReadable as error:
            yield BadRow(str(error), error.line, error.hint)
            return
        row: dict[str, Any] = {"text": document.text, "path": self.project.relative(file)}
        if self._cutter is None:
            taken = self._take((1, row))
            yield taken if isinstance(taken, BadRow) else (*taken, {})
            return
        for chunk in self._cutter.cut(document):
            heading, page = document.heading_path(chunk.start), document.page(chunk.start)
            taken = self._take((1, {**row, "text": chunk.text, "heading": heading}))
            span: dict[str, Any] = {"start": chunk.start, "end": chunk.end}
            if page is not None:
                span["page"] = page
            if heading:
                span["heading"] = heading
            yield taken if isinstance(taken, BadRow) else (*taken, span)

    def _take(self, item: tuple[int, Any]) -> tuple[int, Any] | BadRow:
        line, row = item
        if self.spec.field is None:
            return item
        if not isinstance(row, dict):
            return BadRow(f"is not a mapping, so it has no field {self.spec.field!r}", line)
        if self.spec.field not in row:
            return BadRow(
                f"has no field {self.spec.field!r}", line, did_you_mean(self.spec.field, map(str, row))
            )
        return line, row[self.spec.field]


def _decoded(raw: bytes, line: int) -> str | BadRow:
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return BadRow(f"is not UTF-8 (byte {error.start + 1} of the line)", line, CONVERT)


def _jsonl(file: Path, _: Project) -> Iterator[tuple[int, Any] | BadRow]:
    with file.open("rb") as handle:
        line = 0
        while raw := handle.readline(MAX_ROW_BYTES + 1):
            line += 1
            if len(raw) > MAX_ROW_BYTES:
                yield BadRow(f"is longer than {MAX_ROW_BYTES:,} bytes", line)
                return
            if line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                yield line, orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                text = _decoded(raw, line)
                torn = "" if raw.endswith(b"\n") else "; the file ends inside it"
                yield text if isinstance(text, BadRow) else BadRow(f"is not JSON ({error}){torn}", line)


def _json(file: Path, _: Project) -> Iterator[tuple[int, Any] | BadRow]:
    raw = file.read_bytes()
    try:
        data = orjson.loads(raw.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        yield BadRow(f"is not JSON: {error}", error.lineno)
        return
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        if len(lists) != 1:
            yield BadRow("is neither a list of rows nor a mapping that holds one", 1)
            return
        data = lists[0]
    if not isinstance(data, list):
        yield BadRow("is not a list of rows", 1)
        return
    yield from enumerate(data, 1)


def _csv(file: Path, _: Project, delimiter: str = ",") -> Iterator[tuple[int, Any] | BadRow]:
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield BadRow("is not UTF-8", raw[: error.start].count(b"\n") + 1, CONVERT)
        return
    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    twice = next((name for name, times in Counter(_columns(reader)).items() if times > 1), None)
    if twice is not None:
        yield BadRow(
            f"names the column {twice!r} twice in its header, and a row has one value of it",
            1,
            "rename one of them",
        )
        return
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield BadRow(f"is not CSV: {error}", reader.reader.line_num)
            continue
        if row is None:
            return
        if None in row or None in row.values():
            count = len(reader.fieldnames or [])
            yield BadRow(f"does not have the header's {count} columns", reader.line_num)
        else:
            yield reader.line_num, dict(row)


def _columns(reader: csv.DictReader[str]) -> list[str]:
    """The header's columns, or none where it is no CSV: the first row says so."""
    try:
        return list(reader.fieldnames or [])
    except csv.Error:
        return []


def _tsv(file: Path, project: Project) -> Iterator[tuple[int, Any] | BadRow]:
    return _csv(file, project, "\t")


def _parquet(file: Path, _: Project) -> Iterator[tuple[int, Any] | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            number, groups = 0, [table.metadata.row_group(n) for n in range(table.num_row_groups)]
            largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
            if largest > MAX_ROW_BYTES:
                yield BadRow(f"has rows of {largest:,} bytes, and {MAX_ROW_BYTES:,} is the most", 1)
                return
            for batch in table.iter_batches(batch_size=min(1024, max(BATCH_BYTES // max(largest, 1), 1))):
                for row in batch.to_pylist():
                    number += 1
                    yield number, orjson.loads(orjson.dumps(row, default=str))
    except (pa.ArrowException, MemoryError) as error:
        yield BadRow(f"is not Parquet: {error or 'its rows are larger than the memory'}", 1)


def _arrow(file: Path, _: Project) -> Iterator[tuple[int, Any] | BadRow]:
    """A stream, as `datasets` saves it, or a file with an index."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source:
            indexed = source.read(6) == b"ARROW1"
            source.seek(0)
            batches: Any = pa.ipc.open_file(source) if indexed else pa.ipc.open_stream(source)
            count = batches.num_record_batches if indexed else None
            number = 0
            for batch in map(batches.get_batch, range(count)) if count is not None else batches:
                for part in range(0, batch.num_rows, 1024):
                    for row in batch.slice(part, 1024).to_pylist():
                        number += 1
                        yield number, orjson.loads(orjson.dumps(row, default=str))
    except (pa.ArrowException, MemoryError) as error:
        yield BadRow(f"is not Arrow: {error or 'its rows are larger than the memory'}", 1)


_READERS = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
    "arrow": _arrow,
}


@dataclass(frozen=True)
class ListRows:
    """A list in the recipe, as rows."""

    rows: Sequence[SeedRow]

    def __iter__(self) -> Iterator[SeedRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def repeats(self) -> Mapping[bytes, int]:
        """How often each row is there, by its digest, of those that are there more than once."""
        counts = Counter(row.digest for row in self.rows)
        return {digest: times for digest, times in counts.items() if times > 1}


Rows = FileRows | ListRows


def that_come_again(digests: array[int]) -> set[bytes]:
    """Those that are there more than once. Takes eight bytes a row where there are many."""
    if len(digests) < MANY:
        counts = Counter(digests)
        return {value.to_bytes(8, sys.byteorder) for value, times in counts.items() if times > 1}
    import numpy as np

    ordered = np.sort(np.frombuffer(digests, dtype=np.uint64))
    return {value.tobytes() for value in np.unique(ordered[1:][ordered[1:] == ordered[:-1]])}


@dataclass(frozen=True, slots=True)
class Draw:
    """What one draw follows from: its key, and the values and rows that its task has already."""

    seed: int
    name: str
    task: bytes
    repeat: int
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[SeedRow] = ()

    @property
    def share(self) -> float:
        """A number from 0 to below 1 that follows from the key alone."""
        return draw(self.seed, self.name, self.task, self.repeat)

    def below(self, count: int) -> int:
        """A number from 0 to below `count`, each as likely."""
        return min(int(self.share * count), count - 1)


@dataclass(frozen=True)
class Drawn:
    """Values of which one is drawn for each task."""

    rows: Sequence[SeedRow]
    weights: Sequence[float] | None = None

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.rows)

    @cached_property
    def _edges(self) -> list[float]:
        return list(accumulate(self.weights or []))

    def pick(self, at: Draw) -> SeedRow:
        """The row for this task: the same whenever and wherever it is asked for."""
        if self.weights is None:
            return self.rows[at.below(len(self.rows))]
        place = bisect_right(self._edges, at.share * self._edges[-1])
        return self.rows[min(place, len(self.rows) - 1)]


def list_rows(spec: ValuesSeed) -> ListRows:
    """The rows of a list in the recipe."""
    return ListRows([seed_row(value) for value in spec.values])


def drawn(spec: ChoiceSeed) -> Drawn:
    """The choices of a recipe."""
    values = list(spec.choice)
    weights = list(spec.choice.values()) if isinstance(spec.choice, dict) else None
    return Drawn([seed_row(value) for value in values], weights)
