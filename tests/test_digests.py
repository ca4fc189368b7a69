"""Identities: canonical bytes, what a request's key depends on, and what an id does not."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from synthgen.digests import (
    RequestFrame,
    canonical,
    draw,
    record_id,
    request_frame,
    request_key,
    sampling_seed,
    value_digest,
)
from synthgen.engines.base import ModelIdentity

texts = st.text(st.characters(codec="utf-8"))
messages_ = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": texts}),
    max_size=4,
)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
schemas = st.none() | st.dictionaries(texts, scalars | st.lists(scalars, max_size=3), max_size=4)
floats = st.floats(-1e15, 1e15)
samplings = st.dictionaries(texts, floats | scalars, max_size=4)


def frame(**parts: Any) -> RequestFrame:
    identity = parts.pop("identity", ModelIdentity("vllm", "org/model", "abc"))
    whole: dict[str, Any] = {
        "sampling": {"max_tokens": 5},
        "schema": None,
        "seed": 7,
        "template_args": {},
        **parts,
    }
    return request_frame(identity, **whole)


@given(messages_, samplings, schemas, texts, texts, st.integers(0, 99), st.integers(0, 9), st.integers(0, 2))
def test_a_body_is_the_canonical_json_of_what_it_says(
    messages: list[dict[str, str]],
    sampling: dict[str, Any],
    schema: dict[str, Any] | None,
    id: str,
    argument: str,
    repeat: int,
    number: int,
    attempt: int,
) -> None:
    made = frame(
        identity=ModelIdentity("openai", id, None),
        sampling=sampling,
        schema=schema,
        template_args={argument: argument},
    )
    body = made.body(messages, repeat=repeat, number=number, attempt=attempt)
    said = {
        "attempt": attempt,
        "engine": "openai",
        "messages": messages,
        "model": {"id": id, "revision": None},
        "number": number,
        "repeat": repeat,
        "sampling": sampling,
        "schema": schema,
        "seed": 7,
        "template": {"args": {argument: argument}, "sha256": None},
    }
    assert body == rfc8785.dumps(said)
    assert rfc8785.dumps(json.loads(body)) == body
    assert request_key(body) == hashlib.sha256(body).digest()


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("sampling", {"sampling": {"max_tokens": 6}}),
    ("another parameter", {"sampling": {"max_tokens": 5, "temperature": 0.1}}),
    ("schema", {"schema": {"type": "object"}}),
    ("seed", {"seed": 8}),
    ("template arguments", {"template_args": {"enable_thinking": False}}),
    ("engine", {"identity": ModelIdentity("openai", "org/model", "abc")}),
    ("id", {"identity": ModelIdentity("vllm", "org/other", "abc")}),
    ("revision", {"identity": ModelIdentity("vllm", "org/model", "abd")}),
    ("weights", {"identity": ModelIdentity("vllm", "org/model", "abc", weights="sha256:1")}),
    ("other weights", {"identity": ModelIdentity("vllm", "org/model", "abc", weights="sha256:2")}),
    ("template", {"identity": ModelIdentity("vllm", "org/model", "abc", chat_template="1")}),
]
MESSAGES = [{"role": "user", "content": "x"}]


def test_every_input_is_in_the_key() -> None:
    keys = {"base": frame().body(MESSAGES, repeat=0)}
    keys |= {name: frame(**change).body(MESSAGES, repeat=0) for name, change in CHANGES}
    keys["repeat"] = frame().body(MESSAGES, repeat=1)
    keys["number"] = frame().body(MESSAGES, repeat=0, number=1)
    keys["attempt"] = frame().body(MESSAGES, repeat=0, attempt=1)
    keys["role"] = frame().body([{"role": "assistant", "content": "x"}], repeat=0)
    keys["content"] = frame().body([{"role": "user", "content": "y"}], repeat=0)
    keys["two messages"] = frame().body(MESSAGES * 2, repeat=0)
    assert len({request_key(body) for body in keys.values()}) == len(keys)


def test_what_is_not_in_the_key() -> None:
    plain = frame().body(MESSAGES, repeat=0)
    detailed = ModelIdentity("vllm", "org/model", "abc", details={"version": "1", "gpu": "x"})
    assert frame(identity=detailed).body(MESSAGES, repeat=0) == plain
    one = ModelIdentity("vllm", "org/model", "abc", weights="sha256:1")
    moved = ModelIdentity("vllm", "elsewhere/copy", None, weights="sha256:1")
    assert frame(identity=one).body(MESSAGES, repeat=0) == frame(identity=moved).body(MESSAGES, repeat=0)
    turned = [{"content": "x", "role": "user"}]
    assert frame().body(turned, repeat=0) == plain


@given(st.binary(min_size=32, max_size=32))
def test_a_sampling_seed_has_31_bits_and_follows_from_the_key(key: bytes) -> None:
    assert 0 <= sampling_seed(key) < 2**31
    assert sampling_seed(key) == sampling_seed(key[:4] + bytes(28))
    assert sampling_seed(key) == int.from_bytes(key[:4], "big") % 2**31


@given(texts, st.binary(min_size=16, max_size=16), st.integers(0, 99))
def test_an_id_follows_from_recipe_task_repeat_and_branch(name: str, task: bytes, repeat: int) -> None:
    found = record_id(name, task, repeat, "0")
    assert len(found) == 32
    assert int(found, 16) >= 0
    assert found == record_id(name, task, repeat, "0")
    others = {
        record_id(name + "x", task, repeat, "0"),
        record_id(name, bytes(16) if task != bytes(16) else b"1" * 16, repeat, "0"),
        record_id(name, task, repeat + 1, "0"),
        record_id(name, task, repeat, "1"),
    }
    assert len({found, *others}) == 5


@given(st.integers(0, 2**63 - 1), texts, st.binary(max_size=16), st.integers(0, 9))
def test_a_draw_is_in_its_interval(seed: int, field: str, task: bytes, repeat: int) -> None:
    assert 0 <= draw(seed, field, task, repeat) < 1
    assert draw(seed, field, task, repeat) == draw(seed, field, task, repeat)


def test_draws_are_even() -> None:
    numbers = sorted(draw(3, "x", b"%d" % task, 0) for task in range(2000))
    # the Kolmogorov-Smirnov distance stays below 1.95/sqrt(n) but once in a thousand
    assert max(abs(number - place / 2000) for place, number in enumerate(numbers)) < 1.95 / 2000**0.5


def test_equal_json_has_an_equal_digest() -> None:
    assert value_digest({"a": 1, "b": [2]}) == value_digest({"b": [2], "a": 1})
    different: list[Any] = [1, "1", 1.5, 1.0, True, None, [1], {"a": 1}, {"a": "1"}, "", [], {}]
    assert len({value_digest(value) for value in different}) == len(different)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1, {1: 2}, {"x": object()}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - rfc8785 words it
        canonical(value)
