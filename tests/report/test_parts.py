"""What a report is made of: spreads, samples, differences, diversity, shares."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synthgen.report.charts import histogram, number, share
from synthgen.report.differences import differences
from synthgen.report.diversity import lexical, self_bleu, vendi
from synthgen.report.meaning import plane
from synthgen.report.plain import shown
from synthgen.report.sample import Sample
from synthgen.report.shares import Shares, wished
from synthgen.report.spread import DISTINCT, Spread

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)


def spread(values: Sequence[float], bound: float = math.inf) -> Spread:
    made = Spread()
    for value in values:
        made.add(value, outside=value > bound)
    return made


@example([5e-324], 1.0)
@given(st.lists(FINITE, min_size=1), FINITE)
def test_a_histogram_counts_every_value_once(values: list[float], bound: float) -> None:
    said = spread(values, bound).histogram([bound])
    inside = sum(each["inside"] for each in said["bins"])
    outside = sum(each["outside"] for each in said["bins"])
    assert inside + outside + said["below"] + said["above"] == len(values)
    assert outside <= sum(value > bound for value in values)
    edges = [each["from"] for each in said["bins"]] + [said["bins"][-1]["to"]]
    assert edges == sorted(edges)
    assert histogram(said, "label", {"min": None, "max": bound}, 0.0).startswith("<svg")


@given(st.lists(FINITE, min_size=1))
def test_quantiles_are_those_of_the_values(values: list[float]) -> None:
    ordered, found = sorted(values), spread(values).quantiles()
    assert (found["0"], found["1"]) == (ordered[0], ordered[-1])
    assert found["0.5"] == ordered[round(0.5 * (len(values) - 1))]


def test_many_distinct_values_take_bounded_memory_and_stay_near() -> None:
    draw = random.Random(3)
    values = [draw.random() for _ in range(50_000)]
    made = spread(values)
    assert made.distinct < DISTINCT
    assert made.quantiles()["0.5"] == pytest.approx(sorted(values)[25_000], abs=0.001)
    assert made.quantiles()["1"] == max(values)


def test_infinite_values_have_a_place() -> None:
    said = spread([1.0, math.inf, -math.inf]).histogram()
    assert sum(each["inside"] for each in said["bins"]) + said["below"] + said["above"] == 3


@given(st.lists(st.text(min_size=1), unique=True, max_size=60), st.randoms(use_true_random=False))
def test_a_sample_does_not_depend_on_the_order(ids: list[str], shuffle: random.Random) -> None:
    def chosen(order: Sequence[str]) -> list[str]:
        sample: Sample[str] = Sample(5)
        for id in order:
            sample.offer(id, id)
        return sample.items()

    other = list(ids)
    shuffle.shuffle(other)
    assert chosen(ids) == chosen(other)
    assert len(chosen(ids)) == min(5, len(ids))


def test_near_ones_are_chosen_before_far_ones() -> None:
    sample: Sample[int] = Sample(3)
    for distance in (5, 1, 4, 2, 3):
        sample.offer(str(distance), distance, distance)
    assert sample.items() == [1, 2, 3]


@given(st.text(max_size=300), st.text(max_size=300))
def test_differences_leave_nothing_out(one: str, other: str) -> None:
    left, right = differences(one, other)
    assert "".join(text for _, text in left) == one
    assert "".join(text for _, text in right) == other
    same = [[text for kind, text in side if kind == "same"] for side in (left, right)]
    assert same[0] == same[1]


def test_what_differs_is_marked() -> None:
    left, right = differences("the red house", "the blue house")
    assert left == [["same", "the "], ["other", "red"], ["same", " house"]]
    assert right[1] == ["other", "blue"]


def test_diversity_has_its_ends() -> None:
    same = ["the cat sat on the mat today"] * 20
    other = [" ".join(f"w{20 * n + m}" for m in range(8)) for n in range(20)]
    low, high = lexical(same), lexical(other)
    assert low["self_bleu"] == pytest.approx(1.0)
    assert high["self_bleu"] is not None
    assert high["self_bleu"] < 0.05
    assert (high["distinct_1"], high["distinct_2"]) == (1.0, 1.0)
    assert low["distinct_1"] == 6 / 140
    assert low["compression"] is not None
    assert high["compression"] is not None
    assert low["compression"] > high["compression"]
    assert lexical([])["self_bleu"] is None


def test_self_bleu_of_two_by_hand() -> None:
    # Of five words four are in the other text, with three pairs, two triples and one quadruple of them.
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert self_bleu(["a b c d e".split(), "a b c d f".split()]) == pytest.approx(expected)


def test_the_vendi_score_counts_what_is_wholly_different() -> None:
    assert vendi(np.eye(8)) == pytest.approx(8)
    assert vendi(np.ones((8, 5))) == pytest.approx(1)
    assert vendi(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3)


def test_the_plane_holds_what_varies_most() -> None:
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(60, 10)) * np.array([9, 4, *[0.1] * 8])
    places, held = plane(vectors)
    assert held > 0.99
    assert abs(np.corrcoef(places[:, 0], vectors[:, 0])[0, 1]) > 0.99
    assert np.abs(places).max() == pytest.approx(1)
    assert plane(np.ones((4, 3)))[1] == 0


def test_shares_are_of_fields_with_few_values() -> None:
    shares = Shares()
    for number_ in range(100):
        fields = {"doc": {"topic": "ab"[number_ % 2], "text": "x" * 80}, "id": str(number_), "yes": True}
        shares.add(fields, {}, kept=number_ % 4 < 2)
    said = shares.as_json({})
    assert [each["field"] for each in said] == ["doc.topic"]
    assert [(each["value"], each["kept"], each["all"]) for each in said[0]["values"]] == [
        ("a", 25, 50),
        ("b", 25, 50),
    ]


def test_a_wished_value_that_never_came_is_told() -> None:
    shares = Shares()
    for number_ in range(10):
        shares.add({"level": "ab"[number_ % 2]}, {}, kept=True)
    [said] = shares.as_json({"level": {"a": 0.4, "c": 0.6}})
    assert [(each["value"], each["kept"], each["wished"]) for each in said["values"]] == [
        ("a", 5, 0.4), ("b", 5, None), ("c", 0, 0.6),
    ]  # fmt: skip


def test_wished_shares_are_the_recipes() -> None:
    seeds = {
        "level": {"choice": {"easy": 3, "hard": 1}},
        "style": {"choice": ["x", "y"]},
        "doc": {"path": "a"},
    }
    balanced = {"level": {"easy": 1, "hard": 1, "other": 2}, "style": "even", "doc.topic": {"a": 2}}
    assert wished({"seeds": seeds, "balance": balanced}) == {
        "level": {"easy": 0.25, "hard": 0.25, "other": 0.5},
        "style": {"x": 0.5, "y": 0.5},
        "doc.topic": {"a": 1.0},
    }
    assert wished({"seeds": seeds}) == {"level": {"easy": 0.75, "hard": 0.25}, "style": {"x": 0.5, "y": 0.5}}


@given(st.text())
def test_text_is_shown_as_text(text: str) -> None:
    html = shown(text.replace("&", " "))
    assert "<" not in html.replace('<span class="unseen">', "").replace("</span>", "")
    assert not any(sign in html for sign in "\x00\x1b\u200b\u202e\u2028\ufeff")
    html.encode()


def test_numbers_for_people() -> None:
    assert [number(value) for value in (0, 1204, 0.83456, 12345.6, 1e-7)] == [
        "0",
        "1,204",
        "0.835",
        "12,346",
        "1e-07",
    ]
    assert [share(*pair) for pair in ((0, 5), (1, 9999), (1, 3), (9999, 10000), (5, 5))] == [
        "0 %", "< 0.1 %", "33.3 %", "> 99.9 %", "100 %",
    ]  # fmt: skip
