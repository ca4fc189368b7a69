"""Finds duplicates in one way of one library: NAME TEXTS.json OUT.json. See `bench_duplicates.py`.

Every tool takes the same runs of five lower-cased words (whole texts that are shorter), takes the texts in
their order, and drops one when an earlier text that it kept is similar enough.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BOUND, RUN, BATCH = 0.8, 5, 256


def runs(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[start : start + RUN]) for start in range(max(len(words) - RUN + 1, 1))}


class Verified:
    """Keeps the runs of what was kept, and compares exactly."""

    def __init__(self) -> None:
        self.kept: dict[int, set[str]] = {}

    def like(self, own: set[str], candidates: Any) -> bool:
        for number in candidates:
            shared = len(own & self.kept[number])
            if shared >= BOUND * (len(own) + len(self.kept[number]) - shared):
                return True
        return False


def datasketch_update(texts: Sequence[str]) -> list[int]:
    """As it is usually called: 128 permutations, `update` for each run, what the index finds is dropped."""
    from datasketch import MinHash, MinHashLSH

    index, dropped = MinHashLSH(threshold=BOUND, num_perm=128), []
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=128)
        for run in runs(text):
            sketch.update(run.encode())
        if index.query(sketch):
            dropped.append(number)
        else:
            index.insert(str(number), sketch)
    return dropped


def datasketch_batch(texts: Sequence[str]) -> list[int]:
    """Its calls for many at once, 20 bands of 7 values, and candidates compared exactly."""
    from datasketch import MinHash, MinHashLSH

    index, verified, dropped = MinHashLSH(num_perm=140, params=(20, 7)), Verified(), []
    for start in range(0, len(texts), BATCH):
        sets = [runs(text) for text in texts[start : start + BATCH]]
        sketches = MinHash.bulk([[run.encode() for run in own] for own in sets], num_perm=140)
        for number, (own, sketch) in enumerate(zip(sets, sketches, strict=True), start):
            if verified.like(own, index.query(sketch)):
                dropped.append(number)
            else:
                index.insert(number, sketch, check_duplication=False)
                verified.kept[number] = own
    return dropped


def rensa_deduplicator(texts: Sequence[str]) -> list[int]:
    """Its deduplicator as its documentation shows it, with 128 permutations, 256 texts at once."""
    from rensa import RMinHash, RMinHashDeduplicator

    seen, dropped = RMinHashDeduplicator(threshold=BOUND, num_perm=128, use_lsh=True), []
    for start in range(0, len(texts), BATCH):
        sets = [list(runs(text)) for text in texts[start : start + BATCH]]
        pairs = [(str(start + n), sketch) for n, sketch in enumerate(RMinHash.from_token_sets(sets, 128, 42))]
        dropped += [start + n for n, new in enumerate(seen.add_pairs(pairs)) if not new]
    return dropped


def rensa_verified(texts: Sequence[str]) -> list[int]:
    """Its index with 20 bands of 7 values, and candidates compared exactly."""
    from rensa import RMinHash, RMinHashLSH

    index, verified, dropped = RMinHashLSH(threshold=BOUND, num_perm=140, num_bands=20), Verified(), []
    for start in range(0, len(texts), BATCH):
        sets = [runs(text) for text in texts[start : start + BATCH]]
        sketches = RMinHash.from_token_sets([list(own) for own in sets], 140, 42)
        for number, (own, sketch) in enumerate(zip(sets, sketches, strict=True), start):
            if verified.like(own, index.query(sketch)):
                dropped.append(number)
            else:
                index.insert(number, sketch)
                verified.kept[number] = own
    return dropped


def synthgen(texts: Sequence[str], words: int | None = RUN) -> list[int]:
    """The filter, batch after batch as a run does it."""
    from synthgen import Record
    from synthgen.filters.duplicate import duplicate

    measure: Any = duplicate.make({"words": words} if words else {}, max=BOUND)
    dropped = []
    for start in range(0, len(texts), BATCH):
        records = [
            Record(str(start + number), {}, {}, text)
            for number, text in enumerate(texts[start : start + BATCH])
        ]
        features = measure.features(records)
        measure.ahead(features)
        for record, feature in zip(records, features, strict=True):
            if measure.resolve(record.id, feature).value > BOUND:
                dropped.append(int(record.id))
            else:
                measure.keep(record.id, feature)
    return dropped


def synthgen_default(texts: Sequence[str]) -> list[int]:
    """The filter as it is without parameters: shorter runs in texts of fewer than 50 words."""
    return synthgen(texts, None)


TOOLS: dict[str, Callable[[Sequence[str]], list[int]]] = {
    "synthgen": synthgen,
    "synthgen-default": synthgen_default,
    "datasketch-update": datasketch_update,
    "datasketch-batch": datasketch_batch,
    "rensa": rensa_deduplicator,
    "rensa-verified": rensa_verified,
}


def memory_mib(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def main() -> None:
    tool, given, out = TOOLS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    texts = json.loads(given.read_text())
    tool(texts[:300])  # imports, and what is made once
    before, began, wall = memory_mib("VmRSS"), time.process_time(), time.perf_counter()
    dropped = tool(texts)
    said = {
        "seconds": time.process_time() - began,
        "wall": time.perf_counter() - wall,
        "mib": memory_mib("VmHWM") - before,
        "dropped": dropped,
    }
    out.write_text(json.dumps(said))


if __name__ == "__main__":
    main()
