"""Where texts lie in what they mean: embeddings of the small model that comes with synthgen, on a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

SEEN = 400  # characters of a text that are embedded: what it is about is said by then, and time is saved
MODEL = "all-MiniLM-L6-v2 (8 bits)"


def embeddings(texts: Sequence[str]) -> Array:
    """A row of 384 numbers of length 1 for each text; zeros for an empty one."""
    import numpy as np

    from synthgen.filters._embedding import MINILM, embedder

    found = np.zeros((len(texts), 384))
    full = [number for number, text in enumerate(texts) if text.strip()]
    for number, vector in zip(full, embedder(MINILM)([texts[n][:SEEN] for n in full]), strict=True):
        found[number] = vector
    return found


def plane(vectors: Array) -> tuple[Array, float]:
    """The two principal components of the vectors, each from -1 to 1, and the share of the variance in them.

    Signs are so chosen that the largest weight of each component is positive.
    """
    import numpy as np

    centred = vectors - vectors.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    places = centred @ axes.T
    if places.shape[1] < 2:
        places = np.hstack([places, np.zeros((len(places), 2 - places.shape[1]))])
    largest = np.abs(places).max() or 1.0
    total = float((lengths**2).sum())
    return places / largest, float((lengths[:2] ** 2).sum()) / total if total else 0.0
