"""What is stated of the rows of a split, line by line: against the lock, and against the same in columns.

Where there is much of it, it is read in a process of its own, which takes the other core.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from synthgen.audit.agreement import Agreement
from synthgen.audit.findings import CannotJudge, Finding, Findings
from synthgen.audit.lines import Broken, lines, parsed
from synthgen.audit.place import LOCK, read_lock
from synthgen.audit.tables import StatedTable

APART_ABOVE = 30_000_000  # bytes


@dataclass(slots=True)
class Stated:
    """What is wrong with it, and whether any of the rows is synthetic."""

    findings: Findings = field(default_factory=Findings)
    synthetic: bool = False


def check_stated(folder: Path, split: str, shards: Sequence[str]) -> Stated:
    """Check `provenance/SPLIT.jsonl` of a dataset's folder, and the tables of it, given by their names."""
    path = folder / "provenance" / f"{split}.jsonl"
    if not path.is_file() or path.stat().st_size <= APART_ABOVE:
        return _checked(folder, split, shards)
    source = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(  # noqa: S603 - this very module; -P: nothing is imported from where the auditor stands
        [sys.executable, "-P", "-m", "synthgen.audit.stated", str(folder), split, *shards],
        stdout=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONPATH": source.rstrip(os.pathsep)},
    )
    stated = Stated()
    try:
        said = orjson.loads(done.stdout)
        stated.findings = Findings(said["count"], [Finding(**each) for each in said["findings"]])
        stated.synthetic = said["synthetic"]
    except (ValueError, LookupError):
        stated.findings.add("takes more memory than there is", f"provenance/{split}.jsonl")
    return stated


def _checked(folder: Path, split: str, shards: Sequence[str]) -> Stated:
    stated, reading = Stated(), f"provenance/{split}.jsonl"
    findings, file, columns = stated.findings, reading, f"provenance/{split}-*.parquet"
    try:
        agreement = Agreement(read_lock(folder / "provenance" / LOCK))
    except (CannotJudge, ValueError):
        agreement = None  # what is wrong with the lock is found where it is read first
    grows = agreement is not None and agreement.grows
    table = StatedTable([folder / shard for shard in shards], grows=grows) if shards else None
    before = (-1, "")

    def differs(id: str | None) -> None:
        if id is not None:
            what = f"is not what {file} states" if id else "has more rows than are stated"
            findings.add(what, columns, id[:80] or None)

    try:
        for number, line in enumerate(lines(folder / file), 1):
            reading = file
            said = parsed(line, number)
            id = str(said.get("id"))[:80]
            stated.synthetic |= said.get("synthetic") is True
            for message, part in agreement.problems(said) if agreement is not None else ():
                findings.add(message, file, id, part)
            task = said.get("task")
            place = (task if isinstance(task, int) else -1, str(said.get("branch")))
            if place <= before:
                findings.add("does not come after that of the record before", file, id, "task")
            before = place
            reading = columns
            if table is not None:
                differs(table.differs(said))
        if table is not None:
            differs(table.ends())
    except Broken as broken:
        findings.add(f"line {broken.number} {broken}", reading)
    except MemoryError:
        findings.add("takes more memory than there is", reading)
    except OSError as error:
        findings.add(f"cannot be read: {error.strerror}", reading)
    return stated


def main() -> None:
    """In a process of its own: FOLDER SPLIT SHARD..., and what was found as JSON."""
    folder, split, *shards = sys.argv[1:]
    stated = _checked(Path(folder), split, shards)
    said = {
        "count": stated.findings.count,
        "findings": [finding.as_json() for finding in stated.findings.shown],
        "synthetic": stated.synthetic,
    }
    sys.stdout.buffer.write(orjson.dumps(said))


if __name__ == "__main__":
    main()
