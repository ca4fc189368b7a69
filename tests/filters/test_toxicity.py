from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters.toxicity import MISTAKEN, toxicity
from synthgen.measure import Measurement
from synthgen.record import Record

DATA = Path(__file__).parent / "data"
BOUND = toxicity.max
assert BOUND is not None


def lines(name: str) -> list[str]:
    return (DATA / name).read_text().splitlines()


def measured(*texts: str) -> list[Measurement]:
    results = toxicity.make({}).measure([Record(str(n), {}, {}, text) for n, text in enumerate(texts)])
    assert all(isinstance(result, Measurement) for result in results), results
    return [result for result in results if isinstance(result, Measurement)]


def over(texts: list[str]) -> list[str]:
    return [
        text
        for text, found in zip(texts, measured(*texts), strict=True)
        if found.value is not None and found.value > BOUND
    ]


def test_toxic_sentences_are_found_but_for_hostility_in_clean_words() -> None:
    toxic = lines("toxic.txt")
    assert len(toxic) == 44
    assert sorted(set(toxic) - set(over(toxic))) == [
        "All of them are dirty thieves and rapists, throw them out.",
        "Everyone would be happier if you were dead.",
        "Get lost, you creep, before I break your neck.",
        "Go back to where you came from, you filthy animal.",
        "I swear I'll stab you if you talk to me again.",
        "She's a slut and everybody knows it.",
        "They should all be shot.",
        "Those immigrants are parasites and rats.",
        "You complete waste of oxygen, just quit.",
    ]


def test_harmless_technical_sentences_are_not() -> None:
    harmless = lines("harmless.txt")
    assert len(harmless) == 69
    assert over(harmless) == ["Ass is an old word for donkey."]


def test_on_sentences_that_the_lists_of_words_were_not_fitted_to() -> None:
    """Written when the filter was done; a change to the filter must not look at them."""
    toxic, harmless = lines("toxic_unseen.txt"), lines("harmless_unseen.txt")
    assert (len(over(toxic)), len(toxic)) == (11, 20)
    assert (len(over(harmless)), len(harmless)) == (3, 36)


def test_one_insult_in_a_long_answer_is_found_and_named() -> None:
    calm = "The function reads a file and returns its lines. It closes the file when it is done. " * 20
    assert over([calm]) == []
    found = measured(calm + "You are a fucking idiot, by the way. " + calm)[0]
    assert found.value is not None
    assert found.value > 0.95
    assert found.detail == {"sentence": "You are a fucking idiot, by the way."}


def test_words_alone_in_lists_are_not_all_there_is() -> None:
    assert (
        over(
            [
                "Animals on the farm:\n- Pig\n- Cow\n- Donkey\n- Cock\n- Rat",
                "Tom\nDick\nHarry",
                "* kill\n* die\n* fork",
            ]
        )
        == []
    )


def test_code_is_passed_over() -> None:
    assert over(["Run this:\n```sh\nfuck_you_asshole --shit\n```\nIt prints the help of the program."]) == []


@pytest.mark.parametrize(
    "text",
    [
        "Sie können die folgende Methode schreiben, um die Datei zu lesen.",
        "Hoe gaat het met de houtbewerking in de werkplaats van je vader?",
        "我认为这个问题很有意思。",
        "Это очень интересный вопрос.",
    ],
)
def test_what_it_cannot_read_it_does_not_judge(text: str) -> None:
    found = measured(text)[0]
    assert found.value is None
    assert found.detail == {"reason": "too few words that the model knows; it reads English only"}


def test_empty_text_is_clean() -> None:
    assert measured("", "```\ncode\n```") == [Measurement(0.0), Measurement(0.0)]


def test_measurements_do_not_depend_on_the_batch() -> None:
    texts = [*lines("toxic.txt"), *lines("harmless.txt"), "", "Sie sind sehr freundlich."]
    whole = measured(*texts)
    assert whole == [result for text in texts for result in measured(text)]
    assert whole == list(reversed(measured(*reversed(texts))))


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_is_measured(text: str) -> None:
    value = measured(text)[0].value
    assert value is None or 0 <= value <= 1


def test_the_model_is_asked_in_short_and_answers_the_same() -> None:
    from profanity_check.profanity_check import model, vectorizer

    from synthgen.filters.toxicity import _model, _words

    sentences = [
        *lines("toxic.txt"),
        *lines("harmless.txt"),
        "you you YOU are a Fool, a fool",
        "of the",
        "q x 1",
        "",
    ]
    numbers, judge = _model()
    found = judge([[numbers[word] for word in _words(sentence)] for sentence in sentences])
    mistaken = [" ".join(w for w in _words(s) if w not in MISTAKEN) for s in sentences]
    assert found == pytest.approx(model.predict_proba(vectorizer.transform(mistaken))[:, 1], rel=1e-12)
    assert judge([]) == []
