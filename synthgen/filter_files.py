"""Finding filters: the project's own, those that ship, and those of installed packages."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from synthgen.errors import Problem, RecipeError
from synthgen.measure import FilterDefinition
from synthgen.project import Project, shipped
from synthgen.wording import real, told_once, words
from synthgen.yamlfile import did_you_mean

ENTRY_POINTS = "synthgen.filters"


class NoFilter(RecipeError):
    """A file beside the project's filters has none: it is there for others to use."""


@dataclass(frozen=True, slots=True)
class FoundFilter:
    """A filter and where it came from: `project`, `shipped` or the name of a package."""

    definition: FilterDefinition
    origin: str


def find_filter(name: str, project: Project) -> FoundFilter | None:
    """The filter of that name, the project's own before what ships. Raises RecipeError if it is broken."""
    own = project.root / "filters" / f"{name}.py"
    if not name.startswith("_") and own.is_file() and own.resolve().parent != shipped("filters").resolve():
        found = _of_module(load_file(own))
        if name not in found:
            defined = ", ".join(found) or "none; decorate one with @filter"
            problem = Problem(f"defines no filter named {name!r} (it defines: {defined})", own)
            raise RecipeError([problem]) if found else NoFilter([problem])
        return FoundFilter(found[name], "project")
    if not name.startswith("_") and (shipped("filters") / f"{name}.py").is_file():
        module = importlib.import_module(f"synthgen.filters.{name}")
        return FoundFilter(_of_module(module)[name], "shipped")
    return _installed(name)


def filter_names(project: Project) -> list[str]:
    """Names of every filter that a recipe of this project can use, without importing any."""
    names = {file.stem for file in shipped("filters").glob("*.py")}
    names.update(file.stem for file in (project.root / "filters").glob("*.py"))
    names.update(entry.name for entry in _entry_points())
    return sorted(name for name in names if not name.startswith("_"))


def load_file(file: Path) -> ModuleType:
    """A filter file as a module of its own. Raises RecipeError with file and line if it does not load."""
    digest = hashlib.sha256(str(file.resolve()).encode() + b"\0" + file.read_bytes()).hexdigest()[:12]
    unique = f"synthgen_project_filter_{file.stem.replace('.', '_')}_{digest}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # any error of a user's file is the user's to read
        del sys.modules[unique]
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(file, error)
        raise RecipeError(
            [Problem(f"this filter does not load: {type(error).__name__}: {error}", file, line)]
        ) from error
    return module


def _line_in(file: Path, error: BaseException) -> int | None:
    line, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _of_module(module: ModuleType) -> dict[str, FilterDefinition]:
    return {value.name: value for value in vars(module).values() if isinstance(value, FilterDefinition)}


def _entry_points() -> list[Any]:
    from importlib.metadata import entry_points

    return list(entry_points(group=ENTRY_POINTS))


def _installed(name: str) -> FoundFilter | None:
    found = [entry for entry in _entry_points() if entry.name == name]
    if len(found) > 1:
        sources = " and ".join(sorted(str(entry.value) for entry in found))
        raise RecipeError([Problem(f"two installed packages give a filter {name!r}: {sources}")])
    if not found:
        return None
    try:
        loaded = found[0].load()
    except (Exception, SystemExit) as error:  # any error of a package is its user's to read
        said = f"the filter {name!r} of an installed package does not load ({found[0].value}): {error}"
        raise RecipeError([Problem(said)]) from error
    if not isinstance(loaded, FilterDefinition):
        raise RecipeError([Problem(f"{found[0].value} is not a filter: it lacks the @filter decorator")])
    loaded = replace(loaded, name=name)  # in a recipe it has the entry point's name
    return FoundFilter(loaded, found[0].dist.name if found[0].dist else str(found[0].value))


def check_params(
    definition: FilterDefinition, params: Mapping[str, Any]
) -> list[tuple[str, str, str | None]]:
    """What is wrong with a recipe's parameters of a filter: (parameter, message, hint) each."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    named, several = definition.parameters, definition.file_parameters
    problems: list[tuple[str, str, str | None]] = []
    for key, said in params.items():
        if key == "model" and definition.kind == "engine":
            if not isinstance(said, str):
                problems.append((key, "model names one of the recipe's models", None))
            continue
        value = [said] if several.get(key) and isinstance(said, str) else said
        if key not in named:
            asks = ["model"] if definition.kind == "engine" else []
            known = [*named, *asks, "of", "min", "max", "action", "filter", "on_error"]
            problems.append(
                (key, f"filter {definition.name} has no parameter {key!r}", did_you_mean(key, known))
            )
            continue
        annotation = named[key].annotation
        if annotation is named[key].empty:
            continue
        try:
            TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
        except ValidationError as error:
            for wrong in told_once(error.errors(), value):
                at = real(value, wrong["loc"])
                where = ".".join(map(str, (key, *at)))
                # The sentence of a check in the annotation says itself what is wrong.
                colon = ":" if wrong["type"] == "value_error" else ""
                problems.append((key, f"'{where}' of filter {definition.name}{colon} {words(wrong)}", None))
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in params:
            problems.append((key, f"filter {definition.name} needs {key!r}", None))
    return problems
