"""synthgen audit trace: what descends from a source, and a version of the dataset without it."""

from __future__ import annotations

from typing import Annotated

import typer

from synthgen.cli.audit.options import in_bounds, judging
from synthgen.cli.counting import Counting
from synthgen.cli.options import DirectoryArgument, JsonOption, VersionOption, out, out_json, plain

SHOWN = 10


def trace(
    directory: DirectoryArgument,
    source: Annotated[
        str,
        typer.Argument(
            help="path, path:row or a digest of a seed; a record's id; a prompt's name or digest; a model's "
            "id or weights; a filter's name. seed:, record:, prompt:, model: or filter: before it says which."
        ),
    ],
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Write a version without the kept ones among them.")
    ] = False,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every record that descends from a seed, another record, a prompt, a model or a filter."""
    from synthgen.audit.place import place_of
    from synthgen.audit.quarantine import quarantine as without
    from synthgen.audit.trace import trace as traced
    from synthgen.journal_entries import STATES

    with in_bounds(), judging(), Counting() as tell:
        found = traced(place_of(directory, version), source, tell)
        made = without(found) if quarantine else None
    if as_json:
        out_json({**found.as_json(), "quarantine": made.as_json() if made else None})
        return
    for state in STATES:
        ids = found.ids[state]
        out(f"{state:<8} {len(ids):,}")
        for id in ids[:SHOWN]:
            out(f"  {plain(id, 80)}")
        if len(ids) > SHOWN:
            out(f"  and {len(ids) - SHOWN:,} more (--json lists all)")
    if made is not None:
        out(f"dataset  {made.dir}/dataset: {made.kept:,} kept, {made.removed:,} removed")
