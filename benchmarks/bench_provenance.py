"""What provenance costs: its share of curating, its bytes on disk, and the time of `audit verify`.

    python benchmarks/bench_provenance.py [--records 100000] [--rows 1000000] [--folder DIR]

The share: a recipe without steps curates so many chats of about 1,200 characters with the usual chain of
filters. Around everything that is done for provenance, ledger and manifest alone, in judging and in writing,
processor time is taken, in the same run; the share is that of the time which the run took from its beginning
to its end, and that of the processor time of all its processes.

The verifying: `audit verify` of a dataset's directory of so many rows, as Parquet and JSON Lines, with its
measurements as the run above has them: seconds, and the peak of its memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
from bench_scale import peak_mib

from synthgen.yamlfile import read_yaml

ROOT = Path(__file__).parent.parent
DATA = ROOT / "recipes" / "data"
FILTERS = ["refusal", {"words": {"min": 2}}, {"language": {"is": "en"}}, "toxicity", "quality", "duplicate"]
CHARACTERS = 1200


def chats(count: int) -> Iterator[dict[str, str]]:
    """Sentences of the data of the shipped recipes in ever new order; one in eight is a near-duplicate."""
    lines = [
        json.loads(line)
        for name in ("python_docs.jsonl", "instructions.jsonl")
        for line in (DATA / name).open()
    ]
    sentences = [
        part for line in lines for part in re.split(r"(?<=[.!?])\s+", line.get("text") or line["response"])
    ]
    dice = random.Random(1)
    answer: list[str] = []
    for number in range(count):
        if number % 8 == 7:
            answer = [*answer[:-1], dice.choice(sentences)]
        else:
            answer = []
            while sum(map(len, answer)) < CHARACTERS - 60:
                answer.append(dice.choice(sentences))
        yield {"prompt": f"{number}: {dice.choice(sentences)}", "completion": " ".join(answer)}


class Account:
    """Processor time of what is wrapped, of whatever thread, and not twice where one calls the other."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return function(*arguments, **options)
            self._inside = True
            began = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.thread_time() - began
                self._inside = False

        return timed


def keep_account(account: Account) -> None:
    """Of everything that is there for provenance, ledger and manifest."""
    import synthgen.curate
    import synthgen.export.dataset
    from synthgen.export.rows import JsonlWriter
    from synthgen.journal_reading import Answers
    from synthgen.provenance.merkle import Growing

    for module in (synthgen.curate, synthgen.export.dataset):
        for name in ("leaf_of", "statement", "ledger_entry", "leaf_hash", "manifest", "tree_of"):
            if hasattr(module, name):
                setattr(module, name, account.of(getattr(module, name)))
    Growing.append = account.of(Growing.append)  # type: ignore[method-assign]
    Answers.digest = account.of(Answers.digest)  # type: ignore[method-assign]
    plain, timed = JsonlWriter.line, account.of(JsonlWriter.line)

    def line(self: JsonlWriter, row: bytes) -> None:
        (timed if self._path.parent.name == "provenance" else plain)(self, row)

    JsonlWriter.line = line  # type: ignore[method-assign]


