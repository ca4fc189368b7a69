# ruff: noqa: E501 - sentences as they are
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen import load
from synthgen.errors import RecipeError
from synthgen.filters.grounded import grounded
from synthgen.measure import FilterFailed, Measurement
from synthgen.record import Record

DATA = Path(__file__).parents[2] / "recipes" / "data" / "python_docs.jsonl"
DOCS = {row["title"]: row["text"] for row in map(json.loads, DATA.read_text().splitlines())}
BOUND = grounded.min
assert BOUND is not None

FERRY = (
    "The ferry to Lesbos leaves Piraeus at 20:30 and arrives at 7:45 the next morning. A cabin for two costs "
    "€1,250.50 in August, and children under twelve travel free. Captain Eleni Pappas has sailed the route "
    "since 1998. Dogs are allowed on deck, but not in the restaurant."
)


def measured(doc: Any, answer: str, question: str = "What does it do?", **params: Any) -> Measurement:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    made = grounded.make({"source": "doc", **params})
    [found] = made.measure([Record("r", {"doc": doc}, {"messages": messages}, answer)])  # type: ignore[union-attr]
    assert isinstance(found, Measurement), found
    assert found.value is None or 0 <= found.value <= 1
    json.dumps(found.detail)
    return found


def value(doc: Any, answer: str, question: str = "What does it do?", **params: Any) -> float:
    found = measured(doc, answer, question, **params).value
    assert found is not None
    return found


SUPPORTED = [
    ("threading.Semaphore",
     "A semaphore manages a counter: the number of release() calls minus the number of acquire() calls, plus an "
     "initial value."),
    ("tempfile.mkdtemp", "It creates a unique temporary directory and returns its pathname."),
    ("logging.handlers.MemoryHandler",
     "It buffers records in memory and flushes them to a target handler periodically, when the buffer fills up or "
     "when an event is severe enough."),
    ("locale.format_string",
     "It formats strings like the % operator, but with the current locale in mind; if the third parameter is true, "
     "grouping is applied."),
    ("random.Random.lognormvariate",
     "It draws from the log normal distribution. The mean mu may be any value, but the standard deviation sigma has "
     "to be greater than zero."),
    ("threading.Thread.daemon",
     "It tells whether the thread is a daemon thread. If it is set after start() was called, a RuntimeError is "
     "raised."),
    ("asyncio.base_events.BaseEventLoop.call_soon",
     "The callback is arranged to be called as soon as possible, in a FIFO queue: the order of calling is the order "
     "of registration."),
]  # fmt: skip
INVENTED = [
    (
        "threading.Semaphore",
        "A semaphore was invented by Edsger Dijkstra in 1965 for the THE operating system.",
    ),
    ("tempfile.mkdtemp", "It deletes files older than 30 days and emails a report to the administrator."),
    (
        "logging.handlers.MemoryHandler",
        "It compresses log files with gzip and uploads them to Amazon every day.",
    ),
    ("locale.format_string", "It parses dates written in German and converts them to UTC timestamps."),
    ("random.Random.lognormvariate", "It shuffles a list in place with the Mersenne Twister."),
    ("threading.Thread.daemon", "Daemon processes on Unix are started by init and listen on port 8080."),
    (
        "asyncio.base_events.BaseEventLoop.call_soon",
        "It waits for 5 seconds before the coroutine is cancelled.",
    ),
]


@pytest.mark.parametrize(("title", "answer"), SUPPORTED)
def test_what_the_document_says_in_other_forms_is_supported(title: str, answer: str) -> None:
    assert value(DOCS[title], answer) > 0.75


@pytest.mark.parametrize(("title", "answer"), INVENTED)
def test_what_it_does_not_say_is_not(title: str, answer: str) -> None:
    assert value(DOCS[title], answer) < 0.2


def test_every_document_supports_itself_and_few_support_another() -> None:
    titles = sorted(DOCS)
    assert {value(DOCS[title], DOCS[title]) for title in titles} == {1.0}
    others = [value(DOCS[one], DOCS[other]) for one, other in zip(titles[::2], titles[1::2], strict=False)]
    assert sum(found < BOUND for found in others) > 0.8 * len(others)  # neighbours are often of one module


def test_in_a_long_source_what_is_said_together_has_to_be_together() -> None:
    whole = "\n\n".join(DOCS[title] for title in sorted(DOCS))
    assert value(whole, whole) == 1.0
    supported = [value(whole, answer) for _, answer in SUPPORTED]
    invented = [value(whole, answer) for _, answer in INVENTED]
    assert min(supported) > 0.7
    assert sum(found < BOUND for found in invented) >= len(invented) - 1
    assert sum(invented) < sum(supported) / 2
    apart = f"{FERRY} {DOCS['random.Random.lognormvariate']} {whole} Madeira exports bananas."
    assert value(apart, "Madeira exports bananas.") == 1.0
    assert value(apart, "The ferry exports Eleni Pappas.") < value(apart, "Eleni Pappas sailed the ferry.")


def test_the_least_supported_sentence_is_named() -> None:
    answer = "The ferry leaves at 20:30. It was built in Hamburg by 300 workers. Children under twelve travel free."
    found = measured(FERRY, answer)
    assert found.value is not None
    assert 0.3 < found.value < 0.8
    assert found.detail == {
        "sentence": "It was built in Hamburg by 300 workers.",
        "share": 0.0,
        "missing": ["built", "Hamburg", "300", "workers"],
    }
    assert measured(FERRY, "The ferry leaves at 20:30.").detail is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("It arrives at 7:45 in the morning.", "It arrives at 8:15 in the morning."),
        ("A cabin costs 1250.5 euros.", "A cabin costs 1350.5 euros."),
        ("A cabin costs €1,250.50 for 2.", "A cabin costs €1,250.50 for 3."),
        ("Children under 12 travel free.", "Children under 14 travel free."),
        ("The ferry leaves Piraeus for Lesbos.", "The ferry leaves Rafina for Andros."),
        ("Captain Pappas sails the route.", "Captain Nikolaou sails the route."),
    ],
)
def test_numbers_and_names_weigh_most(right: str, wrong: str) -> None:
    assert value(FERRY, right) >= 0.75
    assert value(FERRY, wrong) < value(FERRY, right) - 0.25


