"""The marks of a chat template inside texts, broken, so that no text opens or closes a message.

A template and its texts become one text before that becomes tokens: there `<|im_start|>` in a document would
be the very token that begins a message. It reaches the model as `< |im_start|>`, which is a text like any.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

OPENINGS = ("<|", "<\uff5c")  # how marks begin that a template may put together from parts


class Marks:
    """The tokens that a model's chat template is made with."""

    def __init__(self, special: Iterable[str], template: str, ends: Iterable[str] = ()) -> None:
        """`special` are the model's control tokens, of which those count that are in the template, look as if
        they could be, or are among `ends`: the tokens that begin and end everything.
        """
        ends = {*ends}
        marks = {
            mark
            for mark in special
            if len(mark) > 1 and (mark in template or mark.startswith(OPENINGS) or mark in ends)
        }
        longest_first = sorted(marks, key=lambda mark: (-len(mark), mark))
        self._found = re.compile("|".join(map(re.escape, longest_first))) if marks else None

    def broken(self, said: Any) -> Any:
        """The same message, or part of one, with a space after the first sign of each mark in its texts."""
        if isinstance(said, str):
            return self._found.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", said) if self._found else said
        if isinstance(said, Mapping):
            return {key: value if key == "role" else self.broken(value) for key, value in said.items()}
        return [self.broken(each) for each in said] if isinstance(said, list | tuple) else said


def marks_of_gguf(fields: Mapping[str, Any]) -> Marks:
    """Those of a GGUF, from what it says of its tokenizer."""
    tokens, kinds = fields.get("tokenizer.ggml.tokens", []), fields.get("tokenizer.ggml.token_type", [])
    special = [token for token, kind in zip(tokens, kinds, strict=False) if kind == 3]  # llama.cpp's CONTROL
    numbers = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "eom"))
    ends = [tokens[number] for number in numbers if isinstance(number, int) and number < len(tokens)]
    return Marks(special, str(fields.get("tokenizer.chat_template", "")), ends)


def marks_of_tokenizer(tokenizer: Any) -> Marks:
    """Those of a tokenizer of the library transformers."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    ends = [str(each) for each in getattr(tokenizer, "all_special_tokens", ())]
    special = [*ends, *(str(each) for each in added if getattr(each, "special", False))]
    return Marks(special, str(getattr(tokenizer, "chat_template", None) or ""), ends)
