"""How probable a model of the user's machine finds a text, without generating any."""

from __future__ import annotations

import secrets
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

GROUP = 64  # tokens whose probabilities are computed at once: each needs a number for every word of the model


def require() -> None:
    """Raises ValueError where what is needed is not installed."""
    if any(find_spec(name) is None for name in ("xllamacpp", "gguf")):
        raise ValueError("it needs more packages: pip install 'synthgen-data[likelihood]'")


class Likelihood:
    """A GGUF model that reads texts. llama.cpp gives its last hidden states, the rest is done here.

    llama.cpp's server has no way to ask for the probabilities of a prompt's tokens, but those follow from the
    hidden states and the output matrix, and reading a text costs less than writing it.
    """

    def __init__(self, weights: Path, context: int) -> None:
        """Load the model. `context` is how many tokens it is to read at most."""
        import xllamacpp as llama

        params = llama.CommonParams()
        params.model.path = str(weights)
        params.n_parallel, params.n_ctx, params.n_batch, params.n_ubatch = 1, context, context, context
        params.embedding, params.embd_normalize = True, -1
        params.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # One: measuring runs in as many processes as there are cores.
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_ram_mib, params.fit_params, params.verbosity = 0, False, -1
        params.ui, params.endpoint_slots = False, False
        # It listens on a port of this machine whether asked to or not: nobody else is to use it.
        self._key = secrets.token_hex(32)
        params.api_keys = [self._key]
        self._server = llama.Server(params)
        self._address = urlsplit(self._server.listening_address).netloc
        self._output = _output_matrix(weights)

    def prompt(self, instruction: str) -> list[int]:
        """The tokens of a conversation in which that was asked, up to where the answer begins."""
        message = {"role": "user", "content": _readable(instruction)}
        said = self._post("/apply-template", {"messages": [message]})
        return self.tokens(str(said["prompt"]), special=True)

    def tokens(self, text: str, *, special: bool = False) -> list[int]:
        """The text's tokens. Marks of a chat template are text like any other unless they are `special`."""
        body = {"content": _readable(text), "add_special": False, "parse_special": special}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def losses(self, before: list[int], tokens: list[int]) -> Array:
        """The negative logarithm of the probability of each token after those before it."""
        import numpy as np

        [read] = self._post("/embedding", {"content": before + tokens, "embd_normalize": -1})
        # The last token is read, but nothing follows it.
        states = np.array(read["embedding"][len(before) - 1 : -1], np.float32)
        found = [
            _losses(states[start : start + GROUP] @ self._output.T, tokens[start : start + GROUP])
            for start in range(0, len(tokens), GROUP)
        ]
        return np.concatenate([np.empty(0), *found])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        import orjson

        connection = HTTPConnection(self._address, timeout=600)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
            connection.request("POST", path, orjson.dumps(body), headers)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"llama.cpp answered {path} with {said[:200].decode(errors='replace')}")
        return orjson.loads(said)


def _readable(text: str) -> str:
    return text.encode(errors="replace").decode()  # lone surrogates


def _losses(logits: Array, tokens: list[int]) -> Array:
    import numpy as np

    largest = logits.max(axis=1)
    sums = np.exp(logits - largest[:, None]).sum(axis=1)
    losses: Array = np.log(sums) + largest - logits[np.arange(len(tokens)), tokens]
    return losses


def _output_matrix(weights: Path) -> Array:
    """What makes a number for each token of the vocabulary of a hidden state; often the input's matrix."""
    import numpy as np
    from gguf import GGUFReader, dequantize

    tensors = {tensor.name: tensor for tensor in GGUFReader(weights).tensors}
    found = tensors.get("output.weight") or tensors["token_embd.weight"]
    matrix: Array = dequantize(found.data, found.tensor_type).astype(np.float32)
    return matrix
