"""The default model as vLLM loads it, and the mark of tests that need vLLM."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from synthgen.engines.base import Request

MISSING = "vLLM is not installed here: make test-vllm"
without_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason=MISSING)
MARKS = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600), without_vllm]

# Small, so that an engine and a server fit beside one another.
CONTEXT = 2048
CACHE = 1 << 30
# With an example before it: asked by itself, the model knows the answer on some processors only.
CAPITAL = Request(
    "capital",
    [
        {"role": "user", "content": "What is the capital of Italy?"},
        {"role": "assistant", "content": "The capital of Italy is Rome."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    {"temperature": 0, "max_tokens": 24},
    1,
)


@pytest.fixture(scope="session")
def model_folder(default_model: Path) -> Path:
    from synthgen.engines.gguf import to_safetensors
    from synthgen.models import cache_dir

    return to_safetensors(default_model, cache_dir() / "converted")
