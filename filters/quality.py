"""Is the text well formed: finished, without loops, without leftovers?"""
# ruff: noqa: RUF001 - punctuation of many scripts

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import cache
from typing import Literal, get_args

from synthgen import Measurement, Record, filter
from synthgen.filters._diversity import diversity
from synthgen.filters._repetition import repetition

Measure = Literal["loops", "repeats", "finished", "fences", "marks", "leak", "voice", "letters", "diversity"]
DEFAULT = get_args(Measure)[:-1]  # all but diversity
ECHO_WORDS = 15  # words of an instruction that are no title or restated question
SECRET_WORDS = 8  # words of a system message that are no coincidence

CODE_BLOCK = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,}).*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)", re.M | re.S)
FENCE = re.compile(r"^[ \t]*(?:>[ \t]*)?(`{3,}|~{3,})(.*)$", re.M)
INLINE = re.compile(r"(?<!`)(`++)[^`]+\1")
# Begins with the sets of signs that matches begin with, as re skips to the next of those.
QUOTED = re.compile(
    r'["“«>](?:(?<=")[^"\n]{1,300}"|(?<=“)[^“”\n]{1,300}”|(?<=«)[^«»\n]{1,300}»|(?<=^>).*$)', re.M
)
ROW = re.compile(r"^[ \t]*\|.*$", re.M)

TEMPLATE_MARKS = re.compile(
    r"<\|[A-Za-z0-9_]{2,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?think>|<(?:bos|eos|pad|unk)>"
    r"|\A\s*<s>|</s>\s*\Z"
    r"|(?<![\\\w}])\{\{-?\s*[A-Za-z_][^{}\n\\]*\}\}|\{%-?\s*[a-z]+\b[^{}\n]*%\}"
)
# Turns of its own, which a model that runs on past its answer adds; a dialogue begins with one.
ASKS = re.compile(r"\n(?:Human|User): ")
REPLIES = re.compile(r"\n(?:Assistant|AI|Bot): ")
DIALOGUE = re.compile(r"[^\n:]{1,80}: ")
TEMPLATE_HEADING = re.compile(r"^#{1,4} ?(?:Instruction|Response|Human|Assistant|User)\s*:", re.M)
# The maker is followed by "I" or a small letter: with a name it is of another model that the text speaks.
MADE = r"(?: \w+(?:ed|t) by [^,.!?\n]{1,40}?(?=,? I\b|(?-i:, [a-z])))?"
MACHINE = re.compile(
    rf"\b(?:as an? (?:\w+ ){{0,2}}(?:ai|artificial intelligence)(?: language)?(?: model| assistant)?"
    rf"{MADE}(?=,| i\b)|"
    rf"as an? (?:\w+[ -]){{0,3}}language model{MADE}(?=,| i\b)|"
    r"i(?: am|'m|’m) (?:just |only )?an? (?:\w+[ -]){0,2}(?:ai|artificial intelligence|language model)\b|"
    r"my (?:knowledge|training) (?:cut-?off|data)\b)",
    re.I,
)
# Each of these is in what it stands before, and looked for first, as a string is found much sooner.
OF_TEMPLATE_MARKS = ("<", "INST]", "{{", "{%")
OF_MACHINE = (" ai", "-ai", "artificial intelligence", "language model", "my knowledge", "my training")
GARBLED = re.compile(
    "[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff\ud800-\udfff]"
    "|\u00e2\u20ac.|\u00c3[\u0080-\u00bf\u0192\u201a\u2020-\u2022]|\u00c2[\u00a0-\u00bf]"
)
READABLE = bytes(code for code in range(128) if not GARBLED.match(chr(code)))

LINKS = ("http://", "https://", "www.", "#", "@")
CLOSERS = "|*_~`\"'”’»›)]}>」』）】 \t"
ENDS = frozenset(".!?…。！？؟।॥;；")
OPEN_ENDS = frozenset(",(:[{、，：")
LAST_WORD = 20  # characters in which DANGLING is looked for
OPERATOR = re.compile(r"\s[/&=+]{1,3}\Z")  # where it stands apart
SENTENCE_END = re.compile(r"[.!?…][\"'”’)*_\]]*(?:\s|\Z)|[。！？؟।]")
ITEM = re.compile(r"\s*(?:[-*+•|#>]|\d{1,9}[.):]|[A-Za-z][.)]\s|[^\s:]{1,40}(?: [^\s:]{1,40}){0,4}:\s)")
DANGLING = re.compile(
    r"\b(?:the|an|of|and|or|but|with|from|by|that|which|because|their|its|your|my|these|than|into|between|such|"
    r"to|for|as|is|are|was|were|can|will|has|have|if|when|while|who|should|could|would|may|be|"
    r"und|oder|der|mit|et|le|les|des|y|el|los|de|que|"
    # Not "nor do they" nor "taller than he".
    r"(?<!do )(?<!did )(?<!does )(?<!are )(?<!were )(?<!is )(?<!was )(?<!have )(?<!had )(?<!has )(?<!than )"
    r"(?<!can )(?<!will )(?<!as )(?<!like )(?:they|he|she|we))\Z"
)


