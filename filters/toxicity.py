"""Is the text insulting, hateful or obscene?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain

from synthgen import Measurement, Record, abstain, filter

FEW_WORDS = 4
KNOWN_SHARE = 0.6
WORTH_NAMING = 0.1

# Words that the model holds against a text though they insult nobody in most texts. They count only where
# somebody is spoken to or about.
AMBIGUOUS = frozenset(
    "kill kills killed killing killer die dies died dying dead murder murders murdered murderer "
    "executed blood bloody slave slaves slavery master dummy dumb dirty garbage screw screws screwed "
    "nut nuts cock cocks suck sucks sucked sucker suckers sucking blow blows blown butt ball balls "
    "worm worms rat rats pig pigs swine goat goats donkey donkeys cow cows hoe hoes dyke dykes anal "
    "anus rectum vagina vaginal penis penises semen feces poop sex sexual sexually sexuality breast "
    "breasts erection fat obese sick mental mentally black white gay gays lesbian lesbians homosexual "
    "homosexuals homosexuality queer jew jews jewish muslim muslims islam nazi nazis negro negroes "
    "racism racist racists kiss skull smell smells smelly stink stinks stinky hell fool fools fooled "
    "liar coward cowards cowardly".split()
)
AIMED = re.compile(
    r"\b(?:you|your|yours|yourself|yourselves|youre|u|ur|(?:he|she)(?:['\u2019]s| is)|"
    r"they(?:['\u2019]re| are)|kill (?:\w+ )?(?:them|him|her|people|women|men)|"
    r"all (?:of )?(?:them|those|these))\b",
    re.I,
)
# Words that it holds against a text for no reason at all.
MISTAKEN = frozenset(
    "chamber chambers cloud clouds vine vines grave graves wool expense expenses participating sends "
    "canyon wheeler beth drove commercials practise popped pusher challenge challenges challenged "
    "challenging laughs commit va".split()
)
NAME_OR_SAYING = re.compile(
    r"\bDick(?= [A-Z])|(?<=[a-z.][ -])Dick\b|(?<=simple, )stupid\b|"
    r"\b[Ss]hut(?=(?:ting)? (?:down|off|the|it)\b)"
)
CODE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)|`[^`\n]*`|https?://\S+", re.MULTILINE | re.DOTALL)
CODE_MARKS = ("`", "~~~", "://")
# A stop and spaces, or line breaks. Begins with a set of signs, as re skips to the next of those.
SENTENCE_END = re.compile(r"[.!?\n](?:(?<=\n)\n*|(?<!\n)\s+)")
WORD = re.compile(r"\w\w+")
# ASCII text in lower case, with a space for all that is in no word.
IN_WORDS = "".join(char.lower() if WORD.match(char * 2) else " " for char in map(chr, range(128)))

# In place of the number of a word: says nothing of a text, is not known to the model, is of one letter.
WEIGHTLESS, UNKNOWN, NO_WORD = -1, -2, -3


@filter(max=0.8)
class toxicity:
    """How probable it is that the worst sentence insults, threatens or is obscene, from 0 to 1.

    Each sentence is judged by itself, as one insult in a long answer would be lost in its average; the detail
    has the worst if it is above 0.1. Code and links are passed over. Words with a technical, medical or
    historical sense (kill, slave, dirty, breast, Jew) count only where somebody is spoken to or about.

    Abstains on texts of which the model knows too few words, that is, on those not in English.

    Parameters: none.

    Source: the linear model over words that alt-profanity-check ships, trained on comments and tweets.

    Weak at: hostility in clean words ("They should all be shot"), irony, threats, anything but English. Of
    toxic sentences that it was not fitted to it finds about half; of ordinary answers about one in 300
    measures above 0.8, most of them rude ones. It cannot tell a word that is used from one that is quoted:
    novels, and answers about swearing, measure high. Where it matters, put a guard model behind it.
    """

    def measure_batch(self, records: Sequence[Record]) -> list[Measurement]:
        """The probability for each record, all sentences judged at once."""
        numbers, judge = _model()
        pieces: list[tuple[int, str]] = []
        bags: list[list[int]] = []
        foreign = [False] * len(records)
        for index, record in enumerate(records):
            for sentence in _sentences(record.text):
                words = _words(sentence)
                bag = list(map(numbers.__getitem__, words))
                count = len(bag) - bag.count(NO_WORD)
                if count - bag.count(UNKNOWN) >= KNOWN_SHARE * count:
                    pieces.append((index, sentence))
                    bags.append(_telling(sentence, words, bag, numbers))
                else:
                    foreign[index] = True
        worst: dict[int, tuple[float, str]] = {}
        for (index, sentence), p in zip(pieces, judge(bags), strict=True):
            if index not in worst or p > worst[index][0]:
                worst[index] = (p, sentence)
        results = []
        for index in range(len(records)):
            if index in worst:
                p, sentence = worst[index]
                named = {"sentence": sentence[:200].encode(errors="replace").decode()}
                results.append(Measurement(p, named if p > WORTH_NAMING else None))
            elif foreign[index]:
                results.append(abstain("too few words that the model knows; it reads English only"))
            else:
                results.append(Measurement(0.0))
        return results


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
    return [*found, short] if short else found


def _parts(text: str) -> list[str]:
    parts, start = [], 0
    for end in SENTENCE_END.finditer(text):
        stop = end.start()
        parts.append(text[start : stop if text[stop] == "\n" else stop + 1])
        start = end.end()
    return [*parts, text[start:]]


def _words(text: str) -> list[str]:
    """The words in lower case, and perhaps single letters and digits."""
    return text.translate(IN_WORDS).split() if text.isascii() else WORD.findall(text.lower())


class _Numbers(dict[str, int]):
    """The number of each word, which is its column in what the model reads."""

    def __missing__(self, word: str) -> int:
        return UNKNOWN


def _telling(sentence: str, words: list[str], bag: list[int], numbers: _Numbers) -> list[int]:
    """The numbers of the words, without those that say nothing in this sentence."""
    named = "Dick" in sentence or "stupid" in sentence or "hut" in sentence
    if named and NAME_OR_SAYING.search(sentence):
        words = _words(NAME_OR_SAYING.sub("", sentence))
        bag = [numbers[word] for word in words]
    if AMBIGUOUS.isdisjoint(words) or AIMED.search(sentence):
        return bag
    return [number for word, number in zip(words, bag, strict=True) if word not in AMBIGUOUS]


@cache
def _model() -> tuple[_Numbers, Callable[[list[list[int]]], list[float]]]:
    """The numbers of the words that the model knows, and what judges bags of them.

    It does what the model's own `predict_proba(vectorizer.transform(...))` does with a sentence, several
    times quicker, since the words are at hand and are not looked over again.
    """
    import numpy as np
    from profanity_check.profanity_check import model, vectorizer
    from scipy.sparse import csr_array
    from scipy.special import expit

    vocabulary = vectorizer.vocabulary_
    numbers = _Numbers(vocabulary)
    numbers.update(dict.fromkeys(vectorizer.get_stop_words() | (MISTAKEN & vocabulary.keys()), WEIGHTLESS))
    numbers.update(dict.fromkeys(IN_WORDS, NO_WORD))
    parts = model.calibrated_classifiers_
    weights = np.vstack([part.estimator.coef_ for part in parts]).T.copy()
    intercepts = np.concatenate([part.estimator.intercept_ for part in parts])
    slopes = np.array([part.calibrators[0].a_ for part in parts])
    offsets = np.array([part.calibrators[0].b_ for part in parts])

    def judge(bags: list[list[int]]) -> list[float]:
        columns = np.fromiter(chain.from_iterable(bags), np.int32)
        rows = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
        columns, rows = columns[columns >= 0], rows[columns >= 0]
        table = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(bags), len(vocabulary)))
        rows = np.repeat(np.arange(len(bags)), np.diff(table.indptr))  # each word once from here on
        table.data *= vectorizer.idf_[table.indices]
        table.data /= np.sqrt(np.bincount(rows, table.data**2))[rows]
        each = expit(-(slopes * (table @ weights + intercepts) + offsets))
        probabilities: list[float] = (each.sum(axis=1) / len(parts)).tolist()
        return probabilities

    return numbers, judge
