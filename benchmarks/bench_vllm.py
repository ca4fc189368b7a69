"""Output tokens a second through `synthgen run` beside a bare `LLM.generate` call.

    python benchmarks/bench_vllm.py [MODEL] [--requests 128] [--tokens 64] [--rounds 7] [--sequences 256]
                                    [--cache 1]

MODEL is a folder with safetensors, a GGUF file, or by default the default alias. Each side runs in a process
of its own, with the same engine arguments, on the same prompts and sampling; the bare side is handed its
prompts as tokens, synthgen renders and tokenizes them, writes its journal, measures every default filter and
writes the dataset. Answers have as many tokens as they may, so that both do the same work. Both stay loaded,
and the one that is not measured is stopped: the start of the engine is left aside. Rounds are pairs in
alternating order with prompts of their own, since a machine's speed drifts; the ratio's interval is a
bootstrap over the pairs. Only ratios travel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen import models
from synthgen.engines.leash import Leash

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "recipes" / "data" / "python_docs.jsonl"
# Engines fit side by side; on a GPU each would begin by asking for nearly all of its memory.
OPTIONS: dict[str, Any] = {"max_model_len": 2048, "gpu_memory_utilization": 0.1}
Message = dict[str, str]


@dataclass(frozen=True)
class Batch:
    """One round's requests: their messages, their seeds, and how long an answer may be."""

    prompts: list[list[Message]]
    seeds: list[int]
    tokens: int

    @property
    def sampling(self) -> dict[str, Any]:
        return {"temperature": 0.8, "top_p": 0.95, "max_tokens": self.tokens, "ignore_eos": True}


def batch(number: int, requests: int, tokens: int) -> Batch:
    """The requests of one round; a number at the front keeps one round's cached prefixes from the next."""
    docs = [json.loads(line)["text"] for line in DOCS.read_text().splitlines()]
    random.Random(number).shuffle(docs)
    prompts = [
        [
            {"role": "system", "content": f"Exam {number}. You write clear questions and answer them."},
            {
                "role": "user",
                "content": f"{docs[i % len(docs)]}\n\nWrite question {i} on this, and its answer.",
            },
        ]
        for i in range(requests)
    ]
    return Batch(prompts, [number * requests + i for i in range(requests)], tokens)


def bare(model: str) -> Callable[[Batch], int]:
    """What a user of vLLM writes: `LLM.generate` over the whole batch."""
    from vllm import LLM, SamplingParams

    from synthgen.engines.vllm_setup import engine_arguments

    llm = LLM(**engine_arguments(model, None, OPTIONS))
    tokenizer = llm.get_tokenizer()

    def prepare(work: Batch) -> list[Any]:
        rendered = [
            tokenizer.apply_chat_template(m, add_generation_prompt=True, tokenize=True, return_dict=False)
            for m in work.prompts
        ]
        return [{"prompt_token_ids": list(tokens)} for tokens in rendered]

    def run(work: Batch) -> Callable[[], int]:
        prompts = prepare(work)
        sampling = [SamplingParams(**work.sampling, seed=seed) for seed in work.seeds]

        def timed() -> int:
            outputs = llm.generate(prompts, sampling, use_tqdm=False)
            return sum(len(output.outputs[0].token_ids) for output in outputs)

        return timed

    return run


def engine(model: str) -> Callable[[Batch], int]:
    """The same requests through `VllmEngine`, as many at a time as it has slots."""
    from synthgen.engines.base import ModelIdentity, Request
    from synthgen.engines.vllm import VllmEngine

    loop = asyncio.new_event_loop()
    vllm = VllmEngine(model, ModelIdentity("vllm", model), options=OPTIONS)
    loop.run_until_complete(vllm.start())

    async def answer(requests: Sequence[Request]) -> int:
        todo, answers = iter(requests), []

        async def work() -> None:
            for request in todo:
                answers.append(await vllm.complete(request))

        await asyncio.gather(*(work() for _ in range(vllm.slots)))
        return sum(answer.output_tokens for answer in answers)

    def run(work: Batch) -> Callable[[], int]:
        requests = [
            Request(str(seed), messages, work.sampling, seed)
            for messages, seed in zip(work.prompts, work.seeds, strict=True)
        ]
        return lambda: loop.run_until_complete(answer(requests))

    return run


RECIPE = """
version: 1
name: bench
model: {{engine: vllm, id: bench}}
sampling: {sampling}
seeds:
  prompt: {{path: prompts.jsonl}}
steps:
  - answer:
      prompt:
        messages:
          - system: "{{{{ prompt.system }}}}"
          - user: "{{{{ prompt.user }}}}"
record:
  messages:
    - user: "{{{{ prompt.user }}}}"
    - assistant: "{{{{ answer }}}}"
filters:
  - refusal
  - words: {{min: 2}}
  - characters: {{min: 2}}
  - quality
  - language: {{is: en}}
  - toxicity
  - duplicate
"""


