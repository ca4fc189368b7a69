# ruff: noqa: RUF001 - text in many scripts
import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.filters import _near
from synthgen.filters._buckets import CAPACITY, Buckets
from synthgen.filters._near import MANY
from synthgen.filters._shingles import PERMUTATIONS, signatures, units, word_hashes
from synthgen.filters.duplicate import duplicate, lengths_of_runs, rows_and_bands
from synthgen.measure import Measurement
from synthgen.record import Record
from tests.support import jsonl, loaded, read_jsonl, recipe, run_it

BOUND = 0.8
WORDS = [f"word{n}" for n in range(5000)]


def records(texts: Sequence[str]) -> list[Record]:
    return [Record(f"r{number}", {}, {}, text) for number, text in enumerate(texts)]


def made(bound: float = BOUND, **params: Any) -> Any:
    return duplicate.make(params, max=bound)


def resolved(
    texts: Sequence[str], bound: float = BOUND, *, batch: int | None = 256, keep: bool = False, **params: Any
) -> list[Measurement]:
    """What curation does: in order, each is measured, and kept where the bound allows (or always)."""
    measure = made(bound, **params)
    return list(resolving(measure, texts, bound, batch, keep))


def resolving(
    measure: Any, texts: Sequence[str], bound: float, batch: int | None, keep: bool = False
) -> Iterator[Measurement]:
    given = records(texts)
    features = measure.features(given)
    for number, (record, feature) in enumerate(zip(given, features, strict=True)):
        if batch and number % batch == 0:
            measure.ahead(features[number : number + batch])
        found = measure.resolve(record.id, feature)
        assert found.value is not None
        if keep or found.value <= bound:
            measure.keep(record.id, feature)
        yield found


@cache
def shingles(text: str, words: int = 5) -> set[tuple[str, ...]]:
    """The definition, without hashes."""
    found = units(text)
    return {tuple(found[start : start + words]) for start in range(max(1, len(found) - words + 1))}


def jaccard(one: str, other: str, words: int | None = None) -> float:
    """The definition; without `words`, by runs of the lengths that both texts have."""
    lengths = {words} if words else lengths_of(one) & lengths_of(other)
    similarities = []
    for length in lengths - {None}:
        a, b = shingles(one, length), shingles(other, length)
        similarities.append(len(a & b) / len(a | b))
    return max(similarities, default=0.0)


