"""datatrove: its inference runner on an endpoint, into gzipped JSONL, without checkpoints, its default."""

from __future__ import annotations

import gzip
import json
from typing import Any

from work import MODEL, PROMPT, TOKENS, given


async def answer(document: Any, generate: Any) -> Any:
    message = {"role": "user", "content": PROMPT + document.text}
    return await generate({"messages": [message], "max_tokens": TOKENS})


def main() -> None:
    work = given()
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path=MODEL,
        endpoint_url=work.url.removesuffix("/v1"),  # it adds the version itself
        max_concurrent_generations=work.concurrency,
    )
    reader = JsonlReader(str(work.docs.parent), glob_pattern=work.docs.name, limit=work.rows)
    writer = JsonlWriter(str(work.out / "data"))
    runner = InferenceRunner(rollout_fn=answer, config=config, output_writer=writer)
    LocalPipelineExecutor([reader, runner], tasks=1, logging_dir=str(work.out / "logs")).run()

    files = sorted((work.out / "data").glob("*.jsonl.gz"))
    lines = [line for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]
    work.check(json.loads(line)["metadata"]["rollout_results"][0]["text"] for line in lines)


if __name__ == "__main__":
    main()