def whole(model: str) -> Callable[[Batch], int]:
    """The same through `synthgen run`: journal, all default filters, dataset."""
    from synthgen.driver import Driver
    from synthgen.engines.base import Completion, ModelIdentity, Request
    from synthgen.engines.vllm import VllmEngine
    from synthgen.loading import load

    class Loaded:
        """An engine that is started before the clock is, and outlives each run."""

        def __init__(self) -> None:
            self.inner = VllmEngine(model, ModelIdentity("vllm", model), options=OPTIONS)
            self.identity, self.slots = self.inner.identity, self.inner.slots

        async def start(self) -> None: ...

        async def complete(self, request: Request) -> Completion:
            return await self.inner.complete(request)

        async def close(self) -> None: ...

    loop = asyncio.new_event_loop()
    vllm = Loaded()
    loop.run_until_complete(vllm.inner.start())

    def run(work: Batch) -> Callable[[], int]:
        folder = Path(tempfile.mkdtemp(prefix="synthgen-bench-"))
        os.chdir(folder)
        rows = [{"system": turns[0]["content"], "user": turns[1]["content"]} for turns in work.prompts]
        (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "bench.yaml").write_text(RECIPE.format(sampling=json.dumps(work.sampling)))

        def timed() -> int:
            loaded = load(folder / "bench.yaml")
            result = loop.run_until_complete(Driver(loaded, folder / "run", {"": vllm}).run())
            assert result.planned == len(rows) == result.kept + result.dropped
            shutil.rmtree(folder)
            return result.usage["output_tokens"]

        return timed

    return run


SIDES = {"LLM.generate": bare, "VllmEngine": engine, "synthgen run": whole}


def serve(side: str, model: str) -> None:
    """A side's process: load, then answer each line on stdin (a round) with tokens and seconds."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # vLLM prints to stdout
    run = SIDES[side](model)
    print("{}", file=answers)
    for line in sys.stdin:
        timed = run(batch(**json.loads(line)))
        began = time.perf_counter()
        tokens = timed()
        print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - began}), file=answers)


class Side:
    """A side's process, stopped except while it is asked."""

    def __init__(self, name: str, model: str, leash: Leash) -> None:
        self.name = name
        self.rates: list[float] = []
        sizes = ["--sequences", OPTIONS["max_num_seqs"], "--cache", OPTIONS["kv_cache_memory_bytes"] >> 30]
        self._process = subprocess.Popen(
            [sys.executable, __file__, model, "--side", name, *map(str, sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("SYNTHGEN_DEBUG") else subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            start_new_session=True,
        )
        leash.hold(self._process.pid)

    def loaded(self) -> None:
        """Wait until it is; the other sides load meanwhile."""
        self._read()
        self._signal(signal.SIGSTOP)

    def ask(self, **round_: int) -> None:
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        print(json.dumps(round_), file=self._process.stdin, flush=True)
        told = self._read()
        self._signal(signal.SIGSTOP)
        self.rates.append(told["tokens"] / told["seconds"])

    def end(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; SYNTHGEN_DEBUG=1 shows why")
        return json.loads(line)

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of the medians of resampled pairs."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return medians[250], medians[-251]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["LLM.generate", "synthgen run"])
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sequences", type=int, default=256, help="that run at a time (max_num_seqs)")
    parser.add_argument("--cache", type=int, default=1, help="GiB of each engine's attention cache")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    OPTIONS.update(max_num_seqs=given.sequences, kv_cache_memory_bytes=given.cache << 30)
    if given.side:
        serve(given.side, given.model)
    model = given.model or str(models.pull("smollm2-135m").path)
    if model.endswith(".gguf"):
        from synthgen.engines.gguf import to_safetensors

        model = str(to_safetensors(Path(model), ROOT / ".cache" / "bench"))
    leash = Leash()
    sides: list[Side] = []
    try:
        for name in given.sides:
            sides.append(Side(name, model, leash))
        for side in sides:
            side.loaded()
        for number in range(given.rounds + 1):
            for side in sides if number % 2 else reversed(sides):
                side.ask(number=number, requests=given.requests, tokens=given.tokens)
                print(f"round {number} {side.name}: {side.rates[-1]:.0f}", file=sys.stderr)
    finally:
        for side in sides:
            side.end()
        leash.release()
    base = sides[0].rates[1:]  # the first round warms up
    print(f"{'':14}{'tokens/s':>10}{'ratio':>8}  95 % interval")
    for side in sides:
        ratios = [mine / theirs for mine, theirs in zip(side.rates[1:], base, strict=True)]
        low, high = interval(ratios)
        rate, ratio = statistics.median(side.rates[1:]), statistics.median(ratios)
        print(f"{side.name:14}{rate:>10.0f}{ratio:>8.3f}  {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
