"""Measuring, away from the event loop: in a thread for small runs, in processes of our own for large ones.

A worker process reads batches from its standard input and ends when that closes, so that none outlives the
run however the run ends. It is a process of ours and no fork: filters may use threads and native code.
"""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from synthgen.chain import ChainFilter, Measured, Measuring
from synthgen.collecting import collect_less
from synthgen.errors import RunError, SynthgenError
from synthgen.filter_files import find_filter
from synthgen.input_files import NamedFile
from synthgen.measure import Measurement
from synthgen.project import Project
from synthgen.recipe_filters import FilterUse

PROCESSES_ABOVE = 1000
_LENGTH = struct.Struct("<Q")


class Measurer(Protocol):
    """Measures a batch; called from threads, as many at a time as `parallel` says."""

    parallel: int

    def measure(
        self, ids: Sequence[str], bodies: Sequence[bytes], known: Sequence[Sequence[str]]
    ) -> Measured:
        """Measure the records whose contents these bodies are, leaving out what is known of each."""

    def close(self) -> None:
        """End it."""


class InProcess:
    """Measures in the calling thread, one batch at a time."""

    parallel = 1

    def __init__(self, chain: Sequence[ChainFilter]) -> None:
        self._chain = chain
        self._measuring: Measuring | None = None

    def measure(
        self, ids: Sequence[str], bodies: Sequence[bytes], known: Sequence[Sequence[str]]
    ) -> Measured:
        """Measure, loading the filters at the first batch."""
        if self._measuring is None:
            self._measuring = Measuring(self._chain)
        return self._measuring.measure(ids, [orjson.loads(body) for body in bodies], known)

    def close(self) -> None:
        """Nothing to end."""


class InProcesses:
    """Measures in processes, one batch at a time in each."""

    def __init__(self, chain: Sequence[ChainFilter], project: Project, count: int) -> None:
        self.parallel = count
        setup = orjson.dumps(
            {
                "root": str(project.root.resolve()),
                "chain": [
                    {
                        "name": link.name,
                        "filter": link.definition.name,
                        "use": {
                            **link.params,
                            "of": link.of,
                            "min": link.min,
                            "max": link.max,
                            "action": link.action,
                        },
                        "files": {
                            parameter: [[str(file.path), file.name, file.sha256] for file in files]
                            for parameter, files in link.files.items()
                        },
                    }
                    for link in chain
                    if not link.asks
                ],
            }
        )
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all = [self._start(setup) for _ in range(count)]
        for worker in self._all:
            self._idle.put(worker)

    @staticmethod
    def _start(setup: bytes) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [sys.executable, "-m", "synthgen.workers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert worker.stdin is not None
        _send(worker.stdin, setup)
        return worker

    def measure(
        self, ids: Sequence[str], bodies: Sequence[bytes], known: Sequence[Sequence[str]]
    ) -> Measured:
        """Measure in the next idle process. Raises RunError if a filter brings its process down."""
        batch = {"ids": ids, "bodies": [orjson.Fragment(body) for body in bodies], "known": known}
        worker = self._idle.get()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            _send(worker.stdin, orjson.dumps(batch))
            answer = _receive(worker.stdout)
        except OSError:
            answer = None
        finally:
            self._idle.put(worker)  # a dead one too: who waits for it must not wait for ever
        if answer is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(timeout=5)
            raise RunError(
                f"a process that measures filters ended on its own (exit {worker.returncode})",
                hint="nothing that was generated is lost; run the same command again",
            )
        said = orjson.loads(answer)
        if "error" in said:
            raise RunError(said["error"], hint=said["hint"])
        return _unpacked(said)

    def close(self) -> None:
        """Close their inputs, which ends them; kill one that does not end."""
        for worker in self._all:
            if worker.stdin is not None:
                with contextlib.suppress(OSError):  # it ended on its own, with something unread
                    worker.stdin.close()
        for worker in self._all:
            try:
                worker.wait(timeout=5)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()


def open_measurer(chain: Sequence[ChainFilter], project: Project, records: int | None) -> Measurer:
    """What measures a run of so many records (None: nobody knows) best."""
    if not chain or (records is not None and records <= PROCESSES_ABOVE):
        return InProcess(chain)
    return InProcesses(chain, project, max(1, min(16, (os.cpu_count() or 2) - 1)))


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    return data if len(data) == length else None


def _packed(measured: Measured) -> dict[str, Any]:
    return {
        "results": [
            {
                name: result if isinstance(result, str) else [result.value, result.detail]
                for name, result in results.items()
            }
            for results in measured.results
        ],
        "features": [
            {name: b64encode(feature).decode() for name, feature in features.items()}
            for features in measured.features
        ],
        "redacted": [[place, body.decode()] for place, body in measured.redacted.items()],
    }


def _unpacked(data: dict[str, Any]) -> Measured:
    return Measured(
        [
            {name: item if isinstance(item, str) else Measurement(*item) for name, item in results.items()}
            for results in data["results"]
        ],
        [{name: b64decode(feature) for name, feature in features.items()} for features in data["features"]],
        {place: body.encode() for place, body in data["redacted"]},
    )


def main() -> None:
    """Serve one run: its chain comes first, then batches until the input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a filter prints must not end up among the replies
    requests = sys.stdin.buffer
    setup = _receive(requests)
    if setup is None:
        return
    said = orjson.loads(setup)
    project = Project(Path(said["root"]))
    chain = []
    for item in said["chain"]:
        found = find_filter(item["filter"], project)
        assert found is not None
        files = {
            parameter: [NamedFile(Path(path), name, sha256) for path, name, sha256 in named]
            for parameter, named in item["files"].items()
        }
        chain.append(ChainFilter.of_recipe(found, FilterUse(**item["use"]), item["name"], files))
    measuring: Measuring | None = None
    measured_any = False
    while (data := _receive(requests)) is not None:
        batch = orjson.loads(data)
        try:
            measuring = measuring or Measuring(chain)
            measured = measuring.measure(batch["ids"], batch["bodies"], batch["known"])
            _send(replies, orjson.dumps(_packed(measured)))
            if not measured_any:
                collect_less()  # now that the filters have loaded what they look things up in
                measured_any = True
        except SynthgenError as error:
            _send(replies, orjson.dumps({"error": error.message, "hint": error.hint}))


if __name__ == "__main__":
    # a terminal's Ctrl-C reaches every process; only the run itself decides when to stop
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
