"""synthgen show: the records of a run, or everything that is known of one."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from synthgen.cli.options import (
    OPEN,
    DirectoryArgument,
    JsonOption,
    VersionOption,
    note,
    out,
    out_json,
    plain,
)
from synthgen.record import message_text


def show(
    directory: DirectoryArgument,
    id: Annotated[str | None, typer.Argument(help="A record's id, or the beginning of it.")] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only those that are kept, dropped or failed.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", help="So many records.", min=1)] = 20,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the records of a run, or show one with its messages, measurements, requests and answers."""
    from synthgen.errors import UsageError
    from synthgen.journal_entries import STATES
    from synthgen.journal_reading import making_sense
    from synthgen.view import RunView
    from synthgen.yamlfile import did_you_mean

    if state is not None and state not in STATES:
        raise UsageError(f"there is no state {state!r}", hint=did_you_mean(state, STATES))
    with making_sense(directory), RunView(directory, version) as view:
        if id is not None:
            record = view.record(id)
            if as_json:
                out_json(record)
            else:
                _show_one(record)
            return
        records = list(view.records(state, limit))
        if as_json:
            out_json(records)
            return
        for record in records:
            why = record["error"] or record["dropped_by"] or ""
            head = plain(f"{record['id']}  {record['state']:<7}", 100)
            out(f"{head}  {plain(_line(record, why), 110)}")
    if not records:
        note(f"no record is {state}" if state else "nothing is judged yet")


def _line(record: dict[str, Any], why: str) -> str:
    if record["error"]:
        return " ".join(why.split())
    row = record["row"] or {}
    messages: list[Any] = next((value for value in row.values() if _is_conversation(value)), [])
    text = message_text(messages[-1]) if messages else next(map(str, row.values()), "")
    text = " ".join(str(text).split())
    return f"[{why}] {text}" if why else text


def _show_one(record: dict[str, Any]) -> None:
    out(plain(f"{record['id']}  task {record['task']}  {record['state']}", 200))
    if record["dropped_by"]:
        out(f"dropped by {plain(record['dropped_by'], 80)}")
    if record["error"]:
        out(f"failed: {plain(record['error'])}")
    show_row(record["row"] or {})
    out("")
    for name, verdict in record["measurements"].items():
        out(f"  {plain(measured(name, verdict), 400)}")
    for source in record["sources"]:
        out(
            "  from "
            + ", ".join(f"{plain(key, 40)} {plain(str(value), 80)}" for key, value in source.items())
        )
    for request in record["requests"]:
        out("")
        out(f"request {request['key']}")
        show_request(request)


def show_row(row: dict[str, Any], limit: int | None = None, indent: str = "") -> None:
    """A record's row: its messages, then its other fields, each cut at `limit` characters."""
    for name, value in sorted(row.items(), key=lambda item: item[0] != "messages"):
        if name == "messages" or _is_conversation(value):
            if name != "messages":
                _put(f"{plain(name, 80)}:", indent)
            for message in value or []:
                _put(f"[{plain(str(message['role']), 40)}]", indent)
                _put(plain(message_text(message), limit), indent)
        else:
            _put(f"{plain(name, 80)}: {plain(str(value), limit)}", indent)


def _put(text: str, indent: str) -> None:
    out(textwrap.indent(text, indent) if indent else text)


def _is_conversation(value: Any) -> bool:
    return (
        isinstance(value, list)
        and value != []
        and all(isinstance(each, dict) and {"role", "content"} <= each.keys() for each in value)
    )


def measured(name: str, verdict: dict[str, Any]) -> str:
    """What a filter measured: value, verdict, and what explains it."""
    value = "abstains" if verdict["value"] is None else f"{verdict['value']:g}"
    detail = plain(str(verdict["detail"]), 200) if verdict.get("detail") else ""
    return f"{name:<12} {value:<10} {verdict['verdict']:<5} {detail}".rstrip()


def show_request(request: dict[str, Any], indent: str = "  ") -> None:
    """What was asked and answered, and every try that failed."""
    for message in (request["request"] or {}).get("messages", []):
        out(f"{indent}[{plain(str(message['role']), 40)}] {plain(str(message.get('content', OPEN)), 500)}")
    for each in request["attempts"]:
        if each["error"] is not None:
            when = f"session {each['session']}, {plain(each['at'], 40)}"
            out(f"{indent}failed try ({each['outcome']}; {when}): {plain(each['error'], 300)}")
    for answer in request["set_aside"]:
        out(f"{indent}set aside: {plain(answer['text'], 500)}")
    answer = request["answer"]
    if answer is not None:
        if answer.get("reasoning"):
            out(f"{indent}thought: {plain(answer['reasoning'], 2000)}")
        taken = f", taken from the run {plain(answer['source'], 80)}" if answer["source"] else ""
        out(
            f"{indent}answer ({plain(answer['finish_reason'], 40)}, {answer['input_tokens']:,} tokens in, "
            f"{answer['output_tokens']:,} out{taken}): {plain(answer['text'], 2000)}"
        )
