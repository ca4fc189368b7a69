"""The `llamacpp` engine: llama.cpp in this process, over one GGUF file."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from synthgen.engines.base import (
    Completion,
    ModelIdentity,
    Request,
    RequestFailed,
    RequestRetryable,
    Token,
)
from synthgen.engines.hardware import processor
from synthgen.engines.marks import Marks, marks_of_gguf
from synthgen.engines.turns import OpenTurn, cut, is_open, marked, stops
from synthgen.errors import EngineUnreachable, UsageError
from synthgen.models import gguf_metadata
from synthgen.tokenizing import gguf_fields
from synthgen.yamlfile import did_you_mean

SLOTS = 16
CONTEXT = 2048
PORT_SECONDS = 60

# What a recipe may set, with the least value that makes sense.
OPTIONS = {"n_ctx": 64, "slots": 1, "n_parallel": 1, "n_threads": 1, "n_gpu_layers": 0, "n_batch": 32}
SWITCHES = ("reuse_prefixes",)

# vLLM's names on the left, llama.cpp's on the right.
SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_tokens": "max_tokens",
    "stop": "stop",
    "ignore_eos": "ignore_eos",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
    "logit_bias": "logit_bias",
}

# vLLM's defaults and its order of samplers, for llama.cpp's own are others.
DEFAULTS: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repeat_penalty": 1.0,
    "samplers": ["penalties", "temperature", "min_p", "top_k", "top_p"],
}


def check_options(options: Mapping[str, Any]) -> dict[str, int]:
    """The engine's options, checked. Raises UsageError.

    `n_ctx` is the context of each slot, `slots` (or `n_parallel`) how many requests run at once.
    `reuse_prefixes` keeps what prompts have in common, which is quicker, but then a seeded request may answer
    otherwise in another order; by default it is on, unless there is one slot. Without it prompts are read one
    at a time, while other answers go on, so that none is cut into parts by the company it is in: then Q4_1
    weights answer as they do alone. Kernels for other weights may round otherwise for one row than for many,
    and then it takes one slot.
    """
    for name, value in options.items():
        if name in SWITCHES:
            if not isinstance(value, bool):
                raise UsageError(f"option {name} of the llamacpp engine is true or false, not {value!r}")
            continue
        if name not in OPTIONS:
            hint = did_you_mean(name, [*OPTIONS, *SWITCHES])
            raise UsageError(f"the llamacpp engine has no option {name!r}", hint=hint)
        if isinstance(value, bool) or not isinstance(value, int) or value < OPTIONS[name]:
            raise UsageError(
                f"option {name} of the llamacpp engine is a number from {OPTIONS[name]}, not {value!r}"
            )
    checked = dict(options)
    if "n_parallel" in checked:
        checked.setdefault("slots", checked.pop("n_parallel"))
    return checked


def check_sampling(sampling: Mapping[str, Any]) -> None:
    """Raises UsageError for a sampling parameter that llama.cpp does not have."""
    for name, value in sampling.items():
        # False is what llama.cpp does anyway.
        if name in SAMPLING or (name == "include_stop_str_in_output" and value is False):
            continue
        raise UsageError(
            f"the llamacpp engine cannot honour the sampling parameter {name!r}",
            hint=f"it takes {', '.join(SAMPLING)}; the vllm engine takes them all",
        )


class LlamaCppEngine:
    """llama.cpp's own server in this process, answering `slots` requests at a time.

    `template_args` go to the chat template. Raises UsageError for an option that it does not have.
    Thoughts that a model writes before its answer are part of its text.
    """

    def __init__(
        self,
        path: Path,
        identity: ModelIdentity,
        *,
        options: Mapping[str, Any] | None = None,
        template_args: Mapping[str, Any] | None = None,
    ) -> None:
        self.identity = identity
        self._path = path
        self._options = check_options(options or {})
        self._template_args = dict(template_args or {})
        self.slots = self._options.get("slots", SLOTS)
        self._reuse_prefixes = bool(self._options.get("reuse_prefixes", self.slots > 1))
        self._reading = threading.Lock() if self.slots > 1 and not self._reuse_prefixes else None
        self._context = 0
        self._server: Any = None
        self._key = ""
        self._marks = Marks((), "")
        self._threads: ThreadPoolExecutor | None = None
        self._closed = threading.Event()

    async def start(self) -> None:
        """Load the model. Raises `EngineUnreachable` where it cannot be."""
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="llamacpp")
        await asyncio.get_running_loop().run_in_executor(self._threads, self._load)

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises `RequestFailed` for one that cannot be answered (too long for the context, a schema that
        llama.cpp does not know), `EngineUnreachable` where the engine is not running.
        """
        if self._threads is None or self._server is None:
            raise EngineUnreachable("the llama.cpp engine is not running")
        body = self._body(request)
        stopped = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._ask, self._server, body, stopped
            )
        finally:
            stopped.set()

    async def tokens(self, text: str) -> list[Token]:
        """The tokens of a text. Raises `RequestRetryable`, or `EngineUnreachable` where it is not running."""
        if self._threads is None or self._server is None:
            raise EngineUnreachable("the llama.cpp engine is not running")
        body = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
        said = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._post, self._server, "/tokenize", body
        )
        return [Token(int(each["id"]), _piece(each["piece"])) for each in said["tokens"]]

    def _post(self, server: Any, path: str, body: Mapping[str, Any]) -> Any:
        """What llama.cpp's server says to those alone who come by its port. Raises RequestRetryable."""
        connection = HTTPConnection(urlsplit(server.listening_address).netloc, timeout=PORT_SECONDS)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
            connection.request("POST", path, orjson.dumps(body), headers)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, HTTPException) as error:
            raise RequestRetryable(f"llama.cpp does not answer at {path}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise RequestRetryable(f"llama.cpp does not answer at {path}: {answer.status}")
        return orjson.loads(said)

    def _opened(self, server: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request for a turn that the model writes itself, as a raw prompt."""
        turn = self._turn_of(server, body, answer=False)
        if not turn.end:  # some templates close a user's turn by what opens the answer
            turn = self._turn_of(server, body, answer=True)
        chat = ("messages", "chat_template_kwargs")
        return {
            **{name: value for name, value in body.items() if name not in chat},
            "prompt": turn.prompt,
            "stop": stops(body.get("stop"), turn.end),
            "preserved_tokens": [turn.end],  # else the mark would be left out of the text, and not be seen
        }

    def _turn_of(self, server: Any, body: Mapping[str, Any], *, answer: bool) -> OpenTurn:
        said = {"messages": marked(body["messages"]), "add_generation_prompt": answer}
        if "chat_template_kwargs" in body:
            said["chat_template_kwargs"] = body["chat_template_kwargs"]
        return cut(self._post(server, "/apply-template", said)["prompt"])

    async def close(self) -> None:
        """Stop what runs and free the model; may be called at any time, also twice."""
        self._closed.set()
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        # The last reference: llama.cpp's own threads end here.
        server, self._server = self._server, None
        if server is not None:
            del server

    def _load(self) -> None:
        trained = _trained_context(self._path)
        try:
            self._marks = marks_of_gguf(gguf_fields(self._path))
        except ValueError as error:
            raise EngineUnreachable(str(error), hint="was it downloaded whole?") from error
        self._context = self._options.get("n_ctx") or min(trained or CONTEXT, CONTEXT)
        llama = _llama()
        params = llama.CommonParams()
        params.model.path = str(self._path)
        params.n_parallel = self.slots
        params.n_ctx = self._context * self.slots
        params.kv_unified = False
        if "n_batch" in self._options:
            params.n_batch = self._options["n_batch"]
        if "n_gpu_layers" in self._options:
            params.n_gpu_layers = self._options["n_gpu_layers"]
        threads = self._options.get("n_threads") or _cores()
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.reasoning_format = llama.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
        # Its sums depend on how many tokens share a batch, so that a request would answer otherwise among
        # others than alone.
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_ram_mib = 0  # it would keep up to 8 GiB of earlier prompts
        params.fit_params = False  # it would change n_ctx where memory is short
        params.verbosity = -1
        # It listens on a port of this machine whether asked to or not: nobody else is to use it.
        self._key = secrets.token_hex(32)
        params.api_keys = [self._key]
        params.ui = False
        params.endpoint_slots = False
        try:
            self._server = llama.Server(params)
        except (RuntimeError, ValueError) as error:
            raise EngineUnreachable(
                f"llama.cpp cannot load {self._path.name} with {self.slots} slots of {self._context} tokens",
                hint="is there memory enough (fewer slots or a smaller n_ctx need less), and does this "
                "version of xllamacpp know the model's architecture?",
            ) from error
        self.identity = dataclasses.replace(
            self.identity,
            details={
                **self.identity.details,
                "xllamacpp": llama.__version__,
                "n_ctx": self._context,
                "slots": self.slots,
                "reuse_prefixes": self._reuse_prefixes,
                "threads": threads,
                "n_batch": self._options.get("n_batch"),
                "n_gpu_layers": self._options.get("n_gpu_layers"),
                "processor": processor(),
            },
        )

    def _body(self, request: Request) -> dict[str, Any]:
        check_sampling(request.sampling)
        body: dict[str, Any] = {
            "messages": self._marks.broken(list(request.messages)),
            **DEFAULTS,
            **{SAMPLING[name]: value for name, value in request.sampling.items() if name in SAMPLING},
            "repeat_last_n": self._context,  # penalties look at everything, as vLLM's do
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        # Where a prompt begins in the cache decides how the rest is cut into batches, and so the last bits
        # of its sums: without it, with one slot, a seeded request answers the same in any order.
        body["cache_prompt"] = self._reuse_prefixes
        if "logit_bias" in body:
            body["logit_bias"] = [[int(token), float(bias)] for token, bias in body["logit_bias"].items()]
        if request.schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": request.schema, "strict": True},
            }
        if self._template_args:
            body["chat_template_kwargs"] = self._template_args
        return body

    def _ask(self, server: Any, body: dict[str, Any], stopped: threading.Event) -> Completion:
        """Runs in a thread of its own; `stopped` and closing end it at the next token."""
        pieces: list[str] = []
        last: dict[str, Any] = {}
        turn = _Turn(self._reading)

        def receive(event: dict[str, Any]) -> bool:
            turn.end()  # the prompt is read
            if "error" in event:
                last["error"] = event["error"]
            for choice in event.get("choices", ()):
                pieces.append(choice["delta"].get("content") or "" if "delta" in choice else choice["text"])
                last["finish_reason"] = choice.get("finish_reason") or last.get("finish_reason")
            if event.get("usage"):
                last["usage"] = event["usage"]
            return stopped.is_set() or self._closed.is_set()

        try:
            if stopped.is_set() or self._closed.is_set():
                raise RequestRetryable("stopped before it began")
            if is_open(body.get("messages", ())):
                server.handle_completions(self._opened(server, body), receive)
            else:
                server.handle_chat_completions(body, receive)
        except (ValueError, RuntimeError) as error:
            raise RequestFailed(f"llama.cpp cannot answer this request: {_sentence(str(error))}") from error
        finally:
            turn.end()
        if "error" in last:
            raise _failure(last["error"])
        if "usage" not in last:
            raise RequestRetryable("the generation was stopped before it ended")
        return Completion(
            text="".join(pieces),
            finish_reason=last["finish_reason"] or "stop",
            input_tokens=last["usage"]["prompt_tokens"],
            output_tokens=last["usage"]["completion_tokens"],
        )


class _Turn:
    """Holds a lock, if there is one, until it ends."""

    def __init__(self, lock: threading.Lock | None) -> None:
        self._held = lock
        if lock is not None:
            lock.acquire()

    def end(self) -> None:
        """Let the next one begin; more than once does no harm."""
        held, self._held = self._held, None
        if held is not None:
            held.release()


def _failure(error: Mapping[str, Any]) -> RequestFailed | RequestRetryable:
    if error.get("type") == "exceed_context_size_error":
        return RequestFailed(
            f"the prompt has {error.get('n_prompt_tokens')} tokens, the context takes {error.get('n_ctx')} "
            "(option n_ctx)"
        )
    said = _sentence(str(error.get("message", error)))
    if int(error.get("code", 500)) < 500:
        return RequestFailed(f"llama.cpp refused the request: {said}")
    return RequestRetryable(f"llama.cpp failed: {said}")


def _piece(piece: Any) -> str:
    """A token as text; where its bytes are none by themselves, they come as numbers."""
    return bytes(piece).decode(errors="replace") if isinstance(piece, list) else str(piece)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + " ..."


def _trained_context(path: Path) -> int | None:
    about = gguf_metadata(path)
    length = about.get(f"{about.get('general.architecture')}.context_length")
    return length if isinstance(length, int) else None


def _cores() -> int:
    with contextlib.suppress(AttributeError):  # not everywhere
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _llama() -> Any:
    """The xllamacpp module."""
    try:
        with _short_spin():
            import xllamacpp
    except ImportError as error:
        hint = "pip install xllamacpp"
        if "libgomp" in str(error):
            hint = "install the system's OpenMP library (libgomp1, or libgomp)"
        raise EngineUnreachable(f"the llamacpp engine cannot be imported: {error}", hint=hint) from error
    return xllamacpp


@contextlib.contextmanager
def _short_spin() -> Iterator[None]:
    """OpenMP reads these while it loads.

    Its threads wait for each other by spinning, for long by default: where anything else wants a core,
    that made generation ten times slower, and on an idle machine no faster.
    """
    names = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    if names & os.environ.keys():
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]
