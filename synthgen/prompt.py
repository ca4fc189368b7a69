"""Prompts: templates rendered in a sandbox, one a message, so that no seed text can open a message."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Template, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.environment import TemplateExpression
from jinja2.exceptions import SecurityError, TemplateError

from synthgen.sandbox import MAX_TEXT, budget, make_environment, weighed


class PromptFailed(Exception):
    """A template cannot be read, or cannot be rendered with these values. `line` counts from 1."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


_ENVIRONMENT = make_environment()


@dataclass(frozen=True)
class TextTemplate:
    """One compiled template. Rendered text is stripped of white space at both ends."""

    source: str

    @cached_property
    def _compiled(self) -> Template:
        try:
            return _ENVIRONMENT.from_string(self.source)
        except TemplateSyntaxError as error:
            raise PromptFailed(f"not a valid template: {error.message}", error.lineno) from None
        except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            # the last two: Python's own limits on how deeply its code may be nested
            raise PromptFailed(f"not a valid template: {error or type(error).__name__}") from None

    @cached_property
    def _pieces(self) -> Sequence[tuple[str, str]] | None:
        """Text, and the name that follows it, of a template that holds nothing but text and names."""
        _ = self._compiled
        pieces, text = [], ""
        for output in _ENVIRONMENT.parse(self.source).body:
            for node in output.nodes if isinstance(output, nodes.Output) else [output]:
                if isinstance(node, nodes.TemplateData):
                    text += node.data
                elif isinstance(node, nodes.Name) and node.name != "self":
                    pieces.append((text, node.name))
                    text = ""
                else:
                    return None
        return [*pieces, (text, "")]

    def _quickly(self, values: Mapping[str, Any]) -> str | None:
        """What `render` gives, for a template without logic whose values are texts; None for any other."""
        if self._pieces is None:
            return None
        parts = []
        for text, name in self._pieces:
            parts.append(text)
            if name:
                value = values.get(name)
                if type(value) is not str:
                    return None
                parts.append(value)
        whole = "".join(parts)
        return whole.strip() if len(whole) <= MAX_TEXT else None

    def names(self) -> set[str]:
        """The names that the template expects to be given. Raises PromptFailed if it cannot be read."""
        _ = self._compiled
        return meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source))

    def forbidden(self) -> tuple[str, int] | None:
        """The first private attribute that the template reaches for, which the sandbox refuses; its line."""
        for node in _ENVIRONMENT.parse(self.source).find_all((nodes.Getattr, nodes.Getitem)):
            name = (
                node.attr
                if isinstance(node, nodes.Getattr)
                else getattr(getattr(node, "arg", None), "value", None)
            )
            if isinstance(name, str) and name.startswith("_"):
                return name, node.lineno
        return None

    def line_of(self, name: str) -> int:
        """The template's line, from 1, on which a name first occurs."""
        for number, line in enumerate(self.source.splitlines(), 1):
            if name in line:
                return number
        return 1

    def render(self, values: Mapping[str, Any]) -> str:
        """The text. Raises PromptFailed, saying why, where it cannot be rendered."""
        if (quickly := self._quickly(values)) is not None:
            return quickly
        with _failures():
            pieces: list[str] = []
            size = 0
            with budget():
                for piece in self._compiled.generate(values):
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_TEXT:
                        raise PromptFailed(f"renders more than {MAX_TEXT:,} characters")
        return "".join(pieces).strip()


@contextmanager
def _failures() -> Iterator[None]:
    """Raises PromptFailed, saying why, for whatever goes wrong while a template is at work."""
    try:
        yield
    except UndefinedError as error:
        raise PromptFailed(str(error)) from None
    except SecurityError as error:
        raise PromptFailed(f"the template may not do this: {error}") from None
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise PromptFailed(f"cannot be rendered: {error}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise PromptFailed(f"cannot be rendered: {type(error).__name__}") from None


@dataclass(frozen=True)
class Expression:
    """One compiled Jinja expression: what would stand between `{{` and `}}`, as a value and not as text."""

    source: str

    @cached_property
    def _compiled(self) -> TemplateExpression:
        try:
            return _ENVIRONMENT.compile_expression(self.source, undefined_to_none=False)
        except TemplateSyntaxError as error:
            why = error.message
            if self.source.lstrip().startswith(("{{", "{%")):
                why = "an expression stands without `{{ }}` and `{% %}`"
            raise PromptFailed(f"not a valid expression: {why}", error.lineno) from None
        except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise PromptFailed(f"not a valid expression: {error or type(error).__name__}") from None

    @cached_property
    def template(self) -> TextTemplate:
        """The same as a template, to be looked through. Raises PromptFailed if it is no expression."""
        _ = self._compiled
        return TextTemplate("{{ (" + self.source + ") }}")

    def value(self, values: Mapping[str, Any]) -> Any:
        """What it comes to, as JSON has it. Raises PromptFailed, saying why, where it comes to nothing."""
        with _failures(), budget():
            found: Any = self._compiled(dict(values))
            if isinstance(found, Undefined):
                str(found)  # says what is not there
            if hasattr(found, "__next__"):
                found = list(found)
            if callable(found):
                name = getattr(found, "__name__", "it")
                raise SecurityError(f"{name!r} is a method; a field of that name is reached by ['{name}']")
            return orjson.loads(orjson.dumps(weighed(found)))


@dataclass(frozen=True)
class Prompt:
    """A prompt ready to render: its name, its messages' templates, and its answer's JSON schema.

    `writes` is whose turn the model writes after them: the assistant's, or the user's.
    """

    name: str
    turns: Sequence[tuple[str, TextTemplate]]
    schema: Mapping[str, Any] | None
    sha256: str
    file: Path | None = None
    writes: str = "assistant"

    def render(self, values: Mapping[str, Any]) -> list[dict[str, str]]:
        """The messages, in order; a turn of the user's that the model writes is the last, without content.

        Raises PromptFailed.
        """
        messages = []
        for role, template in self.turns:
            content = template.render(values)
            if content or role != "system":
                messages.append({"role": role, "content": content})
        return messages if self.writes == "assistant" else [*messages, {"role": self.writes}]


def make_prompt(
    name: str,
    turns: Sequence[tuple[str, str]],
    schema: Mapping[str, Any] | None,
    raw: bytes,
    file: Path | None = None,
    writes: str | None = None,
) -> Prompt:
    """A prompt from its parts; `raw` is what was read, whose digest names it in the provenance."""
    digest = hashlib.sha256(raw).hexdigest()
    templates = [(role, TextTemplate(text)) for role, text in turns]
    return Prompt(name, templates, schema, digest, file, writes or "assistant")
