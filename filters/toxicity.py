"""Is the text insulting, hateful or threatening?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synthgen import InputFile, Measurement, Record, abstain, filter
from synthgen.filters._minilm import hidden_states, minilm_file, package_folder

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

WEIGHTS = Path(__file__).with_name("toxicity.npz")
# What it must hold. Stands here so that other weights are another filter, whose measurements are made anew.
WEIGHTS_SHA256 = "38f476b2318a1983f13982716b0912b41d8f4275ecf68a5c290d4148061a6450"

FEW_WORDS = 4
TOKENS = 96  # that the model is shown of one sentence
LONGEST = 400  # characters of what counts as one sentence
KNOWN_SHARE = 0.6
WORTH_NAMING = 0.1
SUSPECTS, ALL = 4, 200  # sentences of one text that are looked at closely, at most
SCREENS = {"default": 0, "close": 1}  # which of the screen's bounds

CODE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)|`[^`\n]*`|https?://\S+", re.MULTILINE | re.DOTALL)
CODE_MARKS = ("`", "~~~", "://")
# A stop and spaces, or line breaks. Begins with a set of signs, as re skips to the next of those.
SENTENCE_END = re.compile(r"[.!?\n](?:(?<=\n)\n*|(?<!\n)\s+)")
WORD = re.compile(r"\w\w+")
# ASCII text in lower case, with a space for all that is in no word.
IN_WORDS = "".join(char.lower() if WORD.match(char * 2) else " " for char in map(chr, range(128)))

# In place of the number of a word that is not known, and of single letters and digits.
UNKNOWN, NO_WORD = -1, -2

Judge = Callable[[str, float], float]


@filter(max=0.5)
class toxicity:
    """How probable it is that the worst sentence insults, threatens, harasses or hates, from 0 to 1.

    Each sentence is judged by itself, as one insult in a long answer would be lost in its average; the detail
    has the worst if it is above 0.1. Code and links are passed over.

    The default detector has three parts. A linear model over words (`svm`) knows rude words. A screen, which
    is small and quick, finds from its words which sentences are worth a closer look; the others count as 0.
    The likeliest four of a text are shown to a model of sentence meaning, and judged by how near they are to
    sentences that were labelled. So "kill the child process" is told from "kill her child".

    Abstains on texts of which it knows too few words, that is, on those not in English.

    Parameters:
        detector: `default`; `close`, which looks closely at many more sentences, one in every tenth record,
            and finds twice as much; `thorough`, which looks at every sentence (up to 200 of a
            text, 8 ms each); `svm`, the linear model over words alone; or `detoxify`, a BERT model (the extra
            `detoxify`), each sentence by itself.
        checkpoint: a file with the weights for `detoxify`. Without one it downloads those called `unbiased`.

    Source: alt-profanity-check's model, trained on comments and tweets; all-MiniLM-L6-v2 (Reimers and
    Gurevych 2019); sentences in benchmarks/toxicity, written for this filter, and sentences of real chats
    (ShareGPT) labelled for it, to which benchmarks/train_toxicity.py fits the rest. The screen is distilled
    from the judge.

    On texts that it was not fitted to (benchmarks/bench_toxicity.py), toxic ones found and harmless ones
    flagged. Single sentences, half of them hostile in clean words: `default` 19 of 68 and 1 of 106, `close`
    42 and 7, `thorough` 47 and 9, `svm` 20 and 15. Answers with one toxic sentence, and on sensitive matters:
    5 of 24 and 1 of 36, 11 and 2, 11 and 4, 9 and 12. More single sentences: 6 of 25 and 0 of 40, 13 and 1,
    14 and 2, 8 and 2. Of 4,000 ordinary answers of chat models, from chats that it was not fitted to,
    `default` flags 3, of which two deserve it, `close` 13, `svm` 73; of 7,500 docstrings none.

    Weak at: what it does not find, which is much: hatred in clean words that resembles nothing that it was
    fitted to, veiled threats, irony; anything but English. It cannot tell what is said from what is quoted,
    so villains in stories, rough talk and tender or dramatic lines make most of its false alarms. The
    sentences were written by few people. Stories cost more time than technical prose. Where it matters, take
    `close`, or put a guard model behind it.
    """

    def __init__(
        self,
        *,
        detector: Literal["default", "close", "thorough", "svm", "detoxify"] = "default",
        checkpoint: InputFile | None = None,
    ) -> None:
        if checkpoint is not None and detector != "detoxify":
            raise ValueError("`checkpoint` is for `detector: detoxify`")
        if detector == "detoxify":
            _need_detoxify()
        self.detector, self.checkpoint = detector, checkpoint

    @staticmethod
    def weights(*, detector: str = "default", checkpoint: Path | None = None) -> dict[str, Path]:
        """The models that it measures by."""
        if detector == "detoxify":
            return {"detoxify": checkpoint} if checkpoint is not None else {}
        folder = package_folder("profanity_check") / "data"
        found = {name: folder / f"{name}.joblib" for name in ("model", "vectorizer")}
        return (
            found if detector == "svm" else {**found, "toxicity": WEIGHTS, "all-MiniLM-L6-v2": minilm_file()}
        )

    def measure_batch(self, records: Sequence[Record]) -> list[Measurement]:
        """The probability for each record, the words of all sentences looked up at once."""
        numbers, rudeness = _words_model()
        owners: list[int] = []
        sentences: list[str] = []
        bags: list[list[int]] = []
        foreign = [False] * len(records)
        for index, record in enumerate(records):
            for sentence in _sentences(record.text):
                bag = list(map(numbers.__getitem__, _words(sentence)))
                if known_enough(bag):
                    owners.append(index)
                    sentences.append(sentence)
                    bags.append(bag)
                else:
                    foreign[index] = True
        worst: dict[int, tuple[float, str]] = {}
        for index, sentence, p in self._judged(owners, sentences, rudeness(bags)):
            if index not in worst or p > worst[index][0]:
                worst[index] = (p, sentence)
        measured = set(owners)
        return [
            _measurement(*worst.get(index, (0.0, "")))
            if index in measured or not foreign[index]
            else abstain("too few words that the model knows; it reads English only")
            for index in range(len(records))
        ]

    def _judged(
        self, owners: Sequence[int], sentences: Sequence[str], table: _Table
    ) -> list[tuple[int, str, float]]:
        """The sentences that are not passed over, with whose they are and how toxic."""
        if self.detector == "svm":
            return list(zip(owners, sentences, table.probabilities(), strict=True))
        if self.detector == "detoxify":
            predict = _detoxify(self.checkpoint)
            return [(o, s, predict(s)) for o, s in zip(owners, sentences, strict=True)]
        screen, bounds, judge = _screen_and_judge()
        logits, scores = table.logits, screen(table)
        thorough = self.detector == "thorough"
        above = float("-inf") if thorough else bounds[SCREENS[self.detector]]
        suspects: dict[int, list[int]] = {}
        for place, score in enumerate(scores.tolist()):
            if score > above:
                suspects.setdefault(owners[place], []).append(place)
        return [
            (owner, sentences[place], judge(sentences[place], float(logits[place])))
            for owner, places in suspects.items()
            for place in sorted(places, key=lambda place: (-scores[place], place))[
                : ALL if thorough else SUSPECTS
            ]
        ]


def _measurement(p: float, sentence: str) -> Measurement:
    # Libraries that multiply matrices may differ in the last digits.
    p = round(p, 4)
    named = {"sentence": sentence[:200].encode(errors="replace").decode()}
    return Measurement(p, named if p > WORTH_NAMING else None)


def _sentences(text: str) -> list[str]:
    """Sentences and lines, very short ones joined to the next: alone, one odd word would be all of them."""
    found, short = [], ""
    if any(mark in text for mark in CODE_MARKS):
        text = CODE.sub(" ", text)
    for part in _parts(text):
        sentence = f"{short} {part}".strip()
        if sentence.count(" ") < FEW_WORDS - 1:
            short = sentence
            continue
        found.append(sentence)
        short = ""
    if short:
        found.append(short)
    if all(len(sentence) <= LONGEST for sentence in found):
        return found
    return [piece for sentence in found for piece in _pieces(sentence)]


def _parts(text: str) -> list[str]:
    parts, start = [], 0
    for end in SENTENCE_END.finditer(text):
        stop = end.start()
        parts.append(text[start : stop if text[stop] == "\n" else stop + 1])
        start = end.end()
    return [*parts, text[start:]]


def _pieces(sentence: str) -> list[str]:
    """The sentence, cut at spaces if it is long."""
    pieces, start = [], 0
    while len(sentence) - start > LONGEST:
        space = sentence.rfind(" ", start + LONGEST // 2, start + LONGEST)
        stop = space if space > 0 else start + LONGEST
        pieces.append(sentence[start:stop])
        start = stop
    return [*pieces, sentence[start:]]


def _words(text: str) -> list[str]:
    """The words in lower case, and perhaps single letters and digits."""
    return text.translate(IN_WORDS).split() if text.isascii() else WORD.findall(text.lower())


def known_enough(bag: list[int]) -> bool:
    """Whether most words of a sentence, given as their numbers, are known."""
    count = len(bag) - bag.count(NO_WORD)
    return count - bag.count(UNKNOWN) >= KNOWN_SHARE * count


class _Numbers(dict[str, int]):
    """The number of each word, which is its column in what the models read."""

    def __missing__(self, word: str) -> int:
        return UNKNOWN


class _Table:
    """How often each sentence has each word, and what the linear model over words says of it.

    Each row is reckoned by itself, so that it is the same in whatever company.
    """

    def __init__(self, bags: Sequence[Sequence[int]], linear: _Linear) -> None:
        import numpy as np
        from scipy.sparse import csr_array
        from scipy.special import expit

        columns = np.fromiter(chain.from_iterable(bags), np.int32)
        rows = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
        known = columns >= 0
        columns, rows = columns[known], rows[known]
        shape = (len(bags), len(linear.idf))
        self.counts = csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)
        self.totals = np.bincount(rows, minlength=len(bags))
        rows = np.repeat(np.arange(len(bags)), np.diff(self.counts.indptr))  # each word once from here on
        data = self.counts.data * linear.idf[self.counts.indices]
        squares = np.bincount(rows, data**2, minlength=len(bags))
        data /= np.sqrt(np.where(squares, squares, 1))[rows]
        weighted = csr_array((data, self.counts.indices, self.counts.indptr), shape=shape)
        each = expit(-(linear.slopes * (weighted @ linear.weights + linear.intercepts) + linear.offsets))
        self._probabilities = each.sum(axis=1) / each.shape[1]

    def probabilities(self) -> list[float]:
        found: list[float] = self._probabilities.tolist()
        return found

    @property
    def logits(self) -> Array:
        import numpy as np

        p = np.clip(self._probabilities, 0.001, 0.999)
        logits: Array = np.log(p / (1 - p))
        return logits


class _Linear:
    """The numbers of alt-profanity-check's model, with a column of nothing for each word that it ignores."""

    def __init__(self, ignored: int) -> None:
        import numpy as np
        from profanity_check.profanity_check import model, vectorizer

        parts = model.calibrated_classifiers_
        weights = np.vstack([part.estimator.coef_ for part in parts]).T
        self.idf = np.concatenate([vectorizer.idf_, np.zeros(ignored)])
        self.weights = np.vstack([weights, np.zeros((ignored, len(parts)))])
        self.intercepts = np.concatenate([part.estimator.intercept_ for part in parts])
        self.slopes = np.array([part.calibrators[0].a_ for part in parts])
        self.offsets = np.array([part.calibrators[0].b_ for part in parts])


