"""The openai engine against vLLM's own server, as users will run it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from synthgen.engines.base import Completion, ModelIdentity, Request, RequestFailed
from synthgen.engines.leash import Leash, end, tree
from synthgen.engines.openai import OpenAIEngine
from tests.engines.vllm_fixtures import CACHE, CAPITAL, CONTEXT, MARKS, model_folder

__all__ = ["model_folder"]
pytestmark = MARKS

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "size": {"enum": ["small", "large"]}},
    "required": ["city", "size"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM server on this machine, with what keeps it alive on a CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(model_folder), "--served-model-name", "smollm2"]
    command += ["--max-model-len", str(CONTEXT), "--kv-cache-memory-bytes", str(CACHE)]
    command += ["--no-enable-chunked-prefill", "--enforce-eager"]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
    leash = Leash()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    leash.hold(process.pid)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end(tree([process.pid]))
        process.wait()
        leash.release()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-4000:])


def answers(server: str, *requests: Request) -> list[Any]:
    async def main() -> list[Any]:
        engine = OpenAIEngine(server, ModelIdentity("openai", "smollm2"), api_key=None)
        try:
            await engine.start()
            return await asyncio.gather(*map(engine.complete, requests), return_exceptions=True)
        finally:
            await engine.close()

    return asyncio.run(main())


def ask(text: str, seed: int = 1, schema: dict[str, Any] | None = None, **sampling: Any) -> Request:
    sampling = {"temperature": 0.8, "max_tokens": 24, **sampling}
    return Request(text, [{"role": "user", "content": text}], sampling, seed, schema)


def test_many_at_once_with_counts(server: str) -> None:
    got = answers(server, *(ask(f"Tell me of the number {n}.", n, ignore_eos=True) for n in range(16)))
    assert all(isinstance(answer, Completion) for answer in got), got
    assert {answer.output_tokens for answer in got} == {24}
    assert {answer.finish_reason for answer in got} == {"length"}
    assert all(30 < answer.input_tokens < 50 for answer in got)


def test_seeds(server: str) -> None:
    (first,), (second,), (other,) = (answers(server, ask("Tell me a story.", seed)) for seed in (5, 5, 6))
    assert first == second
    assert first.text != other.text


def test_an_answer_as_the_engine_in_process_gives_it(server: str) -> None:
    (answer,) = answers(server, CAPITAL)
    assert "Paris" in answer.text
    assert answer.input_tokens == 62
    assert answer.finish_reason == "stop"


def test_answers_under_a_schema(server: str) -> None:
    got = answers(server, *(ask(f"Name city {n}.", n, CITY, max_tokens=100) for n in range(8)))
    done = [answer for answer in got if answer.finish_reason == "stop"]
    assert len(done) >= 6
    for answer in done:
        jsonschema.validate(json.loads(answer.text), CITY)


def test_one_too_long_fails_and_the_others_go_on(server: str) -> None:
    long, one = answers(server, ask("word " * CONTEXT), ask("Hello"))
    assert isinstance(long, RequestFailed)
    assert str(CONTEXT) in str(long)
    assert isinstance(one, Completion)


def test_the_users_turn_is_written_by_the_model(server: str) -> None:
    system = {"role": "system", "content": "You help with mathematics."}
    sampling = {"temperature": 1.0, "min_p": 0.1, "max_tokens": 60}
    got = answers(server, *(Request(str(n), [system, {"role": "user"}], sampling, n) for n in range(6)))
    assert all(isinstance(answer, Completion) for answer in got), got
    assert len({answer.text for answer in got}) == len(got)
    assert all("<|" not in answer.text and answer.text.strip() for answer in got)
    assert sum(answer.finish_reason == "stop" for answer in got) >= 4
    assert {answer.input_tokens for answer in got} <= {13}
