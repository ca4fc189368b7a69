"""synthgen audit show: the whole history of one record, and a proof that the ledger has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.cli.audit.options import AnyDirectory, IdArgument, in_bounds, judging
from synthgen.cli.options import JsonOption, VersionOption, note, out, out_json, plain
from synthgen.cli.show import measured, show_request, show_row

TEXT = 2000
OTHER = 300


def show(
    directory: AnyDirectory,
    id: IdArgument,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="Write a proof that the ledger has it, to this file.")
    ] = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one record from its seed rows to its verdict and its place in the ledger. Exit 2 without one."""
    from synthgen.audit.history import history
    from synthgen.audit.place import place_of, reading
    from synthgen.audit.proof import write_proof

    with in_bounds(), judging():
        place = place_of(directory, version)
        record = history(place, id)
        if proof is not None:
            write_proof(place, record["id"], proof)
        if as_json:
            out_json(record)
        else:
            with reading(directory):
                _show(record)
    if proof is not None:
        note(f"{proof} proves that the ledger has it: synthgen audit verify --proof {proof}")


def _show(record: dict[str, Any]) -> None:
    where = "" if record["task"] is None else f"  task {record['task']}"
    out(f"{plain(record['id'], 80)}{where}  {plain(record['state'], 40)}")
    if record["row"] is not None:
        show_row(record["row"], TEXT)
    for source in record["sources"]:
        _show_source(source)
    for place, request in enumerate(record["requests"], 1):
        _show_asked(place, request)
    for transform in record["transforms"]:
        by = ", ".join(plain(name, 80) for name in transform["filters"])
        _head(f"{transform['kind']} by {by}")
        for change in transform["changes"]:
            out(f"  {plain(change['field'], 80)}")
            out(f"    before: {plain(str(change['before']), OTHER)}")
            out(f"    after:  {plain(str(change['after']), OTHER)}")
    if record["measurements"]:
        _head("measurements")
    for name, said in record["measurements"].items():
        _show_measurement(name, said)
    if record["asked_besides"]:
        _head("asked about it by filters that measured nothing of it")
    for request in record["asked_besides"]:
        out(f"  request {request['key']}")
        _show_manner(request, "    ")
        show_request(request, "    ")
    for name in record["not_measured"]:
        out(f"  {plain(name, 80)} measured nothing of it")
    for other in record["duplicate_of"]:
        _head(f"like a record that stayed: {other['id']}, similarity {other['similarity']:g}")
        show_row(other["row"] or {}, OTHER)
    if record["replay"]["class"] is not None:
        why = "; ".join(record["replay"]["why"])
        _head(plain(f"replay: {record['replay']['class']}{f' ({why})' if why else ''}", 400))
    _head(f"decision: {record['decision']['state']}")
    out(f"  {plain(str(record['decision']['reason']), OTHER)}")
    _show_ledger(record["ledger"])


def _head(text: str) -> None:
    out("")
    out(plain(text, 200))


def _show_source(source: dict[str, Any]) -> None:
    _head(f"seed {source.get('seed')}")
    for key, value in source.items():
        if key == "origin" and isinstance(value, dict):
            _show_origin(value)
        elif key != "seed" and value is not None:
            out(f"  {plain(key, 40)}: {plain(str(value), 200)}")


def _show_origin(origin: dict[str, Any]) -> None:
    """What a row brought of its own provenance; of another dataset's, its statement in short."""
    stated = origin.get("statement")
    rest = {key: value for key, value in origin.items() if key != "statement"}
    if isinstance(stated, dict):
        rest |= {key: stated.get(key) for key in ("id", "task", "content_sha256", "sources", "requests")}
    for key, value in rest.items():
        out(f"  origin {plain(str(key), 40)}: {plain(str(value), 200)}")


def _show_asked(place: int, request: dict[str, Any]) -> None:
    body = request["request"] or {}
    again = f", asked again ({body['attempt']})" if body.get("attempt") else ""
    step = f" of step {request['step']}" if request["step"] else ""
    _head(f"request {place}{step}{again}")
    out(f"  key {request['key']}")
    if request["prompt"]:
        out("  prompt " + _listed(request["prompt"]))
    _show_manner(request)
    show_request(request)


def _show_manner(request: dict[str, Any], indent: str = "  ") -> None:
    body = request["request"] or {}
    if body:
        said = {name: body.get(name) for name in ("engine", "model", "sampling", "schema")}
        out(indent + _listed({**said, "seed": request["seed"]}))


def _listed(said: dict[str, Any]) -> str:
    return ", ".join(f"{plain(key, 40)} {plain(str(value), 200)}" for key, value in said.items() if value)


def _show_measurement(name: str, said: dict[str, Any]) -> None:
    from synthgen.audit.history import bounds

    out(f"  {plain(measured(name, said), 300)}")
    bound = bounds(said["min"], said["max"]) if (said["min"], said["max"]) != (None, None) else "no bound"
    origin = said["origin"] or "unknown"
    out(plain(f"    of {said['of']}, {bound}, {said['action']}; {origin}, code {said['code_sha256']}", 400))
    for weights, digest in (said["weights"] or {}).items():
        out(plain(f"    weights {weights} {digest}", 200))
    if said["model"]:
        out("    model " + _listed(said["model"]))
    for request in said["requests"]:
        out(f"    request {request['key']}")
        _show_manner(request, "      ")
        show_request(request, "      ")


def _show_ledger(ledger: dict[str, Any]) -> None:
    _head(f"ledger: entry {ledger['index']:,} of {ledger['size']:,} (from 0)")
    out(f"  entry {plain(ledger['entry'], 400)}")
    out(f"  leaf  {ledger['leaf']}")
    root = {True: "that of the manifest", False: "NOT that of the manifest", None: "not published"}
    out(f"  root  {ledger['root']} ({root[ledger['published']]})")
    if ledger["as_judged"] is False:
        out("  ! this is not what was judged: somebody changed it; see synthgen audit verify")
