"""synthgen filters: what filters there are, and what each one says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.cli.options import JsonOption, bound, note, out, out_json, results_only, table

app = typer.Typer(help="The filters that recipes here can use.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """Every filter that a recipe of this project can use, with its default bound."""
    from synthgen.errors import RecipeError

    filters = []
    for name in _names():
        try:
            item = _described(name)
        except RecipeError as error:  # one that does not load hides no other
            note(str(error))
            continue
        if item is not None:
            filters.append(item)
    if as_json:
        out_json(filters)
        return
    rows = [("filter", "from", "of", "bound", "measures")]
    rows += [
        (
            item["name"],
            item["origin"],
            item["of"],
            bound(item["min"], item["max"]) or "given by the recipe",
            str(item["help"]).partition("\n")[0],
        )
        for item in filters
    ]
    out(table(rows))


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A filter's name.")], as_json: JsonOption = False) -> None:
    """What a filter measures, its parameters, its source and where it is weak."""
    from synthgen.errors import UsageError
    from synthgen.yamlfile import did_you_mean

    item = _described(name)
    if item is None:
        raise UsageError(f"there is no filter {name!r}", hint=did_you_mean(name, _names()))
    if as_json:
        out_json(item)
        return
    out(f"{item['name']}  ({item['origin']}, {item['kind']})")
    out("")
    out(item["help"] or "no help: the filter has no docstring")
    out("")
    out(
        f"of: {item['of']}    bound: {bound(item['min'], item['max']) or 'given by the recipe'}    "
        f"action: {item['action']}"
    )
    for parameter, said in item["parameters"].items():
        out(
            f"{parameter}: {said['type']}" + (f" = {said['default']}" if "default" in said else " (required)")
        )


def _names() -> list[str]:
    from synthgen.filter_files import filter_names
    from synthgen.project import Project

    return filter_names(Project(Path.cwd()))


def _described(name: str) -> dict[str, Any] | None:
    import inspect

    from synthgen.filter_files import find_filter
    from synthgen.project import Project

    with results_only():
        found = find_filter(name, Project(Path.cwd()))
    if found is None:
        return None
    definition = found.definition
    return {
        "name": definition.name,
        "origin": found.origin,
        "kind": definition.kind,
        "help": definition.help,
        "of": definition.of,
        "min": definition.min,
        "max": definition.max,
        "action": definition.action,
        "parameters": {
            key: {"type": inspect.formatannotation(parameter.annotation)}
            | ({} if parameter.default is parameter.empty else {"default": repr(parameter.default)})
            for key, parameter in definition.parameters.items()
        },
    }
