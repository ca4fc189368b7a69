"""Rows a second through `synthgen run` beside a bare aiohttp client, against a server without latency.

    python benchmarks/bench_server.py [--rows 1500 3000 10000 20000] [--concurrency 256] [--rounds 3]
    python benchmarks/bench_server.py --peers [datatrove curator distilabel data_designer] [--rounds 3]

Both ask the same server, in a process of its own, for as many answers at the same concurrency; synthgen has
its journal, its keys and all default filters on. Two runs of different size give the cost of a row beyond
start-up. Rounds are interleaved and the median is taken, since a machine's speed drifts. Only ratios travel.

With --peers (all, or those named) the same rounds run synthgen with its record-level filters alone and with
none too, and other tools: each in an environment of its own under .bench/, or where SYNTHGEN_BENCH_CACHE
says, made on first use from
`peers/<name>.txt`, and through `peers/run_<name>.py`, which writes a dataset as the tool's users would and
fails unless every row has an answer. Their caches and checkpoints are as by default, and empty; their
telemetry is off. What each has switched on stands under the table. The first two of --rows, by default 500
2000, are for tools that answer hundreds of rows a second, the others, by default 4000 20000, for thousands.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peers.environment import Unavailable, environment

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


# Whether each answers thousands of rows a second, and what it does beside asking.
ASKS_ONLY = "asks and parses; keeps nothing"
OURS = "journal of requests and answers, keys, provenance, Parquet and JSONL"
PEERS = {
    "datatrove": (
        True,
        "no checkpoints, no cache of requests; a connection a request; gzipped JSONL",
    ),
    "curator": (
        False,
        "cache of requests and responses, costs; cut-off answers kept, no rate limits; Parquet",
    ),
    "distilabel": (
        False,
        "cache of batches, raw inputs and outputs kept; a batch of rows at a time; Parquet",
    ),
    "data_designer": (False, "a Parquet file a batch of 1,000, statistics of columns; metrics endpoint off"),
}


@dataclass(frozen=True)
class Timed:
    """Seconds of one child process, and the peak memory (MiB) of the largest process of its tree."""

    seconds: float
    memory: float


class Failed(SystemExit):
    """A child process that did not do what it was for, in a sentence."""


def timed(
    command: list[str], cwd: Path, env: dict[str, str] | None = None, limit: float = threading.TIMEOUT_MAX
) -> Timed:
    """Run the command to its end; past `limit` seconds it is ended, with all that it started."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        timer = threading.Timer(limit, os.killpg, (child.pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise Failed(f"failed with {child.returncode}: {' '.join(command)}: {last}")
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


@dataclass(frozen=True)
class Tool:
    """What is measured: its command for so many rows into a folder, the two sizes it is measured at, and
    whether each row came out."""

    name: str
    command: Callable[[int, Path], list[str]]
    sizes: tuple[int, int]
    about: str
    complete: Callable[[int, Path], bool] = lambda rows, out: True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=4)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    options = parser.parse_args()
    with_peers = options.peers is not None
    rows = options.rows or ([500, 2000, 4000, 20_000] if with_peers else [1500, 3000, 10_000, 20_000])
    # Before anything is measured, since an installation keeps the machine busy.
    pythons = dict(installed(options.peers or list(PEERS))) if with_peers else {}
    with tempfile.TemporaryDirectory() as place, server() as url:
        folder = Path(place)
        prepare(folder, url, options.concurrency, max(rows))
        if with_peers:
            tools = all_tools(pythons, url, options.concurrency, rows)
            show_peers(*measure(tools, folder, url, options.rounds))
            return
        times: dict[tuple[str, int], list[Timed]] = {}
        for number in range(options.rounds):
            for count in rows:
                run = timed(ours(count, Path(f"run-{number}-{count}")), folder)
                times.setdefault(("synthgen", count), []).append(run)
                client = timed(bare(url, options.concurrency)(count, folder), folder)
                times.setdefault(("aiohttp", count), []).append(client)
    show(times, rows)


