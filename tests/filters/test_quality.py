# ruff: noqa: RUF001 - text in many scripts
import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters._diversity import WINDOW, diversity
from synthgen.filters._repetition import GRAM, LONG, _repeated
from synthgen.filters.quality import quality
from synthgen.measure import Measurement
from synthgen.record import Record

BOUND = quality.min
assert BOUND is not None

ESSAY = (
    "Tides are caused by the pull of the moon and, to a lesser degree, of the sun. The side of the "
    "earth that faces the moon is pulled a little more strongly than its centre, and the far side a "
    "little less, so that the water bulges on both.\n\nAs the earth turns beneath these bulges, most "
    "coasts see two high tides a day. When sun and moon pull in one line, at new and full moon, the "
    "tides are highest; at the quarters they are lowest."
)


def measured(text: str, messages: Sequence[dict[str, Any]] = (), **params: Any) -> Measurement:
    row = {"messages": [*messages, {"role": "assistant", "content": text}]} if messages else {}
    result = quality.make(params).measure([Record("r", {}, row, text)])[0]
    assert isinstance(result, Measurement), result
    assert result.value is not None
    assert 0 <= result.value <= 1
    return result


def worst(text: str, messages: Sequence[dict[str, Any]] = ()) -> str:
    """The measure that fails the text, which is below the default bound."""
    found = measured(text, messages)
    assert found.value is not None
    assert found.value < BOUND, found
    assert found.detail is not None
    return str(found.detail["worst"])


