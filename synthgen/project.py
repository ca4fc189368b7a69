"""Where a recipe's files are: the project's root, what lies beneath it, and what ships with synthgen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from synthgen.dataset_folders import data_files
from synthgen.errors import UsageError
from synthgen.yamlfile import did_you_mean


def shipped(folder: str) -> Path:
    """The folder of that name (`recipes`, `prompts`, `filters`) that ships with synthgen."""
    return Path(str(resources.files("synthgen"))) / folder


class OutsideProject(Exception):
    """A path that a recipe names leads out of the project."""


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with `recipes/`, `prompts/` and `filters/`; `allowed` are folders read besides it."""

    root: Path
    allowed: tuple[Path, ...] = ()

    def inside(self, path: str) -> Path:
        """An existing or wished path of a recipe, resolved. Raises OutsideProject where it leads out."""
        wished = Path(path)
        full = (wished if wished.is_absolute() else self.root / wished).resolve()
        for folder in (self.root.resolve(), *self.allowed):
            if full == folder or folder in full.parents:
                return full
        raise OutsideProject(path)

    def relative(self, path: Path) -> str:
        """The path as provenance may show it: relative to the root, or beneath an allowed folder's name."""
        for folder, prefix in ((self.root.resolve(), ""), *((a, f"{a.name}/") for a in self.allowed)):
            if folder in path.parents:
                return prefix + path.relative_to(folder).as_posix()
        return path.name

    def find(self, folder: str, filename: str) -> Path | None:
        """`folder/filename` of the project, else of what ships, else None."""
        for place in (self.root / folder, shipped(folder)):
            if filename.startswith("_"):
                break
            candidate = place / filename
            if candidate.is_file():
                return candidate
        return None

    def files(self, pattern: str, split: str | None = None) -> list[Path]:
        """The files of a path, a folder or a pattern of a recipe, sorted; of a folder, those with its rows.

        Raises OutsideProject, or OSError, ValueError or RuntimeError for what cannot be a path.
        """
        if not any(mark in pattern for mark in "*?[") or (self.root / pattern).is_file():
            full = self.inside(pattern)
            if full.is_dir():
                found = data_files(full, split)
                for path in found:
                    self.inside(str(path))  # a link may lead out; a name is kept, for its ending
                return found
            return [full] if full.is_file() else []
        wished = Path(pattern)
        base = Path(wished.anchor) if wished.is_absolute() else self.root
        matches = base.glob(str(wished.relative_to(wished.anchor)))
        return sorted(self.inside(str(path)) for path in matches if path.is_file())

    def siblings(self, pattern: str) -> list[Path]:
        """The files beside a path that a recipe names."""
        folder = self.inside(str(Path(pattern).parent))
        return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []

    def names(self, folder: str, suffix: str) -> list[str]:
        """Names of what `find` would find, sorted, without the suffix."""
        found: set[str] = set()
        for place in (self.root / folder, shipped(folder)):
            if place.is_dir():
                found.update(entry.name.removesuffix(suffix) for entry in place.glob(f"*{suffix}"))
        return sorted(name for name in found if not name.startswith("_"))


def find_recipe(given: str) -> Path:
    """The file of a recipe given as a path, or by the name of one in ./recipes or of one that ships.

    Raises UsageError, with the nearest name, where there is none.
    """
    path = Path(given)
    if path.is_dir():
        raise UsageError(f"{given} is a folder; give the recipe's file")
    if path.exists() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.exists():
            names = [*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")]
            raise UsageError(
                f"there is no recipe {given}", hint=did_you_mean(given, [str(name) for name in names])
            )
        return path
    here = Project(Path.cwd())
    found = here.find("recipes", f"{given}.yaml")
    if found is None:
        raise UsageError(
            f"there is no recipe {given!r}, as a file or by name",
            hint=did_you_mean(given, here.names("recipes", ".yaml")),
        )
    return found


def project_of(recipe: Path, allowed: Sequence[Path] = ()) -> Project:
    """The project of a recipe: the parent of the `recipes/` it is in, else the working directory."""
    full = recipe.resolve()
    root = full.parent.parent if full.parent.name == "recipes" else Path.cwd()
    return Project(root, tuple(path.resolve() for path in allowed))


def runs_folder(recipe: Path) -> Path:
    """Where this recipe's runs go unless told otherwise: `runs/` of its project.

    Of a recipe that ships it is `runs/` right here, but for whoever works in synthgen's own checkout.
    """
    full, here = recipe.resolve(), Path.cwd().resolve()
    root = full.parent.parent
    if full.parent == shipped("recipes").resolve() and root not in (here, *here.parents):
        return Path.cwd() / "runs"
    return project_of(recipe).root / "runs"