def prepare(folder: Path, url: str, concurrency: int, rows: int) -> None:
    """The documents that are asked about, and the recipe with all default filters, some, and none."""
    text = "the history and the present use of item number {}, with its causes and its consequences"
    with (folder / "docs.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text.format(n)}) + "\n" for n in range(rows))
    filters = "\n".join("  - words: {min: 2}" if name == "words" else f"  - {name}" for name in FILTERS)
    filters = filters.replace("- language", "- language: {is: en}")
    by_record = filters.replace("  - duplicate", "")
    for name, given in (("bench", filters), ("by-record", by_record), ("unfiltered", "  []")):
        recipe = RECIPE.format(url=url, concurrency=concurrency, filters=given)
        (folder / f"{name}.yaml").write_text(recipe)


def ours(rows: int, out: Path, recipe: str = "bench") -> list[str]:
    synthgen = [sys.executable, "-m", "synthgen", "run", f"{recipe}.yaml"]
    return [*synthgen, "--tasks", str(rows), "-o", str(out)]


def bare(url: str, concurrency: int) -> Callable[[int, Path], list[str]]:
    return lambda rows, out: [sys.executable, "-c", CLIENT, url, str(rows), str(concurrency), "docs.jsonl"]


def installed(names: list[str]) -> Iterator[tuple[str, Path]]:
    """The peers that can be had here, each with its Python; a sentence for each that cannot."""
    for name in names:
        try:
            yield name, environment(name)
        except Unavailable as error:
            print(f"{name} is left out: {error}")


def all_tools(pythons: dict[str, Path], url: str, concurrency: int, rows: list[int]) -> list[Tool]:
    def command(name: str) -> Callable[[int, Path], list[str]]:
        script = ROOT / "benchmarks" / "peers" / f"run_{name}.py"
        begun = [str(pythons[name]), str(script), url]
        return lambda rows, out: [*begun, str(rows), str(concurrency), "docs.jsonl", str(out)]

    slow, quick = (rows[0], rows[1]), (rows[2], rows[3])
    peers = [Tool(name, command(name), quick if PEERS[name][0] else slow, PEERS[name][1]) for name in pythons]
    return [
        Tool("aiohttp", bare(url, concurrency), quick, ASKS_ONLY),
        Tool("synthgen", ours, quick, f"{OURS}; filters: {', '.join(FILTERS)}", accounted),
        Tool(
            "by record",
            partial(ours, recipe="by-record"),
            quick,
            f"synthgen: {OURS}; no duplicate",
            accounted,
        ),
        Tool(
            "unfiltered", partial(ours, recipe="unfiltered"), quick, f"synthgen: {OURS}; no filter", accounted
        ),
        *peers,
    ]


def accounted(rows: int, out: Path) -> bool:
    """Whether each row of a run of synthgen is in the dataset or among those dropped."""
    files = [out / "dataset" / "train.jsonl", out / "dropped.jsonl"]
    return sum(path.read_bytes().count(b"\n") for path in files if path.exists()) == rows


def measure(
    tools: list[Tool], folder: Path, url: str, rounds: int
) -> tuple[list[Tool], dict[tuple[str, int], list[Timed]]]:
    """Interleaved rounds, after a small run of each. A tool that fails is left out with a sentence."""
    times: dict[tuple[str, int], list[Timed]] = {}
    left = list(tools)
    for number in range(rounds + 1):
        for tool in list(left):
            try:
                for rows in tool.sizes if number else (20,):  # the first compiles its modules, and proves it
                    run = once(tool, rows, folder, url)
                    if number:
                        times.setdefault((tool.name, rows), []).append(run)
            except Failed as failed:
                if tool.name not in PEERS:
                    raise
                print(f"{tool.name} is left out: it {failed}")
                left.remove(tool)
    return left, times


def once(tool: Tool, rows: int, folder: Path, url: str) -> Timed:
    out = folder / f"{tool.name}-{rows}"
    home = out if tool.name in PEERS else Path.home()  # so that caches start empty, and go with the folder
    out.mkdir()
    before = answered(url)
    run = timed(tool.command(rows, out), folder, {**os.environ, "HOME": str(home)}, limit=600)
    if answered(url) - before < rows:
        raise Failed(f"asked for {answered(url) - before} answers, of {rows}")
    if not tool.complete(rows, out):
        raise Failed(f"did not account for all of {rows} rows")
    shutil.rmtree(out)
    return run


def answered(url: str) -> int:
    """How many answers the server has given."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/_stats") as response:
        return int(json.load(response)["completed"])


def show_peers(tools: list[Tool], times: dict[tuple[str, int], list[Timed]]) -> None:
    def cost(tool: Tool) -> tuple[float, float]:
        """Seconds a row beyond start-up, and seconds of start-up: medians over rounds."""
        small, large = tool.sizes
        pairs = list(zip(times[tool.name, small], times[tool.name, large], strict=True))
        costs = [(b.seconds - a.seconds) / (large - small) for a, b in pairs]
        starts = [a.seconds - small * each for (a, _), each in zip(pairs, costs, strict=True)]
        return statistics.median(costs), statistics.median(starts)

    found = {tool.name: cost(tool) for tool in tools}
    head = f"{'rows':>14}{'rows/s':>8}{'start-up':>10}{'of aiohttp':>12}{'synthgen':>10}{'by record':>11}"
    print(f"\n{'':<14}{head}{'MiB':>6}")
    for tool in tools:
        small, large = tool.sizes
        each, start = found[tool.name]
        memory = max(timed.memory for timed in times[tool.name, large])
        of_aiohttp, ours, some = (each / found[name][0] for name in ("aiohttp", "synthgen", "by record"))
        print(
            f"{tool.name:<14}{f'{small:,}-{large:,}':>14}{1 / each:>8,.0f}{start:>8.1f} s"
            f"{1 / of_aiohttp:>12.2f}{ours:>9.2f}x{some:>10.2f}x{memory:>6.0f}"
        )
    print(
        "\nrows: the two sizes, whose difference gives rows/s beyond start-up; of aiohttp: its rows/s by"
        "\naiohttp's; synthgen, by record: synthgen's rows/s, with all default filters and with those of a"
        "\nrecord, by its own; MiB: the peak of the largest process. No peer filters anything here."
        "\nSwitched on:"
    )
    for tool in tools:
        print(f"  {tool.name}: {tool.about}")


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
