"""synthgen audit explain: why was this record kept or dropped?"""

from __future__ import annotations

from typing import Any

from synthgen.cli.audit.options import AnyDirectory, IdArgument, judging
from synthgen.cli.options import JsonOption, VersionOption, out, out_json, plain


def explain(
    directory: AnyDirectory, id: IdArgument, version: VersionOption = None, as_json: JsonOption = False
) -> None:
    """Say which filter decided, by how much, what bound would have changed it; measure again what can be."""
    from synthgen.audit.explain import explain as explained
    from synthgen.audit.place import place_of

    with judging():
        said = explained(place_of(directory, version), id)
        if as_json:
            out_json(said)
        else:
            _show(said)


def _show(said: dict[str, Any]) -> None:
    out(f"{plain(said['id'], 80)}  {plain(said['state'], 40)}")
    for sentence in said["because"]:
        out(f"  {plain(sentence, 400)}")
    if said["filters"]:
        out("")
        out("measured again")
    for each in said["filters"]:
        again = each["recomputed"]
        if again["agrees"] is None:
            result = f"not recomputed: {again['why']}"
        elif again["agrees"]:
            result = "agrees"
        else:
            result = f"DOES NOT AGREE: {again['why'] or again['value']}"
        out(f"  {plain(each['filter'], 80):<12} {plain(str(each['value']), 40):<10} {plain(result, 300)}")
