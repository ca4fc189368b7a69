"""Rows a second through `synthgen run` beside a bare aiohttp client, against a server without latency.

    python benchmarks/bench_server.py [--rows 1500 3000 10000 20000] [--concurrency 256] [--rounds 3]

Both ask the same server, in a process of its own, for as many answers at the same concurrency; synthgen has
its journal, its keys and all default filters on. Two runs of different size give the cost of a row beyond
start-up. Rounds are interleaved and the median is taken, since a machine's speed drifts. Only ratios travel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILTERS = "refusal words language toxicity quality duplicate".split()
RECIPE = """
version: 1
name: bench
model: {{engine: openai, id: stand-in, base_url: "{url}", options: {{concurrency: {concurrency}}}}}
sampling: {{max_tokens: 200}}
seeds:
  doc: {{path: docs.jsonl, field: text}}
steps:
  - answer: {{prompt: {{user: "Explain in a paragraph: {{{{ doc }}}}"}}}}
record:
  messages:
    - user: "{{{{ doc }}}}"
    - assistant: "{{{{ answer }}}}"
filters:
{filters}
"""
CLIENT = """
import asyncio, json, sys, aiohttp
url, rows, concurrency, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
async def main():
    docs = [json.loads(line)["text"] for line in open(file)][:rows]
    todo = iter(enumerate(docs))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def work():
            for number, doc in todo:
                body = {"model": "stand-in", "max_tokens": 200, "seed": number,
                        "messages": [{"role": "user", "content": "Explain in a paragraph: " + doc}]}
                async with session.post(url + "/chat/completions", json=body) as response:
                    (await response.json())["choices"][0]["message"]["content"]
        await asyncio.gather(*(work() for _ in range(concurrency)))
asyncio.run(main())
"""


@dataclass(frozen=True)
class Timed:
    """Seconds and peak memory (MiB) of one child process."""

    seconds: float
    memory: float


def timed(command: list[str], cwd: Path) -> Timed:
    began = time.perf_counter()
    child = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"failed with {child.returncode}: {' '.join(command)}")
    return Timed(seconds, usage.ru_maxrss / 1024)


@contextmanager
def server() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.standin", "--port", "0", "--model", "stand-in", "--words", "150"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=4, default=[1500, 3000, 10_000, 20_000])
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    times: dict[tuple[str, int], list[Timed]] = {}
    with tempfile.TemporaryDirectory() as place, server() as url:
        folder = Path(place)
        text = "the history and the present use of item number {}, with its causes and its consequences"
        with (folder / "docs.jsonl").open("w") as file:
            file.writelines(json.dumps({"text": text.format(n)}) + "\n" for n in range(max(options.rows)))
        filters = "\n".join("  - words: {min: 2}" if name == "words" else f"  - {name}" for name in FILTERS)
        filters = filters.replace("- language", "- language: {is: en}")
        recipe = RECIPE.format(url=url, concurrency=options.concurrency, filters=filters)
        (folder / "bench.yaml").write_text(recipe)
        for number in range(options.rounds):
            for rows in options.rows:
                ours = [sys.executable, "-m", "synthgen", "run", "bench.yaml", "--tasks", str(rows)]
                bare = [sys.executable, "-c", CLIENT, url, str(rows), str(options.concurrency), "docs.jsonl"]
                run = timed([*ours, "-o", f"run-{number}-{rows}"], folder)
                times.setdefault(("synthgen", rows), []).append(run)
                times.setdefault(("aiohttp", rows), []).append(timed(bare, folder))
    show(times, options.rows)


def show(times: dict[tuple[str, int], list[Timed]], sizes: list[int]) -> None:
    def cost(who: str, small: int, large: int) -> float:
        """Microseconds a row beyond `small` rows, the median over rounds."""
        pairs = zip(times[who, small], times[who, large], strict=True)
        return statistics.median((b.seconds - a.seconds) / (large - small) * 1e6 for a, b in pairs)

    print(f"{'':<10}{'rows':>16}{'µs a row':>10}{'rows/s':>10}{'peak MiB':>10}")
    for who in ("aiohttp", "synthgen"):
        for small, large in ((sizes[0], sizes[1]), (sizes[2], sizes[3])):
            per_row = cost(who, small, large)
            memory = max(timed.memory for timed in times[who, large])
            print(
                f"{who:<10}{f'{small:,}-{large:,}':>16}{per_row:>10.0f}{1e6 / per_row:>10,.0f}{memory:>10.0f}"
            )
    ratio = cost("aiohttp", sizes[2], sizes[3]) / cost("synthgen", sizes[2], sizes[3])
    flat = cost("synthgen", sizes[2], sizes[3]) / cost("synthgen", sizes[0], sizes[1])
    print(f"\nsynthgen / bare client: {ratio:.2f} of its rows a second")
    print(f"cost of a row at {sizes[3]:,} / at {sizes[1]:,}: {flat:.2f}")


if __name__ == "__main__":
    main()