def test_a_question_may_be_taken_up_but_proves_nothing() -> None:
    question = "Is there a swimming pool on board the Aegean Queen?"
    answer = "No, the ferry has no swimming pool on board."
    assert value(FERRY, answer, question) > value(FERRY, answer, "What is there?")
    assert measured(FERRY, "The swimming pool on board.", question).value is None
    made = grounded.make({"source": "doc"})
    row = {"messages": [{"role": "user", "content": question}]}
    [itself] = made.measure([Record("r", {"doc": FERRY}, row).pick("instruction")])  # type: ignore[union-attr]
    assert isinstance(itself, Measurement)
    assert itself.value == 0.0


def test_lists_headings_and_code() -> None:
    answer = (
        "## Key Facts About The Ferry\n\n1. Leaves Piraeus at 20:30\n2. Dogs allowed on deck\n\n"
        "```python\nprint('nothing of this', 4711)\n```\n"
    )
    found = measured(FERRY, answer)
    assert found.value is not None
    assert found.value > 0.75
    assert found.detail is not None
    assert found.detail["missing"] == ["Key", "Facts"]


def test_abstains_where_there_is_nothing_to_find() -> None:
    nothing = Measurement(None, {"reason": "the text says nothing that could be in a source"})
    for answer in ("Yes.", "", "...", "It is what it is."):
        assert measured(FERRY, answer) == nothing
    assert measured("", "A cabin.") == Measurement(None, {"reason": "the source says nothing"})


def test_sources_may_be_rows_lists_and_parts() -> None:
    row = {"title": "Ferry", "facts": [{"text": FERRY}], "id": 7}
    answer = "The ferry leaves Piraeus at 20:30."
    assert value(row, answer) == 1.0
    assert value({"context": FERRY, "answer": answer}, answer, source="doc.context") == 1.0
    assert value({"context": "Nothing.", "answer": answer}, answer, source="doc.context") == 0.0
    assert value(FERRY, answer, answer, source="instruction") == 1.0
    assert value(FERRY, answer, source="answer") == 1.0
    assert value("Piraeus", answer, f"It leaves at 20:30: {FERRY}", source=["doc", "instruction"]) == 1.0


@pytest.mark.parametrize(
    ("language", "source", "right", "wrong"),
    [
        ("de", "Die Fähren legten im Sommer früher ab und fuhren häufig.", "Die Fähre fährt häufiger, im Sommer.",
         "Die Brücke wurde im Winter gesperrt."),
        ("fr", "Les bateaux partaient plus souvent pendant l'été.", "Le bateau part souvent.",
         "Le train arrive en hiver."),
        ("en", "渡轮晚上八点半离开比雷埃夫斯港。", "渡轮八点半离开港口。", "飞机早上到达雅典机场。"),
    ],
)  # fmt: skip
def test_other_languages(language: str, source: str, right: str, wrong: str) -> None:
    assert value(source, right, language=language) > BOUND > value(source, wrong, language=language)


def test_a_missing_field_is_named() -> None:
    made = grounded.make({"source": "dok"})
    [found] = made.measure([Record("r1", {"doc": FERRY}, {}, "A cabin.")])  # type: ignore[union-attr]
    assert isinstance(found, FilterFailed)
    assert "no field 'dok' in this record; there are: doc" in str(found)


@pytest.mark.parametrize(("source", "hint"), [("dok", "did you mean 'doc'?"), ("[doc, notes]", None)])
def test_a_missing_field_is_said_when_the_recipe_is_loaded(
    source: str, hint: str | None, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipes" / "r.yaml"
    recipe.parent.mkdir()
    recipe.write_text(
        "version: 1\nname: r\nseeds:\n  doc: [a, b]\nrecord:\n  text: '{{ doc }}'\n"
        f"filters:\n  - grounded: {{source: {source}}}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load(recipe)
    [problem] = caught.value.problems
    assert problem.message == f"there is no field {'dok' if hint else 'notes'!r}"
    assert hint is None or problem.hint == hint
    assert problem.line == 8
    recipe.write_text(recipe.read_text().replace(source, "doc.title"))
    load(recipe)


def test_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="no inflections are known of 'xx': ar, ca"):
        grounded.make({"source": "doc", "language": "xx"})
    with pytest.raises(ValueError, match="`source` names no field"):
        grounded.make({"source": []})


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=200), st.text(alphabet=st.characters(), max_size=100))
def test_any_text_is_measured_and_supports_itself(text: str, source: str) -> None:
    measured(source, text)
    assert measured(text, text).value in (1.0, None)


@pytest.mark.parametrize(
    "part",
    ["Ferry. ", ".", "1,000", "1.", "a", "A'", '."', "。", "```\n", "- ", "e\u0301\u0316", "渡", " ", "\n"],
)
def test_no_text_takes_a_time_that_grows_with_its_square(part: str) -> None:
    text = part * (300_000 // len(part))
    start = time.process_time()
    measured(text + " Boat.", text + " Ship 7.")
    assert time.process_time() - start < 6
