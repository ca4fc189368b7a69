"""The files and prompts that parameters of filters name: found in the project, each with its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.measure import FilterDefinition
from synthgen.project import OutsideProject, Project
from synthgen.yamlfile import did_you_mean


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file, as provenance names it, with the SHA-256 of what is in it."""

    path: Path
    name: str
    sha256: str


def input_files(
    definition: FilterDefinition, params: Mapping[str, Any], project: Project
) -> tuple[dict[str, list[NamedFile]], list[tuple[str, str, str | None]]]:
    """The files of each parameter, in order, and what is wrong: (parameter, message, hint) each."""
    found: dict[str, list[NamedFile]] = {}
    problems: list[tuple[str, str, str | None]] = []
    for key, many in definition.file_parameters.items():
        said = params.get(key)
        patterns = [said] if isinstance(said, str) else said
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            continue  # nothing is named, or `check_params` says what is wrong
        files: list[NamedFile] = []
        for pattern in patterns:
            try:
                paths = project.files(pattern)
                near = [] if paths else [project.relative(path) for path in project.siblings(pattern)]
                files += [NamedFile(path, project.relative(path), _digest(path)) for path in paths]
            except OutsideProject:
                hint = "allow its folder with `--allow-path FOLDER`"
                problems.append((key, f"{pattern} leads out of the project", hint))
                continue
            except (OSError, ValueError, RuntimeError) as error:  # too long, not a pattern, a loop of links
                problems.append((key, f"{pattern[:80]} cannot be read: {error}", None))
                continue
            if not paths:
                problems.append((key, f"there is no file {pattern}", did_you_mean(pattern, near)))
            elif len(paths) > 1 and not many:
                problems.append((key, f"{pattern} names {len(paths)} files, and {key} takes one", None))
        found[key] = files
    for key in definition.prompt_parameters:
        default = definition.parameters[key].default
        name = str(params.get(key, default if isinstance(default, Path) else ""))
        if not name:
            continue
        prompt = None if "/" in name else project.find("prompts", f"{name}.yaml")
        if prompt is None:
            near = project.names("prompts", ".yaml")
            problems.append((key, f"there is no prompt {name!r}", did_you_mean(name, near)))
        else:
            found[key] = [NamedFile(prompt, f"prompts/{prompt.name}", _digest(prompt))]
    return found, problems


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
