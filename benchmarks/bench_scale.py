"""A very large run against a server without latency: cost of a row, memory, and how long going on takes.

    python benchmarks/bench_scale.py [--rows 10000 100000 1000000] [--concurrency 256] [--folder DIR]

Every size is run once through `synthgen run`, with the default record-level filters, the journal and the keys
on. The largest is killed (SIGKILL) when nine tenths are judged, and gone on with: what is printed is the time
from the start of the second process to the first record that it judges. Memory is the driver's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_server import RECIPE, ROOT, server

FILTERS = "\n".join(
    f"  - {use}" for use in ("refusal", "words: {min: 2}", "language: {is: en}", "toxicity", "quality")
)


def start(folder: Path, rows: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "synthgen",
        "run",
        "scale.yaml",
        "--tasks",
        str(rows),
        "-o",
        f"run-{rows}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = (folder / f"run-{rows}.log").open("ab")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def judged(folder: Path, rows: int) -> int:
    """How many records are stored, as `synthgen status` tells."""
    from synthgen.errors import UsageError
    from synthgen.view import RunView

    try:
        with RunView(folder / f"run-{rows}") as view:
            said = view.status()
    except UsageError:
        return 0
    return sum(said[name] or 0 for name in ("kept", "dropped", "failed"))


def peak_mib(process: subprocess.Popen[bytes]) -> float:
    """Its peak so far."""
    try:
        text = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0.0)


def follow(process: subprocess.Popen[bytes], folder: Path, rows: int, until: int | None = None) -> float:
    """Wait for its end, or until so many records are judged; gives its peak memory."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_mib(process))
        if until is not None and judged(folder, rows) >= until:
            break
        time.sleep(0.5)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="Where the runs go and stay; else a temporary folder.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, server() as url:
        folder = options.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        text = "the history and the present use of item number {}, with its causes and its consequences"
        with (folder / "docs.jsonl").open("w") as file:
            file.writelines(json.dumps({"text": text.format(n)}) + "\n" for n in range(max(options.rows)))
        recipe = RECIPE.format(url=url, concurrency=options.concurrency, filters=FILTERS)
        (folder / "scale.yaml").write_text(recipe)
        print(f"{'rows':>10}{'seconds':>10}{'µs a row':>10}{'rows/s':>10}{'peak MiB':>10}{'journal MiB':>13}")
        for rows in sorted(options.rows):
            run_one(folder, rows, killed=rows == max(options.rows))


def run_one(folder: Path, rows: int, *, killed: bool) -> None:
    began = time.perf_counter()
    process = start(folder, rows)
    peak = follow(process, folder, rows, until=rows * 9 // 10 if killed else None)
    note = ""
    if killed and process.poll() is None:
        process.kill()
        process.wait()
        stored, again = judged(folder, rows), time.perf_counter()
        process = start(folder, rows)
        peak = max(peak, follow(process, folder, rows, until=stored + 1))
        seconds = time.perf_counter() - again
        note = f"  killed at {stored:,}; {seconds:.1f} s from the new start to the first new record"
        peak = max(peak, follow(process, folder, rows))
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"exit {process.returncode}; see {folder}/run-{rows}.log")
    size = sum(path.stat().st_size for path in (folder / f"run-{rows}").glob("run.sqlite*")) / 2**20
    print(
        f"{rows:>10,}{seconds:>10.1f}{seconds / rows * 1e6:>10.0f}{rows / seconds:>10,.0f}"
        f"{peak:>10.0f}{size:>13.0f}{note}",
        flush=True,
    )


if __name__ == "__main__":
    main()
