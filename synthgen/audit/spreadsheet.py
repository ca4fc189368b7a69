"""A table for people: one row for each record, whatever its fate."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from typing import Any, TextIO

from synthgen.audit.material import Material, Told
from synthgen.record import Record, message_text

HEADS = "id state dropped_by value bound sources question answer".split()
WORDS = 30
LONGEST = 300
# What a terminal takes for a command: control sequences (ECMA-48), and strings that it is to swallow.
_CODES = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|\x1b[ -~]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(material: Material, out: TextIO) -> None:
    """Write it. Raises CannotJudge."""
    table = csv.writer(out, lineterminator="\n")
    table.writerow(HEADS)
    for told in material.records():
        table.writerow([cell(value) for value in _row(told)])


def cell(value: Any) -> str:
    """A value as a cell: one line without terminal codes, and nothing that a spreadsheet would calculate."""
    text = "" if value is None else str(value)
    if text[:1] in _FORMULA:
        text = f"'{text}"
    text = _CODES.sub("", text)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return f"'{text}" if text[:1] in _FORMULA else text


def _row(told: Told) -> list[Any]:
    why = told.why
    question, answer = _said(told.row or {})
    sources = [
        f"record {source['record']}" if "record" in source else f"{source.get('path')}:{source.get('row')}"
        for source in told.said.get("sources", ())
    ]
    return [
        told.id,
        told.state,
        told.said.get("dropped_by"),
        why.get("value"),
        _bound(why),
        " ".join(sources),
        question,
        told.error if told.state == "failed" else answer,
    ]


def _bound(why: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {why[name]}" for name in ("min", "max") if why.get(name) is not None)


def _said(row: Mapping[str, Any]) -> tuple[str, str]:
    """The first words of the last question and of the last answer; else of the row's first and last field."""
    messages = row.get("messages")
    if messages is None:
        messages = Record("", {}, row).messages or None
    if isinstance(messages, list) and all(isinstance(message, Mapping) for message in messages):
        by_role = {str(each.get("role")): each.get("content") or message_text(each) for each in messages}
        return first_words(by_role.get("user")), first_words(by_role.get("assistant"))
    fields = list(row.values())
    return first_words(fields[0] if len(fields) > 1 else None), first_words(fields[-1] if fields else None)


def first_words(text: Any) -> str:
    """The beginning of a text, however long it is."""
    if text is None:
        return ""
    words = str(text)[: LONGEST * 4].split(None, WORDS)
    short = " ".join(words[:WORDS])
    return short[:LONGEST] + (" …" if len(words) > WORDS or len(short) > LONGEST else "")
