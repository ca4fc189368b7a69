"""What a row is in the formats that trainers read: messages, pairs, ShareGPT, Alpaca, preferences, KTO, text.

A row that a format cannot hold all of is refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from synthgen.calls import functions, listed, parsed
from synthgen.conversation import NoConversation, conversation, parts_of
from synthgen.errors import UsageError
from synthgen.export.rows import Kind

FORMATS = ("messages", "prompt-completion", "sharegpt", "alpaca", "preference", "kto", "text")
CONSUMERS = ("trl", "axolotl", "llamafactory")
_FROM = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
CALLED = ("function_call", "observation")
_ENDS = ("<|im_start|>", "<|im_end|>")

Row = Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]


class Unfit(ValueError):
    """The format cannot hold the row; the message says why."""


@dataclass(frozen=True)
class Layout:
    """The columns of a format, beside `id`, and how a row of the dataset becomes one or more of it.

    `make` raises Unfit.
    """

    columns: Mapping[str, Kind]
    make: Callable[[Row], Iterator[dict[str, Any]]]


def layout(format: str, consumer: str = "trl", *, plain: bool = False) -> Layout:
    """A format in the layout of the trainer that is to read it.

    With `plain` prompts, completions and answers are texts instead of lists of messages. Raises UsageError
    where that is not known of the format.
    """
    if plain and (format not in _PLAIN or consumer != "trl"):
        raise UsageError(
            f"{format} for {consumer} has one layout, and no plain one",
            hint=f"--plain is for {', '.join(_PLAIN)} as TRL reads them",
        )
    if plain:
        return _PLAIN[format]
    return _LAYOUTS.get((format, consumer)) or _LAYOUTS[format, "trl"]


def taken(row: Row) -> frozenset[str]:
    """The fields of a row that a format's columns are made from; the others go along as they are."""
    if _is_preference(row):
        return frozenset({"prompt", "chosen", "rejected"})
    if _is_judged(row):
        return frozenset({"prompt", "completion", "label"})
    return parts_of(row)


def tools_of(row: Row, format: str, consumer: str) -> Any:
    """The descriptions of tools that go with a row, as the trainer documents them: mostly as JSON."""
    tools = row.get("tools")
    text = tools if tools is None or isinstance(tools, str) else orjson.dumps(tools).decode()
    if consumer == "axolotl":
        return text if (found := listed(text)) is None else found
    return functions(text) if format == "sharegpt" else text


def renamed(messages: Messages) -> bool:
    """Whether calls have ids that ShareGPT loses: others than they get when they are read again."""
    ids = [call.get("id") for message in messages for call in message.get("tool_calls") or ()]
    return ids != [f"call_{number}" for number in range(1, len(ids) + 1)]