@pytest.mark.parametrize(
    "text",
    [
        "Yes",
        "42",
        "Paris.",
        "x²",
        "👍",
        "是的",
        "Because the ball is heavier",
        "A function that takes a list and returns the sum of its even members",
        ESSAY,
        "1. Apples\n2. Pears\n3. Plums",
        "- Wash the rice until the water is clear\n- Boil it for twelve minutes\n- Let it rest",
        "Ingredients:\n\n- 200 g flour\n- 2 eggs\n- a pinch of salt",
        "| Name | Age |\n|------|-----|\n| Ann | 31 |\n| Bob | 27 |",
        "```python\ndef add(a, b):\n    return a + b\n```",
        "Run this:\n\n```sh\nmake install\n```\n\nThen start the server.",
        "````markdown\n```python\nprint(1)\n```\n````",
        "~~~\ncode\n~~~",
        "Roses are red,\nViolets are blue,\nSugar is sweet,\nAnd so are you",
        "Dear Anna,\n\nThank you for the book. I read it in one evening.\n\nBest wishes,\nTom",
        "See the manual for more. It is at https://example.org/manual/index.html",
        "It was a good day at the beach. #summer #holidays",
        'She whispered, "I know."',
        "The answer is **42**",
        "$$\\frac{{a}}{{b}}$$",
        "In Jinja, write `{{ name }}` to insert a value, and `{% if %}` for a condition.",
        "The token `<|im_start|>` opens a message in ChatML.",
        "```jinja\n{{ greeting }}, {{ name }}!\n```",
        'Many models begin with "As an AI language model, I cannot" when they hedge.',
        "As an AI engineer you need statistics.",
        "2 x 1 = 2\n2 x 2 = 4\n2 x 3 = 6\n2 x 4 = 8\n2 x 5 = 10\n2 x 6 = 12",
        ", ".join(str(number) for number in range(1, 101)),
        "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]",
        "ha ha ha, that was a good one!",
        "Let it be, let it be, let it be, let it be. Whisper words of wisdom, let it be.",
        "SELECT name, age\nFROM people\nWHERE age > 30\nORDER BY name;",
        "潮汐是由月球和太阳的引力引起的。地球自转时，大多数海岸每天有两次涨潮。",
        "ภาษาไทยเป็นภาษาที่มีระดับเสียง",
        "0b" + "10" * 26,
        "0x" + "DEADBEEF" * 8,
        "One third is 0." + "3" * 50 + ", and so on without an end.",
        r"\d+",
        r"(.*?)\.",
        "[][]{}",
        "I would write it in C++",
        "The Boy Who Found What He Was Looking For",
        "They can run faster than we\nAnd dance as well as they",
        "As a language model trained by its users, Codex writes what they wrote.",
        "Human: What is the capital of France?\nAssistant: Paris.\nHuman: And of Spain?\nAssistant: Madrid.",
        "Human: Hello.\n\nHuman: Is anybody there?\n\nBob: Yes.",
    ],
)
def test_good_answers_pass(text: str) -> None:
    found = measured(text)
    assert found.value is not None
    assert found.value >= 0.75, found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("The cat sat on the mat. " * 20, "loops"),
        (ESSAY + " And that is why" + " the tide comes in and goes out" * 30, "loops"),
        ("no " * 50, "loops"),
        ("hahahaha" * 30, "loops"),
        ("!" * 200 + "a" * 200, "loops"),
        ("我喜欢学习" * 30, "loops"),
        ("\n".join(f"{n}. Drink enough water every day and sleep well" for n in range(1, 20)), "loops"),
        ("\n\n".join([ESSAY, "In short:", ESSAY, "Or, in other words:", ESSAY]), "repeats"),
        (ESSAY + " This also explains why the", "finished"),
        (ESSAY + " There are three kinds of tides, namely,", "finished"),
        (ESSAY + " This also explains why ships wait for the flood before", "finished"),
        (ESSAY + "\n\nHere are the steps:", "finished"),
        ("1. Open the file and read it line by line.\n2. Split each line at the commas.\n"
         "3. Convert the fields to numbers and add them to the", "finished"),
        ("潮汐是由月球和太阳的引力引起的。地球自转时，大多数海岸每天有两次涨潮，而且", "finished"),
        ("The drops grow as they rise, and rain falls once they are so heavy that they", "finished"),
        ("To show it, call the method of the class that is in `views", "finished"),
        ("The sum of both is then a +", "finished"),
        ("Use this:\n\n```python\nfor item in items:\n    print(it", "fences"),
        ("```\ncode\n```\nand more\n```", "fences"),
        ("The capital is Paris.<|im_end|>", "marks"),
        ("<|im_start|>assistant\nThe capital is Paris.", "marks"),
        ("[INST] What is the capital? [/INST] The capital is Paris.", "marks"),
        ("The capital of {{ country }} is Paris.", "marks"),
        ("{% if user %}Hello!{% endif %}", "marks"),
        ("<s>The capital is Paris.</s>", "marks"),
        ("The capital is Paris.\n\n### Instruction:\nName the capital of Spain.", "marks"),
        ("<think>The user wants a capital.</think>Paris.", "marks"),
        ("The capital is Paris.\n\nHuman: And of Spain?\n\nAssistant: It is Madrid.", "marks"),
        ("The capital is Paris.\nUser: And of Spain?\nAI: It is Madrid.", "marks"),
        ("As a large language model trained by OpenAI, I think that Paris is lovely.", "voice"),
        ("As an AI developed by OpenAI, my taste in towns is limited.", "voice"),
        ("0b10101010101010101010101010101010\n" * 20, "loops"),
        ("1" * 500, "loops"),
        ("As an AI language model, I think that Paris is lovely.", "voice"),
        ("Paris is lovely, although as a large language model I have never been there.", "voice"),
        ("The population was two million as of my knowledge cutoff.", "voice"),
        ("Itâ€™s the moonâ€™s pull that raises the tides, isnâ€™t it?", "letters"),
        ("caf\ufffd cr\ufffdme br\ufffdl\ufffde", "letters"),
        ("?!?!...---", "letters"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, name: str) -> None:
    assert worst(text) == name


def test_the_detail_has_every_measure() -> None:
    found = measured(ESSAY)
    assert found == Measurement(
        1.0,
        {
            "worst": None,
            "loops": 1.0,
            "repeats": 1.0,
            "finished": 1.0,
            "fences": 1.0,
            "marks": 1.0,
            "leak": 1.0,
            "voice": 1.0,
            "letters": 1.0,
        },
    )


ALL = ["loops", "repeats", "finished", "fences", "marks", "leak", "voice", "letters", "diversity"]


@pytest.mark.parametrize("name", ALL)
def test_each_measure_can_stand_by_itself(name: str) -> None:
    bad = ESSAY + " <|im_end|> As an AI, I like tides. \ufffd" * 9 + " It is because of the"
    bad = bad.replace(".", "") + ("\n```\nx = 1\n" if name == "fences" else "")
    found = measured(bad, [{"role": "user", "content": bad[:200]}], measures=[name])
    together = measured(bad, [{"role": "user", "content": bad[:200]}], measures=ALL)
    assert found.detail is not None
    assert together.detail is not None
    assert found.detail == {"worst": name if found.value != 1 else None, name: together.detail[name]}
    assert round(found.value or 0, 4) == together.detail[name]
    assert found.value != 1, "each of them finds something in this text"


