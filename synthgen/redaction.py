"""A record without what a filter takes out of texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

JSON_KEYS = ("arguments", "tools")  # whose texts are JSON, where a row has calls of tools


def redacted(value: Any, redact: Callable[[str], str], key: str | None = None) -> Any:
    """The same with every text in it redacted, roles and keys aside. What was JSON by its key stays JSON."""
    if isinstance(value, str):
        text = _checked_text(redact(value))
        return (
            _json_again(value, redact) if key in JSON_KEYS and text != value and _is_no_json(text) else text
        )
    if isinstance(value, Mapping):
        return {
            name: item if name == "role" else redacted(item, redact, name) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(item, redact, key) for item in value]
    return value


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"redact gives a text, not {type(text).__name__}")
    text.encode()  # raises ValueError for half of a surrogate pair, which nothing can store
    return text


def _is_no_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


def _json_again(text: str, redact: Callable[[str], str]) -> str:
    """A JSON text redacted, where a tag stands for a number: as a text, since a tag is none.

    A text that is no JSON to begin with is redacted as any other. Raises ValueError where none is left.
    """
    if _is_no_json(text):
        return _checked_text(redact(text))
    quoted = json.loads(text, parse_int=_Number, parse_float=_Number)
    after = _checked_text(redact(json.dumps(quoted, ensure_ascii=False)))
    if _is_no_json(after):
        raise ValueError("what is left of a JSON text is no JSON")
    return json.dumps(_unquoted(quoted, json.loads(after)), ensure_ascii=False)


class _Number(str):
    """A number as it is written."""


def _unquoted(before: Any, after: Any) -> Any:
    """What was redacted, with the numbers that are as they were. Raises ValueError where the two differ."""
    if isinstance(before, _Number):
        return (float if {*before} & {*".eE"} else int)(before) if before == after else after
    if isinstance(before, dict):
        pairs = zip(before.values(), after.items(), strict=True)
        return {name: _unquoted(old, new) for old, (name, new) in pairs}
    if isinstance(before, list):
        return [_unquoted(old, new) for old, new in zip(before, after, strict=True)]
    return after