def alternates(messages: Messages) -> bool:
    """Whether after a system's message the user's (or a tool's) and the assistant's take turns."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    return all((each["role"] == "assistant") == bool(place % 2) for place, each in enumerate(turns))


def conversation_of(row: Row) -> Messages:
    """All messages of a row up to the answer, for whoever asks how they follow each other; else none."""
    try:
        if _is_preference(row) or _is_judged(row):
            return _as_messages("user", row.get("prompt"))
        return _conversation(row)
    except Unfit:
        return []


def _one(**columns: Any) -> Iterator[dict[str, Any]]:
    yield columns


def _is_preference(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


def _is_judged(row: Row) -> bool:
    return "completion" in row and "label" in row


def _conversation(row: Row) -> list[Mapping[str, Any]]:
    if _is_preference(row):
        raise Unfit("two answers to a prompt are no conversation: its formats are preference and kto")
    if _is_judged(row):
        raise Unfit("an answer with a label is no conversation: its format is kto")
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        return messages
    try:
        return list(conversation(row, calls=True))
    except NoConversation as error:
        raise Unfit(str(error)) from None


def _as_messages(role: str, value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return value
    raise Unfit(f"its {'prompt' if role == 'user' else 'answer'} is neither a text nor messages")


def _completion(row: Row, shaped: Callable[[Messages], Any]) -> Iterator[dict[str, Any]]:
    messages = _conversation(row)
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        raise Unfit("it does not end with an assistant's answer to something")
    return _one(prompt=shaped(messages[:-1]), completion=shaped(messages[-1:]))


def _plain(messages: Messages) -> str:
    if len(messages) != 1:
        raise Unfit("a plain text holds one message, and it has more")
    return _content(messages[0])


def _content(message: Mapping[str, Any]) -> str:
    if len(message) != 2 or not isinstance(message.get("content"), str):
        raise Unfit("a message has more than a role and a text")
    return str(message["content"])


def _turns(messages: Messages) -> list[dict[str, str]]:
    """Raises Unfit where what is read again would be another conversation."""
    turns = [_turn(message) for message in messages]
    if any(turn["from"] in CALLED for turn in turns):
        again = conversation({"conversations": turns}, calls=True)
        if _answered(again) != _answered(messages):
            raise Unfit(
                "a result does not come in the order of the calls, by which alone a turn is one's result"
            )
    return turns


def _answered(messages: Messages) -> list[int | None]:
    """Of each message the number of the call whose result it is."""
    ids = [call.get("id") for message in messages for call in message.get("tool_calls") or ()]
    numbers = {id: number for number, id in enumerate(ids)}
    return [numbers.get(message.get("tool_call_id")) for message in messages]


def _turn(message: Mapping[str, Any]) -> dict[str, str]:
    role, content = str(message["role"]), message.get("content")
    if message.get("tool_calls"):
        if content:
            raise Unfit("a turn cannot be a text and a call of a tool")
        calls = [_call(each) for each in message["tool_calls"]]
        return {
            "from": "function_call",
            "value": orjson.dumps(calls if len(calls) > 1 else calls[0]).decode(),
        }
    known = {key for key, value in message.items() if value} - {"role", "content", "name", "tool_call_id"}
    if role not in _FROM or known or not isinstance(content, str):
        raise Unfit(f"a turn cannot be a message of {role} with {', '.join(sorted(known)) or 'no text'}")
    return {"from": _FROM[role], "value": content}


def _call(said: Mapping[str, Any]) -> dict[str, Any]:
    function = said.get("function", said)
    return {"name": function.get("name"), "arguments": as_object(function.get("arguments"))}


def as_object(arguments: Any) -> Any:
    """The arguments of a call as an object, where they are the JSON of one that no reader reads otherwise."""
    if not isinstance(arguments, str):
        return arguments
    value = parsed(arguments)
    if not isinstance(value, dict):
        return arguments
    try:
        return value if orjson.loads(orjson.dumps(value)) == value else arguments
    except (TypeError, ValueError):  # numbers that have no room in 64 bits
        return arguments


def _alpaca(row: Row) -> Iterator[dict[str, Any]]:
    messages = _conversation(row)
    system = _content(messages[0]) if messages[0]["role"] == "system" else ""
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    if not turns or len(turns) % 2 or not alternates(turns) or any(each["role"] == "tool" for each in turns):
        raise Unfit("its messages are not questions and answers that take turns")
    texts = [_content(each) for each in turns]
    pairs = [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    [instruction, output], history = pairs[-1], pairs[:-1]
    return _one(instruction=instruction, input="", output=output, system=system, history=history)


def _sides(row: Row) -> tuple[Messages, Messages, Messages]:
    if not _is_preference(row):
        raise Unfit("it has no `chosen` and `rejected`")
    if "prompt" not in row:
        raise Unfit("it has no `prompt`")
    return (
        _as_messages("user", row["prompt"]),
        _as_messages("assistant", row["chosen"]),
        _as_messages("assistant", row["rejected"]),
    )


def _pair(row: Row, shaped: Callable[[Messages], Any]) -> Iterator[dict[str, Any]]:
    prompt, chosen, rejected = map(shaped, _sides(row))
    return _one(prompt=prompt, chosen=chosen, rejected=rejected)


def _pair_axolotl(row: Row) -> Iterator[dict[str, Any]]:
    prompt, chosen, rejected = _sides(row)
    return _one(messages=list(prompt), chosen=_single(chosen), rejected=_single(rejected))


def _pair_llamafactory(row: Row) -> Iterator[dict[str, Any]]:
    prompt, chosen, rejected = _sides(row)
    return _one(
        conversations=_turns(prompt), chosen=_turn(_single(chosen)), rejected=_turn(_single(rejected))
    )


def _single(answer: Messages) -> Mapping[str, Any]:
    if len(answer) != 1:
        raise Unfit("an answer of several messages has no place in this layout: `--for trl` has one")
    _content(answer[0])
    return answer[0]


def _labelled(row: Row) -> list[tuple[Messages, Messages, bool]]:
    """Prompt, answer and whether it is wanted: once for a row with a label, twice for a preference."""
    if _is_preference(row):
        prompt, chosen, rejected = _sides(row)
        return [(prompt, chosen, True), (prompt, rejected, False)]
    if not _is_judged(row) or "prompt" not in row:
        raise Unfit("it has no `prompt`, `completion` and `label`, and no `chosen` and `rejected`")
    label = row["label"]
    if isinstance(label, str) and label.strip().lower() in ("true", "false"):
        label = label.strip().lower() == "true"
    if not isinstance(label, bool):
        raise Unfit("its label is neither true nor false")
    return [(_as_messages("user", row["prompt"]), _as_messages("assistant", row["completion"]), label)]


def _judged(row: Row, shaped: Callable[[Messages], Any]) -> Iterator[dict[str, Any]]:
    for prompt, answer, label in _labelled(row):
        yield {"prompt": shaped(prompt), "completion": shaped(answer), "label": label}


def _judged_axolotl(row: Row) -> Iterator[dict[str, Any]]:
    for prompt, answer, label in _labelled(row):
        system = _content(prompt[0]) if prompt[0]["role"] == "system" else ""
        question = prompt[1:] if prompt[0]["role"] == "system" else prompt
        yield {
            "system": system,
            "prompt": _plain(question),
            "completion": _content(_single(answer)),
            "label": label,
        }


def _judged_llamafactory(row: Row) -> Iterator[dict[str, Any]]:
    for prompt, answer, label in _labelled(row):
        yield {"conversations": _turns([*prompt, *answer]), "kto_tag": label}


def _text(row: Row) -> Iterator[dict[str, Any]]:
    if isinstance(row.get("text"), str) and "messages" not in row:
        return _one(text=row["text"])
    said = []
    for message in _conversation(row):
        content = _content(message)
        if any(end in content for end in _ENDS):
            raise Unfit("a message has a mark of ChatML in its text")
        said.append(f"<|im_start|>{message['role']}\n{content}<|im_end|>\n")
    return _one(text="".join(said))


_SIDES: Mapping[str, Kind] = {"prompt": "messages", "chosen": "messages", "rejected": "messages"}
_ALPACA: Mapping[str, Kind] = dict.fromkeys(("instruction", "input", "output", "system"), "text")
_LAYOUTS: Mapping[tuple[str, str], Layout] = {
    ("messages", "trl"): Layout({"messages": "messages"}, lambda row: _one(messages=_conversation(row))),
    ("prompt-completion", "trl"): Layout(
        {"prompt": "messages", "completion": "messages"}, lambda row: _completion(row, list)
    ),
    ("sharegpt", "trl"): Layout(
        {"conversations": "turns"}, lambda row: _one(conversations=_turns(_conversation(row)))
    ),
    ("alpaca", "trl"): Layout({**_ALPACA, "history": "pairs"}, _alpaca),
    ("preference", "trl"): Layout(_SIDES, lambda row: _pair(row, list)),
    ("preference", "axolotl"): Layout(
        {"messages": "messages", "chosen": "message", "rejected": "message"}, _pair_axolotl
    ),
    ("preference", "llamafactory"): Layout(
        {"conversations": "turns", "chosen": "turn", "rejected": "turn"}, _pair_llamafactory
    ),
    ("kto", "trl"): Layout(
        {"prompt": "messages", "completion": "messages", "label": "boolean"}, lambda row: _judged(row, list)
    ),
    ("kto", "axolotl"): Layout(
        {"system": "text", "prompt": "text", "completion": "text", "label": "boolean"}, _judged_axolotl
    ),
    ("kto", "llamafactory"): Layout({"conversations": "turns", "kto_tag": "boolean"}, _judged_llamafactory),
    ("text", "trl"): Layout({"text": "text"}, _text),
}
_PLAIN: Mapping[str, Layout] = {
    "prompt-completion": Layout(
        {"prompt": "text", "completion": "text"}, lambda row: _completion(row, _plain)
    ),
    "preference": Layout(dict.fromkeys(_SIDES, "text"), lambda row: _pair(row, _plain)),
    "kto": Layout(
        {"prompt": "text", "completion": "text", "label": "boolean"}, lambda row: _judged(row, _plain)
    ),
}
