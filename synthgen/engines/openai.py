"""The `openai` engine: any server that speaks OpenAI's chat completions over HTTP."""

from __future__ import annotations

import asyncio
import difflib
import email.utils
import math
import os
import re
import time
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import orjson

from synthgen.engines.adaptive import AdaptiveSlots
from synthgen.engines.base import (
    Completion,
    ModelIdentity,
    Request,
    RequestFailed,
    RequestRetryable,
    request_timeout,
)
from synthgen.engines.keys import LOOPBACK, OPENAI_HOST, server_url
from synthgen.engines.turns import OpenTurn, cut, is_open, marked, stops
from synthgen.errors import EngineUnreachable, UsageError
from synthgen.yamlfile import did_you_mean

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

_Renders = Literal["llama.cpp", "vLLM"]  # whose server shows how its chat template renders

# Sampling parameters of OpenAI's own service; other servers take vLLM's besides.
OPENAI_SAMPLING = frozenset(
    {"temperature", "top_p", "max_tokens", "stop", "presence_penalty", "frequency_penalty", "logit_bias"}
)
OPTIONS = frozenset({"concurrency", "max_concurrency"})
LARGEST_ANSWER = 64 * 2**20
START_SECONDS = 10.0


def check_options(options: Mapping[str, Any]) -> dict[str, int]:
    """The engine's options, checked. Raises UsageError.

    `concurrency` fixes the number of requests in flight, `max_concurrency` bounds what it adapts to.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise UsageError(f"the openai engine has no option {name!r}", hint=did_you_mean(name, OPTIONS))
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"option {name} of the openai engine is a number from 1, not {value!r}")
    return dict(options)


def check_sampling(base_url: str, sampling: Mapping[str, Any]) -> None:
    """Raises UsageError for a sampling parameter that the server is known not to take."""
    if server_url(base_url).host != OPENAI_HOST:
        return
    for name in sampling:
        if name not in OPENAI_SAMPLING:
            raise UsageError(
                f"OpenAI's service has no sampling parameter {name!r}",
                hint=f"it takes {', '.join(sorted(OPENAI_SAMPLING))}",
            )


class OpenAIEngine:
    """A model behind `base_url`, asked over one pool of connections.

    How many requests it takes at a time is found out while running, unless `concurrency` says it. What
    the recipe's sampling leaves out is left to the server. Raises UsageError for an address or option
    that makes no sense. No redirect is followed, so that a key stays where it was sent.
    """

    def __init__(
        self,
        base_url: str,
        identity: ModelIdentity,
        *,
        api_key: str | None,
        options: Mapping[str, Any] | None = None,
        template_args: Mapping[str, Any] | None = None,
    ) -> None:
        url = server_url(base_url)
        self.identity = identity
        self._where = str(url.origin())
        self._at_openai = url.host == OPENAI_HOST
        self._chat = url / "chat/completions"
        self._raw = url / "completions"
        self._models = url / "models"
        self._root = url.parent if url.name == "v1" else url  # where servers have what is not OpenAI's
        self._renders: _Renders | None = None
        self._key = api_key
        self._template_args = dict(template_args or {})
        self._timeout = request_timeout(os.environ)
        checked = check_options(options or {})
        self._adaptive = AdaptiveSlots(
            maximum=checked.get("max_concurrency", 256), fixed=checked.get("concurrency")
        )
        self._in_flight = 0
        self._answered = False  # ever
        self._session: aiohttp.ClientSession | None = None

    @property
    def slots(self) -> int:
        """How many requests are worth having in flight now."""
        return self._adaptive.slots

    async def start(self) -> None:
        """See that the server answers and has the model. Raises `EngineUnreachable` where not."""
        import aiohttp

        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        # Nothing compressed: an answer of text gains little by it, and a bomb is nothing else.
        headers["Accept-Encoding"] = "identity"
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            proxy=_proxy(self._models.scheme, self._models.host or ""),
        )
        try:
            await self._look_for_model()
        except BaseException:
            await self.close()
            raise

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises `RequestFailed` where the server refuses this one, `RequestRetryable` where it may answer
        later, `EngineUnreachable` where it will answer none.
        """
        session = self._session
        if session is None:
            raise EngineUnreachable(f"the engine at {self._where} is not running")
        address, body = self._chat, self._body(request)
        if is_open(request.messages):
            address, body = self._raw, orjson.dumps(await self._opened(session, body))
        began = time.monotonic()
        self._in_flight += 1
        in_flight = self._in_flight
        try:
            answer = await self._post(session, address, body)
        finally:
            self._in_flight -= 1
        completion = _completion(answer)
        self._answered = True
        self._adaptive.answered(began, in_flight)
        return completion

    async def _post(
        self, session: aiohttp.ClientSession, address: URL, body: bytes, *, may_lack: bool = False
    ) -> bytes:
        """The answer's bytes; nothing where there `may_lack` such an address, and there is none."""
        import aiohttp

        began = time.monotonic()
        data = aiohttp.BytesPayload(body)
        try:
            async with session.post(address, data=data, allow_redirects=False) as response:
                answer = await _read(response)
                if may_lack and response.status in (404, 405, 501):
                    return b""
                if response.status != 200:
                    self._refused(response, answer, began)
        except aiohttp.ClientError as error:
            raise RequestRetryable(f"connection to {self._where}: {self._clean(_reason(error))}") from error
        return answer

    async def _opened(self, session: aiohttp.ClientSession, body: bytes) -> dict[str, Any]:
        """The request for a turn that the model writes itself, as a raw prompt."""
        said = orjson.loads(body)
        asked = {"model": said["model"], "messages": marked(said.pop("messages"))}
        if "chat_template_kwargs" in said:
            asked["chat_template_kwargs"] = said.pop("chat_template_kwargs")
        turn = await self._turn(session, {**asked, "add_generation_prompt": False})
        if not turn.end:  # some templates close a user's turn by what opens the answer
            turn = await self._turn(session, {**asked, "add_generation_prompt": True})
        said |= {"prompt": turn.prompt, "stop": stops(said.get("stop"), turn.end)}
        if self._renders == "llama.cpp":
            return {**said, "preserved_tokens": [turn.end]}  # else it would be left out, and not be seen
        mark = await self._tokens(session, {"model": said["model"], "prompt": turn.end})
        more = {"stop_token_ids": mark} if len(mark) == 1 else {}
        return {**said, "add_special_tokens": False, **more}

    async def _turn(self, session: aiohttp.ClientSession, asked: Mapping[str, Any]) -> OpenTurn:
        """The chat template at work, as llama.cpp's server or vLLM's shows it."""
        if self._renders != "vLLM":
            address = self._root / "apply-template"
            if answer := await self._post(session, address, orjson.dumps(asked), may_lack=True):
                self._renders = "llama.cpp"
                return cut(str(_field(answer, "prompt")))
        tokens = await self._tokens(session, asked)
        spelt = orjson.dumps({"model": asked["model"], "tokens": tokens})
        answer = await self._post(session, self._root / "detokenize", spelt)
        self._renders = "vLLM"
        return cut(str(_field(answer, "prompt")))

    async def _tokens(self, session: aiohttp.ClientSession, asked: Mapping[str, Any]) -> list[int]:
        body = orjson.dumps({**asked, "add_special_tokens": False})
        answer = await self._post(session, self._root / "tokenize", body, may_lack=True)
        if not answer:
            raise EngineUnreachable(
                f"{self._where} does not show its chat template, which a prompt with `writes: user` needs",
                hint="vLLM's server and llama.cpp's do; or use the engine vllm or llamacpp",
            )
        return list(_field(answer, "tokens"))

    async def close(self) -> None:
        """Close the connections; may be called at any time, also twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _body(self, request: Request) -> bytes:
        body: dict[str, Any] = {
            "model": self.identity.id,
            "messages": request.messages,
            **request.sampling,
            "seed": request.seed,
        }
        if self._at_openai and "max_tokens" in body:
            # What its reasoning models insist on, and its others take as well.
            body["max_completion_tokens"] = body.pop("max_tokens")
        if "logit_bias" in body:
            body["logit_bias"] = {str(token): bias for token, bias in body["logit_bias"].items()}
        if request.schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": request.schema, "strict": True},
            }
        if self._template_args:
            body["chat_template_kwargs"] = self._template_args
        return orjson.dumps(body)

    async def _look_for_model(self) -> None:
        import aiohttp

        assert self._session is not None
        seconds = min(START_SECONDS, self._timeout)
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.get(self._models, allow_redirects=False) as response,
            ):
                status, answer = response.status, await _read(response)
                location = response.headers.get("Location")
        except TimeoutError:
            raise EngineUnreachable(
                f"{self._where} does not answer within {seconds:g} s", hint=self._hint_address()
            ) from None
        except (aiohttp.ClientError, RequestFailed) as error:
            raise EngineUnreachable(
                f"nothing answers at {self._where}: {self._clean(_reason(error))}", hint=self._hint_address()
            ) from error
        if status in (401, 403):
            self._no_entry(status, answer)
        if 300 <= status < 400:
            self._elsewhere(location)
        ids = _model_ids(answer) if status == 200 else []
        if ids and self.identity.id not in ids:
            near = difflib.get_close_matches(self.identity.id, ids, n=3, cutoff=0.4) or ids[:5]
            raise EngineUnreachable(
                f"{self._where} has no model {self.identity.id!r}",
                hint=f"it has {', '.join(self._clean(name) for name in near)}"
                + (f" and {len(ids) - len(near)} more" if len(ids) > len(near) else ""),
            )

    def _refused(self, response: aiohttp.ClientResponse, answer: bytes, began: float) -> NoReturn:
        """Raise what an answer other than 200 means."""
        status = response.status
        said, code = _error_of(answer)
        said = self._clean(said)
        if status in (401, 403):
            self._no_entry(status, answer)
        if 300 <= status < 400:
            self._elsewhere(response.headers.get("Location"))
        if status == 404 and not self._answered:
            # Then it is the address or the model, and no other request will fare better.
            raise EngineUnreachable(
                f"{self._where} answered 404 (not found){said}", hint=self._hint_address()
            )
        if code == "insufficient_quota":
            raise EngineUnreachable(f"the account at {self._where} has no quota left{said}")
        if status in (408, 409, 425, 429) or status >= 500:
            overloaded = status in (429, 503, 529)
            if overloaded:
                self._adaptive.overloaded(began)
            raise RequestRetryable(
                f"{self._where} answered {status}{said}",
                retry_after=_retry_after(response.headers.get("Retry-After")),
                overloaded=overloaded,
            )
        raise RequestFailed(f"{self._where} refused the request ({status}){said}")

    def _no_entry(self, status: int, answer: bytes) -> NoReturn:
        said = self._clean(_error_of(answer)[0])
        if self._key is None:
            hint = (
                "no key was sent: set SYNTHGEN_API_KEY and name the server with --base-url or "
                "SYNTHGEN_BASE_URL, or bind a key to this host in the configuration file ([keys])"
            )
            if self._at_openai:
                hint = "no key was sent: set OPENAI_API_KEY"
        else:
            hint = "a key was sent, and the server does not take it for this model: is it the right one?"
        raise EngineUnreachable(f"{self._where} refuses entry ({status}){said}", hint=hint)

    def _elsewhere(self, location: str | None) -> NoReturn:
        raise EngineUnreachable(
            f"{self._where} redirects to {self._clean(location or 'nowhere')}",
            hint="no redirect is followed, so that keys stay where they were sent; "
            "if that address is right, make it the base_url",
        )

    def _hint_address(self) -> str:
        return (
            f"is a server running there, and is {self._chat.parent.parent} the whole base_url "
            "(most end in /v1)? Name another with --base-url or SYNTHGEN_BASE_URL"
        )

    def _clean(self, text: str) -> str:
        """What a server said, fit for a terminal and a log: one short line, without the key."""
        if self._key:
            text = text.replace(self._key, "[key]")
        text = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip(" ")
        return text if len(text) <= 400 else text[:400] + " ..."


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, unless it is larger than any answer."""
    stream = response.content
    data = await stream.readany()
    while not stream.at_eof():
        data += await stream.readany()
        if len(data) > LARGEST_ANSWER:
            response.close()
            raise RequestFailed(f"the answer is larger than {LARGEST_ANSWER // 2**20} MiB")
    return data


