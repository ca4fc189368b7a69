from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthgen.filters.ifd import ifd
from synthgen.measure import FilterFailed, Measurement
from synthgen.record import Record

CHATS = Path(__file__).parents[2] / "recipes" / "data" / "chats.jsonl"
BOUND = ifd.max
assert BOUND is not None


def record(instruction: str, answer: str) -> Record:
    messages = [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer}]
    return Record("r", {}, {"messages": messages}).pick("answer")


@pytest.fixture(scope="module")
def made(default_model: Path) -> Any:
    pytest.importorskip("gguf")
    return ifd.make({})


def values(made: Any, records: Sequence[Record]) -> list[float]:
    found = made.measure(records)
    assert all(isinstance(each, Measurement) and each.value is not None for each in found), found
    return [each.value for each in found]


@pytest.mark.llamacpp
@pytest.mark.slow
def test_an_instruction_helps_with_its_own_answer_and_not_with_anothers(made: Any) -> None:
    rows = [json.loads(line)["messages"] for line in CHATS.read_text().splitlines()]
    pairs = [(row[-2]["content"], row[-1]["content"]) for row in rows if 80 < len(row[-1]["content"]) < 200][
        :6
    ]
    own = values(made, [record(*pair) for pair in pairs])
    shuffled = [(pairs[number - 1][0], answer) for number, (_, answer) in enumerate(pairs)]
    others = values(made, [record(*pair) for pair in shuffled])
    assert sum(value < BOUND for value in own) >= 2
    assert min(others) > BOUND
    assert values(made, [record(*pairs[0])]) == own[:1], "the same alone as among others"


@pytest.mark.llamacpp
def test_a_copy_of_the_instruction_says_nothing_new(made: Any) -> None:
    text = "The library closes at five on Friday for repairs to the heating."
    [found] = made.measure([record(f"Repeat this: {text}", text)])
    assert found.value < 0.1
    assert found.value == pytest.approx(found.detail["perplexity"] / found.detail["without"], rel=0.01)


@pytest.mark.llamacpp
def test_probabilities_are_those_that_llama_cpp_gives_what_it_writes(made: Any) -> None:
    """The chain rule, and the probabilities of all tokens that could come next add up to 1."""
    reader = made.function.__self__._reader()
    before, tokens = reader.prompt("Name a colour."), reader.tokens("Blue is the colour of the sky.")
    whole = reader.losses(before, tokens)
    parts = [*reader.losses(before, tokens[:3]), *reader.losses(before + tokens[:3], tokens[3:])]
    assert whole == pytest.approx(parts, abs=0.02)
    [read] = reader._post("/embedding", {"content": before, "embd_normalize": -1})
    logits = np.array(read["embedding"][-1]) @ reader._output.T
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert -math.log(shares[tokens[0]]) == pytest.approx(whole[0], abs=0.02)
    assert len(logits) == len(shares) == 49152
    assert whole.mean() < reader.losses(before, tokens[::-1]).mean()


@pytest.mark.llamacpp
def test_marks_of_a_template_in_an_answer_are_text(made: Any) -> None:
    reader = made.function.__self__._reader()
    assert len(reader.tokens("<|im_end|>")) > 1 == len(reader.tokens("<|im_end|>", special=True))
    assert reader.prompt("x<|im_end|>y")[-3:] == reader.prompt("")[-3:]


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    ("instruction", "answer", "reason"),
    [
        ("", "An answer without any question to it.", "there is no instruction to it"),
        ("Is it?", "Yes.", "2 tokens are too few"),
        ("Is it?", "", "0 tokens are too few"),
    ],
)
def test_abstains(made: Any, instruction: str, answer: str, reason: str) -> None:
    assert made.measure([record(instruction, answer)]) == [Measurement(None, {"reason": reason})]


@pytest.mark.llamacpp
@pytest.mark.slow
def test_any_text_is_measured(made: Any) -> None:
    odd, long = "\x00\ud800 \ufffd a b c d", "a" * 1_000_000
    pairs = [
        record(odd, odd),
        record(odd + "?", f"{odd} e f g"),
        record("Go on.", long),
        record(long, "a b c d e"),
    ]
    found = made.measure(pairs)
    assert found[0].value is None
    assert all(each.value > 0 for each in found[1:])


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"pip install 'synthgen-data\[likelihood\]'"):
        ifd.make({})


def test_a_model_that_does_not_load_is_told_once_for_all(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    broken_filter: Any = ifd.make({"model": broken})
    pair = record("What is it?", "It is a file that is no model at all.")
    first, second = broken_filter.measure([pair, pair])
    assert isinstance(first, FilterFailed)
    assert isinstance(second, FilterFailed)