@cache
def lengths_of(text: str) -> set[int]:
    count = len(units(text))
    return {max(1, min(5, n // 10)) for n in (count, 3 * count // 4)}


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
        ("Name gold.", "Describe silver now."),
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
    results = resolved([near, nearer, text], bound=0.85)
    assert results[2] == Measurement(jaccard(nearer, text), {"of": "r1"})
    # each of two has one more sentence than the third, so that it is equally far from both
    twins = [f"{text} a b c d {n}" for n in range(2)]
    assert resolved([*twins, text], bound=0.9)[2].detail == {"of": "r0"}


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


@settings(deadline=None, max_examples=60)
@given(st.lists(text_of_few_words, min_size=2, max_size=6), st.integers(1, 6))
def test_similarity_equals_that_by_definition(texts: list[str], words: int) -> None:
    """At a bound of almost nothing every pair that shares a run is found, and nobody is dropped before."""
    measure = made(0.01, words=words)
    features = measure.features(records(texts))
    for number, (text, feature) in enumerate(zip(texts, features, strict=True)):
        expected = [jaccard(text, other, words) for other in texts[:number]]
        found = measure.resolve(f"r{number}", feature)
        assert found.value is not None
        best = max(expected, default=0.0)
        assert found.value <= best
        if best > 0.1:
            assert found == Measurement(best, {"of": f"r{expected.index(best)}"})
        measure.keep(f"r{number}", feature)


@settings(deadline=None, max_examples=30)
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


@settings(deadline=None, max_examples=50)
@given(
    st.lists(text_of_few_words, max_size=30), st.integers(1, 31), st.sampled_from([0.3, 0.8]), st.booleans()
)
def test_what_is_looked_up_together_changes_nothing(
    texts: list[str], batch: int, bound: float, keep: bool
) -> None:
    one_by_one = resolved(texts, bound, batch=None, keep=keep)
    assert resolved(texts, bound, batch=batch, keep=keep) == one_by_one


@cache
def crowd() -> list[str]:
    """Texts of which hundreds share most of their runs, so that buckets overflow, in three families."""
    rng = random.Random(17)
    preambles = [" ".join(rng.choices(WORDS, k=40)) for _ in range(3)]
    texts = [f"{rng.choice(preambles)} {' '.join(rng.choices(WORDS, k=6))}" for _ in range(120)]
    return texts + [changed(text, 1, rng) for text in rng.sample(texts, 60)] + rng.sample(texts, 20)


@pytest.mark.parametrize(
    ("capacity", "many", "keep"),
    [(CAPACITY, MANY, False), (5, MANY, True), (CAPACITY, 3, True), (4, 2, False)],
)
def test_nor_does_it_where_buckets_overflow(
    monkeypatch: pytest.MonkeyPatch, capacity: int, many: int, keep: bool
) -> None:
    monkeypatch.setattr(_near, "CAPACITY", capacity)
    monkeypatch.setattr(_near, "MANY", many)
    one_by_one = resolved(crowd(), 0.9, batch=None, keep=keep)
    for batch in (7, 200):
        assert resolved(crowd(), 0.9, batch=batch, keep=keep) == one_by_one


def test_what_was_announced_may_come_in_another_order_or_never() -> None:
    texts = crowd()[::7]
    measure = made(0.9)
    features = measure.features(records(texts))
    measure.ahead(features[::-1])
    measure.ahead(features[20:])
    found = [measure.resolve(f"r{n}", feature) for n, feature in enumerate(features[:2])]
    assert [result.value for result in found] == [0.0, 0.0]
    rest = made(0.9)
    for number, feature in enumerate(features):
        if number % 3 == 0:
            measure.ahead(features[number + 2 : number : -1])
        assert measure.resolve(f"r{number}", feature) == rest.resolve(f"r{number}", feature)
        measure.keep(f"r{number}", feature)
        rest.keep(f"r{number}", feature)


def test_what_an_earlier_session_kept_is_told_without_being_resolved() -> None:
    texts = crowd()
    measure = made(0.9)
    results = list(resolving(measure, texts[:100], 0.9, 64))
    again = made(0.9)
    for record, feature, result in zip(
        records(texts), again.features(records(texts[:100])), results, strict=False
    ):
        if result.value is not None and result.value <= 0.9:
            again.keep(record.id, feature)
    rest = measure.features(records(texts[100:]))
    assert [again.resolve("x", feature) for feature in rest] == [
        measure.resolve("x", feature) for feature in rest
    ]


@pytest.mark.parametrize("length", [12, 35, 150])
def test_it_agrees_with_comparing_every_text_with_every_other(length: int) -> None:
    """Each measurement is exact for the record it names; above the bound hardly any is too low."""
    rng = random.Random(length)
    texts = [" ".join(rng.choices(WORDS[:600], k=rng.randrange(length, 2 * length))) for _ in range(250)]
    texts += [changed(text, rng.randrange(1, 1 + max(2, length // 20)), rng) for text in texts[:150]]
    rng.shuffle(texts)
    results = resolved(texts)
    kept: list[int] = []
    wrong = above = 0
    for number, result in enumerate(results):
        best = max((jaccard(texts[number], texts[other]) for other in kept), default=0.0)
        assert result.value is not None
        if result.detail:
            assert result.value == jaccard(texts[number], texts[int(result.detail["of"][1:])])
        assert result.value <= best
        above += best > BOUND
        wrong += best > BOUND and result.value != best
        if result.value <= BOUND:
            kept.append(number)
    assert above > 40
    assert wrong <= above / 50


def test_signatures_are_those_of_datasketch() -> None:
    from datasketch import MinHash

    hashes = np.random.default_rng(3).integers(0, 2**32, 500, dtype=np.uint32)
    theirs = MinHash(PERMUTATIONS, seed=1, hashfunc=int)
    theirs.update_batch(hashes.tolist())
    few, ours = signatures(np.concatenate([hashes[:1], hashes]), np.array([1, 500]))
    assert ours.tolist() == theirs.hashvalues.tolist()
    assert few.tolist() != ours.tolist()


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


def test_a_shared_preamble_does_not_hide_the_duplicate() -> None:
    rng = random.Random(13)
    preamble = " ".join(rng.choices(WORDS, k=150))
    texts = [f"{preamble} {' '.join(rng.choices(WORDS, k=50))}" for _ in range(600)]
    results = resolved([*texts, changed(texts[7], 2, rng)])
    values = [result.value for result in results[:-1] if result.value is not None]
    assert max(values) < 0.8
    assert sum(value > 0.4 for value in values) > 5 * MANY
    assert results[-1].detail == {"of": "r7"}
    assert results[-1].value == jaccard(texts[7], changed(texts[7], 2, random.Random(0)))


def test_one_changed_word_of_ten_is_found_and_two_are_kept() -> None:
    one = "Write a poem about the sea in winter for children."
    other = "Write a poem about the sea in summer for children."
    assert resolved([one, other])[1] == Measurement(pytest.approx(9 / 11), {"of": "r0"})
    assert resolved([one, other.replace("poem", "song")])[1].value < 0.7  # type: ignore[operator]
    assert resolved([one, other], words=5)[1].value == 0.0
    assert resolved(["What is the capital of Peru?", "What is the capital of Chile?"])[1].value < 0.8  # type: ignore[operator]
    with pytest.raises(ValueError, match="words must be from 1 to 100, not 0"):
        made(words=0)


@pytest.mark.parametrize("count", [10, 15, 19, 20, 29, 30, 39, 49, 50, 60, 67, 80])
def test_one_changed_word_never_makes_a_text_another(count: int) -> None:
    words = WORDS[:count]
    other = [*words[: count // 2], "other", *words[count // 2 + 1 :]]
    longer = [*words[: count // 2], "other", *words[count // 2 :]]
    for near in (other, longer):
        found = resolved([" ".join(words), " ".join(near)])[1].value
        assert found is not None
        assert found == jaccard(" ".join(words), " ".join(near)) > BOUND


def test_texts_of_nearly_the_same_length_have_runs_of_one_length_in_common() -> None:
    lengths = [set(row) - {0} for row in lengths_of_runs(np.arange(200)).tolist()]
    assert lengths[5] == {1}
    assert lengths[25] == {1, 2}
    assert lengths[100] == {5}
    for count in range(200):
        assert all(lengths[count] & lengths[fewer] for fewer in range(-(-3 * count // 4), count))
        assert lengths[count] == lengths_of(" ".join(WORDS[:count]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of Peru?", "what is the capital of Peru"),
        ("plants.", "plants"),
        ("plants!", '"Plants"'),
        ("She said: (yes), *really*...", "She said yes really"),
        ("\u201cPlants\u201d are \u00abgreen\u00bb\u2026", "plants are green"),
        ("\u00bfQu\u00e9 es esto?", "Qu\u00e9 es esto"),
        ("\u4ec0\u4e48\uff1f", "\u4ec0\u4e48"),
        ("a" + "?!" * 30 + " b", "a b"),
        ("(" * 30 + "a b", "a b"),
    ],
)
def test_punctuation_at_the_edges_of_words_makes_no_other_text(one: str, other: str) -> None:
    assert resolved([one, other])[1] == Measurement(1.0, {"of": "r0"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-5 + 3", "5 + 3"),
        ("a + b", "a - b"),
        ("C++", "C"),
        ("50%", "50"),
        ("$x", "x"),
        ("f(x)", "f x"),
        ("3.5", "35"),
        ("a ; b", "a b"),
        ("[ ]", "( )"),
        ("...", "!!!"),
        ("x.y", "xy"),
    ],
)
def test_other_punctuation_does(one: str, other: str) -> None:
    [_, found] = resolved([one, other])
    assert found.value is not None
    assert found.value < 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab(['\"*.,!?-+ ", max_size=20), min_size=1, max_size=5))
def test_words_are_hashed_without_the_punctuation_at_their_edges(texts: list[str]) -> None:
    hashes, counts = word_hashes(texts)
    bare, same = word_hashes([" ".join(units(text)) for text in texts])
    assert hashes.tolist() == bare.tolist()
    assert counts.tolist() == same.tolist() == [len(units(text)) for text in texts]
    words = [word for text in texts for word in units(text)]
    assert len(set(words)) == len(set(hashes.tolist()))


def test_scripts_without_spaces_are_compared_sign_by_sign() -> None:
    assert units("我用 Python写代码。") == ["我", "用", "python", "写", "代", "码"]
    text = (
        "潮汐是由月球和太阳的引力引起的地球自转时大多数海岸每天有两次涨潮和两次退潮"
        "这种现象在海边的城市里非常容易看到也影响渔民的生活"
    )
    near = text.replace("非常", "十分")
    found = resolved([text, near])[1]
    assert found == Measurement(jaccard(text, near), {"of": "r0"})
    assert found.value is not None
    assert found.value > 0.8


BOTH = jaccard(f"What is a prime?\n\n{FOX}", f"What is a noble gas?\n\n{FOX}")


def test_what_of_picks_is_compared() -> None:
    assert 0.7 < BOTH < 0.9
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in [("What is a prime?", FOX), ("What is a noble gas?", FOX)]
    ]
    for of, expected in [("answer", 1.0), ("instruction", 0.5), ("both", BOTH)]:
        measure = made(0.5)
        features = measure.features([Record(str(n), {}, row).pick(of) for n, row in enumerate(rows)])
        measure.keep("0", features[0])
        assert measure.resolve("1", features[1]).value == expected


def test_features_are_compact() -> None:
    text = " ".join(random.Random(1).choices(WORDS, k=200))
    feature = made().features(records([text]))[0]
    assert len(feature) == 8 + 4 * PERMUTATIONS + 6 * 196


WORD = st.text(alphabet=st.characters(exclude_categories=["Z", "Cc"]), min_size=1, max_size=40)


@settings(deadline=None)
@given(st.lists(st.lists(WORD, max_size=6).map(" ".join), max_size=8))
def test_a_word_has_one_hash_wherever_it_stands_and_no_other_has_it(texts: list[str]) -> None:
    found = [units(text) for text in texts]
    hashes, counts = word_hashes(texts)
    assert counts.tolist() == [len(words) for words in found]
    of_word: dict[str, int] = {}
    for word, value in zip([word for words in found for word in words], hashes.tolist(), strict=True):
        assert of_word.setdefault(word, value) == value
    assert len(set(of_word.values())) == len(of_word)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x" * 1_000_000, "x" * 999_999 + "y"),
        ("a\0", "a"),
        ("a\0\0 b", "a\0 b"),
        ("\ud800", "\udfff"),
        ("x \ud800\udc00", "x"),
        ("a" + "\u0300\u0316" * 200_000, "a"),
        ("الكلمة" * 20_000, "الكلمة" * 20_001),
        ("\u200b" * 5000, ""),
        ("x" * 31, "x" * 32),
        ("x" * 32, "x" * 33),
    ],
)
def test_hostile_texts_are_told_apart(one: str, other: str) -> None:
    first, second, third = resolved([one, other, one], keep=True)
    assert first == Measurement(0.0)
    assert second.value is not None
    assert second.value < 1
    assert third == Measurement(1.0, {"of": "r0"})


def test_all_whitespace_of_ascii_separates_and_nothing_else_does() -> None:
    for code in range(128):
        text = f"A{chr(code)}B"
        [count] = word_hashes([text])[1].tolist()
        assert count == len(text.split())


@pytest.mark.slow
def test_a_hundred_thousand_equal_short_texts() -> None:
    results = resolved(["Yes."] * 100_000)
    assert results[0] == Measurement(0.0)
    assert set(map(str, results[1:])) == {str(Measurement(1.0, {"of": "r0"}))}
    assert resolved(["Yes."] * 1000, keep=True)[-1] == results[-1]


def test_a_bucket_takes_in_no_more_than_it_can_hold() -> None:
    buckets = Buckets(bands=3)
    keys = np.array([[5, 6, 7]], np.uint32)
    for _ in range(2 * CAPACITY):
        rows, found, counts = buckets.find(keys)
        buckets.add(keys, counts < CAPACITY)
    rows, found, counts = buckets.find(np.array([[5, 6, 8], [6, 5, 8]], np.uint32))
    assert rows.tolist() == [0] * CAPACITY
    assert found.tolist() == list(range(CAPACITY))
    assert counts.tolist() == [[CAPACITY, CAPACITY, 0], [0, 0, 0]]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.lists(st.integers(1, 900), max_size=6), st.integers(0, 2**32))
def test_buckets_find_all_that_share_a_key(bands: int, sizes: list[int], seed: int) -> None:
    drawn = np.random.default_rng(seed)
    buckets, held = Buckets(bands), np.empty((0, bands), np.uint32)
    for size in sizes:  # as many as make its table grow
        keys = drawn.integers(0, 2**32, (size, bands), np.uint32)
        buckets.add(keys, np.ones(keys.shape, bool))
        held = np.concatenate([held, keys])
    asked = np.concatenate(
        [held[:: max(1, len(held) // 50)], drawn.integers(0, 2**32, (5, bands), np.uint32)]
    )
    rows, found, _ = buckets.find(asked)
    expected = [
        (row, number)
        for row, own in enumerate(asked)
        for number in np.flatnonzero((held == own).any(axis=1)).tolist()
    ]
    assert list(zip(rows.tolist(), found.tolist(), strict=True)) == expected


def others(tmp_path: Path) -> tuple[Path, Path]:
    rows = [
        {
            "id": "fox",
            "messages": [{"role": "user", "content": "Tell."}, {"role": "assistant", "content": FOX}],
        },
        {"messages": [{"role": "user", "content": "Why is it so?"}, {"role": "assistant", "content": "So."}]},
    ]
    chats, plain = tmp_path / "chats.jsonl", tmp_path / "plain.jsonl"
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain.write_text(json.dumps({"text": FOX}) + "\n" + json.dumps({"text": FOX + " It slept."}) + "\n")
    return chats, plain


def test_records_of_other_datasets_count_as_kept_before_the_first(tmp_path: Path) -> None:
    chats, plain = others(tmp_path)
    results = resolved([FOX, "so.", FOX.replace("dark", "deep")], against=[chats, plain])
    assert results[:2] == [
        Measurement(1.0, {"of": "fox", "in": "chats.jsonl"}),
        Measurement(1.0, {"of": "2", "in": "chats.jsonl"}),
    ]
    assert results[2].detail == {"of": "fox", "in": "chats.jsonl"}
    near = resolved([FOX + " It slept."], against=[chats, plain])[0]
    assert near == Measurement(1.0, {"of": "2", "in": "plain.jsonl"})
    assert resolved([FOX], against=plain)[0].detail == {"of": "1", "in": "plain.jsonl"}


def test_they_are_read_as_of_says_and_only_by_who_resolves(tmp_path: Path) -> None:
    chats, plain = others(tmp_path)
    measure: Any = duplicate.make({"against": [chats, plain]}, max=BOUND, of="instruction")
    assert list(resolving(measure, [FOX, "why is it so?"], BOUND, 8)) == [
        Measurement(0.0),
        Measurement(1.0, {"of": "2", "in": "chats.jsonl"}),
    ]
    measure = duplicate.make({"against": [chats, plain]}, max=BOUND, of="text")
    assert next(resolving(measure, [FOX], BOUND, 8)).detail == {"of": "1", "in": "plain.jsonl"}
    missing = made(against=[tmp_path / "gone.jsonl"])
    [feature] = missing.features(records([FOX]))
    for _ in range(2):
        with pytest.raises(SynthgenError, match=r"gone\.jsonl"):
            missing.resolve("r0", feature)


def test_a_run_drops_what_another_dataset_has(tmp_path: Path) -> None:
    use = {"duplicate": {"of": "instruction", "against": "data/*.jsonl"}}
    files = {"data/old.jsonl": jsonl([{"messages": [{"role": "user", "content": "Document number 3"}]}])}
    result = run_it(loaded(tmp_path, recipe(filters=[use]), files=files))
    dropped = read_jsonl(result.dir / "dropped.jsonl")
    assert [row["dropped_by"]["detail"] for row in dropped] == [{"of": "1", "in": "old.jsonl"}]
