"""What a text means, as a vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from synthgen import embed
from synthgen.filters._minilm import hidden_states

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Embed = Callable[[str], "Array"]
EmbedAll = Callable[[Sequence[str]], list["Array"]]

MINILM = "minilm"
TOKENS = 256  # that the model sees at once
LONG = 1000  # characters; of longer texts it sees so many pieces, spread evenly, of so many characters
PIECES, PIECE = 4, 500
# The last Latin letter of the Unicode blocks in which Latin letters with accents are.
LAST_LATIN = "\u024f"
LONGEST = 4095.0  # products of two vectors of that length are whole numbers that a float32 holds exactly


def readable(text: str) -> bool:
    """Whether MiniLM can tell such texts apart: most letters are Latin. Of others it has single signs."""
    letters = [char for char in text if char.isalpha()]
    return sum(char <= LAST_LATIN for char in letters) >= 0.7 * len(letters)


def pieces(text: str) -> list[str]:
    """The text, or pieces from all of it."""
    if len(text) <= LONG:
        return [text]
    starts = [number * (len(text) - PIECE) // (PIECES - 1) for number in range(PIECES)]
    return [text[start : start + PIECE] for start in starts]


def served(model: Mapping[str, str]) -> EmbedAll:
    """What asks a server for the vectors of texts. Raises ValueError for a mapping of another form."""
    if set(model) != {"id", "base_url"}:
        raise ValueError("a model of a server is given as {id: NAME, base_url: ADDRESS}")

    def embed_all(texts: Sequence[str]) -> list[Array]:
        import numpy as np

        parts = [pieces(text) for text in texts]
        flat = [piece.encode(errors="replace").decode() for pieces_ in parts for piece in pieces_]
        found = iter(embed(flat, model=model["id"], base_url=model["base_url"]) if flat else [])
        vectors = [[np.array(next(found)) for _ in pieces_] for pieces_ in parts]
        return [_mean(each) for each in vectors]

    return embed_all


def _mean(vectors: Sequence[Array]) -> Array:
    import numpy as np

    whole: Array = np.mean([vector / max(np.linalg.norm(vector), 1e-12) for vector in vectors], axis=0)
    return whole


def embedder(model: str) -> EmbedAll:
    """What makes the vectors of texts, loaded when it is first used.

    Raises ValueError where what it needs is not installed.
    """
    if model != MINILM and find_spec("sentence_transformers") is None:
        raise ValueError(
            f"`model: {model}` takes one more: pip install 'synthgen-data[sentence-transformers]'"
        )
    load = _minilm if model == MINILM else _sentence_transformer

    def embed_all(texts: Sequence[str]) -> list[Array]:
        one = load(model) if texts else None
        return [
            _mean([one(piece.encode(errors="replace").decode()) for piece in pieces(text)])
            for text in texts
            if one is not None
        ]

    return embed_all


def whole_numbers(vector: Array) -> bytes:
    """The vector as int8, as finely as goes."""
    import numpy as np

    largest, length = float(np.abs(vector).max()), float(np.linalg.norm(vector))
    if not largest:
        return bytes(len(vector))
    # Rounding adds half a unit to each number at most, and so half the square root of their count.
    scale = min(127 / largest, (LONGEST - len(vector) ** 0.5) / length)
    return bytes(np.rint(vector * scale).astype(np.int8).tobytes())


def _minilm(model: str) -> Embed:
    states = hidden_states(TOKENS)

    def embed(text: str) -> Array:
        vector: Array = states(text).mean(axis=0)
        return vector

    return embed


@cache
def _sentence_transformer(model: str) -> Embed:
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model, device="cpu")

    def embed(text: str) -> Array:
        vector: Array = loaded.encode(text, show_progress_bar=False)
        return vector

    return embed
