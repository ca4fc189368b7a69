"""`audit show`: the whole history of one record, from its seed rows to its place in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.bits import SAME, company, model_of
from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge
from synthgen.audit.lines import lines, parsed
from synthgen.audit.place import Place, entries, reading, splits
from synthgen.audit.tables import rows_of_parquet
from synthgen.errors import UsageError
from synthgen.provenance.manifest import LEDGER
from synthgen.provenance.merkle import Growing, leaf_hash
from synthgen.provenance.statement import ledger_entry, statement
from synthgen.recipe_steps import Step
from synthgen.steps import fan_of, steps_asked

SHOWN = ("origin", "filter", "of", "min", "max", "action", "params", "files", "weights", "code_sha256")


def history(place: Place, id: str) -> dict[str, Any]:
    """Everything that is known of a record, given by its id or the beginning of it.

    From the journal where there is one; of a dataset alone what its `provenance/` says, and its row. Raises
    UsageError where no record, or more than one, begins so; CannotJudge where the files are not in order.
    """
    with reading(place.directory):
        record = _of_run(place, id) if place.run is not None else _of_dataset(place, id)
        record["decision"] = _decision(record)
        return record


def _of_run(place: Place, id: str) -> dict[str, Any]:
    from synthgen.view import RunView

    assert place.run is not None
    lock = place.lock()
    with RunView(place.run, place.version) as view:
        record = view.record(id)
        entry, body, before = view.stored(record)
        record["content_sha256"] = entry.content.hex() if entry.content else None
        record["fields"] = orjson.loads(body)["fields"] if body else None
        chain = view.chain() or lock.get("filters", [])
        _describe(record, lock, chain)
        names = [link["name"] for link in chain]
        record["not_measured"] = [name for name in names if name not in record["measurements"]]
        for measurement in record["measurements"].values():
            keys = (measurement.get("detail") or {}).get("requests", ())
            measurement["requests"] = [view.request(bytes.fromhex(key)) for key in keys]
        told = {request["key"] for said in record["measurements"].values() for request in said["requests"]}
        more = view.asked_about(entry.content) if entry.content else []
        besides = [view.request(key) for key in more if key.hex() not in told]
        # What was asked ahead may never have gone out.
        record["asked_besides"] = [each for each in besides if each["request"] is not None]
        record["transforms"] = _transforms(record, body, before)
        record["duplicate_of"] = list(_stayed(view, record))
        keys = [(request, view.engines_of(bytes.fromhex(request["key"]))) for request in record["requests"]]
        record["replay"] = _replay(body, lock, keys)
        stated = statement(entry, body)
        line = ledger_entry(entry, stated)
        tree = view.tree()
        record["ledger"] = {
            "index": view.place_in_ledger(record),
            "size": tree.size,
            "root": tree.root().hex(),
            "leaf": leaf_hash(line).hex(),
            "entry": line.decode(),
            "statement": stated.decode(),
            "as_judged": None if entry.leaf is None else entry.leaf == leaf_hash(line),
            "published": _published(place, tree),
        }
    return record


def _published(place: Place, tree: Growing) -> bool | None:
    """Whether the dataset's manifest has this very root; None where there is no dataset."""
    if place.dataset is None:
        return None
    ledger = Manifest(place.dataset).ledger
    return (ledger.size, ledger.root) == (tree.size, tree.root().hex())


