"""A turn of the user left open for the model to write: the chat template, cut where that turn's text begins.

After Magpie (Xu et al. 2024, arXiv:2406.08464). In a request such a turn is a last message without content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.engines.base import Message, RequestFailed

MARK = "synthgen-opens-this-turn"  # stands for the text that is not there yet


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """The prompt up to where the turn's text begins, and what the template writes right after that text."""

    prompt: str
    end: str


def is_open(messages: Sequence[Message]) -> bool:
    """Whether the model is to write the last turn itself, and not the answer to it."""
    return bool(messages) and "content" not in messages[-1]


def marked(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as a chat template takes them, with the mark as the open turn's text."""
    return [*map(dict, messages[:-1]), {**messages[-1], "content": MARK}]


def cut(rendered: str) -> OpenTurn:
    """A rendered template, cut at the mark. Raises RequestFailed where it has none.

    Spaces before it go, for they belong to the token that the text begins with. Of what follows, the first
    line is taken: a template may open the answer's turn below it.
    """
    before, found, after = rendered.rpartition(MARK)
    if not found:
        raise RequestFailed("the chat template leaves out the user's turn, so that no model can write it")
    lines = after.strip().splitlines()
    return OpenTurn(before.rstrip(" "), lines[0].strip() if lines else "")


def stops(given: Any, end: str) -> list[str]:
    """What ends the text: the recipe's own `stop`, and the end that the template writes."""
    own = [given] if isinstance(given, str) else list(given or ())
    return [*own, *([end] if end and end not in own else [])]
