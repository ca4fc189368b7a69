"""What two runs, or two versions of one, have and have not in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthgen.audit.diff import diff
from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import Place, place_of
from synthgen.errors import UsageError
from synthgen.journal_reading import making_sense
from synthgen.record import Record
from synthgen.report.charts import number, share
from synthgen.report.collect import collect
from synthgen.report.text import bounds, columns, spark
from synthgen.view import RunView

EXCERPT = 300
SIDES = ("a", "b")
MOVES = ("entered", "left", "changed")
UNLIKE = "The samples differ in size, on which these measures depend: which is more varied is not known."


def compare(a: Path, b: Path, limit: int = 20, *, meaning: bool = True) -> dict[str, Any]:
    """Both in numbers, which inputs differ, and the first records that entered, left or changed.

    Each of `a` and `b` is the directory of a run or of a version. Raises UsageError where one is neither.
    """
    places = [_place(each) for each in (a, b)]
    sides = [collect(place.directory, place.version, meaning=meaning) for place in places]
    try:
        moved = diff(places[0], places[1], limit)
    except CannotJudge as error:
        raise UsageError(str(error)) from None
    for name in MOVES:
        place = places[0] if name == "left" else places[1]
        _add_excerpts(moved[name]["records"], place)
    return {
        **{name: _side(said, place) for name, said, place in zip(SIDES, sides, places, strict=True)},
        "filters": _joined([each["measurements"] for each in sides], "filter", _measured),
        "dropped": _joined([each["funnel"] for each in sides], "filter", lambda each: each["dropped"]),
        "lengths": _joined(
            [each["lengths"]["parts"] for each in sides], "name", lambda each: each["quantiles"]
        ),
        "shares": _joined([each["shares"] for each in sides], "field", _kept_values),
        "diversity": [
            {
                **{key: one[key] for key in ("key", "name", "source", "higher_is_more_varied")},
                "a": one["kept"],
                "b": other["kept"],
            }
            for one, other in zip(*(each["diversity"]["measures"] for each in sides), strict=True)
        ],
        **{name: moved[name] for name in ("inputs", *MOVES, "kept_in_both")},
    }


def comparison_text(said: Mapping[str, Any]) -> list[str]:
    """A screen of text, from what `compare` gave."""
    heads = [f"{name.upper()}  {said[name]['title']}" for name in SIDES]
    lines = [*heads, ""]
    rows: list[tuple[str, ...]] = [("", "A", "B", "")]
    for name in ("planned", "kept", "dropped", "failed"):
        one, other = (said[side]["counts"][name] for side in SIDES)
        rows.append((name, f"{one:,}", f"{other:,}", _change(one, other)))
    rows.append(
        (
            "kept of planned",
            *(share(said[s]["counts"]["kept"], said[s]["counts"]["planned"]) for s in SIDES),
            "",
        )
    )
    for each in said["dropped"]:
        one, other = (f"{each[s]:,}" if each[s] is not None else "-" for s in SIDES)
        rows.append((f"by {each['filter'][:24]}", one, other, _change(each["a"], each["b"])))
    lines += [*columns(rows, right=(1, 2, 3)), ""]
    rows = [("measured", "A", "median", "bound", "B", "median", "bound")]
    for each in said["filters"]:
        sides = [
            (spark(each[s]["histogram"], 16), _median(each[s]), bounds(each[s])) if each[s] else ("-", "", "")
            for s in SIDES
        ]
        rows.append((each["filter"][:24], *sides[0], *sides[1]))
    lines += [*(columns(rows) if said["filters"] else []), ""]
    sizes = " and ".join(f"{said[s]['sample']:,}" for s in SIDES)
    # Of samples that differ in size no measure of diversity says which is the more varied.
    alike = said["a"]["sample"] == said["b"]["sample"]
    rows = [(f"diversity ({sizes} answers)", "A", "B", "more varied" if alike else "")]
    for each in said["diversity"]:
        values = [number(each[s]) if each[s] is not None else "-" for s in SIDES]
        rows.append((each["name"], *values, _more_varied(each) if alike else ""))
    lines += [*columns(rows, right=(1, 2)), *([] if alike else [f"  {UNLIKE}"]), ""]
    inputs = said["inputs"] or ()
    lines.append(
        f"  {len(inputs):,} inputs differ"
        + (": " if inputs else "")
        + ", ".join(each["input"] for each in inputs[:6])
        + (f" and {len(inputs) - 6:,} more" if len(inputs) > 6 else "")
    )
    for name in MOVES:
        lines.append(f"  {name}: {said[name]['count']:,}")
        lines += [
            f"    {each['id'][:12]}  {each['cause'][:60]}  {each['text'][:60]}"
            for each in said[name]["records"][:3]
        ]
    lines.append(f"  kept in both: {said['kept_in_both']:,}")
    return lines


def _place(directory: Path) -> Place:
    try:
        place = place_of(directory)
    except CannotJudge as error:
        raise UsageError(str(error)) from None
    if place.run is None:
        raise UsageError(
            f"{directory} holds a dataset without its journal",
            hint="compare runs or versions; `synthgen audit diff` compares datasets alone",
        )
    return place


def _side(said: Mapping[str, Any], place: Place) -> dict[str, Any]:
    return {
        "dir": str(place.directory),
        "title": f"{said['run']}, version {said['version']} ({said['command']}), in {place.directory}",
        "run": said["run"],
        "version": said["version"],
        "counts": said["counts"],
        "sample": said["diversity"]["sample"],
    }


def _joined(sides: Sequence[Sequence[Mapping[str, Any]]], key: str, part: Any) -> list[dict[str, Any]]:
    """What each side says under each name, in the order of the first side; None where it has no such name."""
    found: dict[str, dict[str, Any]] = {}
    for side, items in zip(SIDES, sides, strict=True):
        for each in items:
            found.setdefault(each[key], {key: each[key], "a": None, "b": None})[side] = part(each)
    return list(found.values())


def _measured(each: Mapping[str, Any]) -> dict[str, Any]:
    names = ("of", "min", "max", "action", "measured", "abstained", "outside", "quantiles", "histogram")
    return {name: each[name] for name in names}


def _kept_values(each: Mapping[str, Any]) -> dict[str, int]:
    return {value["value"]: value["kept"] for value in each["values"]}


def _add_excerpts(records: Sequence[dict[str, Any]], place: Place) -> None:
    assert place.run is not None
    with making_sense(place.run), RunView(place.run, place.version) as view:
        for each in records:
            row = view.record(each["id"])["row"] or {}
            record = Record(each["id"], {}, row)
            each["text"] = " ".join((record.answer or record.all)[:EXCERPT].split())


def _median(said: Mapping[str, Any]) -> str:
    return number(said["quantiles"]["0.5"]) if said["quantiles"] else ""


def _change(one: int | None, other: int | None) -> str:
    return "" if one is None or other is None or one == other else f"{other - one:+,}"


def _more_varied(each: Mapping[str, Any]) -> str:
    if each["a"] is None or each["b"] is None or each["a"] == each["b"]:
        return ""
    return "B" if (each["b"] > each["a"]) == each["higher_is_more_varied"] else "A"
