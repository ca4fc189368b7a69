import hashlib
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters.toxicity import WEIGHTS, WEIGHTS_SHA256, toxicity
from synthgen.measure import Measurement
from synthgen.record import Record

DATA = Path(__file__).parent / "data"
SETS = Path(__file__).parent.parent.parent / "benchmarks" / "toxicity"
BOUND = toxicity.max
assert BOUND is not None


def lines(name: str) -> list[str]:
    return (DATA / name).read_text().splitlines()


def labelled(name: str, sign: str) -> list[str]:
    found = [line[2:] for line in (SETS / name).read_text().splitlines() if line.startswith(f"{sign} ")]
    assert len(found) >= 24
    return found


def answers(name: str, kind: str) -> list[str]:
    blocks = re.split(r"^==== ", (SETS / name).read_text(), flags=re.MULTILINE)
    return [block.removeprefix(kind).strip() for block in blocks if block.startswith(f"{kind}\n")]


def measured(*texts: str, **params: Any) -> list[Measurement]:
    records = [Record(str(n), {}, {}, text) for n, text in enumerate(texts)]
    results = toxicity.make(params).measure(records)
    assert all(isinstance(result, Measurement) for result in results), results
    return [result for result in results if isinstance(result, Measurement)]


def over(texts: list[str], **params: Any) -> list[str]:
    return [
        text
        for text, found in zip(texts, measured(*texts, **params), strict=True)
        if found.value is not None and found.value > BOUND
    ]


@pytest.mark.parametrize(
    "text",
    [
        "They should all be shipped off and nobody would miss them.",
        "People like her don't deserve to be heard.",
        "You are a fucking idiot and nobody wants you here.",
        "Everyone would be happier if you were dead.",
        "Those immigrants are parasites and rats.",
    ],
)
def test_hostility_is_found_in_rude_and_in_clean_words(text: str) -> None:
    assert over([text]) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "Kill the child process.",
        "The cluster has master and slave nodes.",
        "The parcels should all be shipped off today, and nobody would miss the old boxes.",
        "I am a gay man.",
        "Muslims pray five times a day.",
        "She looked drop-dead gorgeous.",
        "They destroyed us in the second half.",
        "The word idiot comes from Greek.",
    ],
)
def test_the_same_words_without_hostility_are_not(text: str) -> None:
    assert over([text]) == []


# Other processors may round otherwise, so that a sentence near the bound falls to the other side.
SLACK = 2


@pytest.mark.parametrize(
    ("detector", "name", "toxic", "harmless"),
    [
        ("default", "test_a.txt", 19, 1),
        ("default", "test_c.txt", 6, 0),
        ("close", "test_a.txt", 42, 7),
        ("close", "test_c.txt", 13, 1),
    ],
)
def test_on_sentences_that_it_was_not_fitted_to(detector: str, name: str, toxic: int, harmless: int) -> None:
    assert len(over(labelled(name, "+"), detector=detector)) >= toxic - SLACK
    assert len(over(labelled(name, "-"), detector=detector)) <= harmless + SLACK


@pytest.mark.parametrize(("detector", "toxic", "harmless"), [("default", 5, 1), ("close", 11, 2)])
def test_on_answers_with_one_toxic_sentence_and_on_sensitive_subjects(
    detector: str, toxic: int, harmless: int
) -> None:
    assert len(over(answers("test_b.txt", "toxic"), detector=detector)) >= toxic - SLACK
    assert len(over(answers("test_b.txt", "harmless"), detector=detector)) <= harmless + SLACK


@pytest.mark.parametrize(
    ("hidden", "quicker", "detector"),
    [
        ("I know where your daughter goes to school, and I have a knife.", "default", "close"),
        ("It is a mystery to me why anyone would marry a hippo like you.", "default", "close"),
        ("No decent landlord should let a flat to their sort.", "close", "thorough"),
    ],
)
def test_a_closer_look_finds_what_the_screen_lets_pass(hidden: str, quicker: str, detector: str) -> None:
    assert over([hidden], detector=quicker) == []
    found = measured(hidden, detector=detector)[0]
    assert (found.value or 0) > 0.5
    assert found.detail == {"sentence": hidden}


def test_one_insult_in_a_long_answer_is_found_and_named() -> None:
    calm = "The function reads a file and returns its lines. It closes the file when it is done. " * 20
    assert over([calm]) == []
    found = measured(calm + "You are a fucking idiot, by the way. " + calm)[0]
    assert found.value is not None
    assert found.value > 0.9
    assert found.detail == {"sentence": "You are a fucking idiot, by the way."}


