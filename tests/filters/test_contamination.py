# ruff: noqa: RUF001 - text in many scripts
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters._text import compatible, words
from synthgen.filters.contamination import COMMON, contamination
from synthgen.measure import Measurement
from synthgen.record import Record

DOCS = Path(__file__).parents[2] / "recipes" / "data" / "python_docs.jsonl"
CHATS = Path(__file__).parents[2] / "recipes" / "data" / "chats.jsonl"
BOUND = contamination.max
assert BOUND is not None

BAKER = (
    "A baker makes 24 rolls every morning and sells two thirds of them before noon. In the afternoon "
    "she sells half of those that are left. How many rolls does she take home in the evening?"
)
TRAIN = (
    "A train leaves the harbour at a quarter past seven and reaches the mountains three hours later. "
    "It travels at 80 kilometres an hour. How long is the line from the harbour to the mountains?"
)
ITEMS = [
    {"question": BAKER, "answer": "She sells 16 before noon, which leaves 8, and half of 8 is 4.\n#### 4"},
    {"question": TRAIN, "answer": "80 * 3 = 240\n#### 240"},
    {"id": "capitals-7", "question": "Which city is the capital of Peru?", "choices": ["Lima", "Quito"]},
]


def written(folder: Path, rows: list[Any], name: str = "bench.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measured(text: str, *files: Path, **params: Any) -> Measurement:
    made = contamination.make({"against": list(files), **params})
    [found] = made.measure([Record("r", {}, {}, text)])  # type: ignore[union-attr]
    assert isinstance(found, Measurement), found
    assert found.value is not None
    assert 0 <= found.value <= 1
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return written(tmp_path, ITEMS)


def test_an_item_is_found_whatever_stands_around_it(bench: Path) -> None:
    text = f"Solve this problem.\n\n{BAKER.upper()}\n\nThe baker takes home four rolls."
    found = measured(text, bench)
    assert found.value == 1.0
    span = " ".join(words(BAKER))
    assert found.detail == {"file": "bench.jsonl", "item": "1", "field": "user", "span": span[:200]}


def test_an_item_with_its_punctuation_changed_and_its_end_cut_is_found(bench: Path) -> None:
    text = TRAIN.replace(".", " -").replace(" ", "\n")[:150]
    found = measured(text, bench)
    assert found.value is not None
    assert 0.6 < found.value < 1.0
    assert found.detail is not None
    assert found.detail["item"] == "2"


def test_the_share_is_that_of_words_in_runs(bench: Path) -> None:
    said = words(BAKER)
    assert measured(" ".join([*said[:7], "x", *said[8:15]]), bench).value == 0.0
    first = " ".join([*said[:10], "and", "then", *said[20:28]])
    found = measured(first, bench)
    assert found.value == pytest.approx(18 / len(said))
    assert found.detail is not None
    assert found.detail["span"] == " ".join(said[:10])
    assert measured(first, bench, ngram=10).value == pytest.approx(10 / len(said))


def test_of_questions_shorter_than_a_run_all_has_to_be_there(bench: Path) -> None:
    found = measured("Tell me: which city is the capital of Peru? And of Chile?", bench)
    assert found.value == 1.0
    assert found.detail is not None
    assert found.detail["item"] == "capitals-7"
    assert found.detail["span"] == "which city is the capital of peru"
    assert measured("Which city is the capital of Chile?", bench).value == 0.0
    assert measured("Lima, Quito", bench).value == 0.0


def test_short_answers_and_questions_of_few_words_are_not_looked_for(tmp_path: Path) -> None:
    rows = [{"question": "Who wrote it?", "target": "the United States of America"}, *ITEMS]
    bench = written(tmp_path, rows)
    assert measured("Who wrote it? The United States of America.", bench).value == 0.0
    assert measured("In the United States of America.", bench, fields=["target", "question"]).value == 1.0


@pytest.mark.parametrize("path", [DOCS, CHATS], ids=lambda path: path.stem)
def test_real_text_that_has_nothing_of_it_is_left_alone(path: Path, bench: Path) -> None:
    made = contamination.make({"against": [bench]})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    records = [Record(str(n), {}, row).pick("all") for n, row in enumerate(rows)]
    results = made.measure(records)  # type: ignore[union-attr]
    assert [found.value for found in results if isinstance(found, Measurement)] == [0.0] * len(rows)


def test_real_documents_are_not_each_others_but_their_own(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in DOCS.read_text().splitlines()]
    bench = written(tmp_path, [{"id": row["title"], "text": row["text"]} for row in rows[::2]])
    made = contamination.make({"against": [bench]})
    own = made.measure([Record("", {}, {}, f"See: {row['text']}") for row in rows[::2]])  # type: ignore[union-attr]
    others = made.measure([Record("", {}, {}, row["text"]) for row in rows[1::2]])  # type: ignore[union-attr]
    for row, found in zip(rows[::2], own, strict=True):
        assert isinstance(found, Measurement)
        assert len(words(row["text"])) < 8 or found.value == 1.0
    above = [found for found in others if isinstance(found, Measurement) and (found.value or 0) > BOUND]
    # statistics.median says of itself, word for word, what its neighbour says.
    assert [found.detail and found.detail["item"] for found in above] == ["statistics.median_low"]


PREAMBLE = "The following is a multiple choice question. Answer with the letter of the right choice alone."


@pytest.mark.parametrize("items", [3, 5, COMMON + 1])
def test_what_items_have_in_common_does_not_count(items: int, tmp_path: Path) -> None:
    subjects = [
        f"In which year was the {name} of {name}shire built, and by whom was it paid for?"
        for name in ["bridge", "tower", "mill", "abbey", "castle", *(f"hall{n}" for n in range(20))]
    ]
    bench = written(tmp_path, [{"question": f"{PREAMBLE} {subject}"} for subject in subjects[:items]])
    found = measured(f"{PREAMBLE} What is the boiling point of water at sea level in degrees?", bench)
    assert found.value is not None
    assert found.value < BOUND
    assert measured(f"{PREAMBLE} {subjects[1]}", bench).value == 1.0
    assert found.value == 0 or items <= COMMON


def test_a_passage_under_many_questions_is_one_item(tmp_path: Path) -> None:
    rows = [{"context": BAKER, "question": f"What did the baker do at {n} o'clock?"} for n in range(40)]
    found = measured(BAKER, written(tmp_path, rows))
    assert found.value == 1.0
    assert found.detail is not None
    assert (found.detail["item"], found.detail["field"]) == ("1", "context")


def test_files_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    one = written(tmp_path, [{"question": BAKER}], "maths/test.jsonl")
    other = written(tmp_path, [{"question": TRAIN}], "trains/test.jsonl")
    for text, name in ((BAKER, "maths/test.jsonl"), (TRAIN, "trains/test.jsonl")):
        found = measured(text, one, other)
        assert found.detail is not None
        assert found.detail["file"] == name


def test_conversations_and_nested_fields(tmp_path: Path) -> None:
    chat = {
        "messages": [
            {"role": "system", "content": PREAMBLE},
            {"role": "user", "content": "Who is the author of it?"},
            {"role": "assistant", "content": TRAIN},
        ]
    }
    nested = {"q": {"parts": [{"t": BAKER[:60]}, {"t": BAKER[60:]}], "n": 3}}
    bench = written(tmp_path, [chat, nested])
    assert measured(PREAMBLE, bench).value == 0.0
    found = measured(TRAIN, bench)
    assert found.detail is not None
    assert (found.value, found.detail["field"]) == (1.0, "assistant")
    found = measured(BAKER[:60] + "\n" + BAKER[60:], bench)
    assert found.detail is not None
    assert (found.value, found.detail["item"], found.detail["field"]) == (1.0, "2", "q")


def test_scripts_without_spaces_and_with_marks(tmp_path: Path) -> None:
    chinese = "小明有二十四个苹果，他把三分之二给了妹妹，请问他还剩下几个苹果？"
    hindi = "पुस्तकालय सुबह नौ बजे खुलता है और देर शाम को बंद होता है, रविवार को कब खुलता है?"
    bench = written(tmp_path, [{"question": chinese}, {"question": hindi}])
    assert measured(f"问题：{chinese}", bench).value == 1.0
    assert measured(hindi, bench).value == 1.0
    assert measured("今天的天气非常好，所以我们去公园散步。", bench).value == 0.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ngram": 0}, "ngram must be at least 1, not 0"),
        ({"fields": ["prompt"]}, "bench.jsonl has no text in prompt that is long enough"),
    ],
)
def test_says_what_is_wrong(params: dict[str, Any], message: str, bench: Path) -> None:
    with pytest.raises(ValueError, match=message):
        measured("text", bench, **params)
    with pytest.raises(ValueError, match="`against` names no file"):
        measured("text")


