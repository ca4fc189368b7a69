# ruff: noqa: RUF001 - text in many scripts
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters.duplicate import MANY, PERMUTATIONS, duplicate, rows_and_bands, signatures, units
from synthgen.measure import Measurement
from synthgen.record import Record

BOUND = 0.8
WORDS = [f"word{n}" for n in range(5000)]


def records(texts: Sequence[str]) -> list[Record]:
    return [Record(f"r{number}", {}, {}, text) for number, text in enumerate(texts)]


def made(bound: float = BOUND, **params: Any) -> Any:
    return duplicate.make(params, max=bound)


def resolved(texts: Sequence[str], bound: float = BOUND, **params: Any) -> list[Measurement]:
    """What curation does: in order, each is measured, and kept where the bound allows."""
    measure = made(bound, **params)
    results = []
    for record, feature in zip(records(texts), measure.features(records(texts)), strict=True):
        results.append(measure.resolve(record.id, feature))
        value = results[-1].value
        assert value is not None
        if value <= bound:
            measure.keep(record.id, feature)
    return results


def shingles(text: str, words: int = 5) -> set[tuple[str, ...]]:
    """The definition, without hashes."""
    found = units(text)
    return (
        {tuple(found[start : start + words]) for start in range(max(1, len(found) - words + 1))}
        if found
        else set()
    )


def jaccard(one: str, other: str, words: int = 5) -> float:
    a, b = shingles(one, words), shingles(other, words)
    return len(a & b) / len(a | b) if a | b else 0.0


def changed(text: str, changes: int, rng: random.Random) -> str:
    """The text with that many words, far apart, made others."""
    words = text.split()
    for place in range(changes):
        words[(place + 1) * len(words) // (changes + 1)] = f"new{rng.random()}"
    return " ".join(words)


FOX = "The quick brown fox jumps over the lazy dog and runs into the dark forest to sleep."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FOX, FOX),
        (FOX, FOX.upper()),
        (FOX, f"  {FOX}\n"),
        (FOX, FOX.replace(" ", "\n\t")),
        ("Yes.", "yes."),
        ("", " \n"),
        ("ｆｕｌｌ width ①", "full width 1"),
        ("我喜欢学习", "我 喜欢 学习"),
        ("...", "..."),
    ],
)
def test_the_same_text_is_found_whatever_its_case_and_spacing(one: str, other: str) -> None:
    assert resolved([one, other]) == [Measurement(0.0), Measurement(1.0, {"of": "r0"})]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Yes.", "No."),
        ("Yes.", "Yes, of course."),
        ("Name a noble gas.", "Name a rare earth."),
        (FOX, "A completely different sentence that has nothing at all in common with the other one."),
        ("", "Something."),
        ("我喜欢学习中文和历史", "今天的天气非常好所以我们去公园"),
    ],
)
def test_other_texts_are_not(one: str, other: str) -> None:
    assert resolved([one, other]) == [Measurement(0.0), Measurement(0.0)]


def test_a_near_duplicate_has_its_exact_similarity_and_the_id_of_the_other() -> None:
    text = " ".join(random.Random(1).choices(WORDS, k=150))
    near = changed(text, 2, random.Random(2))
    results = resolved(["something else entirely", text, near])
    assert results[1:] == [Measurement(0.0), Measurement(jaccard(text, near), {"of": "r1"})]
    assert jaccard(text, near) == pytest.approx(136 / 156)


def test_the_most_similar_is_named_and_of_several_the_earliest() -> None:
    text = " ".join(random.Random(1).choices(WORDS, k=150))
    near, nearer = changed(text, 4, random.Random(2)), changed(text, 2, random.Random(3))
    results = resolved([near, nearer, text], bound=0.95)
    assert results[2] == Measurement(jaccard(nearer, text), {"of": "r1"})
    # each of two has one more sentence than the third, so that it is equally far from both
    twins = [f"{text} a b c d {n}" for n in range(2)]
    assert resolved([*twins, text], bound=0.99)[2].detail == {"of": "r0"}


def test_what_was_dropped_is_compared_with_nothing() -> None:
    text = " ".join(random.Random(1).choices(WORDS, k=100))
    chain = [text]
    for step in range(3):  # each is similar to its neighbours alone
        chain.append(changed(chain[-1], 2, random.Random(step)).replace(WORDS[step], "x"))
    results = resolved([chain[0], chain[1], chain[1]])
    assert [result.detail for result in results] == [None, {"of": "r0"}, {"of": "r0"}]
    assert results[1] == results[2]


def test_values_at_the_bound_are_kept() -> None:
    text = " ".join(random.Random(1).choices(WORDS, k=150))
    near = changed(text, 2, random.Random(2))
    third = changed(text, 2, random.Random(2)) + " and"
    at = jaccard(text, near)
    assert resolved([text, near, third], bound=at)[2].detail == {"of": "r1"}
    assert resolved([text, near, third], bound=at - 0.001)[2].detail == {"of": "r0"}