@filter(min=0.5)
class quality:
    """How well formed the text is, from 0 to 1: the worst of its measures, which the detail names and gives.

    - loops: 1 less twice the share that says for the third time or more what it has just said (a refrain of
      32 characters is forgiven). A number counts with its first 16 digits, here and in repeats.
    - repeats: 1 less the share that occurs word for word before, in runs of 32 characters and more; code,
      tables and verses count half.
    - finished: 0.3 where it stops amid a sentence, as at a limit of tokens.
    - fences: 0.3 where a code block is opened and not closed.
    - marks: 0.1 where marks of a chat template or of a prompt are left (<|im_start|>, [INST], {{ name }}), or
      it goes on with turns of its own ("Human: ... Assistant: ...").
    - leak: 0.2 where it repeats its instruction before it answers, or a sentence of the system message.
    - voice: 0.3 where it speaks of itself as a language model.
    - letters: 1 less twenty times the share of broken characters; 0.2 for punctuation alone.
    - diversity: the share of words that are new among the last 50, on average over the text, without its code
      and tables (1 below 50 words). Only where it is asked for.

    An empty text has 0. One word, a list, a table, a poem or code is as good as an essay: nothing here asks
    for a length, for sentences or for common words. Marks and voice are not looked for in code or quotations.

    Parameters:
        measures: which of them count; all but diversity without it. To bound one by itself, use the filter
            again under another name: `repeats: {filter: quality, measures: [repeats], min: 0.7}`.

    Source: the repetition and form rules of Gopher and C4, which are for web pages, made over for answers;
    for diversity the moving-average type-token ratio (Covington and McFall, 2010).

    Weak at: what is said. A well-formed text may be false, empty or off the point. Templates that an answer
    shows outside of code count as leftovers. Whether a text without a full stop is finished is a guess: of
    answers cut at random seven in ten are found, in languages other than English fewer. A blank form, as an
    answer sheet is, counts as a loop, and so does a song that sings a line over and over. Diversity is low
    (below 0.5 for one answer in 200) in sums, timetables, lyrics and code that is not marked as such, which
    is why it does not count by default: bound it where stories or essays are wanted (most have 0.65 to 0.85).
    """

    def __init__(self, *, measures: list[Measure] | None = None) -> None:
        if unknown := sorted(set(measures or ()) - set(get_args(Measure))):
            raise ValueError(f"there is no measure {unknown[0]!r}: {', '.join(get_args(Measure))}")
        if measures is not None and not measures:
            raise ValueError("`measures` names none")
        wanted = DEFAULT if measures is None else measures
        self._wanted: list[Measure] = [name for name in get_args(Measure) if name in wanted]

    def measure(self, record: Record) -> Measurement:
        """The worst of the measures, with each of them."""
        if not record.text.strip():
            return Measurement(0.0, {"worst": "empty"})
        found = _measures(record, self._wanted)
        worst = min(self._wanted, key=lambda name: found[name])
        detail: dict[str, float] = {name: round(found[name], 4) for name in self._wanted}
        return Measurement(found[worst], {"worst": worst if found[worst] < 1 else None, **detail})


def _measures(record: Record, wanted: Collection[Measure]) -> dict[Measure, float]:
    """Those wanted, and any that cost nothing besides."""
    text = record.text
    prose = CODE_BLOCK.sub(" ", text) if _fenced(text) else text
    plain = ROW.sub("", prose) if "|" in prose else prose
    found: dict[Measure, float] = {}
    if "loops" in wanted or "repeats" in wanted:
        found["loops"], found["repeats"] = repetition(text, plain)
    if "finished" in wanted:
        found["finished"] = finished(text)
    if "fences" in wanted:
        found["fences"] = fences(text)
    if "marks" in wanted or "voice" in wanted:
        said = _said(prose)
        found["marks"], found["voice"] = marks(said), voice(said)
    if "leak" in wanted:
        found["leak"] = leak(record)
    if "letters" in wanted:
        found["letters"] = letters(text)
    if "diversity" in wanted:
        found["diversity"] = diversity(plain)
    return found


def _fenced(text: str) -> bool:
    return "```" in text or "~~~" in text


