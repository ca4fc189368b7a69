"""synthgen recipes: what recipes there are, what one says of itself, and a copy to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.options import JsonOption, note, out, out_json, plain, results_only, table

app = typer.Typer(help="The recipes that can be run here.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="A recipe's name, or its file.")]


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """Every recipe of this project and every one that ships."""
    from synthgen.project import Project
    from synthgen.recipe_files import recipes

    found = recipes(Project(Path.cwd()))
    if as_json:
        out_json(
            [{"name": each.name, "origin": each.origin, "description": each.description} for each in found]
        )
        return
    rows = [("recipe", "from", "makes")]
    out(table(rows + [(each.name, each.origin, plain(each.description)) for each in found]))


@app.command("show")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """A recipe as it is written, with its header."""
    from synthgen.recipe_files import found_recipe

    found = found_recipe(name)
    text = found.file.read_text(errors="replace")
    if as_json:
        said = {"name": found.name, "origin": found.origin, "description": found.description}
        out_json({**said, "header": found.header, "text": text})
    else:
        out(plain(text.rstrip("\n")))


@app.command("copy")
def copy(
    name: NameArgument,
    directory: Annotated[Path, typer.Argument(help="The project to copy it into.", metavar="DIR")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Copy a recipe into a project, with the prompts and the data that it reads, to change them."""
    from synthgen.recipe_files import copy_recipe, found_recipe

    with results_only():
        places = copy_recipe(found_recipe(name).file, directory)
    if as_json:
        out_json({"dir": str(directory), "files": places})
        return
    for place in places:
        out(str(directory / place))
    [recipe] = [place for place in places if place.startswith("recipes/") and place.endswith(".yaml")]
    note(f"change it, then: synthgen preview {directory / recipe}")
