"""The form of an answer: how it is read, when it cannot be used, and how it is asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from synthgen.engines.base import Completion, Message
from synthgen.engines.turns import is_open
from synthgen.recipe_steps import RE_ASKS, Extract, Step
from synthgen.schema_checks import DEEPEST, SchemaValidator, TooMuch, deeper_than, pattern_of

if TYPE_CHECKING:
    from jsonschema import ValidationError

OPEN, CLOSE = "<think>", "</think>"
ERRORS = 1000  # that are looked at, to tell of the first
QUOTED = 4000  # characters of an answer that are shown to the model again


class InvalidAnswer(Exception):
    """An answer that cannot be used: empty, not valid under its schema, or without what is to be taken out.

    `told` is what the model is told of it: words of our own alone, for they are part of a request's key.
    """

    def __init__(self, message: str, told: str | None = None) -> None:
        super().__init__(message)
        self.told = told or message


@dataclass(frozen=True, slots=True)
class Thoughtful:
    """An answer, and what the model thought before it; None where it thought nothing."""

    value: Any
    thoughts: str | None


@dataclass(frozen=True)
class Form:
    """What an answer has to be, how often it is asked for again, and whether the model is told why.

    Where it `thinks`, what the model thought is taken off its answer before that is read.
    """

    schema: Mapping[str, Any] | None = None
    extract: Extract | None = None
    retries: int = RE_ASKS
    tells: bool = False
    thinks: bool = False

    @cached_property
    def _validator(self) -> SchemaValidator:
        return SchemaValidator(self.schema or {})

    @cached_property
    def _pattern(self) -> Any:
        assert self.extract is not None
        return pattern_of(self.extract.regex or "")

    def read(self, completion: Completion) -> Any:
        """What an answer gives: its text, the parsed JSON, or what is taken out; where it thinks, Thoughtful.

        Raises InvalidAnswer.
        """
        if not self.thinks:
            return self._value(completion)
        thoughts, text = _apart(completion)
        return Thoughtful(self._value(replace(completion, text=text)), thoughts)

    def _value(self, completion: Completion) -> Any:
        text = completion.text.strip()
        if not text:
            raise InvalidAnswer("the answer is empty")
        cut = " (it was cut at max_tokens)" if completion.finish_reason == "length" else ""
        if self.extract is not None:
            return self._taken(text, cut)
        if self.schema is None:
            return text
        try:
            value = orjson.loads(completion.text)
        except orjson.JSONDecodeError:
            raise InvalidAnswer(f"the answer is not JSON{cut}") from None
        if deeper_than(value):
            raise InvalidAnswer(f"the answer nests deeper than {DEEPEST} levels")
        self.check(value)
        return value

    def again(self, messages: Sequence[Message], answer: str, failure: InvalidAnswer) -> Sequence[Message]:
        """The messages with which it is asked for once more: with this answer and what was wrong with it."""
        if not self.tells or is_open(messages):
            return messages
        if self.thinks:
            answer = _after_thoughts(answer)
        said = answer.strip()[:QUOTED] or "(nothing)"
        return [
            *messages,
            {"role": "assistant", "content": said},
            {"role": "user", "content": f"{_sentence(failure.told)} Answer again, and mend that."},
        ]

    def check(self, value: Any) -> None:
        """Raises InvalidAnswer where parsed JSON is not valid under the schema."""
        errors = self._validator.iter_errors(value)
        try:
            if not self.tells:
                if (error := next(errors, None)) is not None:
                    raise InvalidAnswer(f"the answer is not valid under its schema: {error.message[:200]}")
                return
            found = sorted(map(told, islice(errors, ERRORS)))
        except TooMuch as error:
            raise InvalidAnswer(f"the answer {error}") from None
        if found:
            raise InvalidAnswer(f"the answer is not valid under its schema: {found[0][1]}")

    def _taken(self, text: str, cut: str) -> Any:
        assert self.extract is not None
        tags = self.extract.tag
        if isinstance(tags, str):
            return _between(text, tags, cut)
        if tags is not None:
            return {tag: _between(text, tag, cut) for tag in tags}
        found = self._pattern.search(text)
        if found is None:
            raise InvalidAnswer(f"the answer does not match the pattern{cut}")
        named = found.groupdict()
        if named:
            missing = [name for name, value in named.items() if not (value or "").strip()]
            if missing:
                raise InvalidAnswer(f"the answer has no {missing[0]!r} where the pattern looks for it{cut}")
            return {name: value.strip() for name, value in named.items()}
        whole = (found[1] if found.re.groups else found[0]) or ""
        if not whole.strip():
            raise InvalidAnswer(f"the answer has nothing where the pattern looks for it{cut}")
        return whole.strip()


def form_of(step: Step, schema: Mapping[str, Any] | None) -> Form:
    """The form of a step's answers; `schema` is that of its prompt, which counts unless it has its own."""
    own = step.output if step.output is not None else schema
    retries = RE_ASKS if step.retries is None else step.retries
    return Form(own, step.extract, retries, step.tells, step.reasoning is not None)


def _apart(completion: Completion) -> tuple[str | None, str]:
    """What was thought, and the text without it: as the server says, else by the tags in the text.

    Many chat templates write the opening tag themselves, so that the text has only the closing one. Raises
    InvalidAnswer where the thoughts have no end: cut as it is, a text without tags may be thoughts alone.
    """
    text, cut = completion.text, completion.finish_reason == "length"
    if completion.reasoning is not None and completion.reasoning.strip():
        if cut and not text.strip():
            raise InvalidAnswer("the reasoning was cut at max_tokens, before there was an answer")
        return completion.reasoning.strip(), text
    before, closed, after = text.partition(CLOSE)
    if not closed and cut:
        raise InvalidAnswer(f"the answer was cut at max_tokens before the reasoning's end, {CLOSE}")
    if not closed and OPEN in text:
        raise InvalidAnswer(f"the reasoning has no end, {CLOSE}")
    if not closed:
        return None, text
    head, opened, thoughts = before.partition(OPEN)
    if not opened:
        head, thoughts = "", before
    return thoughts.strip() or None, head + after


def _after_thoughts(text: str) -> str:
    """What of an answer that could not be used is shown again."""
    before, closed, after = text.partition(CLOSE)
    return after if closed else before.partition(OPEN)[0]


def _between(text: str, tag: str, cut: str) -> str:
    """The text of the last such tag: a model that thinks aloud may name it before."""
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, max(end, 0))
    if end < 0 or start < 0:
        raise InvalidAnswer(f"the answer has no <{tag}>...</{tag}>{cut}")
    inner = text[start + len(tag) + 2 : end].strip()
    if not inner:
        raise InvalidAnswer(f"the answer has nothing between <{tag}> and </{tag}>")
    return inner


def told(error: ValidationError, of: str = "answer") -> tuple[int, str]:
    """How deep an error is, and where and what it is, in words that no version of a library changes."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    rule = orjson.dumps(error.validator_value, default=str).decode()
    return len(error.absolute_path), f"{of}{path} must have `{error.validator}: {rule[:300]}`"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
