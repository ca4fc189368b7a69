"""The conversation in a row that somebody else wrote: the layouts that chat datasets have in practice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.calls import Calls, NoCalls
from synthgen.record import content_text

_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
_CALLING_ROLES = {
    **_SHAREGPT_ROLES,
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
_CALLED = ("function_call", "tool_call")  # whose text is the call
_LISTS = ("messages", "conversation", "conversations")
CALLS = ("tool_calls", "function_call")
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "response"),
)


class NoConversation(ValueError):
    """The row is of no layout that is known; the message says what it has."""


def conversation(row: Any, *, calls: bool = False) -> list[dict[str, Any]]:
    """The messages of a row: `messages` (OpenAI), `conversations` (ShareGPT), Alpaca, or a pair of texts.

    With `calls` a message may call tools and be the result of a call: besides `role` and `content` it has
    `tool_calls`, or `tool_call_id` and `name`, as `synthgen.calls` makes them, in that order. Raises
    NoConversation where none of these fits, or a message has what it cannot hold.
    """
    if isinstance(row, list):
        return _messages(row, calls)
    if not isinstance(row, Mapping):
        raise NoConversation(f"a row must be a mapping or a list of messages, not {type(row).__name__}")
    for key in _LISTS:
        if isinstance(row.get(key), list):
            system = row.get("system")
            first = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
            found = _messages(row[key], calls)
            return found if found[0]["role"] == "system" else [*first, *found]
    if isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str):
        given = row.get("input")
        question = f"{row['instruction']}\n\n{given}" if given else row["instruction"]
        last = _pair(row.get("system"), question, row["output"])
        return [*last[:-2], *_before(row.get("history")), *last[-2:]]
    for question, answer in _PAIRS:
        if question in row and answer in row:
            return _joined(row, row[question], row[answer], calls)
    keys = ", ".join(str(key) for key in row) or "nothing"
    raise NoConversation(f"no conversation in a row that has: {keys}")


def parts_of(row: Mapping[str, Any]) -> frozenset[str]:
    """The keys of a row that its conversation is read from; none where none of the layouts fits."""
    for key in _LISTS:
        if isinstance(row.get(key), list):
            return frozenset({key, "system"} & row.keys())
    if isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str):
        return frozenset({"instruction", "input", "output", "system", "history"} & row.keys())
    for pair in _PAIRS:
        if set(pair) <= row.keys():
            return frozenset({*pair, "system"} & row.keys())
    return frozenset()


def _before(history: Any) -> list[dict[str, Any]]:
    """Earlier turns as some Alpaca files have them: pairs of a question and its answer."""
    found = []
    for pair in history or []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise NoConversation("its `history` is no list of pairs of texts")
        found += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return found


def _joined(row: Mapping[str, Any], question: Any, answer: Any, calls: bool) -> list[dict[str, Any]]:
    if isinstance(question, str) and isinstance(answer, str):
        return _pair(row.get("system"), question, answer)
    return _messages([*_turns("user", question), *_turns("assistant", answer)], calls)


def _turns(role: str, value: Any) -> list[Any]:
    if isinstance(value, list):
        if not value:
            raise NoConversation("the conversation is empty")
        return value
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    raise NoConversation(f"the {role}'s part of prompt and completion is neither text nor messages")


def _pair(system: Any, question: str, answer: str) -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    return [*first, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _only_text(parts: list[Any], number: int) -> None:
    for part in parts:
        if not (isinstance(part, Mapping) and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise NoConversation(
                f"message {number} has a part that is no text ({kind}), which a row cannot hold"
            )


def _messages(turns: list[Any], calls: bool) -> list[dict[str, Any]]:
    if not turns:
        raise NoConversation("the conversation is empty")
    reading = Calls() if calls else None
    found = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping):
            raise NoConversation(f"message {number} is not a mapping")
        try:
            found.append(_message(turn, number, reading))
        except NoCalls as error:
            raise NoConversation(f"message {number}: {error}") from None
    return found


def _message(turn: Mapping[str, Any], number: int, reading: Calls | None) -> dict[str, Any]:
    """Raises NoConversation or NoCalls."""
    said = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    called = next((key for key in CALLS if turn.get(key)), None)
    if turn.get("audio"):
        raise NoConversation(f"message {number} has audio, which a row cannot hold")
    told = str(said).lower()
    role = _CALLING_ROLES.get(told)
    if reading is None and (called or (role != _SHAREGPT_ROLES.get(told))):
        what = f"has {called}" if called else f"is of the role {said!r}"
        raise NoConversation(f"message {number} {what}: a record holds calls where it has a field `tools`")
    if role is None:
        raise NoConversation(f"message {number} has the unknown role {said!r}")
    if isinstance(content, list):
        _only_text(content, number)
        content = content_text({"content": content})
    if called and content is None:
        content = ""
    if not isinstance(content, str):
        raise NoConversation(f"message {number} has no text")
    if reading is None:
        return {"role": role, "content": content}
    if called:
        if role != "assistant":
            raise NoConversation(f"message {number} has {called}, and only an assistant calls tools")
        return {"role": role, "content": content, "tool_calls": reading.made(turn[called])}
    if told in _CALLED:
        return {"role": role, "content": "", "tool_calls": reading.told(content)}
    if role == "tool":
        return {"role": role, "content": content, **reading.answered(turn)}
    return {"role": role, "content": content}
