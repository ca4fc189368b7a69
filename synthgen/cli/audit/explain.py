"""synthgen audit explain: why was this record kept or dropped?"""

from __future__ import annotations

from typing import Any

from synthgen.cli.audit.options import AnyDirectory, IdArgument, judging
from synthgen.cli.options import JsonOption, VersionOption, out, out_json, plain, table


def explain(
    directory: AnyDirectory, id: IdArgument, version: VersionOption = None, as_json: JsonOption = False
) -> None:
    """Say which filter decided, by how much, what bound would have changed it; measure again what can be."""
    from synthgen.audit.explain import explain as explained
    from synthgen.audit.place import place_of, reading

    with judging():
        said = explained(place_of(directory, version), id)
        if as_json:
            out_json(said)
        else:
            with reading(directory):
                _show(said)


def _show(said: dict[str, Any]) -> None:
    out(f"{plain(said['id'], 80)}  {plain(said['state'], 40)}")
    for sentence in said["because"]:
        out(f"  {plain(sentence, 400)}")
    if said["filters"]:
        rows = [
            (plain(each["filter"], 40), _number(each), _again(each["recomputed"])) for each in said["filters"]
        ]
        out("")
        out(table([("filter", "measured", "again"), *rows]))


def _number(each: dict[str, Any]) -> str:
    return "abstains" if each["value"] is None else f"{each['value']:g}"


def _again(again: dict[str, Any]) -> str:
    if again["agrees"] is None:
        return plain(f"not recomputed: {again['why']}", 300)
    return "agrees" if again["agrees"] else plain(f"DOES NOT AGREE: {again['why'] or again['value']}", 300)
