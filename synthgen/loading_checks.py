"""What can be wrong with the prompts, templates and schemas of a recipe, wherever they stand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from synthgen.digests import canonical as canonical_json
from synthgen.errors import Problem, RecipeError
from synthgen.project import Project
from synthgen.prompt import Expression, Prompt, PromptFailed, TextTemplate, make_prompt
from synthgen.recipe import Recipe
from synthgen.recipe_parts import WRITTEN
from synthgen.recipe_problems import recipe_problems, shown
from synthgen.recipe_prompts import PromptBody, SystemBody
from synthgen.schema_checks import check_bounds
from synthgen.schemas import NotASchema, check_schema, references
from synthgen.wording import short
from synthgen.yamlfile import YamlFile, did_you_mean, read_yaml

Kind = type[PromptBody] | type[SystemBody]
Loc = tuple[str | int, ...]  # where something is in a file
Names = set[str] | None  # those that a template may use; None where nobody knows yet


class Checks:
    """Collects every problem and notice of one recipe, and which names its templates use."""

    def __init__(
        self, recipe: Recipe, file: YamlFile, project: Project, within: tuple[str, ...] = ()
    ) -> None:
        """`within` is where in the file the recipe is."""
        self.within = within
        self.recipe = recipe
        self.file = file
        self.project = project
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self.used: set[str] = set()  # names of fields that something looks at

    def wrong(self, loc: Sequence[str | int], message: str, hint: str | None = None) -> None:
        """Something is wrong at a place of the recipe."""
        self.problems.append(self.file.problem((*self.within, *loc), message, hint))

    def give_up(self) -> None:
        """Raises RecipeError if anything was wrong until now."""
        if self.problems:
            raise RecipeError(self.problems)

    def prompt(
        self,
        loc: Loc,
        given: str | PromptBody | SystemBody,
        known: Names,
        kind: Kind = PromptBody,
    ) -> Prompt | None:
        """The prompt of a step, by name or written in place; None where there is none to read.

        A file holds one of this kind.
        """
        if not isinstance(given, str):
            raw = given.model_dump_json(exclude_none=True).encode()
            schema = given.output if isinstance(given, PromptBody) else None
            writes = given.writes if isinstance(given, PromptBody) else None
            prompt = make_prompt("inline", given.turns(), schema, raw, writes=writes)
            self._turns(self.file, loc, prompt, given, known)
            self.schema(self.file, (*loc, "output"), schema)
            return prompt
        path = self.project.find("prompts", f"{given}.yaml")
        if path is None or "/" in given:
            self.wrong(
                loc,
                f"there is no prompt {given!r}",
                did_you_mean(given, self.project.names("prompts", ".yaml")),
            )
            return None
        try:
            file = read_yaml(path)
            body = kind.model_validate(file.data, context=WRITTEN)
        except RecipeError as error:
            self.problems.extend(error.problems)
            return None
        except ValidationError as error:
            self.problems.extend(recipe_problems(file, error, kind))
            return None
        schema = body.output if isinstance(body, PromptBody) else None
        writes = body.writes if isinstance(body, PromptBody) else None
        prompt = make_prompt(given, body.turns(), schema, file.text.encode(), path, writes)
        self._turns(file, (), prompt, body, known)
        self.schema(file, ("output",), schema)
        return prompt

    def _turns(
        self,
        file: YamlFile,
        loc: Loc,
        prompt: Prompt,
        body: PromptBody | SystemBody,
        known: Names,
    ) -> None:
        listed = isinstance(body, PromptBody) and body.messages is not None
        for place, (role, template) in enumerate(prompt.turns):
            where = (*loc, "messages", place, role) if listed else (*loc, role)
            self.template(file, where, template, known)

    def expression(
        self, file: YamlFile, loc: Sequence[str | int], expression: Expression, known: Names
    ) -> None:
        """An expression can be read, and uses none but known names."""
        try:
            template = expression.template
        except PromptFailed as error:
            self.problems.append(file.problem(loc, f"{shown(loc)}: {error}"))
            return
        self.template(file, loc, template, known, expression.source)

    def template(
        self,
        file: YamlFile,
        loc: Sequence[str | int],
        template: TextTemplate,
        known: Names,
        source: str | None = None,
    ) -> None:
        """A template can be read, and uses none but known names. `source` is what the file has of it."""
        line, column = file.position(loc)
        lines = file.text.splitlines()
        first = next(iter((template.source if source is None else source).splitlines()), "")
        offset = 0 if line <= len(lines) and first and first in lines[line - 1] else 1
        try:
            names = template.names()
        except PromptFailed as error:
            at = line + offset + error.line - 1 if error.line else line
            self.problems.append(Problem(str(error), file.path, at, column))
            return
        self.used |= names
        forbidden = template.forbidden()
        if forbidden is not None:
            at = line + offset + forbidden[1] - 1
            message = f"the template may not use {forbidden[0]!r}: it leads out of the sandbox"
            self.problems.append(Problem(message, file.path, at, column))
        if known is None:
            return
        for name in sorted(names - known):
            at = line + offset + template.line_of(name) - 1
            hint = did_you_mean(name, known)
            why = "which is not defined here"
            if name in self.recipe.fields:
                why = "which is not defined yet"
                hint = f"a step sees what comes before it: {', '.join(sorted(known)) or 'nothing'}"
            self.problems.append(Problem(f"the template uses {name!r}, {why}", file.path, at, column, hint))

    def schema(self, file: YamlFile, loc: Sequence[str | int], schema: Mapping[str, Any] | None) -> None:
        """A JSON schema is one, and refers to nothing outside itself."""
        if schema is None:
            return
        self.canonical(file, loc, dict(schema))
        try:
            check_schema(schema)
        except NotASchema as error:
            self.problems.append(file.problem((*loc, *error.at), str(error)))
            return
        outside = [reference for reference in references(schema) if not reference.startswith("#")]
        for reference in outside:
            message = f"{short(reference)} leads out of the schema, and nothing is fetched"
            self.problems.append(file.problem(loc, message, "put it under `$defs:` and refer to it there"))
        if not outside:
            try:
                check_bounds(schema)
            except ValueError as error:
                self.problems.append(
                    file.problem(loc, f"a schema that answers cannot be checked by: {error}")
                )

    def canonical(self, file: YamlFile, loc: Sequence[str | int], value: Any) -> None:
        """Refuse what RFC 8785 cannot write: a whole number of more than 53 bits, above all."""
        try:
            canonical_json(value)
        except ValueError as error:
            self.problems.append(
                file.problem(loc, f"{shown(loc)} cannot be written as canonical JSON: {error}")
            )
