"""Recipes by name, what each says of itself, and the files that belong to one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.errors import RecipeError, UsageError
from synthgen.loading import load
from synthgen.project import Project, find_recipe, shipped
from synthgen.yamlfile import read_yaml


@dataclass(frozen=True)
class FoundRecipe:
    """A recipe's file, whether it ships with synthgen, and what its comment at the top says."""

    name: str
    file: Path
    origin: str
    description: str
    header: str


def recipes(project: Project) -> list[FoundRecipe]:
    """Every recipe that can be named in this project, sorted. One that cannot be read says so itself."""
    return [found_recipe(name) for name in project.names("recipes", ".yaml")]


def found_recipe(name: str) -> FoundRecipe:
    """A recipe by its name or path. Raises UsageError where there is none."""
    file = find_recipe(name)
    text = file.read_text(errors="replace")
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    origin = "shipped" if file.resolve().parent == shipped("recipes").resolve() else "project"
    return FoundRecipe(file.stem, file, origin, _description(file), "\n".join(lines).strip())


def _description(file: Path) -> str:
    try:
        said: Any = read_yaml(file).data
    except RecipeError as error:
        return f"cannot be read: {error}"
    description = said.get("description") if isinstance(said, dict) else None
    return " ".join(description.split()) if isinstance(description, str) else ""


def files_of(recipe: Path) -> dict[str, Path]:
    """A recipe's own file, its prompts and the data it reads, by their places in a project.

    Raises RecipeError where the recipe does not load.
    """
    loaded = load(str(recipe))
    found = {f"recipes/{recipe.name}": recipe}
    for prompt in (voice.prompt for voice in loaded.voices.values()):
        if prompt.file is not None:
            found[f"prompts/{prompt.file.name}"] = prompt.file
    read = [file for rows in loaded.files.values() for file in rows.files]
    read += [named.path for link in loaded.chain for files in link.files.values() for named in files]
    for file in read:
        found[loaded.project.relative(file)] = file
    return found


def copy_recipe(recipe: Path, root: Path) -> list[str]:
    """Copy a recipe with all that it reads into a project; gives the places, sorted.

    What is there already with the same bytes is left. Raises UsageError, having written nothing, where one
    is there with others, or cannot be written.
    """
    files = files_of(recipe)
    contents = {place: file.read_bytes() for place, file in files.items()}
    try:
        there = [place for place in contents if (root / place).exists()]
        if others := [place for place in there if (root / place).read_bytes() != contents[place]]:
            hint = "move it out of the way, or give another folder"
            raise UsageError(f"{root / others[0]} is there already, and is not the same", hint=hint)
        for place, content in contents.items():
            if place not in there:
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                (root / place).write_bytes(content)
    except OSError as error:
        raise UsageError(f"{root} cannot be written: {error.strerror}") from None
    return sorted(contents)