def test_what_is_not_asked_for_does_not_count() -> None:
    loop = "The cat sat on the mat. " * 20
    assert measured(loop, measures=["finished", "marks"]).value == 1.0
    assert (
        measured(loop, measures=["marks", "loops"]).detail
        == measured(loop, measures=["loops", "marks"]).detail
    )
    assert measured(" ", measures=["marks"]).value == 0.0


@pytest.mark.parametrize(("measures", "message"), [(["loop"], "no measure 'loop'"), ([], "names none")])
def test_says_what_is_wrong_with_measures(measures: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quality.make({"measures": measures})


PROSE = (
    "On Monday the ferry was late again, and by the time we reached the island most of the shops had "
    "closed for the afternoon. A boy on the quay sold us peaches out of a bucket; they were still warm from "
    "the sun. We walked up to the chapel, whose door stood open, and looked down on the strait, where two "
    "fishing boats crept home against the wind. Nobody spoke much. My sister sketched the rocks, badly, "
    "and laughed about it, while our father slept under his newspaper until the bell rang for vespers."
)


def test_diversity_tells_prose_from_chatter() -> None:
    chatter = "The food was good and the room was good and the view was good and it was all very good. " * 6
    found = measured(PROSE, measures=["diversity"]).value
    assert found is not None
    assert found > 0.7
    assert worst(chatter) in ("loops", "repeats")
    found = measured(chatter, measures=["diversity"]).value
    assert found is not None
    assert found < 0.35


def test_diversity_is_that_of_prose_without_code_and_does_not_fall_with_length() -> None:
    code = "```python\n" + "x = x + 1\n" * 40 + "```"
    assert measured(f"{PROSE}\n\n{code}\n", measures=["diversity"]).value == diversity(PROSE)
    three = " ".join([PROSE, ESSAY, PROSE])
    assert diversity(three) == pytest.approx(diversity(PROSE), abs=0.08)
    few = " ".join(["no"] * (WINDOW - 1))
    assert (diversity(few), diversity(few + " no")) == (1.0, 1 / WINDOW)
    assert (
        diversity("我们今天去公园散步" * 20) < 0.2 < 0.7 < diversity("".join(map(chr, range(0x4E00, 0x4E99))))
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), max_size=3 * WINDOW))
def test_diversity_is_the_mean_over_all_windows(said: list[str]) -> None:
    windows = [said[start : start + WINDOW] for start in range(len(said) - WINDOW + 1)]
    shares = [len(set(window)) / WINDOW for window in windows]
    assert diversity(" ".join(said)) == pytest.approx(sum(shares) / len(shares) if shares else 1.0)


def test_loops_and_repeats_are_shares_of_the_text() -> None:
    sentence = "The heron stands in the shallow water and waits for a careless fish to pass. "
    rest = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz", k=len(sentence) * 6))
    detail = measured(rest + " " + sentence * 4).detail
    assert detail is not None
    # of ten sentences' length, two say for the third time what was just said, three are repeats
    refrain = 32 / (len(sentence) * 10)
    assert detail["loops"] == pytest.approx(1 - 2 * (2 / 10 - refrain), abs=0.03)
    assert detail["repeats"] == pytest.approx(1 - 3 / 10, abs=0.03)
    twice_and_a_half = measured(rest + " " + sentence * 2 + sentence[:40]).detail
    assert twice_and_a_half is not None
    assert twice_and_a_half["loops"] == 1.0


def slowly_repeated(text: str) -> tuple[int, int, int]:
    """What `_repeated` gives, a character at a time. For texts without markers and rules."""
    plain = " ".join(text.split())
    if len(plain) < LONG:
        return len(plain), 0, 0
    last: dict[str, int] = {}
    back = []
    for place in range(len(plain) - GRAM + 1):
        gram = plain[place : place + GRAM]
        back.append(place - last.get(gram, place))
        last[gram] = place
    looped = repeated = 0
    for _, run in itertools.groupby(back, key=bool):
        distances = list(run)
        if distances[0]:
            reach = len(distances) + GRAM - 1
            repeated += reach if reach >= LONG else 0
    for distance, run in itertools.groupby(back):
        reach = len(list(run)) + GRAM - 1
        looped += reach - distance if 0 < 2 * distance <= reach else 0
    return len(plain), min(len(plain), looped), min(len(plain), repeated)


@settings(deadline=None)
@given(st.lists(st.text(alphabet="abcdefgé ", max_size=25), min_size=1, max_size=4), st.randoms())
def test_repeats_are_counted_as_one_would_by_hand(parts: list[str], dice: random.Random) -> None:
    text = "".join(dice.choice(parts) * dice.choice([1, 1, 2, 5]) for _ in range(dice.randrange(20)))
    assert _repeated(text) == slowly_repeated(text)


