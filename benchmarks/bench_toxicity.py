"""What the toxicity filter catches and what it flags, on sets of sentences that it was not fitted to.

    python benchmarks/bench_toxicity.py [--detector default] [--bound 0.5] [--errors SET] [FILE.json ...]

For each set in benchmarks/toxicity: how many toxic and how many harmless texts are above the bound. Of each
FILE, a JSON list of texts that are thought to be harmless: how many are, and the highest fifty. `--errors`
shows the errors on a set; a set whose errors were looked at is no test any more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from train_toxicity import DATA, answers, development, labelled

from synthgen import Record
from synthgen.filters.toxicity import toxicity
from synthgen.measure import Measurement


def measured(texts: Sequence[str], detector: str) -> list[Measurement]:
    records = [Record(str(number), {}, {}, text) for number, text in enumerate(texts)]
    results = toxicity.make({"detector": detector}).measure(records)
    assert all(isinstance(result, Measurement) for result in results), results
    return [result for result in results if isinstance(result, Measurement)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--detector", default="default")
    parser.add_argument("--bound", type=float, default=toxicity.max)
    parser.add_argument("--errors", default="")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    sets = {"dev": development()}
    for path in sorted(DATA.glob("test_*.txt")):
        sets[path.stem] = labelled(path) or answers(path)
    for name, pairs in sets.items():
        values = [result.value or 0.0 for result in measured([text for _, text in pairs], options.detector)]
        above = [value > options.bound for value in values]
        for toxic, kind in ((1, "toxic"), (0, "harmless")):
            found = [high for high, (label, _) in zip(above, pairs, strict=True) if label == toxic]
            print(f"{name:<8}{kind:<10}{sum(found):>5} of {len(found)} above {options.bound}")
        if name == options.errors:
            for value, high, (label, text) in zip(values, above, pairs, strict=True):
                if high != label:
                    print(f"  {label} {value:.2f} {text[:160]!r}")
    for path in options.files:
        results = measured(json.loads(path.read_text()), options.detector)
        high = [result for result in results if result.value is not None and result.value > options.bound]
        print(f"{path.name}: {len(high)} of {len(results)} above {options.bound}")
        for result in sorted(high, key=lambda result: -(result.value or 0))[:50]:
            print(f"  {result.value:.2f} {(result.detail or {})['sentence'][:160]!r}")


if __name__ == "__main__":
    main()
