"""How long is the text, in words, characters or a model's tokens?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from synthgen import InputFile, Record, filter
from synthgen.filters.characters import characters
from synthgen.filters.words import words
from synthgen.tokenizing import tokenizer_file, tokenizer_of

Unit = Literal["words", "characters", "tokens"]


@filter
class length:
    """How long the text is, in words, characters or tokens.

    Words and characters are those of the filters `words` and `characters`. Tokens are counted by a model's
    tokenizer, without the marks that a chat template puts around a message.

    Parameters:
        in: `words`, `characters` or `tokens`; tokens where a tokenizer is named, else words.
        tokenizer: a file of the project: a model's `tokenizer.json`, or its GGUF.
        model: in place of a file an alias such as smollm2-135m, or the id of a model (`org/name`) whose
            `tokenizer.json` is in the Hugging Face cache. Nothing is fetched.

    Source: the tokenizers library. Of GGUF the byte-level BPE of the kinds gpt-2,
    smollm, llama-bpe and qwen2 is read, with the vocabulary and the merges in the file.

    Weak at: what a GGUF leaves out: a `tokenizer.json` is surer. The id of a model stands for whichever
    revision is in the cache.

    Examples:
        "Three words here." -> 3
        "" -> 0
    """

    def __init__(
        self,
        *,
        in_: Unit | None = None,
        tokenizer: InputFile | None = None,
        model: str | None = None,
    ) -> None:
        if tokenizer is not None and model is not None:
            raise ValueError("give `tokenizer` or `model`, not both")
        named = tokenizer is not None or model is not None
        unit = in_ or ("tokens" if named else "words")
        if named != (unit == "tokens"):
            raise ValueError(
                "to count tokens takes a `tokenizer` or a `model`; to count words or characters none"
            )
        count = {"words": words, "characters": characters}
        self.count: Callable[[Record], int]
        if unit == "tokens":
            self.count = _counter(Path(tokenizer) if tokenizer is not None else tokenizer_file(str(model)))
        else:
            self.count = count[unit]

    def measure(self, record: Record) -> int:
        """The number of units."""
        return self.count(record)


def _counter(file: Path) -> Callable[[Record], int]:
    tokenizer = tokenizer_of(file)

    def count(record: Record) -> int:
        text = record.text.encode(errors="replace").decode()  # lone surrogates
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count
