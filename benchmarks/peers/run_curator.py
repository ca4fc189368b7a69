"""Bespoke Curator: its OpenAI backend, with its cache of requests and responses, into Parquet."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from work import MODEL, PROMPT, TOKENS, given


def main() -> None:
    work = given()
    litellm = find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    # The encoding that it counts tokens with is downloaded unless found; LiteLLM has it in its wheel.
    encodings = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(encodings)
    import pyarrow.parquet
    from bespokelabs import curator

    class Explain(curator.LLM):
        def prompt(self, input: dict[str, Any]) -> str:
            return PROMPT + input["text"]

        def parse(self, input: dict[str, Any], response: str) -> dict[str, Any]:
            return {**input, "answer": response}

    explain = Explain(
        model_name=MODEL,
        backend="openai",
        generation_params={"max_tokens": TOKENS},
        backend_params={
            "base_url": work.url,
            "max_concurrent_requests": work.concurrency,
            # It has a budget a minute of each, 200 requests by default. These bind nothing.
            "max_requests_per_minute": 10**9,
            "max_tokens_per_minute": 10**12,
            # By default an answer cut off at max_tokens is asked for again, which here would never end well.
            "invalid_finish_reasons": ["content_filter"],
        },
    )
    answers = explain([{"text": text} for text in work.texts()])
    answers.dataset.to_parquet(work.out / "answers.parquet")

    work.check(pyarrow.parquet.read_table(work.out / "answers.parquet")["answer"].to_pylist())


if __name__ == "__main__":
    main()
