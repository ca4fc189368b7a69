from __future__ import annotations

import asyncio
import email.utils
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from synthgen.engines import openai
from synthgen.engines.base import Completion, ModelIdentity, Request, RequestFailed, RequestRetryable
from synthgen.engines.openai import OpenAIEngine
from synthgen.errors import EngineUnreachable, UsageError
from tests.standin import StandIn, answer_text

T = TypeVar("T")
CANARY = "sk-canary-4f1c"


def ask(text: str = "What is a river?", seed: int = 1, **fields: Any) -> Request:
    sampling = fields.pop("sampling", {"max_tokens": 50})
    return Request(text, [{"role": "user", "content": text}], sampling, seed, **fields)


def with_engine(
    standin: StandIn | str,
    use: Callable[[OpenAIEngine], Awaitable[T]],
    *,
    model: str = "standin",
    **given: Any,
) -> T:
    url = standin if isinstance(standin, str) else standin.url

    async def main() -> T:
        engine = OpenAIEngine(
            url,
            ModelIdentity("openai", model),
            **{"api_key": None, "options": {}, "template_args": {}, **given},
        )
        try:
            await engine.start()
            return await use(engine)
        finally:
            await engine.close()
            await engine.close()

    return asyncio.run(main())


def complete(standin: StandIn, request: Request | None = None, **given: Any) -> Completion:
    return with_engine(standin, lambda engine: engine.complete(request or ask()), **given)


def test_an_answer(standin: StandIn) -> None:
    got = complete(standin)
    text, why, count = answer_text(
        {"messages": [{"role": "user", "content": "What is a river?"}], "seed": 1}, 24
    )
    assert got == Completion(text=text, finish_reason=why, input_tokens=4, output_tokens=count)


def test_what_is_sent(standin: StandIn) -> None:
    standin.set(keep_bodies=True)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    sampling = {
        "temperature": 0.5,
        "top_k": 20,
        "min_p": 0.1,
        "stop": ["x"],
        "logit_bias": {7: -5.0},
        "max_tokens": 9,
    }
    got = complete(
        standin, ask(sampling=sampling, schema=schema, seed=77), template_args={"enable_thinking": False}
    )
    assert isinstance(json.loads(got.text)["a"], int)
    assert standin.bodies == [
        {
            "model": "standin",
            "messages": [{"role": "user", "content": "What is a river?"}],
            **sampling,
            "logit_bias": {"7": -5.0},
            "seed": 77,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
    assert standin.keys == {}


def test_openai_itself_is_asked_in_its_own_words() -> None:
    engine = OpenAIEngine("https://api.openai.com/v1", ModelIdentity("openai", "gpt-x"), api_key=None)
    body = json.loads(engine._body(ask()))
    assert body["max_completion_tokens"] == 50
    assert "max_tokens" not in body
    openai.check_sampling("http://localhost:8000/v1", {"top_k": 5})
    with pytest.raises(UsageError, match="'top_k'"):
        openai.check_sampling("https://api.openai.com/v1", {"temperature": 1, "top_k": 5})


def test_a_thousand_at_a_time_each_get_their_own(standin: StandIn) -> None:
    async def use(engine: OpenAIEngine) -> list[Completion]:
        return await asyncio.gather(*(engine.complete(ask(f"Number {i}?", i)) for i in range(1000)))

    got = with_engine(standin, use, options={"concurrency": 64})
    expected = [
        answer_text({"messages": [{"role": "user", "content": f"Number {i}?"}], "seed": i}, 24)[0]
        for i in range(1000)
    ]
    assert [completion.text for completion in got] == expected


@pytest.mark.parametrize(
    ("fault", "overloaded"),
    [
        ("429", True), ("429-after", True), ("503", True), ("500", False), ("reset", False), ("half", False),
        ("not-json", False), ("empty", False),
    ],
)  # fmt: skip
def test_faults_that_pass(standin: StandIn, fault: str, overloaded: bool) -> None:
    standin.set(faults={fault: 1.0}, retry_after=2.5)
    with pytest.raises(RequestRetryable) as error:
        complete(standin)
    assert error.value.overloaded is overloaded
    assert error.value.retry_after == (2.5 if fault == "429-after" else None)


def test_retry_after_as_a_date(standin: StandIn) -> None:
    standin.set(faults={"429-date": 1.0}, retry_after=30.0)
    with pytest.raises(RequestRetryable) as error:
        complete(standin)
    assert error.value.retry_after is not None
    assert 25 < error.value.retry_after <= 30


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None), ("", None),
        (email.utils.formatdate(0), 0.0), (None, None),
    ],
)  # fmt: skip
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert openai._retry_after(value) == seconds


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf"])
def test_a_deadline_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SYNTHGEN_REQUEST_TIMEOUT", value)
    with pytest.raises(UsageError, match="SYNTHGEN_REQUEST_TIMEOUT"):
        OpenAIEngine("http://h/v1", ModelIdentity("openai", "m"), api_key=None)


def test_cancelling_is_cancelling(standin: StandIn) -> None:
    standin.set(faults={"hang": 1.0})

    async def use(engine: OpenAIEngine) -> bool:
        task = asyncio.create_task(engine.complete(ask()))
        while standin.requests == 0:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled() and engine._in_flight == 0

    assert with_engine(standin, use)


