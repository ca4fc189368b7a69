"""`audit explain`: why a record was kept or dropped, by how much, and which bounds would change that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.audit.history import bounds, exact, history
from synthgen.audit.place import Place, reading
from synthgen.audit.recompute import Contents, Recomputed, recompute
from synthgen.errors import UsageError

OF_THE_RUN = "if the same records had been kept before it"


def explain(place: Place, id: str) -> dict[str, Any]:
    """The decision on a record, and each measurement that led to it, taken again where that can be.

    `change` says which bounds would have kept a record that was dropped, or dropped one that was kept; they
    are the nearest ones. Raises as `history` does.
    """
    record = history(place, id)
    with reading(place.directory):
        again = _again(place, record)
        filters = [_filter(name, said, again.get(name)) for name, said in record["measurements"].items()]
        return {
            "id": record["id"],
            "state": record["state"],
            "decision": record["decision"],
            "filters": filters,
            "change": _change(record["state"], filters),
            "because": _sentences(record, filters),
        }


def _again(place: Place, record: Mapping[str, Any]) -> dict[str, Recomputed]:
    from synthgen.view import RunView

    if place.run is None:
        why = "the contents are in the journal, which is not here"
        return {name: Recomputed(why=why) for name in record["measurements"]}
    with RunView(place.run, place.version) as view:
        entry, body, before = view.stored(record)
        if body is None:
            return {}

        def other(of: str) -> bytes | None:
            try:
                found = view.record(of)
            except UsageError:
                return None
            return view.stored(found)[1] if found["id"] == of else None

        chain = {link["name"]: link for link in view.chain() or place.lock().get("filters", [])}
        contents = Contents(entry.id, before or body, body)
        return recompute(chain, record["measurements"], contents, other)


def _filter(name: str, said: Mapping[str, Any], again: Recomputed | None) -> dict[str, Any]:
    value, low, high = said["value"], said["min"], said["max"]
    outside = None
    if value is not None:
        outside = low - value if low is not None and value < low else None
        outside = value - high if high is not None and value > high else outside
    return {
        "filter": name,
        "value": value,
        "min": low,
        "max": high,
        "action": said["action"],
        "verdict": said["verdict"],
        "outside_by": outside,
        "of_the_run": "of" in (said["detail"] or {}),
        "recomputed": (again or Recomputed(why="it is not in the chain of filters")).as_json(),
    }


def _change(state: str, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bounds by filter: all of them together keep a dropped record, any one of them drops a kept one."""
    changes = []
    for each in filters:
        value, low, high = each["value"], each["min"], each["max"]
        if state == "dropped" and each["verdict"] == "drop":
            bound = None
            if value is not None:
                bound = {"min": value} if low is not None and value < low else {"max": value}
            changes.append({"filter": each["filter"], "bound": bound})
        if state == "kept" and value is not None and each["action"] == "drop":
            changes += [
                {"filter": each["filter"], "bound": {name: value}, "beyond": True}
                for name, bound in (("min", low), ("max", high))
                if bound is not None
            ]
    return changes


def _sentences(record: Mapping[str, Any], filters: list[dict[str, Any]]) -> list[str]:
    if record["state"] == "failed":
        return [f"it failed: {record['error']}", "no bound changes that"]
    if record["state"] == "kept":
        return ["no filter dropped it", *(line for each in filters for line in _slack(each))]
    drops = [each for each in filters if each["verdict"] == "drop"]
    if not drops:
        return [str(record["decision"]["reason"])]
    drops.sort(key=lambda each: each["filter"] != record["dropped_by"])
    first, rest = drops[0], drops[1:]
    lines = [f"{_outside(first)}: {_kept_by(first)}{', if nothing else:' if rest else ''}"]
    lines += [f"{_outside(each)} would still drop it: {_kept_by(each)}" for each in rest]
    lines += [f"{name} was not asked about it, and might drop it too" for name in record["not_measured"]]
    return lines


def _outside(each: Mapping[str, Any]) -> str:
    """`words 4 < min 5 (by 1)`."""
    name, value, low, high = (each[key] for key in ("filter", "value", "min", "max"))
    if value is None:
        return f"{name} abstains, and drops what it cannot measure"
    by = f" (by {each['outside_by']:g})" if each["outside_by"] is not None else ""
    if low is not None and value < low:
        return f"{name} {exact(value)} < min {exact(low)}{by}"
    if high is not None and value > high:
        return f"{name} {exact(value)} > max {exact(high)}{by}"
    return f"{name} {exact(value)}, {bounds(low, high)}"


def _kept_by(each: Mapping[str, Any]) -> str:
    if each["value"] is None:
        return "no bound would have kept it"
    name = "min" if each["min"] is not None and each["value"] < each["min"] else "max"
    also = f", {OF_THE_RUN}" if each["of_the_run"] else ""
    return f"{name} {exact(each['value'])} would have kept it{also}"


def _slack(each: Mapping[str, Any]) -> list[str]:
    """How far a kept record is from being dropped."""
    name, value = each["filter"], each["value"]
    if each["verdict"] == "flag":
        return [f"{_outside(each)}, which only flags it"]
    if value is None or each["action"] != "drop":
        return []
    said, lines = exact(value), []
    if each["min"] is not None:
        lines.append(f"{name} {said} ≥ min {exact(each['min'])}: any min above {said} would drop it")
    if each["max"] is not None:
        lines.append(f"{name} {said} ≤ max {exact(each['max'])}: any max below {said} would drop it")
    return [f"{line}, {OF_THE_RUN}" for line in lines] if each["of_the_run"] else lines
