"""Embeddings from an OpenAI-compatible server: asked once a text, with the right key, through faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver, embed
from synthgen.engines import embeddings
from synthgen.errors import EngineUnreachable, UsageError
from synthgen.recurate import recurate
from synthgen.workers import InProcess
from tests.support import FakeEngine, loaded, recipe, run_it


class Server(ThreadingHTTPServer):
    """Embeds a text by its words; `faults` are answered first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Any] = []
        self.texts: list[str] = []
        self.keys: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers.get("Authorization"))
        status, said = 200, json.dumps(self.embedded(asked["input"])).encode()
        if self.server.faults:
            fault = self.server.faults.pop(0)
            status, said = (fault, b"busy") if isinstance(fault, int) else (200, json.dumps(fault).encode())
        else:
            self.server.texts += asked["input"]
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(said)

    def embedded(self, texts: list[str]) -> dict[str, Any]:
        rows = [{"index": place, "embedding": vector(text)} for place, text in enumerate(texts)]
        return {"data": rows[::-1]}

    def log_message(self, format: str, *args: object) -> None:
        pass


def vector(text: str) -> list[float]:
    found = [0.01] * 256
    for word in text.split():
        found[hashlib.sha256(word.encode()).digest()[0]] += 1
    return found


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("SYNTHGEN_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setattr(embeddings.random, "uniform", lambda low, high: 0.0)
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_texts_are_embedded_in_order(server: Server) -> None:
    texts = [f"text {number}" for number in range(150)]
    assert embed(texts, model="m", base_url=server.url) == [vector(text) for text in texts]
    assert server.texts == texts
    assert len(server.keys) == 3
    assert embed([], model="m", base_url=server.url) == []


def test_faults_that_pass_are_ridden_out(server: Server) -> None:
    server.faults = [503, 429, {"data": []}]
    assert embed(["a"], model="m", base_url=server.url) == [vector("a")]


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([400], "HTTP 400: busy"),
        ([503] * 6, "HTTP 503"),
        ([{"error": "no"}] * 6, "no embeddings"),
        ([302], "HTTP 302"),
    ],
)
def test_faults_that_do_not_pass(server: Server, faults: list[Any], said: str) -> None:
    server.faults = faults
    with pytest.raises(EngineUnreachable, match=said):
        embed(["a"], model="m", base_url=server.url)


def test_nobody_there_and_no_address(server: Server) -> None:
    with pytest.raises(EngineUnreachable, match="gives no embeddings"):
        embed(["a"], model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="base_url is no"):
        embed(["a"], model="m", base_url="here")


def test_the_key_is_the_users(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHGEN_API_KEY", "not-for-this")
    monkeypatch.setenv("MINE", "mine")
    embed(["a"], model="m", base_url=server.url)
    host = server.url.removesuffix("/v1")
    (tmp_path / "config.toml").write_text(f'[keys]\n"{host}" = "env:MINE"\n')
    embed(["a"], model="m", base_url=server.url)
    assert server.keys == [None, "Bearer mine"]


def test_each_record_is_embedded_once(server: Server, tmp_path: Path) -> None:
    """Embeddings are stored: neither another run in the directory nor `curate` asks for them again."""
    pytest.importorskip("onnxruntime")
    model = {"id": "m", "base_url": server.url}
    chain = [
        {"semantic_duplicate": {"of": "instruction", "max": 0.99, "model": model}},
        {"words": {"min": 1}},
    ]
    rows = [{"text": f"{word} of the town"} for word in ("mayor", "streets", "mayor", "history", "")]
    first = run_it(
        loaded(tmp_path, recipe(filters=chain), rows=rows), FakeEngine(), directory=tmp_path / "run"
    )
    assert (first.kept, first.dropped) == (4, 1)
    assert len(server.texts) == 5
    done = recurate(tmp_path / "run", ["semantic_duplicate.max=0.2"], project=tmp_path)
    assert done.result.kept < 4
    chain[1] = {"words": {"min": 2}}
    run_it(loaded(tmp_path, recipe(filters=chain), rows=rows), FakeEngine(), directory=tmp_path / "run")
    assert len(server.texts) == 5


def test_a_server_that_is_gone_ends_the_run(server: Server, tmp_path: Path) -> None:
    server.faults = [400]
    model = {"id": "m", "base_url": server.url}
    given = loaded(tmp_path, recipe(filters=[{"semantic_duplicate": {"model": model}}]))
    with pytest.raises(EngineUnreachable, match="HTTP 400"):
        run_it(given, FakeEngine(), directory=tmp_path / "run")
    assert run_it(given, FakeEngine(), directory=tmp_path / "run").failed == 0
