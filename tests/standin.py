"""A stand-in for an OpenAI-compatible server: quick, the same answer to the same request, faults on demand.

    python -m tests.standin --port 0 --fault 429=0.3 --fault 503=0.1 --fault outage=100:50

prints `{"url": ..., "port": ...}` and serves until it is ended. GET /_stats says what it has seen,
POST /_set changes its settings. `serving()` does the same in a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import email.utils
import hashlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

WORDS = (
    "the a river mountain light engine garden winter answer careful simple method result paper question "
    "student city music number because although then slowly often never many few carries explains begins "
    "follows water stone bread window letter story reason morning teacher doctor planet forest bridge small "
    "large bright quiet old new early late"
).split()

FAULTS = (
    "429", "429-after", "429-date", "500", "503", "503-after", "reset", "half", "not-json", "empty", "hang",
    "length",
)  # fmt: skip
UNUSABLE = ("blank", "cut", "invalid")


@dataclasses.dataclass
class Settings:
    """What the server does. `faults` gives each fault's share of the requests, drawn from the request
    and from how often it was seen, so that they strike the same requests in any order. `unusable` gives the
    shares of requests whose answer, each time, is blank, cut at its length, or invalid under its schema."""

    model: str = "standin"
    faults: dict[str, float] = dataclasses.field(default_factory=dict)
    most_faults: int | None = None  # that strike one request
    unusable: dict[str, float] = dataclasses.field(default_factory=dict)
    retry_after: float = 0.01
    outage: tuple[int, int] | None = None  # (first request, how many): connections are reset
    latency: float = 0.0
    pace: float = 0.0  # seconds from one answer to the next
    until: int | None = None  # so many are answered; the others wait until this is set to something else
    words: int = 24  # an answer has about so many
    capacity: int | None = None  # more at a time are answered with 429
    context: int | None = None  # words that a prompt may have
    key: str | None = None  # that it asks for
    echo_key: bool = False  # say the key it got in its refusals
    cookie: str | None = None  # that it sets with each reply
    models: bool = True  # whether /models is there
    redirect: str | None = None
    keep_bodies: bool = False
    keep_answers: bool = False
    reasoning: str | None = None  # the name under which a message has what was thought before its text


class StandIn:
    """The server's settings and what it has seen."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.port = 0
        self.requests = 0  # for completions
        self.completed = 0
        self.most_in_flight = 0
        self.in_flight = 0
        self.keys: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.faulted: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[int] = []  # the seed of each request, which tells requests apart
        self.answered: list[tuple[float, int]] = []  # when, and the seed of the request
        self.held: list[Callable[[], None]] = []  # answers that wait
        self.loop: asyncio.AbstractEventLoop | None = None
        self._free = 0.0
        self._seen: Counter[bytes] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "completed": self.completed,
            "most_in_flight": self.most_in_flight,
            "keys": dict(self.keys),
            "paths": dict(self.paths),
            "faulted": dict(self.faulted),
        }

    def set(self, **changes: Any) -> None:
        for name, value in changes.items():
            if name not in Settings.__dataclass_fields__:
                raise ValueError(name)
            setattr(self.settings, name, value)
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        held, self.held = self.held, []
        for answer in held:
            answer()

    def fault_of(self, body: bytes) -> str | None:
        """The fault that strikes this request, this time."""
        settings = self.settings
        if settings.outage is not None:
            first, count = settings.outage
            if first <= self.requests - 1 < first + count:
                return "reset"
        if not settings.faults:
            return None
        digest = hashlib.sha256(body).digest()
        self._seen[digest] += 1
        if settings.most_faults is not None and self._seen[digest] > settings.most_faults:
            return None
        return drawn(settings.faults, digest + b"%d" % self._seen[digest])

    def delay(self) -> float:
        """Seconds until the answer to a request that has just come."""
        settings, now = self.settings, time.monotonic()
        if settings.pace:
            self._free = max(now, self._free) + settings.pace
        return max(settings.latency, self._free - now)


def drawn(shares: Mapping[str, float], material: bytes) -> str | None:
    """One of these, or none, as the material says."""
    left = int.from_bytes(hashlib.sha256(material).digest()[:8], "big") / 2**64
    for name, share in shares.items():
        if left < share:
            return name
        left -= share
    return None