def test_a_prompt_too_long_fails_with_what_the_server_said(standin: StandIn) -> None:
    standin.set(context=3)
    with pytest.raises(RequestFailed, match="maximum context length is 3 tokens, the prompt has 4"):
        complete(standin)


def test_a_key_is_sent_and_told_to_nobody(standin: StandIn) -> None:
    standin.set(key=CANARY)
    complete(standin, api_key=CANARY)
    assert set(standin.keys) == {f"Bearer {CANARY}"}


def test_a_key_that_is_refused_is_in_no_message(standin: StandIn) -> None:
    standin.set(key="another", echo_key=True)
    with pytest.raises(EngineUnreachable) as error:
        complete(standin, api_key=CANARY)
    assert "401" in str(error.value)
    assert "[key]" in str(error.value)
    assert CANARY not in str(error.value)


def test_a_key_that_is_missing_is_asked_for(standin: StandIn) -> None:
    standin.set(key="another")
    with pytest.raises(EngineUnreachable, match="SYNTHGEN_API_KEY"):
        complete(standin)


def test_a_key_withdrawn_while_running(standin: StandIn) -> None:
    async def use(engine: OpenAIEngine) -> None:
        await engine.complete(ask())
        standin.set(key="another")
        await engine.complete(ask())

    with pytest.raises(EngineUnreachable, match="401"):
        with_engine(standin, use, api_key=CANARY)


def test_no_redirect_is_followed(standin: StandIn) -> None:
    from tests.standin import serving

    with serving() as elsewhere:

        async def use(engine: OpenAIEngine) -> None:
            standin.set(redirect=f"{elsewhere.url}/chat/completions")
            await engine.complete(ask())

        with pytest.raises(EngineUnreachable, match="redirects to"):
            with_engine(standin, use, api_key=CANARY)
        with pytest.raises(EngineUnreachable, match="redirects to"):
            complete(standin, api_key=CANARY)
        assert elsewhere.paths == {}


def test_nobody_there() -> None:
    with socket.socket() as held:  # bound, and not listening
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(EngineUnreachable, match=rf"127\.0\.0\.1:{port}") as error:
            with_engine(f"http://127.0.0.1:{port}/v1", lambda engine: engine.complete(ask()))
    assert "--base-url" in str(error.value)


def test_a_server_without_a_list_of_models_is_taken_at_its_word(standin: StandIn) -> None:
    standin.set(models=False)
    assert complete(standin, model="whatever").text


def test_a_model_that_it_lacks(standin: StandIn) -> None:
    standin.set(model="Qwen/Qwen3-8B")
    with pytest.raises(EngineUnreachable, match="no model 'Qwen/Qwen3-8b'") as error:
        complete(standin, model="Qwen/Qwen3-8b")
    assert "Qwen/Qwen3-8B" in str(error.value.hint)
    assert standin.requests == 0


def test_a_wrong_path_ends_the_run_only_where_nothing_ever_worked(standin: StandIn) -> None:
    wrong = standin.url.removesuffix("/v1")
    with pytest.raises(EngineUnreachable, match="base_url"):
        with_engine(wrong, lambda engine: engine.complete(ask()))

    async def use(engine: OpenAIEngine) -> None:
        await engine.complete(ask())
        engine._chat = engine._models
        standin.set(models=False)
        await engine.complete(ask())

    with pytest.raises(RequestFailed, match="404"):
        with_engine(standin, use)


def test_slots_follow_what_the_server_bears(standin: StandIn) -> None:
    standin.set(capacity=20)

    async def use(engine: OpenAIEngine) -> list[int]:
        seen = [engine.slots]
        for round_ in range(6):
            asked = (engine.complete(ask(f"{round_} {i}")) for i in range(engine.slots))
            await asyncio.gather(*asked, return_exceptions=True)
            seen.append(engine.slots)
        return seen

    standin.set(latency=0.02)
    seen = with_engine(standin, use)
    assert seen[:2] == [32, 16]
    assert all(slots <= 22 for slots in seen[1:])
    assert standin.faulted["capacity"] >= 12


def test_concurrency_is_exact(standin: StandIn) -> None:
    standin.set(faults={"429": 1.0})

    async def use(engine: OpenAIEngine) -> int:
        with pytest.raises(RequestRetryable):
            await engine.complete(ask())
        return engine.slots

    assert with_engine(standin, use, options={"concurrency": 7}) == 7


@pytest.mark.parametrize(
    "options", [{"concurency": 4}, {"concurrency": 0}, {"concurrency": True}, {"slots": 2}]
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        openai.check_options(options)


def test_what_a_server_says_cannot_write_to_the_terminal() -> None:
    engine = OpenAIEngine("http://h/v1", ModelIdentity("openai", "m"), api_key=None)
    assert "\x1b" not in engine._clean("\x1b[2J\x07boo\n\nboo" + "x" * 1000)
    assert len(engine._clean("x" * 1000)) < 500


def test_a_refusal_of_the_model_is_its_text() -> None:
    said = b'{"choices":[{"message":{"content":null,"refusal":"No."},"finish_reason":"stop"}]}'
    assert openai._completion(said) == Completion("No.", "stop", 0, 0)


@pytest.mark.parametrize(
    "said", [b"[]", b"{}", b'{"choices":null}', b'{"choices":[{}]}', b'{"choices":[null]}', b"1"]
)
def test_answers_of_no_shape_may_be_asked_again(said: bytes) -> None:
    with pytest.raises(RequestRetryable):
        openai._completion(said)
