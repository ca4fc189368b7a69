"""What an engine is: something that answers one request with one completion, many at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from synthgen.errors import EngineUnreachable, UsageError

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt with everything that shapes its completion.

    A last message without content is a turn that the model is to write itself (`engines.turns`).
    `sampling` uses the names of vLLM's sampling parameters and never holds a seed: `seed` is that of
    this request alone. `schema` is a JSON schema that the answer must be decoded under.
    """

    key: str
    messages: Sequence[Message]
    sampling: Mapping[str, Any]
    seed: int
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """An engine's answer: its text, why it ended (`stop`, `length`, ...) and its size in tokens.

    `reasoning` is what the model thought before, where a server says that apart from the text.
    """

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    reasoning: str | None = None


class RequestFailed(Exception):
    """This request cannot be answered, and asking again would not help (a prompt too long, say)."""


class RequestRetryable(Exception):
    """This request was not answered, but may be if asked again after `retry_after` seconds.

    `overloaded` says that the engine asked for fewer requests at a time (HTTP 429 or 503).
    """

    def __init__(self, message: str, *, retry_after: float | None = None, overloaded: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.overloaded = overloaded


class RequestTimedOut(RequestRetryable):
    """There was no answer within the request's deadline, nor any other word."""


class EngineDied(EngineUnreachable):
    """The engine's own process ended while it was answering. It may be closed and started again."""

    def __init__(self, message: str, *, hint: str | None = None, out_of_memory: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.out_of_memory = out_of_memory


def request_timeout(environ: Mapping[str, str]) -> float:
    """Seconds that one request may take: SYNTHGEN_REQUEST_TIMEOUT, else 600. Raises UsageError."""
    return seconds_of(environ, "SYNTHGEN_REQUEST_TIMEOUT", 600.0)


def seconds_of(environ: Mapping[str, str], name: str, default: float) -> float:
    """Seconds that the environment gives under this name. Raises UsageError."""
    text = environ.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{name} is a number of seconds above 0, not {text!r}")
    return seconds


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What answers, as far as it is known: the part of a request's key that the model gives.

    `weights` is `sha256:...` of the weights where they are at hand, else None; then `id` and
    `revision` stand for them. `chat_template` is a digest where a template other than the one in the
    weights is used. `details` (versions, dtype, hardware) is recorded and is in no key.
    """

    engine: str
    id: str
    revision: str | None = None
    weights: str | None = None
    chat_template: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """One engine with one model. `start`, then `complete` concurrently, then `close`.

    `start` may fill in `identity.details`, and may be called again after `close`.

    `slots` may change while running.
    """

    identity: ModelIdentity

    @property
    def slots(self) -> int:
        """How many requests are worth having in flight now."""

    async def start(self) -> None:
        """Make it ready to answer. Raises `EngineUnreachable` where it cannot be."""

    async def complete(self, request: Request) -> Completion:
        """Answer one request. Cancelling frees its slot.

        Raises `RequestFailed`, `RequestRetryable`, `EngineDied` where a new start may help, or
        `EngineUnreachable` where nothing will.
        """

    async def close(self) -> None:
        """End it and every process of its own; may be called at any time, also twice."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text: its number in the model's vocabulary, and how it reads."""

    number: int
    text: str


@runtime_checkable
class Tokenizer(Protocol):
    """An engine that can say what tokens a text has, while it runs."""

    async def tokens(self, text: str) -> list[Token]:
        """The tokens, in order; marks of a chat template are text like any other.

        Raises `RequestRetryable` where it does not say.
        """
