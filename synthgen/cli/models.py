"""synthgen models: the models that have a short name, and fetching one ahead of a run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from synthgen.cli.options import JsonOption, note, out, out_json, table

app = typer.Typer(help="Models that have a short name.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """Every alias, and whether its files are here."""
    from synthgen import models

    found: list[dict[str, Any]] = [
        {
            "name": name,
            "here": models.cached(name) is not None,
            "megabytes": alias.megabytes,
            "context": alias.context,
            "licence": alias.licence,
            "about": alias.about,
        }
        for name, alias in models.ALIASES.items()
    ]
    if as_json:
        out_json(found)
        return
    rows = [("model", "here", "licence", "what it is")]
    rows += [
        (item["name"], "yes" if item["here"] else "no", item["licence"], item["about"]) for item in found
    ]
    out(table(rows))


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="An alias, or a hub id as ORG/NAME or ORG/NAME@REVISION.")],
    as_json: JsonOption = False,
) -> None:
    """Fetch a model's files and verify them; does nothing where they are here already."""
    from synthgen import models

    spec, _, revision = name.partition("@")
    files = models.locate(spec, revision=revision or None, notify=note)
    if as_json:
        out_json({"name": name, "path": str(files.path), "weights": files.weights})
    else:
        out(f"{name}  {files.path}")
        out(f"weights  {files.weights}")
