"""Files of a hostile person, read in bounded memory: lines of JSON, and small files whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.findings import CannotJudge

LONGEST_LINE = 64_000_000
MANIFEST_BYTES = 32_000_000  # 200,000 files
LIST_BYTES = 256_000_000
DEEPEST = 64
BUFFER = 1_000_000


class Broken(Exception):
    """A file that does not hold what it should; `number` is the line or row, from 1."""

    def __init__(self, message: str, number: int, file: str | None = None) -> None:
        super().__init__(message)
        self.number = number
        self.file = file


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file without their ends. Raises Broken at one that is too long, or has no end."""
    number = 0
    no_pipe(path)
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if not line.endswith(b"\n"):
                raise Broken("is too long" if len(line) > LONGEST_LINE else "is cut off", number)
            yield line[:-1]


def parsed(line: bytes, number: int) -> dict[str, Any]:
    """A line as a mapping. Raises Broken where it is none."""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Broken(f"is not JSON: {error}", number) from None
    if not isinstance(said, dict):
        raise Broken("is not a mapping", number)
    return said


def no_pipe(path: Path) -> None:
    """Whoever reads a pipe may wait for ever, and a device may never end."""
    if path.exists() and not path.is_file():
        raise Broken("is no regular file", 1)


def digest_of(path: Path) -> tuple[str, int]:
    """SHA-256 of a file, and how many lines it has."""
    digest, ends = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while part := file.read(BUFFER):
            digest.update(part)
            ends += part.count(b"\n")
    return digest.hexdigest(), ends


def rows_in(path: Path) -> int:
    """How many rows a Parquet file says it has. Raises Broken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise Broken(f"is not Parquet: {error}", 1) from None


def small_file(path: Path, most: int = MANIFEST_BYTES) -> bytes:
    """All of a file that is to be read at once. Raises CannotJudge where it is not there, or too large."""
    try:
        if path.exists() and not path.is_file():
            raise CannotJudge(f"{path} is no regular file")
        if path.stat().st_size > most:
            raise CannotJudge(f"{path} is larger than {most:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise CannotJudge(f"{path} cannot be read: {error.strerror}") from None
