"""How much of what a text means was there before?"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen import Measurement, Record, abstain, filter
from synthgen.filters._embedding import MINILM, embedder, readable, served, whole_numbers
from synthgen.filters._minilm import minilm_file

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

NO_TEXT, UNREADABLE = b"", b"?"
REASONS = {
    NO_TEXT: "there is no text",
    UNREADABLE: "most letters are of a script that the model cannot read; it is for English",
}


@filter(max=0.9, kind="run", of="instruction", store=True)
class semantic_duplicate:
    """How similar the instruction is in meaning to the most similar one that was kept before it, from 0 to 1.

    It is the cosine of the two texts' embeddings (0 where that is negative): 1 for the same text, about 0.8
    for the same question in other words, 0.5 for another question about the same thing. The detail has the id
    of the other record. `of: answer` compares answers, `of: both` questions with their answers.

    Of texts of more than 1000 characters the model sees four pieces, spread evenly. Every record is compared
    with all that were kept.

    Parameters:
        model: `minilm`, which is installed with synthgen and needs no network; or the name or folder of a
            model for sentence-transformers (extra `sentence-transformers`), such as a multilingual one;
            or `{id: NAME, base_url: ADDRESS}`, a model of an OpenAI-compatible server, whose key is the one
            that you bound to its host. It is known by its name: what a name stands for must not change
            within a run. Embeddings are stored, and made once for each record.

    Source: all-MiniLM-L6-v2 with weights of 8 bits; a bound of 0.9 on the cosine as in SemHash and DEITA. Of
    25 pairs of paraphrases written to try it, 6 are above 0.9, 13 above 0.85 and 20 above 0.75; of 25 pairs
    of different questions about like things none, one and two.

    Weak at: negation, numbers and names, which change little in an embedding ("the largest planet" and "the
    smallest planet": 0.85); languages other than English, where it sees likeness of words rather than of
    meaning; it abstains on scripts other than Latin. With another model it abstains on empty text alone. A
    text takes 4 to 100 milliseconds to embed. Each kept record takes 1.5 KB and is looked at again for every
    other: about 10 milliseconds a record beyond 50,000 kept, ten times that beyond 500,000. Another kind of
    processor may give other last digits.
    """

    def __init__(self, *, model: str | dict[str, str] = MINILM) -> None:
        self._english = model == MINILM
        self._embed = embedder(model) if isinstance(model, str) else served(model)
        self._ids: list[str] = []
        self._vectors: Array | None = None
        self._squares: Array | None = None

    @staticmethod
    def weights(*, model: str | dict[str, str] = MINILM) -> dict[str, Path]:
        """The model that it measures by, where that is one of this machine's."""
        return {"all-MiniLM-L6-v2": minilm_file()} if model == MINILM else {}

    def features(self, records: Sequence[Record]) -> list[bytes]:
        """The embedding of each text, a byte for each of its numbers."""
        found = [self._without(record.text) for record in records]
        texts = [record.text for record, known in zip(records, found, strict=True) if known is None]
        made = iter([whole_numbers(vector) for vector in self._embed(texts)])
        return [next(made) if known is None else known for known in found]

    def _without(self, text: str) -> bytes | None:
        """What stands for a text of which there is no embedding."""
        if not text.strip():
            return NO_TEXT
        return UNREADABLE if self._english and not readable(text) else None

    def resolve(self, id: str, feature: bytes) -> Measurement:
        """The similarity to the most similar record kept so far; of several, the earliest."""
        import numpy as np

        if feature in REASONS:
            return abstain(REASONS[feature])
        if self._vectors is None or self._squares is None:
            return Measurement(0.0)
        vector = _vector(feature)
        count = len(self._ids)
        products = self._vectors[:count] @ vector
        best = int((products / np.sqrt(self._squares[:count])).argmax())
        value = float(products[best]) / sqrt(_square(vector) * float(self._squares[best]))
        return Measurement(min(max(value, 0.0), 1.0), {"of": self._ids[best]})

    def keep(self, id: str, feature: bytes) -> None:
        """From now on, others are compared with this record too."""
        import numpy as np

        if feature in REASONS:
            return
        vector, number = _vector(feature), len(self._ids)
        if self._vectors is None or self._squares is None:
            self._vectors = np.empty((1024, len(vector)), np.float32)
            self._squares = np.empty(1024)
        elif number == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
            self._squares = np.concatenate([self._squares, np.empty_like(self._squares)])
        self._vectors[number] = vector
        self._squares[number] = _square(vector)
        self._ids.append(id)


def _vector(feature: bytes) -> Array:
    """Whole numbers so small that their products are exact, in whatever order they are added up."""
    import numpy as np

    vector: Array = np.frombuffer(feature, np.int8).astype(np.float32)
    return vector


def _square(vector: Array) -> float:
    return max(float(vector @ vector), 1.0)
