"""synthgen init: a project to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.options import out


def init(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
) -> None:
    """Make a project: recipes, prompts, filters and data, with a recipe that runs at once."""
    from synthgen.errors import UsageError
    from synthgen.project import shipped

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already and not empty", hint="give the name of a new folder")
    source = shipped("starter")
    try:
        for file in sorted(
            path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ):
            name = file.relative_to(source)
            place = directory / (".gitignore" if name.name == "gitignore" else name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror}") from None
    out(f"{directory} is ready:")
    out(f"  cd {directory}")
    out("  synthgen preview recipes/facts.yaml -n 3")
    out("  synthgen run recipes/facts.yaml")