def _of_dataset(place: Place, id: str) -> dict[str, Any]:
    assert place.dataset is not None
    head = Manifest(place.dataset).ledger
    found: list[tuple[int, bytes, dict[str, Any]]] = []
    tree = Growing()
    for number, line, entry in entries(place.dataset / LEDGER):
        tree.append(leaf_hash(line))
        if str(entry.get("id")).startswith(id) and len(found) < 2:
            found.append((number - 1, line, entry))
    if len(found) != 1:
        what = "more than one record begins" if found else "no record begins"
        raise UsageError(f"{what} with {id!r} in {place.directory}")
    index, line, entry = found[0]
    record: dict[str, Any] = {
        **dict.fromkeys(("task", "branch", "dropped_by", "error", "row", "fields", "content_sha256")),
        "id": str(entry["id"]),
        "state": str(entry["state"]),
        "measurements": {},
        "not_measured": [],
        "sources": [],
        "requests": [],
        "asked_besides": [],
        "replay": {"class": None, "why": ["the journal is not here"]},
        "transforms": [],
        "duplicate_of": [],
        "ledger": {
            "index": index,
            "size": tree.size,
            "root": tree.root().hex(),
            "leaf": leaf_hash(line).hex(),
            "entry": line.decode(),
            "statement": None,
            "as_judged": None,
            "published": (head.size, head.root) == (tree.size, tree.root().hex()),
        },
    }
    kept = _stated(place.dataset, record["id"])
    if kept is not None:
        stated, split, number = kept
        said = parsed(stated, number)
        record |= {name: said[name] for name in ("task", "branch", "dropped_by", "content_sha256")}
        record["measurements"] = {name: dict(value) for name, value in said["measurements"].items()}
        record["sources"] = said["sources"]
        record["requests"] = [
            {
                "key": key,
                "seed": None,
                "request": None,
                "answer": None,
                "failures": [],
                "set_aside": [],
                "attempts": [],
            }
            for key in said["requests"]
        ]
        record["ledger"]["statement"] = stated.decode()
        record["ledger"]["as_judged"] = hashlib.sha256(stated).hexdigest() == entry["statement"]
        row = _row(place.dataset, split, number)
        if row is not None:
            record["row"] = {key: value for key, value in parsed(row, number).items() if key != "id"}
            record["ledger"]["as_judged"] &= hashlib.sha256(row).hexdigest() == said["row_sha256"]
    lock = place.lock()
    _describe(record, lock, lock.get("filters", []))
    return record


def _stated(dataset: Path, id: str) -> tuple[bytes, str, int] | None:
    """The line that states what a kept record is, with its split and its number there."""
    for path in splits(dataset):
        for number, line, said in entries(path):
            if said.get("id") == id:
                return line, path.stem, number
    return None


def _row(dataset: Path, split: str, number: int) -> bytes | None:
    """The row with that number of a split, as JSON."""
    path = dataset / f"{split}.jsonl"
    shards = sorted((dataset / "data").glob(f"{split}-*.parquet"))
    rows = lines(path) if path.is_file() else rows_of_parquet(shards)
    return next((row for place, row in enumerate(rows, 1) if place == number), None)


def _describe(record: dict[str, Any], lock: Mapping[str, Any], chain: Sequence[Mapping[str, Any]]) -> None:
    """Add what the lock and the chain of filters know of sources, requests and measurements."""
    seeds, recipe = lock.get("seeds", {}), lock.get("recipe", {}).get("seeds", {})
    for source in record["sources"]:
        if "record" in source:
            continue
        about = recipe.get(source.get("seed"))
        source["licence"] = about.get("licence") if isinstance(about, dict) else None
        source["file_sha256"] = seeds.get(source.get("seed"), {}).get("files", {}).get(source.get("path"))
    prompts = lock.get("prompts", {})
    steps = _steps(lock, record["fields"])
    step: str | None = None
    for request in record["requests"]:
        if (request["request"] or {}).get("attempt", 0) == 0:
            step = next(steps, None)
        request["step"], request["prompt"] = step, prompts.get(step)
    links = {link["name"]: link for link in chain}
    models = lock.get("models", {})
    for name, measurement in record["measurements"].items():
        link = links.get(name, {})
        measurement |= {key: link.get(key) for key in SHOWN}
        measurement["model"] = models.get(link["model"], {"name": link["model"]}) if "model" in link else None
        measurement.setdefault("detail", None)
        measurement.setdefault("requests", [])