@cache
def _words_model() -> tuple[_Numbers, Callable[[Sequence[Sequence[int]]], _Table]]:
    """The numbers of the words that the models know, and what makes a table of bags of them.

    The table has what the linear model's own `predict_proba(vectorizer.transform(...))` says of a sentence,
    several times quicker, since the words are at hand and are not looked over again.
    """
    from profanity_check.profanity_check import vectorizer

    numbers = _Numbers(vectorizer.vocabulary_)
    ignored = sorted(word for word in vectorizer.get_stop_words() if len(word) > 1 and word not in numbers)
    for word in ignored:
        numbers[word] = len(numbers)
    linear = _Linear(len(ignored))
    numbers.update(dict.fromkeys(IN_WORDS, NO_WORD))
    return numbers, lambda bags: _Table(bags, linear)


@cache
def _screen_and_judge() -> tuple[Callable[[_Table], Array], list[float], Judge]:
    """What finds sentences that are worth a closer look, its scores above which they are, and the judge."""
    import numpy as np

    with np.load(WEIGHTS) as file:
        fitted = {name: file[name] for name in file.files}
    numbers, _ = _words_model()
    size = sum(number >= 0 for number in numbers.values())
    table = np.zeros((size, fitted["screen_words"].shape[1]), np.int32)
    for word, row in zip(bytes(fitted["words"]).decode().split(), fitted["screen_words"], strict=True):
        if (number := numbers[word]) >= 0:
            table[number] = row
    of_length, of_logit, bias, out, step = fitted["screen_rest"]

    def screen(sentences: _Table) -> Array:
        """A layer of few units over sums of whole numbers, in an order that is always the same."""
        root = np.sqrt(np.maximum(sentences.totals, 1))
        sums = sentences.counts @ table
        logits, scores = sentences.logits, np.zeros(len(root))
        for unit in range(table.shape[1]):
            value = sums[:, unit] * step[unit] / root + root * of_length[unit] + logits * of_logit[unit]
            scores += np.maximum(value + bias[unit], 0) * out[unit]
        return scores

    states = hidden_states(TOKENS)
    axes = fitted["axes"].astype(np.float32) * fitted["axes_step"][:, None]
    examples = fitted["examples"].astype(np.float32) * float(fitted["examples_step"])
    lengths = (examples**2).sum(axis=1)
    width, bias_of_sum, slope, offset = fitted["judge_rest"].tolist()

    def times(matrix: Array, vector: Array) -> Array:
        """Their product, not by BLAS: its threads would go on spinning for longer than all of this takes."""
        product: Array = np.einsum("ij,j->i", matrix, vector)
        return product

    @lru_cache(4096)  # answers of one kind say the same things again and again
    def judge(sentence: str, logit: float) -> float:
        """Platt's probability, from a support vector machine with a radial kernel."""
        features = (sentence_features(states(sentence)) - fitted["mean"]) / fitted["spread"]
        place = np.append(times(axes, features), np.float32(logit * LOGIT))
        distances = lengths - 2 * times(examples, place) + place @ place
        value = float(fitted["shares"] @ np.exp(-width * distances)) + bias_of_sum
        return float(1 / (1 + np.exp(-(slope * value + offset))))

    return screen, fitted["screen_bounds"].tolist(), judge


LOGIT = 0.1  # what the linear model's word counts for, beside the axes of meaning


def sentence_features(states: Array) -> Array:
    """The mean and the largest of the tokens' states, and the state of the token that stands for them all."""
    import numpy as np

    features: Array = np.concatenate([states.mean(axis=0), states.max(axis=0), states[0]])
    return features


def _need_detoxify() -> None:
    from importlib.util import find_spec

    if find_spec("detoxify") is None:
        raise ValueError("`detector: detoxify` needs more packages: pip install 'synthgen-data[detoxify]'")


@cache
def _detoxify(checkpoint: Path | None) -> Callable[[str], float]:
    from detoxify import Detoxify

    model = Detoxify("unbiased", checkpoint=None if checkpoint is None else str(checkpoint))

    def predict(sentence: str) -> float:
        """The highest of what it measures: toxicity, threat, insult, identity attack and so on."""
        return float(max(model.predict(sentence.encode(errors="replace").decode()).values()))

    return predict
