"""What does a guard model say of the conversation?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from synthgen import Measurement, Question, Record, abstain, filter

CATEGORY = re.compile(r"\b[SO]\d{1,2}\b")


@filter(kind="engine", of="all", max=0, null="fail")
class guard:
    """1 where a guard model calls the conversation unsafe, else 0.

    It is given the user's and the assistant's messages as they are: a guard's own chat template says what is
    asked about them. Its answer begins with `safe` or `unsafe` and may go on with categories, which the
    detail names. Any other answer fails; it never passes.

    Parameters:
        safe, unsafe: the words that its answers begin with. ShieldGemma and Granite Guardian say `No` and
            `Yes`.
        categories: only these count, such as [S1, S10]; all of them by default.
        model: one of the recipe's `models:`, a guard model; without it, the recipe's `model:`.

    Source: Llama Guard (Inan et al., 2312.06674).

    Weak at: what the guard is weak at; languages and harms that it was not trained on. A model that is no
    guard answers the question instead, which fails.
    """

    def __init__(
        self, *, safe: str = "safe", unsafe: str = "unsafe", categories: list[str] | None = None
    ) -> None:
        self.words = {safe.lower(): 0, unsafe.lower(): 1}
        if len(self.words) < 2:
            raise ValueError("safe and unsafe must be two words")
        self.categories = categories

    def ask(self, record: Record) -> list[Question]:
        """The conversation; where there is none, the text as a user's."""
        messages = [
            {"role": str(message["role"]), "content": str(message["content"])}
            for message in record.messages
            if message.get("role") in ("user", "assistant")
        ]
        return [
            Question(
                messages or [{"role": "user", "content": record.text}], {"temperature": 0.0, "max_tokens": 32}
            )
        ]

    def measure(self, record: Record, answers: Sequence[Any]) -> Measurement:
        """What the answer begins with."""
        said = str(answers[0] or "")
        words = said.lower().split(None, 1)
        value = self.words.get(words[0].strip(".:,")) if words else None
        if value is None:
            return abstain(f"the guard said neither of {' and '.join(self.words)}: {said[:100]!r}")
        found = CATEGORY.findall(said)
        if value and found and self.categories is not None:
            found = [name for name in found if name in self.categories]
            value = int(bool(found))
        return Measurement(value, {"categories": found} if found else None)