WORDS = st.lists(st.sampled_from("a b c d e f".split()), max_size=24)


def share_by_definition(said: list[str], items: list[list[str]], ngram: int) -> float:
    """For items of different words that all count: the best share, counted without hashes."""
    items = [list(item) for item in dict.fromkeys(map(tuple, items))]
    grams = [
        [tuple(item[n : n + min(ngram, len(item))]) for n in range(len(item) - min(ngram, len(item)) + 1)]
        for item in items
    ]
    times: dict[tuple[str, ...], int] = {}
    for own in grams:
        for gram in own:
            times[gram] = times.get(gram, 0) + 1
    there = {tuple(said[n : n + width]) for width in range(1, 30) for n in range(len(said) - width + 1)}
    best = 0.0
    for item, own in zip(items, grams, strict=True):
        weights, found = [0.0] * len(item), [False] * len(item)
        for start, gram in enumerate(own):
            for place in range(start, start + len(gram)):
                if times[gram] <= COMMON:
                    weights[place] = max(weights[place], 1 / times[gram])
                    found[place] |= gram in there
        if any(weights):
            got = sum(weight for weight, yes in zip(weights, found, strict=True) if yes)
            best = max(best, got / sum(weights))
    return best


@settings(deadline=None, max_examples=150)
@given(WORDS, st.lists(WORDS.filter(len), min_size=1, max_size=6), st.integers(1, 5))
def test_the_share_is_the_one_by_definition(said: list[str], items: list[list[str]], ngram: int) -> None:
    from synthgen.filters.contamination import _Index

    index = _Index(ngram, [(("file", str(n), "field"), item) for n, item in enumerate(items)])
    found = index.best(said)
    assert (found[0] if found else 0.0) == pytest.approx(share_by_definition(said, items, ngram))


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=st.characters(), max_size=200))
def test_any_text_is_measured(text: str) -> None:
    from synthgen.filters.contamination import _Index

    index = _Index(2, [(("f", "1", "x"), words(text)[:3] or ["a"])])
    index.best(words(text))
    json.dumps(words(text))


@pytest.mark.parametrize(
    "text", [BAKER * 5000, "a" * 1_000_000, "a " * 500_000, "a" + "\u0301\u0316" * 500_000, "é" * 10**6]
)
def test_no_text_takes_a_time_that_grows_with_its_square(text: str, bench: Path) -> None:
    start = time.process_time()
    measured(text, bench)
    assert time.process_time() - start < 5


def test_long_runs_of_marks_are_normalised_in_pieces() -> None:
    rng = random.Random(3)
    text = "".join(rng.choices("eé\u0301ﬁ中 \n", k=5000))
    import unicodedata

    assert compatible(text) == unicodedata.normalize("NFKC", text)
    assert compatible("ﬁ" * 600) == "fi" * 600
