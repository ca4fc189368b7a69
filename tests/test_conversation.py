"""The layouts that chat datasets have in practice, each read as the same conversation."""

from __future__ import annotations

import re
from typing import Any

import pytest

from synthgen.conversation import NoConversation, conversation

TWO = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *TWO]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": TWO}, TWO),
        ({"messages": SYSTEM}, SYSTEM),
        (TWO, TWO),
        ({"messages": TWO, "system": "Be brief."}, SYSTEM),
        ({"messages": SYSTEM, "system": "Not this."}, SYSTEM),
        ({"messages": TWO, "system": ""}, TWO),
        ({"messages": [{**turn, "name": "x", "weight": 1} for turn in TWO]}, TWO),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, TWO),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}],
             "system": "Be brief."},
            SYSTEM,
        ),
        ({"conversation": [{"role": "human", "content": "Why?"}, {"role": "model", "content": "So."}]}, TWO),
        ({"conversations": [{"from": "Human", "value": "Why?"}, {"from": "ChatGPT", "value": "So."}]}, TWO),
        ({"instruction": "Why?", "output": "So."}, TWO),
        ({"instruction": "Why?", "input": "", "output": "So."}, TWO),
        (
            {"instruction": "Why?", "input": "Rain.", "output": "So."},
            [{"role": "user", "content": "Why?\n\nRain."}, TWO[1]],
        ),
        ({"instruction": "Why?", "output": "So.", "system": "Be brief."}, SYSTEM),
        ({"prompt": "Why?", "completion": "So."}, TWO),
        ({"prompt": "Why?", "response": "So."}, TWO),
        ({"question": "Why?", "answer": "So."}, TWO),
        ({"instruction": "Why?", "response": "So."}, TWO),
        ({"question": "Why?", "answer": "So.", "system": "Be brief."}, SYSTEM),
        ({"prompt": TWO[:1], "completion": TWO[1:]}, TWO),
        ({"prompt": SYSTEM[:2], "completion": "So."}, SYSTEM),
        ({"prompt": "Why?", "completion": TWO[1:]}, TWO),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, TWO[1]]},
            TWO,
        ),
        (
            {"messages": [*TWO, {"role": "tool", "content": "42"}]},
            [*TWO, {"role": "tool", "content": "42"}],
        ),
    ],
)  # fmt: skip
def test_layouts(row: Any, messages: list[dict[str, str]]) -> None:
    assert conversation(row) == messages


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "not str"),
        (None, "not NoneType"),
        (5, "not int"),
        ({}, "nothing"),
        ({"text": "x", "label": 1}, "text, label"),
        ({"messages": []}, "empty"),
        ([], "empty"),
        ({"messages": ["x"]}, "message 1 is not a mapping"),
        (
            {"messages": [TWO[0], {"role": "narrator", "content": "x"}]},
            "message 2 has the unknown role 'narrator'",
        ),
        ({"messages": [{"content": "x"}]}, "unknown role None"),
        ({"messages": [{"role": "user"}]}, "message 1 has no text"),
        ({"messages": [{"role": "user", "content": 5}]}, "message 1 has no text"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, "no text"),
        ({"messages": "Why?"}, "messages"),
        ({"question": None, "answer": "So."}, "the user's part"),
        ({"prompt": "Why?", "completion": None}, "the assistant's part"),
        ({"prompt": {"a": 1}, "completion": "So."}, "the user's part"),
    ],
)
def test_what_is_no_conversation(row: Any, message: str) -> None:
    with pytest.raises(NoConversation, match=message):
        conversation(row)


def test_rows_are_not_changed() -> None:
    row = {"messages": [dict(turn) for turn in TWO], "system": "Be brief."}
    conversation(row)
    assert row == {"messages": TWO, "system": "Be brief."}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "assistant", "content": "calling", "tool_calls": [{}]}]}, "has tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no text (image_url)"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "`history` is no list of pairs"),
    ],
)
def test_what_a_row_could_not_hold_is_told(row: dict[str, Any], said: str) -> None:
    with pytest.raises(NoConversation, match=re.escape(said)):
        conversation(row)


def test_alpaca_with_earlier_turns() -> None:
    row = {"system": "s", "instruction": "c", "output": "d", "history": [["a", "b"]]}
    assert [message["content"] for message in conversation(row)] == ["s", "a", "b", "c", "d"]
    assert conversation({"messages": [{"role": "user", "content": "a", "tool_calls": None}]})