def _completion(answer: bytes) -> Completion:
    try:
        body = orjson.loads(answer)
        choice = body["choices"][0]
        message = choice["message"] if "message" in choice else {"content": choice["text"]}
        text = message.get("content")
        usage = body.get("usage") or {}
        return Completion(
            text=text if text is not None else message.get("refusal") or "",
            finish_reason=choice.get("finish_reason") or "stop",
            input_tokens=usage.get("prompt_tokens") or 0,
            output_tokens=usage.get("completion_tokens") or 0,
            reasoning=_reasoning(message),
        )
    except orjson.JSONDecodeError:
        raise RequestRetryable("the server's answer is not JSON, or was cut off") from None
    except (LookupError, TypeError, AttributeError):
        raise RequestRetryable("the server's answer holds no completion") from None


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """What was thought, under either of the names that servers have for it."""
    for name in ("reasoning_content", "reasoning"):
        said = message.get(name)
        if isinstance(said, str) and said:
            return said
    return None


def _field(answer: bytes, name: str) -> Any:
    try:
        return orjson.loads(answer)[name]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise RequestRetryable(f"the server's answer holds no {name}") from None


def _error_of(answer: bytes) -> tuple[str, str | None]:
    """What the server said, as `: message` or nothing, and its code."""
    try:
        body = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return "", None
    if not isinstance(body, dict):
        return "", None
    error = body.get("error", body)
    if isinstance(error, str):
        return f": {error}", None
    if not isinstance(error, dict):
        return "", None
    message = error.get("message") or error.get("detail")
    code = error.get("code")
    return (f": {message}" if message else ""), code if isinstance(code, str) else None


def _model_ids(answer: bytes) -> list[str]:
    try:
        return [str(model["id"]) for model in orjson.loads(answer)["data"]]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return []


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number of them or an HTTP date; None where it says neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
            seconds = when.timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _reason(error: Exception) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        return error.os_error.strerror
    return str(error) or type(error).__name__


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for this server."""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(scheme)