def _said(prose: str) -> str:
    """What the text says itself, without code in its lines and quotations."""
    if "`" in prose:
        prose = INLINE.sub(" ", prose)
    if any(mark in prose for mark in ('"', "“", "«", ">")):
        prose = QUOTED.sub(" ", prose)
    return prose


def marks(said: str) -> float:
    """0.1 where marks of a template are left."""
    if any(mark in said for mark in OF_TEMPLATE_MARKS) and TEMPLATE_MARKS.search(said):
        return 0.1
    if "\nHuman: " in said or "\nUser: " in said:
        said = said.lstrip()
        asks = ASKS.search(said)
        if asks and REPLIES.search(said, asks.end()) and not DIALOGUE.match(said):
            return 0.1
    return 0.1 if "#" in said and TEMPLATE_HEADING.search(said) else 1.0


def voice(said: str) -> float:
    """0.3 where it speaks of itself as a language model."""
    folded = _folded(said)
    return 0.3 if any(part in folded for part in OF_MACHINE) and MACHINE.search(said) else 1.0


def finished(text: str) -> float:
    """0.3 where the text seems to stop amid a sentence."""
    if _fenced(text):
        text = CODE_BLOCK.sub("\n```\n", text)
    lines = [line for line in text.split("\n") if line.strip()]
    last = lines[-1].strip()
    bare = last.rstrip(CLOSERS)
    if bare != last or bare[-1] in ENDS or unicodedata.category(bare[-1]) in ("So", "Sk", "Cn"):
        return 1.0
    if bare.rsplit(None, 1)[-1].startswith(LINKS):
        return 1.0
    if bare[-1] in OPEN_ENDS or (
        DANGLING.search(bare, max(0, len(bare) - LAST_WORD)) and bare.count(" ") >= 5
    ):
        return 0.3
    if last.startswith("|") or last.count("`") % 2 or OPERATOR.search(bare[-4:]):
        return 0.3
    marker = ITEM.match(last)
    if SENTENCE_END.search(bare, marker.end() if marker else 0):
        return 0.3
    # Without a full stop at its end, a line is finished where others of its kind have none either.
    item = bool(marker)
    others = [
        line.rstrip(CLOSERS) for line in lines[:-1] if bool(ITEM.match(line)) == item and line.count(" ") > 3
    ]
    stopped = sum(line[-1:] in ENDS for line in others)
    long = bare.count(" ") >= (8 if item else 5)
    return 0.3 if long and len(others) > 1 and stopped > len(others) / 2 else 1.0


def fences(text: str) -> float:
    """0.3 where a code block is left open."""
    if "```" not in text and "~~~" not in text:
        return 1.0
    opened = ""
    for fence, info in FENCE.findall(text):
        if not opened:
            if not (fence[0] == "`" and "`" in info):
                opened = fence
        elif fence[0] == opened[0] and len(fence) >= len(opened) and not info.strip():
            opened = ""
    return 0.3 if opened else 1.0


def leak(record: Record) -> float:
    """0.2 where an answer begins with the whole instruction, or has a sentence of the system message."""
    if not record.messages or record.text != record.answer:
        return 1.0
    instruction = _normal(record.instruction)
    words = instruction.count(" ") + 1
    if words >= ECHO_WORDS and _normal(record.text, words).startswith(instruction):
        return 0.2
    system = next((str(m.get("content")) for m in record.messages if m.get("role") == "system"), "")
    if not system:
        return 1.0
    answer = _normal(record.text)
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", system):
        secret = _normal(sentence)
        if secret.count(" ") >= SECRET_WORDS - 1 and secret in answer and secret not in instruction:
            return 0.2
    return 1.0


def letters(text: str) -> float:
    """How much of the text is readable."""
    if all(char.isspace() or _punctuation(char) for char in text) and len("".join(text.split())) > 3:
        if any(char in text for char in "\\)]}"):  # a pattern or a piece of code
            return 1.0
        return 0.2
    if text.isascii():
        broken = len(text.encode().translate(None, READABLE))
    else:
        broken = sum(map(len, GARBLED.findall(text)))
    return max(0.0, 1 - 20 * broken / len(text))


def _normal(text: str, words: int | None = None) -> str:
    """In lower case and with single spaces, the whole text or so many words."""
    if words is None:
        return " ".join(text.lower().split())
    return " ".join(text.split(None, words)[:words]).lower()


def _folded(text: str) -> str:
    """Lower case, letter for letter as re.IGNORECASE compares them."""
    if text.isascii():
        return text.lower()
    return text.replace("İ", "i").lower().replace("ı", "i").replace("ſ", "s")


@cache
def _punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P")
