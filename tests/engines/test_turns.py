"""A user's turn that the model writes itself: where the template is cut, and what ends the text."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.engines.base import Completion, ModelIdentity, Request, RequestFailed
from synthgen.engines.llamacpp import LlamaCppEngine
from synthgen.engines.openai import OpenAIEngine
from synthgen.engines.turns import MARK, cut, is_open, marked, stops
from synthgen.errors import EngineUnreachable
from tests.standin import StandIn

MATHS = "You help with mathematics."


def opened(seed: int = 1, system: str | None = None, **sampling: Any) -> Request:
    before = [] if system is None else [{"role": "system", "content": system}]
    sampling = {"temperature": 1.0, "min_p": 0.1, "top_p": 1.0, "top_k": 0, "max_tokens": 90, **sampling}
    return Request(str(seed), [*before, {"role": "user"}], sampling, seed)


@pytest.mark.parametrize(
    ("rendered", "prompt", "end"),
    [
        (f"<s>\n<|user|>\n{MARK}<|end|>\n", "<s>\n<|user|>\n", "<|end|>"),
        (f"<|user|>\n\n{MARK}<|end|>\n<|assistant|>\n", "<|user|>\n\n", "<|end|>"),
        (f"[INST] {MARK} [/INST]", "[INST]", "[/INST]"),
        (f"### Instruction:\n{MARK}\n\n### Response:\n", "### Instruction:\n", "### Response:"),
        (f"USER: {MARK}", "USER:", ""),
    ],
    ids=["a mark", "a mark before the answer's", "words", "a line", "nothing"],
)
def test_where_a_template_is_cut(rendered: str, prompt: str, end: str) -> None:
    turn = cut(rendered)
    assert (turn.prompt, turn.end) == (prompt, end)


@given(st.text(), st.text())
def test_text_before_it_cannot_move_the_cut(system: str, earlier: str) -> None:
    turn = cut(f"{system}{MARK}{earlier}<u>{MARK}</u>")
    assert (turn.prompt, turn.end) == (f"{system}{MARK}{earlier}<u>", "</u>")


def test_a_template_without_the_users_text_is_refused() -> None:
    with pytest.raises(RequestFailed, match="leaves out the user's turn"):
        cut("<|system|>only this")


def test_what_is_open_and_what_ends_it() -> None:
    messages = [{"role": "system", "content": "x"}, {"role": "user"}]
    assert is_open(messages)
    assert not is_open(messages[:1])
    assert not is_open([])
    assert marked(messages) == [messages[0], {"role": "user", "content": MARK}]
    assert "content" not in messages[-1]
    assert stops(None, "<e>") == ["<e>"]
    assert stops("a", "<e>") == ["a", "<e>"]
    assert stops(["<e>"], "<e>") == ["<e>"]
    assert stops("a", "") == ["a"]


def test_a_server_that_does_not_show_its_template_is_no_use(standin: StandIn) -> None:
    async def main() -> None:
        engine = OpenAIEngine(standin.url, ModelIdentity("openai", "standin"), api_key=None)
        await engine.start()
        try:
            await engine.complete(opened())
        finally:
            await engine.close()

    with pytest.raises(EngineUnreachable, match="does not show its chat template") as raised:
        asyncio.run(main())
    assert "vLLM's server and llama.cpp's do" in str(raised.value.hint)
    assert standin.requests == 0


@pytest.mark.llamacpp
def test_the_embedded_engine_and_its_server_write_what_a_user_would(default_model: Path) -> None:
    seeds = range(4)

    async def main() -> tuple[list[Completion], list[Completion], list[Any]]:
        embedded = LlamaCppEngine(
            default_model, ModelIdentity("llamacpp", "m"), options={"slots": 1, "n_ctx": 512}
        )
        await embedded.start()
        try:
            key, url = embedded._key, f"{embedded._server.listening_address}/v1"
            served = OpenAIEngine(url, ModelIdentity("openai", str(default_model)), api_key=key)
            await served.start()
            asked = [opened(seed, MATHS) for seed in seeds]
            mine = [await embedded.complete(request) for request in asked]
            theirs = [await served.complete(request) for request in asked[:2]]
            await served.close()
            cut_off = Request("t", [{"role": "user"}], {"max_tokens": 24, "stop": ["?", "."]}, 3)
            prompt = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
            later = Request("l", [*prompt, {"role": "user"}], {"max_tokens": 4, "ignore_eos": True}, 3)
            return mine, theirs, [await embedded.complete(cut_off), await embedded.complete(later)]
        finally:
            await embedded.close()

    mine, theirs, (cut_off, later) = asyncio.run(main())
    assert len({answer.text for answer in mine}) == len(mine)
    assert all("<|" not in answer.text and answer.text.strip() for answer in mine)
    assert sum(answer.finish_reason == "stop" for answer in mine) >= 2  # at the end of the turn
    words = " ".join(answer.text.lower() for answer in mine)
    assert any(word in words for word in ("math", "equation", "number", "how many", "solve", "calculate"))
    # The system message, and the user's turn up to its text: nothing of the assistant's.
    assert {answer.input_tokens for answer in mine} <= {13}
    # The server keeps prompts, and rounds otherwise: the same prompt, and not to the bit the same text.
    assert {answer.input_tokens for answer in theirs} <= {13}
    assert all("<|" not in answer.text and answer.text.strip() for answer in theirs)
    assert not {"?", "."} & {*cut_off.text}
    assert later.output_tokens == 4
    assert later.finish_reason == "length"
