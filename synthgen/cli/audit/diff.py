"""synthgen audit diff: what is other in another run, version or dataset, and why?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.cli.audit.options import in_bounds, judging
from synthgen.cli.counting import Counting
from synthgen.cli.options import JsonOption, out, out_json, plain

One = Annotated[Path, typer.Argument(metavar="A", help="A run's directory, a version's, or a dataset's.")]
Other = Annotated[Path, typer.Argument(metavar="B", help="The one to compare with it.")]


def diff(
    a: One,
    b: Other,
    limit: Annotated[int, typer.Option("-n", "--limit", help="So many records of each kind.", min=1)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show which inputs differ, and which records entered, left or changed, each with its cause."""
    from synthgen.audit.diff import diff as compared
    from synthgen.audit.place import place_of

    with in_bounds(), judging(), Counting() as tell:
        said = compared(place_of(a), place_of(b), limit, tell)
    if as_json:
        out_json(said)
    else:
        _show(said)


def _show(said: dict[str, Any]) -> None:
    for side in ("a", "b"):
        version = "" if said[side]["version"] is None else f", version {said[side]['version']}"
        out(f"{side.upper()}  {said[side]['dir']}{version}: {said[side]['kept']:,} kept")
    out("")
    missing = "not compared: recipe.lock.yaml is not there yet"
    out("inputs" if said["inputs"] else f"inputs: {missing if said['inputs'] is None else 'none differs'}")
    for each in said["inputs"] or ():
        out(f"  {plain(each['input'], 100)}: {_value(each['a'])} → {_value(each['b'])}")
    for what in ("entered", "left", "changed"):
        part = said[what]
        states = ", ".join(f"{count:,} {plain(state, 40)}" for state, count in part.get("states", {}).items())
        out("")
        out(f"{what}: {part['count']:,}{f' ({states} on the other side)' if states else ''}")
        for record in part["records"]:
            out(f"  {plain(record['id'], 80)}  {plain(record['cause'], 300)}")
        if part["count"] > len(part["records"]):
            out(f"  and {part['count'] - len(part['records']):,} more")
    out("")
    out(f"kept in both: {said['kept_in_both']:,}")


def _value(value: Any) -> str:
    return "nothing" if value is None else plain(str(value), 100)