def answer_text(request: Mapping[str, Any], words: int) -> tuple[str, str, int]:
    """Text, finish reason and length of the answer to a request: a function of its messages and seed."""
    material = orjson.dumps([request["messages"], request.get("seed")], option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(material).digest()
    form = request.get("response_format") or {}
    if form.get("type") == "json_schema":
        text = orjson.dumps(example(form["json_schema"]["schema"], digest)).decode()
        return text, "stop", len(text) // 4 + 1
    wished = words // 2 + digest[0] * words // 256
    limit = request.get("max_tokens") or request.get("max_completion_tokens") or wished
    count = min(wished, limit)
    said = phrase(digest, count)
    return said, "length" if count < wished else "stop", count


def phrase(digest: bytes, count: int) -> str:
    """So many words."""
    stream = hashlib.shake_256(digest).digest(count)
    text = " ".join([WORDS[byte % len(WORDS)] for byte in stream])
    return f"{text[:1].upper()}{text[1:]}."


def example(schema: Mapping[str, Any], digest: bytes) -> Any:
    """A value that the schema allows."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return example(schema[key][digest[1] % len(schema[key])], digest)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][digest[1] % len(schema["enum"])]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {
            name: example(part, hashlib.sha256(digest + name.encode()).digest())
            for name, part in schema.get("properties", {}).items()
        }
    if kind == "array":
        count = max(schema.get("minItems", 0), min(3, schema.get("maxItems", 3)))
        return [
            example(schema.get("items", {}), hashlib.sha256(digest + b"%d" % i).digest())
            for i in range(count)
        ]
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        return low + digest[2] % (schema.get("maximum", low + 9) - low + 1)
    if kind == "boolean":
        return bool(digest[2] % 2)
    if kind == "null":
        return None
    text = phrase(digest, max(3, schema.get("minLength", 0) // 3))
    return text[: schema.get("maxLength", len(text))]


class _Connection(asyncio.Protocol):
    """One connection: HTTP/1.1 with a Content-Length, and as little else as will do."""

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.buffer = b""
        self.given: str | None = None  # the key of the latest request
        self.last = False  # the client asked for the connection to be closed after the reply
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in head[1:])}
            size = end + 4 + int(fields.get("content-length", "0"))
            if len(self.buffer) < size:
                return
            body, self.buffer = self.buffer[end + 4 : size], self.buffer[size:]
            self.last = fields.get("connection", "").strip().lower() == "close"
            method, path, _ = head[0].split(" ", 2)
            self.handle(method, path, fields, body)

    def handle(self, method: str, path: str, fields: Mapping[str, str], body: bytes) -> None:
        server, settings = self.server, self.server.settings
        if path == "/_stats":
            return self.reply(200, server.stats())
        if path == "/_set":
            server.set(**orjson.loads(body))
            return self.reply(200, {})
        server.paths[path] += 1
        given = self.given = fields.get("authorization")
        if given is not None:
            server.keys[given] += 1
        if settings.redirect is not None:
            return self.reply(307, {}, {"Location": settings.redirect})
        if settings.key is not None and given != f"Bearer {settings.key}":
            said = f"Incorrect API key provided: {given}" if settings.echo_key else "Incorrect API key"
            return self.reply(401, {"error": {"message": said, "code": "invalid_api_key"}})
        if path == "/v1/models" and settings.models:
            return self.reply(200, {"object": "list", "data": [{"id": settings.model, "object": "model"}]})
        if path != "/v1/chat/completions" or method != "POST":
            return self.reply(404, {"error": {"message": f"no {path} here", "code": 404}})
        server.requests += 1
        server.in_flight += 1
        server.loop = asyncio.get_running_loop()
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        if settings.capacity is not None and server.in_flight > settings.capacity:
            server.in_flight -= 1
            server.faulted["capacity"] += 1
            return self.reply(429, {"error": {"message": "too many at a time"}})
        if settings.keep_answers:
            server.asked.append(orjson.loads(body)["seed"])
        if delay := server.delay():
            asyncio.get_running_loop().call_later(delay, self.complete, body)
        else:
            self.complete(body)
        return None

    def complete(self, body: bytes) -> None:
        server, settings = self.server, self.server.settings
        if settings.until is not None and server.completed >= settings.until:
            server.held.append(lambda: self.complete(body))
            return
        server.in_flight -= 1
        fault = server.fault_of(body)
        if fault is not None:
            server.faulted[fault] += 1
            if self.fail(fault):
                return
        request = orjson.loads(body)
        if settings.keep_bodies:
            server.bodies.append(request)
        size = sum(len(str(message["content"]).split()) for message in request["messages"])
        if settings.context is not None and size > settings.context:
            said = f"This model's maximum context length is {settings.context} tokens, the prompt has {size}."
            self.reply(400, {"error": {"message": said, "code": "context_length_exceeded"}})
            return
        text, why, count = answer_text(request, settings.words)
        unusable = drawn(settings.unusable, body)
        if fault == "length" or unusable == "cut":
            text, why = text[: len(text) // 2], "length"
        elif unusable == "blank":
            text = " \n"
        elif unusable == "invalid":
            text = '{"neither": "here nor there"}'
        message = {"role": "assistant", "content": text}
        if settings.reasoning is not None:
            message[settings.reasoning] = f"\nLet me think of {text[:20]}\n"
        choices = [{"index": 0, "message": message, "finish_reason": why}]
        answer = {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "model": settings.model,
            "choices": [] if fault == "empty" else choices,
            "usage": {"prompt_tokens": size, "completion_tokens": count, "total_tokens": size + count},
        }
        server.completed += fault is None
        if settings.keep_answers and fault in (None, "length") and not self.transport.is_closing():
            server.answered.append((time.monotonic(), request["seed"]))
        self.reply(200, answer, half=fault == "half")

    def fail(self, fault: str) -> bool:
        """Do what the fault asks for; False where the answer is to be written, but faulty."""
        said = f"slow down, {self.given}" if self.server.settings.echo_key else "slow down"
        busy = {"error": {"message": said, "code": "rate_limit_exceeded"}}
        after = self.server.settings.retry_after
        if fault == "429":
            self.reply(429, busy)
        elif fault == "429-after":
            self.reply(429, busy, {"Retry-After": f"{after:g}"})
        elif fault == "429-date":
            self.reply(429, busy, {"Retry-After": email.utils.formatdate(time.time() + after, usegmt=True)})
        elif fault in ("500", "503"):
            self.reply(int(fault), {"error": {"message": "out of order"}})
        elif fault == "503-after":
            self.reply(503, {"error": {"message": "out of order"}}, {"Retry-After": f"{after:g}"})
        elif fault == "reset":
            self.transport.abort()
        elif fault == "not-json":
            self.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<html>oh</html>"
            )
        elif fault != "hang":
            return False
        return True

    def reply(
        self, status: int, content: Any, headers: Mapping[str, str] | None = None, *, half: bool = False
    ) -> None:
        body = orjson.dumps(content)
        cookie = self.server.settings.cookie
        headers = {**(headers or {}), **({"Set-Cookie": cookie} if cookie else {})}
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n" % (
            status,
            len(body),
            extra.encode(),
        )
        self.write(head + (body[: len(body) // 2] if half else body))
        if half:
            self.transport.close()

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            if self.last:
                self.transport.close()


@contextlib.contextmanager
def serving(settings: Settings | None = None) -> Iterator[StandIn]:
    """A stand-in in a thread of its own, on a port of its own."""
    standin = StandIn(settings)
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def main() -> None:
        server = await loop.create_server(lambda: _Connection(standin), "127.0.0.1", 0)
        standin.port = server.sockets[0].getsockname()[1]
        ready.set()
        try:
            await stop
        finally:
            server.close()

    stop: asyncio.Future[None] = loop.create_future()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield standin
    finally:
        loop.call_soon_threadsafe(stop.set_result, None)
        thread.join()
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=SHARE", help=", ".join(FAULTS))
    parser.add_argument("--no-models", action="store_true")
    for field in dataclasses.fields(Settings):
        if field.name in ("model", "redirect", "key"):
            parser.add_argument(f"--{field.name}")
        elif field.name in ("latency", "pace", "retry_after"):
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=float)
        elif field.name in ("words", "capacity", "context"):
            parser.add_argument(f"--{field.name}", type=int)
    given = vars(parser.parse_args())
    port, faults, no_models = given.pop("port"), given.pop("fault"), given.pop("no_models")
    standin = StandIn(Settings(models=not no_models))
    standin.set(**{name: value for name, value in given.items() if value is not None})
    for fault in faults:
        name, _, share = fault.partition("=")
        if name == "outage":
            first, _, count = share.partition(":")
            standin.settings.outage = (int(first), int(count))
        elif name in FAULTS:
            standin.settings.faults[name] = float(share or 1)
        else:
            parser.error(f"no fault {name!r}; there are {', '.join(FAULTS)} and outage=FIRST:COUNT")

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(standin), "127.0.0.1", port)
        standin.port = server.sockets[0].getsockname()[1]
        sys.stdout.write(orjson.dumps({"url": standin.url, "port": standin.port}).decode() + "\n")
        sys.stdout.flush()
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
