"""Tokenizers by file or by model, to count tokens with; nothing is fetched."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

# How a GGUF's kinds of byte-level BPE cut a text before they merge; the names are llama.cpp's.
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CUTS = {
    "llama-bpe": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
KINDS = ("default", "gpt-2", "smollm", *CUTS)
SPECIAL = (3, 4)  # control tokens and those that a user defined, as GGUF numbers them


def tokenizer_of(file: Path) -> Any:
    """The tokenizer in a `tokenizer.json` or a GGUF. Raises ValueError for any other file."""
    from tokenizers import Tokenizer

    with file.open("rb") as handle:
        if handle.read(4) == b"GGUF":
            return _of_gguf(file)
    try:
        made = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no other type
        raise ValueError(f"{file.name} is neither a tokenizer.json nor a GGUF: {error}") from None
    made.no_truncation()
    made.no_padding()
    return made


def tokenizer_file(name: str) -> Path:
    """Where the tokenizer of a model is: an alias's GGUF, or a `tokenizer.json` in the Hugging Face cache.

    Fetches nothing. Raises ValueError, saying how to fetch it.
    """
    from synthgen.models import ALIASES, cached

    if name in ALIASES:
        path = cached(name)
        if path is None:
            raise ValueError(f"the model {name} is not here yet: synthgen models pull {name}")
        return path
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        raise ValueError("the cache of models takes huggingface-hub: install synthgen-data[hub]") from None
    try:
        found = try_to_load_from_cache(name, "tokenizer.json")
    except ValueError as error:
        raise ValueError(f"{name!r} is no model: {error}") from None
    if not isinstance(found, str):
        raise ValueError(  # noqa: TRY004 - it is there or not
            f"there is no tokenizer.json of {name} in the Hugging Face cache: `hf download {name}`"
        )
    return Path(found)


def _of_gguf(file: Path) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    held = gguf_fields(file)
    kind, cut = held.get("tokenizer.ggml.model"), held.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or cut not in KINDS:
        what = f"{kind}/{cut}" if kind == "gpt2" else f"{kind}"
        raise ValueError(f"{file.name} has a tokenizer of the kind {what}: name the model's tokenizer.json")
    tokens = held["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in held["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(BPE(vocabulary, merges, ignore_merges=cut == "llama-bpe"))
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut not in CUTS)]
    if cut == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif cut in CUTS:
        steps.insert(0, pre_tokenizers.Split(Regex(CUTS[cut]), "isolated"))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if cut == "qwen2":
        made.normalizer = normalizers.NFC()
    kinds = held.get("tokenizer.ggml.token_type", [])
    special = [token for token, kind in zip(tokens, kinds, strict=False) if kind in SPECIAL]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return made


def gguf_fields(file: Path) -> dict[str, Any]:
    """What a GGUF says of its tokenizer. Raises ValueError for a file that is cut off."""
    scalars = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def numbers(handle: IO[bytes], code: str, count: int = 1) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{code}")
        return struct.unpack(f"<{count}{code}", handle.read(size * count))

    def text(handle: IO[bytes]) -> str:
        return handle.read(numbers(handle, "Q")[0]).decode(errors="replace")

    def value(handle: IO[bytes], kind: int) -> Any:
        if kind in scalars:
            return numbers(handle, scalars[kind])[0]
        if kind == 8:
            return text(handle)
        inner, count = numbers(handle, "I")[0], numbers(handle, "Q")[0]
        if inner in scalars:
            return list(numbers(handle, scalars[inner], count))
        return [value(handle, inner) for _ in range(count)]

    try:
        with file.open("rb") as handle:
            handle.seek(16)
            fields = numbers(handle, "Q")[0]
            return {text(handle): value(handle, numbers(handle, "I")[0]) for _ in range(fields)}
    except (struct.error, MemoryError, OverflowError) as error:
        raise ValueError(f"{file.name} cannot be read as GGUF: {error}") from None