def _steps(lock: Mapping[str, Any], fields: Mapping[str, Any] | None) -> Iterator[str]:
    """The step of each question that was asked, in order, as far as that can be told."""
    said = lock.get("recipe", {}).get("steps", [])
    try:
        fans = [fan_of(name, Step.model_validate(step)) for each in said for name, step in each.items()]
        return iter(list(steps_asked(fans, fields)))
    except (ValueError, TypeError, AttributeError, LookupError):
        return iter(())


def _replay(
    body: bytes | None, lock: Mapping[str, Any], asked: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> dict[str, Any]:
    """How far a record can be had again, and why no more: `bit`, `transcript` (from raw answers) or `none`.

    Bit replays are for requests that an engine answered alone, under its pinned profile; see `audit replay`.
    """
    if body is None:
        return {"class": "none", "why": ["it has no contents"]}
    if not asked:
        return {"class": "transcript", "why": ["no model was asked"]}
    why: dict[str, None] = {}
    for request, engines in asked:
        said, answer = request["request"], request["answer"]
        if said is None or answer is None:
            return {"class": "none", "why": ["a request or its answer is not in the journal"]}
        if answer["source"]:
            why[f"an answer was taken from the run {answer['source']}"] = None
        elif said["engine"] not in SAME:
            why[f"nobody knows what a server of {said['engine']} runs on"] = None
        else:
            try:
                details = engines.get(model_of(lock, said))
            except (CannotJudge, LookupError, TypeError):  # there is no lock yet, or it is another's
                details = None
            if not isinstance(details, Mapping) or not details:
                why["what the engine ran on was not recorded"] = None
            elif (reason := company(said["engine"], details)) is not None:
                why[reason] = None
    return {"class": "transcript" if why else "bit", "why": list(why)}


def _transforms(record: Mapping[str, Any], body: bytes | None, before: bytes | None) -> list[dict[str, Any]]:
    """What was taken out before the other filters measured: by whom, and each text before and after."""
    if body is None or before is None:
        return []
    by = [name for name, said in record["measurements"].items() if said["verdict"] == "redact"]
    changes = list(_changes("", orjson.loads(before), orjson.loads(body)))
    code = {name: record["measurements"][name]["code_sha256"] for name in by}
    return [{"kind": "redaction", "filters": by, "code_sha256": code, "changes": changes}]


def _changes(path: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _changes(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changes(f"{path}.{number}", one, other)
    elif before != after:
        yield {"field": path, "before": before, "after": after}


def _stayed(view: Any, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The records that filters of the run found it to be like."""
    for name, said in record["measurements"].items():
        of = (said["detail"] or {}).get("of")
        if not isinstance(of, str) or len(of) != len(record["id"]) or "in" in said["detail"]:
            continue
        try:
            other = view.record(of)
        except UsageError:
            continue
        yield {
            "filter": name,
            "similarity": said["value"],
            "id": other["id"],
            "state": other["state"],
            "row": other["row"],
        }


def _decision(record: Mapping[str, Any]) -> dict[str, Any]:
    by = record["dropped_by"]
    reason = record["error"]
    if by is not None and by in record["measurements"]:
        said = record["measurements"][by]
        reason = f"{by} {exact(said['value'])} is not {bounds(said.get('min'), said.get('max'))}"
        if said["value"] is None:
            reason = f"{by} abstains, and drops what it cannot measure"
    elif by is not None:
        reason = f"{by}; what it measured was erased"
    elif record["state"] == "dropped":
        reason = "which filter dropped it is said in the journal and in dropped.jsonl alone"
    elif record["state"] == "kept":
        reason = reason or "no filter dropped it"
    return {"state": record["state"], "by": by, "reason": reason}


def exact(value: float | None) -> str:
    """A measurement exactly, as short as that can be said."""
    if value is None:
        return "nothing"
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def bounds(low: float | None, high: float | None) -> str:
    """A bound exactly: `at least 5`, `at most 0.8`, `from 5 to 400`."""
    if low is not None and high is not None:
        return f"from {exact(low)} to {exact(high)}"
    if high is not None:
        return f"at most {exact(high)}"
    return "bounded" if low is None else f"at least {exact(low)}"
