"""synthgen mix: several finished datasets made one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.cli.options import JsonOption, note, out, out_json, results_only
from synthgen.cli.summary import show_summary

OFF = 0.02  # of the share that was wished


def mix(
    datasets: Annotated[
        list[Path], typer.Argument(help="Run directories, or datasets on their own.", metavar="DATASET...")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new or empty folder.")],
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", help="A dataset's share, such as chats=2: by its folder's name; else 1."),
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="How many rows, at most.")] = None,
    duplicate: Annotated[
        float, typer.Option("--duplicate", min=0, max=1, help="Rows more alike than this are taken once.")
    ] = 0.8,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Take every row, also those that come again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Join finished datasets, by weight and without duplicates, each row with the provenance that it had."""
    from synthgen import api
    from synthgen.cli.audit.options import as_published
    from synthgen.mixing import given, make_project, named, notices

    with results_only():
        found = [given(path, name) for path, name in named(datasets)]
        weights = _weights(weight or [], [each.name for each in found])
        for each in found:
            as_published(each.folder)
        recipe = make_project(output, found, weights, rows, None if keep_duplicates else duplicate)
        for notice in notices(found):
            note(notice)
        loaded = api.load(str(recipe))
        result = api.run(loaded, on_notice=note)
    if as_json:
        out_json(result.as_json())
        return
    show_summary(loaded, result)
    for notice in _missed(result.balance):
        note(notice)
    if rows is not None and result.kept < rows:
        note(f"{result.kept:,} rows of {rows:,}: there are no more that are wanted and come once")
    out(f"the mix is a project: change {recipe}, and run it again")


def _missed(balance: Mapping[str, Any]) -> list[str]:
    """What is told of datasets whose share came out other than it was wished."""
    return [
        f"{name} is {said['share']:.0%} of the rows where {said['wished']:.0%} was wished: "
        "not enough of its rows come once; fewer `--rows` come nearer"
        for shares in balance.values()
        for name, said in shares.items()
        if said["share"] is not None and said["wished"] - said["share"] > OFF
    ]


def _weights(said: list[str], names: list[str]) -> dict[str, float]:
    from synthgen.errors import UsageError
    from synthgen.yamlfile import did_you_mean

    found = {}
    for each in said:
        name, equals, number = each.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not equals or not 0 < share < float("inf"):
            raise UsageError(f"{each!r} is no weight", hint=f"for example --weight {names[0]}=2")
        if name not in names:
            raise UsageError(f"there is no dataset {name!r} among these", hint=did_you_mean(name, names))
        if name in found:
            raise UsageError(f"{name} has two weights")
        found[name] = share
    return found
