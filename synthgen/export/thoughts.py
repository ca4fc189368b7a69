"""What a model thought, put back before the answer that it led to, for training models that think."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synthgen.errors import UsageError


def with_thoughts(rows: Iterator[Mapping[str, Any]], column: str) -> Iterator[Mapping[str, Any]]:
    """The rows, each with the text of this column between <think> and </think> at its answer's beginning.

    Null leaves an answer as it is. The answer is the last message, or `completion`. Raises UsageError for a
    row that has no such column, or no answer.
    """
    for row in rows:
        where = f"the row {row.get('id')}"
        if column not in row:
            known = ", ".join(name for name in row if name != "id")
            raise UsageError(f"{where} has no field {column!r}", hint=f"it has {known}")
        thoughts = row[column]
        rest = {name: value for name, value in row.items() if name != column}
        if thoughts is None:
            yield rest
            continue
        if not isinstance(thoughts, str):
            raise UsageError(f"the field {column!r} of {where} is no text")
        name = next((name for name in ("messages", "completion") if name in rest), "")
        joined = _joined(rest.get(name), thoughts)
        if joined is None:
            raise UsageError(
                f"{where} does not end with an answer, before which its {column} would stand",
                hint="that is the last message of `messages`, or `completion`",
            )
        yield {**rest, name: joined}


def _joined(answer: Any, thoughts: str) -> Any:
    if isinstance(answer, str):
        return f"<think>\n{thoughts}\n</think>\n\n{answer}"
    if not isinstance(answer, list) or not answer or answer[-1].get("role") != "assistant":
        return None
    text = _joined(answer[-1].get("content"), thoughts)
    return None if text is None else [*answer[:-1], {**answer[-1], "content": text}]