def processor_time() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def share(folder: Path, records: int) -> Path:
    """Curate, print what provenance took of it, and give the run's folder."""
    from synthgen.api import load, run

    recipe = {
        "version": 1, "name": "chats", "seeds": {"row": {"path": "data/chats.jsonl"}},
        "record": {"from": "row"}, "filters": FILTERS,
    }  # fmt: skip
    (folder / "recipes").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "recipes" / "chats.yaml").write_text(json.dumps(recipe))
    with (folder / "data" / "chats.jsonl").open("wb") as file:
        file.writelines(orjson.dumps(row) + b"\n" for row in chats(records))
    account = Account()
    keep_account(account)
    loaded = load(folder / "recipes" / "chats.yaml")
    before, began = processor_time(), time.perf_counter()
    result = run(loaded, folder / "run")
    wall, used = time.perf_counter() - began, processor_time() - before
    dataset = folder / "run" / "dataset"
    lines = (dataset / "provenance" / "train.jsonl").stat().st_size / result.kept
    ledger = (dataset / "provenance" / "ledger.jsonl").stat().st_size / records
    rows = (dataset / "train.jsonl").stat().st_size / result.kept
    print(f"curating {records:,} chats: {wall:.1f} s, {used:.1f} s of processors; {result.kept:,} kept")
    print(
        f"provenance, ledger and manifest: {account.seconds:.1f} s, {account.seconds / records * 1e6:.0f} µs "
        f"a record: {account.seconds / wall:.1%} of the time, "
        f"{account.seconds / used:.1%} of processors' time"
    )
    print(f"on disk: provenance {lines:,.0f} bytes a row kept (the row: {rows:,.0f}), ledger {ledger:,.0f}")
    return folder / "run"


def copies(run: Path, count: int) -> Iterator[tuple[Any, bytes]]:
    """The kept records of a run, again and again, each time as others."""
    from synthgen.journal_reading import open_for_reading, stored_records

    journal = open_for_reading(run)
    stored = [(entry, body) for entry, body in stored_records(journal, 1, "kept") if body is not None]
    for number in range(count):
        entry, body = stored[number % len(stored)]
        body = body.replace(b'"content":"', b'"content":"%d ' % number)
        id = hashlib.sha256(b"%d" % number).hexdigest()[:32]
        sha = hashlib.sha256(body).digest()
        yield (
            SimpleNamespace(**_fields(entry) | {"id": id, "task": number, "content": sha, "leaf": None}),
            body,
        )


def _fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def verifying(folder: Path, run: Path, rows: int) -> None:
    """Write a dataset of so many rows, and print what it takes to verify it."""
    from synthgen.api import load
    from synthgen.export.card import Published
    from synthgen.export.dataset import write_version

    loaded = load(folder / "recipes" / "chats.yaml")
    place = folder / "many"
    place.mkdir()
    locked = read_yaml(run / "recipe.lock.yaml").data
    about = Published(loaded.recipe, loaded.chain, loaded.shape.columns, locked)
    filters = {link.name: {"dropped": 0, "flagged": 0} for link in loaded.chain}
    summary = {"planned": rows, "kept": rows, "dropped": 0, "failed": 0, "filters": filters}
    journal: Any = SimpleNamespace(
        path=place,
        records=lambda _: copies(run, rows),
        sessions=lambda _: [],
        answers=lambda: SimpleNamespace(digest=lambda _: None),
    )
    lock = (run / "recipe.lock.yaml").read_bytes()
    write_version(place, about, journal, 1, lock, summary)
    size = sum(path.stat().st_size for path in (place / "dataset").rglob("*") if path.is_file()) / 2**30
    command = [sys.executable, "-m", "synthgen", "audit", "verify", place / "dataset", "--json"]
    before, began, peak = processor_time(), time.perf_counter(), 0.0
    with (
        (folder / "verdict.json").open("wb") as out,
        subprocess.Popen(command, cwd=ROOT, stdout=out) as process,
    ):
        while process.poll() is None:  # what the system says at its end has this process's memory in it
            peak = max(peak, peak_mib(process))
            time.sleep(0.2)
    wall, used = time.perf_counter() - began, processor_time() - before
    said = json.loads((folder / "verdict.json").read_bytes())
    assert said["intact"], said
    assert said["ledger"]["kept"] == rows
    print(
        f"audit verify of {rows:,} rows, {size:.1f} GiB: {wall:.1f} s, {used:.1f} s of processors, "
        f"peak {peak:,.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="Where all of it goes and stays.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        run = share(folder, options.records)
        if options.rows:
            verifying(folder, run, options.rows)


if __name__ == "__main__":
    main()