def test_code_and_tables_may_repeat_themselves_twice_as_much() -> None:
    lines = [f"    self.register_handler_of_events('{name}', priority=10)" for name in "abcdefghijklmnopqrst"]
    prose = measured("\n".join(line.strip() for line in lines)).detail
    code = measured("```python\n" + "\n".join(lines) + "\n```").detail
    assert prose is not None
    assert code is not None
    assert prose["repeats"] < BOUND < code["repeats"]


BOTTLES = "\n\n".join(
    f"{many} green bottles hanging on the wall,\n{many} green bottles hanging on the wall,\n"
    "And if one green bottle should accidentally fall,\n"
    f"There'll be {fewer} green bottles hanging on the wall."
    for many, fewer in itertools.pairwise("Ten nine Eight seven Six five Four".title().split())
)


def test_verses_may_repeat_themselves_twice_as_much() -> None:
    verses = measured(BOTTLES).detail
    prose = measured(BOTTLES.replace("\n", " ")).detail
    listed = measured(BOTTLES.replace("\n", "\n- ")).detail
    assert verses is not None
    assert prose is not None
    assert listed is not None
    assert prose["repeats"] < BOUND < verses["repeats"]
    assert listed["repeats"] < BOUND
    assert worst("\n".join(["Ten green bottles are hanging on the wall"] * 20)) == "loops"
    assert worst("\n".join(["He drinks water and sleeps well."] * 20)) == "loops"


QUESTION = "Explain in two sentences why the sky is blue during the day and why it turns red in the evening."
SYSTEM = "You are a patient teacher of physics for children who are ten years old. Answer briefly."


def test_an_answer_that_repeats_its_prompt_leaks() -> None:
    user = {"role": "user", "content": QUESTION}
    system = {"role": "system", "content": SYSTEM}
    good = "Blue light is scattered more than red light. At sunset, most of the blue is gone."
    assert measured(good, [system, user]).value == 1.0
    assert worst(f"{QUESTION}\n\n{good}", [user]) == "leak"
    assert (
        worst(
            f"{good} You are a patient teacher of physics for children who are ten years old.", [system, user]
        )
        == "leak"
    )
    quoting = {"role": "user", "content": f"Translate: {SYSTEM}"}
    assert measured(SYSTEM, [system, quoting]).value == 1.0
    short = {"role": "user", "content": "Why is the sky blue?"}
    assert measured(f"Why is the sky blue? {good}", [short]).value == 1.0


def test_an_instruction_does_not_leak_into_itself() -> None:
    row = {
        "messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Scattering."}]
    }
    result = quality.make({}).measure([Record("r", {}, row).pick("instruction")])[0]
    assert isinstance(result, Measurement)
    assert result.value == 1.0


def test_of_answers_cut_anywhere_most_are_found() -> None:
    found = 0
    words = (
        ESSAY + " The moon itself moves on while the earth turns, so that the tides come later each day."
    ).split()
    cuts = [" ".join(words[:n]) for n in range(40, len(words)) if words[n - 1][-1] not in ".!?"]
    for cut in cuts:
        detail = measured(cut).detail
        assert detail is not None
        found += detail["finished"] < BOUND
    assert found / len(cuts) > 0.9


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_is_measured(text: str) -> None:
    measured(text)


@settings(deadline=None, max_examples=30)
@given(st.text(alphabet=st.characters(), min_size=1, max_size=20), st.integers(1, 200))
def test_any_text_again_and_again_is_measured(text: str, times: int) -> None:
    measured(text * times)


PARTS = [
    "a",
    "1",
    "`",
    "``` ",
    "\n",
    " ",
    '"',
    "“",
    "{{",
    "{{a",
    "#a ",
    "as an ai ",
    "as an ai made by a ",
    "\nHuman: a",
    "1_",
    "1" * 17 + " ",
    "A b c,\n",
    "</s> ",
    "| a\n",
    "é",
    "\x00",
]


@pytest.mark.parametrize(("part", "size"), [(ESSAY, 1_000_000), *((part, 300_000) for part in PARTS)])
def test_no_text_takes_a_time_that_grows_with_its_square(part: str, size: int) -> None:
    start = time.process_time()
    measured(part * (size // len(part)) + " b", measures=ALL)
    assert time.process_time() - start < 3  # half a second on an idle machine; a square would take minutes
