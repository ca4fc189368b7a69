"""Does a document say what the answer says?"""
# ruff: noqa: RUF001 - punctuation of many scripts

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from synthgen import FieldName, Measurement, Record, abstain, filter
from synthgen.filters._text import UNSPACED, compatible

STEMMERS = dict(
    pair.split(":")
    for pair in (
        "ar:arabic ca:catalan da:danish de:german el:greek en:english es:spanish et:estonian eu:basque "
        "fi:finnish fr:french ga:irish hi:hindi hu:hungarian hy:armenian id:indonesian it:italian "
        "lt:lithuanian ne:nepali nl:dutch no:norwegian pl:polish pt:portuguese ro:romanian ru:russian "
        "sr:serbian sv:swedish ta:tamil tr:turkish"
    ).split()
)
WORD_WEIGHT, NAME_WEIGHT, NUMBER_WEIGHT = 1, 3, 3
QUOTE = 200  # characters of a sentence in the detail
MISSING = 8  # words named in the detail
STEP = 50  # words of meaning in half a passage of the source
MANY = 60  # passages
LONGEST = 40  # letters of a word that has inflections

Stem = Callable[[str], str]

CODE_BLOCK = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"^[ \t]*(?:[-*+•>#]+|\d{1,3}[.)])[ \t]+", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)*_\]]*\s+(?=[^a-z])|(?<=[。！？।])|\n+")
TOKEN = re.compile(
    r"\d+(?:[.,:]\d+)*|(?:[^\W\d_]|[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff])"
    r"(?:[\w\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff]|['’](?=[^\W\d_]{2}))*"
)
UNSPACED_RUN = re.compile(f"(?:{UNSPACED.pattern})+")
THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
TENS = "thirty forty fifty sixty seventy eighty ninety".split()
NUMBERS = {word: str(number) for number, word in enumerate(TO_TWENTY)} | {
    word: str(10 * number) for number, word in enumerate(TENS, 3)
}
# Words that say nothing of what a text is about, and those with which answers refer to it.
STOP_WORDS = frozenset(
    "a about above after again all also although am an and another any are as at be because been before "
    "being below between both but by can could did do does doing down during each either else etc ever every "
    "few for from further get gets had has have having he her here hers him his how however i if in instead "
    "into is it its itself just like made make makes many may me might more most much must my neither no nor "
    "not of off on one once only or other our out over own per rather same shall she should since so some "
    "such than that the their them then there therefore these they this those though through thus to too "
    "under until up upon us use used uses using very was we were what when where whether which while who "
    "whom whose why will with within without would yes you your yourself according answer answers describe "
    "described describes document example explain explained explains following given mention mentioned "
    "mentions passage question says stated states text st nd rd th".split()
)


@filter(min=0.5)
class grounded:
    """How much of what the text says is in its source, from 0 to 1, as far as words can tell.

    Of each sentence the words that carry meaning are looked for in the source, in any inflection; numbers
    (1,000 is 1000, and ten is 10) and names (capitals amid a sentence, identifiers) weigh three times as much
    as other words. Of a source of more than some hundred such words, those that are elsewhere than in the
    passage that has most of the sentence count half. The value is the share by weight that is found. The
    detail has the sentence that is found least, its share, and the words of it that are nowhere.

    Words of the instruction that are not there count neither way, as an answer may take up its question. Code
    blocks are passed over. Abstains where the source is empty, or the text says nothing.

    Parameters:
        source: the field that the text should keep to: a seed, a step or a field of the row. `row.context`
            is a part of one; `instruction` is the last user message. A list is several together.
        language: the code of the language whose inflections are undone.

    Source: unigram precision, as ROUGE counts it (Lin, 2004), of words without their inflection (Snowball);
    that the weight is on numbers and names is our own, since inventions are mostly there.

    Weak at: what words cannot show: synonyms and translations, which it does not find; negations, and words
    of the source put together to say something else, which it does. What was computed or concluded is not
    there. The longer the source, the more is found by chance: of inventions some 0.1 in a paragraph, and 0.3
    in ten pages. Scripts without spaces are compared by pairs of signs. A model as judge sees more, and costs
    more.
    """

    def __init__(self, *, source: FieldName | list[FieldName], language: str = "en") -> None:
        if language not in STEMMERS:
            raise ValueError(f"no inflections are known of {language!r}: {', '.join(STEMMERS)}")
        self._fields = source if isinstance(source, list) else [source]
        if not self._fields:
            raise ValueError("`source` names no field")
        self._stem = _stemmer(STEMMERS[language])

    def measure(self, record: Record) -> Measurement:
        """The share that is found, with the least supported sentence."""
        source = _Passages("\n".join(_source(record, field) for field in self._fields), self._stem)
        if not source.places:
            return abstain("the source says nothing")
        asked: frozenset[str] = frozenset()
        if record.text != record.instruction:
            asked = frozenset(key for token in _tokens(record.instruction, self._stem) for key in token.keys)
        said = [
            _supported(sentence, tokens[start : start + STEP], source, asked)
            for sentence in _sentences(record.text)
            if (tokens := list(_tokens(sentence, self._stem)))
            for start in range(0, len(tokens), STEP)
        ]
        said = [sentence for sentence in said if sentence.weight]
        if not said:
            return abstain("the text says nothing that could be in a source")
        value = sum(sentence.found for sentence in said) / sum(sentence.weight for sentence in said)
        least = min(said, key=lambda sentence: sentence.share)
        if least.share == 1:
            return Measurement(1.0)
        quoted = least.text.strip()[:QUOTE].encode(errors="replace").decode()
        missing = [word[:40].encode(errors="replace").decode() for word in least.missing[:MISSING]]
        return Measurement(value, {"sentence": quoted, "share": round(least.share, 3), "missing": missing})


