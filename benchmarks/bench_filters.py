"""Texts a second on one core, for each filter that ships and for the usual chain of them.

    python benchmarks/bench_filters.py [--characters 1200] [--texts 1024] [--rounds 5]

The texts are English prose from the data of the shipped recipes, put together until they are long enough.
What is timed is what a run does with parsed records: pick the text, measure, check the result; for
`duplicate`, only the part that is done for each record by itself. Each batch counts with the CPU time of its
fastest round, since what else a machine does only ever makes it slower. Reading files and loading models is
not timed.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthgen.chain import ChainFilter, Measuring
from synthgen.filter_files import find_filter
from synthgen.project import Project
from synthgen.recipe import FilterUse

DATA = Path(__file__).parent.parent / "recipes" / "data"
CHAIN = "refusal words language toxicity quality".split()
BATCH = 256
PARAMETERS = {"language": {"is": "en"}}


def contents(count: int, characters: int) -> list[dict[str, Any]]:
    """Conversations of an instruction and an answer of about so many characters, the same every time."""
    passages = [json.loads(line)["text"] for line in (DATA / "python_docs.jsonl").open()]
    pairs = [json.loads(line) for line in (DATA / "instructions.jsonl").open()]
    passages += [pair["response"] for pair in pairs]
    dice = random.Random(0)
    rows = []
    for _ in range(count):
        answer = ""
        for passage in dice.sample(passages, len(passages)):
            if len(answer) + len(passage) / 2 > characters:
                break
            answer += ("\n\n" if answer else "") + passage
        user = {"role": "user", "content": dice.choice(pairs)["instruction"]}
        rows.append({"fields": {}, "row": {"messages": [user, {"role": "assistant", "content": answer}]}})
    return rows


def measuring(names: Sequence[str]) -> Measuring:
    chain = []
    for name in names:
        found = find_filter(name, Project(DATA))
        assert found is not None
        chain.append(ChainFilter.of_recipe(found, FilterUse(**PARAMETERS.get(name, {}))))
    return Measuring(chain)


def seconds_per_text(names: Sequence[str], rows: Sequence[dict[str, Any]], rounds: int) -> float:
    at_work = measuring(names)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    fastest = [float("inf")] * len(batches)
    for number in range(rounds + 1):  # the first loads the models
        for place, batch in enumerate(batches):
            ids = [str(n) for n in range(len(batch))]
            began = time.process_time()
            at_work.measure(ids, batch, [()] * len(batch))
            if number:
                fastest[place] = min(fastest[place], time.process_time() - began)
    return sum(fastest) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--characters", type=int, default=1200)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = contents(options.texts, options.characters)
    length = sum(len(row["row"]["messages"][-1]["content"]) for row in rows) / len(rows)
    print(f"{len(rows)} texts of {length:.0f} characters on average\n")
    print(f"{'':<12}{'µs a text':>10}{'texts/s':>10}")
    for names in (*([name] for name in [*CHAIN, "characters", "duplicate"]), CHAIN):
        cost = seconds_per_text(names, rows, options.rounds)
        print(f"{names[0] if len(names) == 1 else 'chain':<12}{cost * 1e6:>10.1f}{1 / cost:>10,.0f}")
    print(f"\nchain: {', '.join(CHAIN)}")


if __name__ == "__main__":
    main()