text_of_few_words = st.lists(
    st.sampled_from(["a", "b", "c", "Dd", "e-e", "我", "中文", "é"]), max_size=40
).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(st.lists(text_of_few_words, min_size=2, max_size=6), st.integers(1, 6))
def test_similarity_equals_that_by_definition(texts: list[str], words: int) -> None:
    """At a bound of almost nothing every pair that shares a run is found, and nobody is dropped before."""
    measure = made(0.01, words=words)
    features = measure.features(records(texts))
    for number, (text, feature) in enumerate(zip(texts, features, strict=True)):
        expected = [
            1.5 if units(text) == units(other) else jaccard(text, other, words) for other in texts[:number]
        ]  # the same text goes before one that merely has the same runs
        found = measure.resolve(f"r{number}", feature)
        assert found.value is not None
        best = max(expected, default=0.0)
        assert found.value <= best
        if best > 0.1:
            assert found == Measurement(min(best, 1.0), {"of": f"r{expected.index(best)}"})
        measure.keep(f"r{number}", feature)


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(), max_size=80), max_size=20), st.data())
def test_features_are_the_same_however_the_records_are_split(texts: list[str], data: st.DataObject) -> None:
    whole = made().features(records(texts))
    cut = data.draw(st.integers(0, len(texts)))
    parts = [*made(0.5).features(records(texts)[:cut]), *made(0.9).features(records(texts)[cut:])]
    assert list(whole) == parts
    assert [made().features([record])[0] for record in records(texts)] == parts


def test_large_batches_give_the_same_features() -> None:
    rng = random.Random(5)
    texts = [" ".join(rng.choices(WORDS, k=rng.randrange(0, 60))) for _ in range(300)]
    assert made().features(records(texts)) == [made().features([record])[0] for record in records(texts)]


@settings(deadline=None)
@given(st.lists(text_of_few_words, max_size=30))
def test_resolving_is_deterministic(texts: list[str]) -> None:
    assert resolved(texts) == resolved(texts)


def test_signatures_are_those_of_datasketch() -> None:
    from datasketch import MinHash

    hashes = np.random.default_rng(3).integers(0, 2**32, 500, dtype=np.uint32)
    theirs = MinHash(PERMUTATIONS, seed=1, hashfunc=int)
    theirs.update_batch(hashes.tolist())
    empty, ours = signatures([np.empty(0, np.uint32), hashes])
    assert ours.tolist() == theirs.hashvalues.tolist()
    assert empty.tolist() == MinHash(PERMUTATIONS).hashvalues.tolist()


@pytest.mark.parametrize("bound", [0.05, 0.1, 0.3, 0.5, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0])
def test_bands_find_a_pair_at_the_bound(bound: float) -> None:
    rows, bands = rows_and_bands(bound)
    assert rows * bands <= PERMUTATIONS
    assert 1 - (1 - bound**rows) ** bands >= 0.99


def test_bands_at_the_usual_bound_and_at_the_ends() -> None:
    assert rows_and_bands(0.8) == (7, 20)
    assert rows_and_bands(0) == (1, PERMUTATIONS)
    assert rows_and_bands(2) == (PERMUTATIONS, 1)


@pytest.mark.parametrize("bound", [0.5, 0.8, 0.9])
def test_nearly_all_pairs_above_the_bound_are_found(bound: float) -> None:
    rng = random.Random(11)
    pairs = []
    while len(pairs) < 300:
        text = " ".join(rng.choices(WORDS, k=120))
        near = changed(text, rng.randrange(1, 9), rng)
        if bound < jaccard(text, near) < bound + 0.15:
            pairs.append((text, near))
    results = resolved([text for pair in pairs for text in pair], bound=bound)
    found = sum(result.value == jaccard(*pair) for result, pair in zip(results[1::2], pairs, strict=True))
    assert found / len(pairs) >= 0.99
    assert sum(result.value != 0 for result in results[::2]) == 0


def test_a_shared_preamble_costs_neither_time_nor_the_duplicate() -> None:
    rng = random.Random(13)
    preamble = " ".join(rng.choices(WORDS, k=150))
    texts = [f"{preamble} {' '.join(rng.choices(WORDS, k=50))}" for _ in range(600)]
    start = time.process_time()
    results = resolved([*texts, changed(texts[7], 2, rng)])
    assert time.process_time() - start < 5
    values = [result.value for result in results[:-1] if result.value is not None]
    assert max(values) < 0.8
    assert sum(value > 0.4 for value in values) > 5 * MANY
    assert results[-1].detail == {"of": "r7"}
    assert results[-1].value == jaccard(texts[7], changed(texts[7], 2, random.Random(0)))


def test_fewer_words_suit_short_texts() -> None:
    one = "Write a poem about the sea in winter for children."
    other = "Write a poem about the sea in summer for children."
    assert resolved([one, other], words=5)[1].value == 0.0
    assert resolved([one, other], bound=0.6, words=1)[1].value == pytest.approx(9 / 11)
    with pytest.raises(ValueError, match="words must be at least 1, not 0"):
        made(words=0)


def test_scripts_without_spaces_are_compared_sign_by_sign() -> None:
    assert units("我用 Python写代码。") == ["我", "用", "python", "写", "代", "码", "。"]
    text = (
        "潮汐是由月球和太阳的引力引起的地球自转时大多数海岸每天有两次涨潮和两次退潮"
        "这种现象在海边的城市里非常容易看到也影响渔民的生活"
    )
    near = text.replace("非常", "十分")
    found = resolved([text, near])[1]
    assert found == Measurement(jaccard(text, near), {"of": "r0"})
    assert found.value is not None
    assert found.value > 0.8


def test_what_of_picks_is_compared() -> None:
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in [("What is a prime?", FOX), ("What is a noble gas?", FOX)]
    ]
    measure = made()
    for of, expected in [("answer", 1.0), ("instruction", 0.0)]:
        measure = made()
        features = measure.features([Record(str(n), {}, row).pick(of) for n, row in enumerate(rows)])
        measure.keep("0", features[0])
        assert measure.resolve("1", features[1]).value == expected


def test_features_are_compact() -> None:
    text = " ".join(random.Random(1).choices(WORDS, k=200))
    feature = made().features(records([text]))[0]
    assert len(feature) == 16 + 4 * PERMUTATIONS + 4 * 196