@dataclass(frozen=True, slots=True)
class _Token:
    """A word, number or pair of signs as it stands in the text, its keys, and how much it says."""

    text: str
    keys: tuple[str, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    weight: int
    found: int
    missing: Sequence[str]

    @property
    def share(self) -> float:
        return self.found / self.weight


class _Passages:
    """A source, cut into passages that overlap by half."""

    def __init__(self, text: str, stem: Stem) -> None:
        self.places: dict[str, set[int]] = {}
        for place, token in enumerate(_tokens(text, stem)):
            for key in token.keys:
                self.places.setdefault(key, set()).update({max(0, place // STEP - 1), place // STEP})

    def of(self, token: _Token) -> set[int]:
        """The passages in which the token is."""
        found = [self.places[key] for key in token.keys if key in self.places]
        return set().union(*found) if len(found) > 1 else found[0] if found else set()


def _supported(
    sentence: str, tokens: Sequence[_Token], source: _Passages, asked: Collection[str]
) -> _Sentence:
    places = [source.of(token) for token in tokens]
    # What is nearly everywhere does not tell which passage the sentence is about, and takes long to count.
    votes: Counter[int] = Counter()
    for token, where in zip(tokens, places, strict=True):
        if len(where) <= MANY:
            for passage in where:
                votes[passage] += token.weight
    best = min(votes, key=lambda passage: (-votes[passage], passage), default=0)
    weight = found = 0
    missing: dict[str, None] = {}
    for token, where in zip(tokens, places, strict=True):
        if best in where:
            found += 2 * token.weight
        elif any(key in asked for key in token.keys):
            continue
        elif where:
            found += token.weight
        else:
            missing[token.text] = None
        weight += 2 * token.weight
    return _Sentence(sentence, weight, found, list(missing))


def _sentences(text: str) -> list[str]:
    if "```" in text or "~~~" in text:
        text = CODE_BLOCK.sub("\n", text)
    return [part for part in SENTENCE_END.split(MARKER.sub("", text)) if part]


def _tokens(text: str, stem: Stem) -> Iterator[_Token]:
    """What says something in the text, in order."""
    if not text.isascii():
        text = UNSPACED_RUN.sub(r" \g<0> ", compatible(text))
    found = TOKEN.findall(text)
    words = [word for word in found if word[0].isalpha()]
    # In a heading and in capitals throughout, capitals mark no names.
    heading = len(words) > 2 and sum(word[0].isupper() for word in words) > 0.6 * len(words)
    for place, word in enumerate(found):
        if not word[0].isalpha():
            yield _Token(word, (_number(word),), NUMBER_WEIGHT)
        elif UNSPACED.match(word):
            for start in range(max(1, len(word) - 1)):
                pair = word[start : start + 2]
                yield _Token(pair, (pair,), WORD_WEIGHT)
        else:
            lower = word.lower()
            if len(word) < 2 or lower in STOP_WORDS:
                continue
            inner = word[1:]
            name = (word[0].isupper() and place > 0 and not heading) or not (
                inner.islower() or word.isupper()
            )
            keys = (lower, stem(lower), *([NUMBERS[lower]] if lower in NUMBERS else []))
            yield _Token(word, keys, NAME_WEIGHT if name and lower not in NUMBERS else WORD_WEIGHT)


def _number(text: str) -> str:
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if "." in text and text.count(".") == 1:
        text = text.rstrip("0").rstrip(".")
    return text.lstrip("0") or "0"


def _source(record: Record, field: str) -> str:
    """All that the field says. Raises KeyError, naming what there is, without it."""
    if field not in record.row and field not in record.fields:
        if field in ("answer", "instruction", "both", "all"):
            return record.part(field)
        head, *path = field.split(".")
        value = record[head] if path and (head in record.row or head in record.fields) else record[field]
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                raise KeyError(f"no field {key!r} in {head!r} of this record")
            value = value[key]
        return _strings(value)
    return _strings(record[field])


def _strings(value: object) -> str:
    if isinstance(value, str):
        return value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return "\n".join(map(_strings, inner))


def _stemmer(name: str) -> Stem:
    from snowballstemmer import stemmer

    made = stemmer(name)

    @lru_cache(maxsize=2**16)
    def stem(word: str) -> str:
        return word if len(word) > LONGEST else str(made.stemWord(word))

    return stem