def test_words_alone_in_lists_are_not_all_there_is() -> None:
    animals = "Animals on the farm:\n- Pig\n- Cow\n- Donkey\n- Cock\n- Rat"
    assert over([animals, "Tom\nDick\nHarry", "* kill\n* die\n* fork"]) == []


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
@pytest.mark.parametrize("detector", ["default", "svm"])
def test_what_it_cannot_read_it_does_not_judge(text: str, detector: str) -> None:
    found = measured(text, detector=detector)[0]
    assert found.value is None
    assert found.detail == {"reason": "too few words that the model knows; it reads English only"}


def test_empty_text_is_clean() -> None:
    assert measured("", "```\ncode\n```") == [Measurement(0.0), Measurement(0.0)]


MIXED = [
    *labelled("dev.txt", "+"),
    *labelled("dev.txt", "-"),
    "",
    "Sie sind sehr freundlich.",
    "Shut up. You are trash.\nThe files are in the folder. I will hurt you.",
]


@pytest.mark.parametrize("detector", ["default", "thorough", "svm"])
@given(cuts=st.lists(st.integers(0, len(MIXED)), max_size=4), backwards=st.booleans())
@settings(max_examples=5, deadline=None)
def test_measurements_do_not_depend_on_the_batch(detector: str, cuts: list[int], backwards: bool) -> None:
    texts = MIXED[::-1] if backwards else MIXED
    edges = [0, *sorted(cuts), len(texts)]
    parts = [texts[start:stop] for start, stop in pairwise(edges)]
    whole = measured(*MIXED, detector=detector)
    found = [result for part in parts for result in measured(*part, detector=detector)]
    assert (found[::-1] if backwards else found) == whole


def test_measurements_alone_are_those_in_a_batch() -> None:
    assert measured(*MIXED) == [result for text in MIXED for result in measured(text)]


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_is_measured(text: str) -> None:
    value = measured(text)[0].value
    assert value is None or 0 <= value <= 1


@pytest.mark.parametrize(
    "text",
    [
        "you are an idiot and they should all die " * 25_000,
        "You idiot. " * 90_000,
        "x" * 1_000_000,
        "``` `" * 200_000,
    ],
)
def test_a_megabyte_is_measured_and_few_of_its_sentences_looked_at(text: str) -> None:
    [found] = measured(text)
    assert found.value is None or 0 <= found.value <= 1
    assert len((found.detail or {}).get("sentence", "")) <= 200


def test_detector_svm_answers_as_the_package_does() -> None:
    from profanity_check.profanity_check import model, vectorizer

    from synthgen.filters.toxicity import _words, _words_model

    sentences = [
        *lines("toxic.txt"),
        *lines("harmless.txt"),
        "you you YOU are a Fool, a fool",
        "of the",
        "q x 1",
        "",
    ]
    numbers, table = _words_model()
    found = table([[numbers[word] for word in _words(sentence)] for sentence in sentences]).probabilities()
    assert found == pytest.approx(model.predict_proba(vectorizer.transform(sentences))[:, 1], rel=1e-12)
    assert table([]).probabilities() == []
    rude = "You are a fucking idiot and nobody wants you here."
    assert measured(rude, detector="svm")[0].value == round(found[0], 4)


def test_detoxify_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detoxify", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install 'synthgen-data\[detoxify\]'"):
        toxicity.make({"detector": "detoxify"})


def test_a_checkpoint_is_for_detoxify_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`checkpoint` is for `detector: detoxify`"):
        toxicity.make({"checkpoint": tmp_path / "toxic.ckpt"})


def test_its_weights_are_those_it_names() -> None:
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == WEIGHTS_SHA256


def test_detoxify_reads_a_local_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("detoxify")
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] you are an idiot the file is closed .".split()
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_labels=2,
        initializer_range=1.0,
        problem_type="multi_label_classification",
    )
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    arch = {"model_type": str(tmp_path), "model_name": "BertForSequenceClassification"}
    arch |= {"tokenizer_name": "BertTokenizer", "num_classes": 2}
    saved = {
        "config": {"dataset": {"args": {"classes": ["toxic", "insult"]}}, "arch": {"args": arch}},
        "state_dict": BertForSequenceClassification(config).state_dict(),
    }
    torch.save(saved, tmp_path / "tiny.ckpt")

    texts = ["The file is closed. You are an idiot, you are.", "The file is closed, you are.", ""]
    found = measured(*texts, detector="detoxify", checkpoint=tmp_path / "tiny.ckpt")
    assert found == measured(*texts[:1], detector="detoxify", checkpoint=tmp_path / "tiny.ckpt") + measured(
        *texts[1:], detector="detoxify", checkpoint=tmp_path / "tiny.ckpt"
    )
    assert 0 < (found[0].value or 0) < 1
    assert found[0].value != found[1].value
    assert found[2] == Measurement(0.0)
