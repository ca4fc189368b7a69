"""`writes: user`: a prompt whose next turn, the user's, the model writes itself (Magpie)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen import driver, engines, load, run
from synthgen.audit.replay import Asking, replay
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.digests import request_frame, request_key
from synthgen.engines.base import ModelIdentity
from synthgen.errors import RecipeError
from synthgen.prompt_files import read_prompt
from synthgen.stopping import Stop
from synthgen.workers import InProcess
from tests.support import (
    FakeEngine,
    loaded,
    no_more_than,
    problems,
    project,
    read_jsonl,
    recipe,
    run_it,
    tree,
)

MAGPIE = recipe(
    seeds={"domain": {"choice": ["sums", "poems"]}},
    steps=[
        {"first": {"prompt": {"system": "You help with {{ domain }}.", "writes": "user"}}},
        {"reply": {"prompt": {"user": "{{ first }}"}}},
        {
            "second": {
                "prompt": {
                    "messages": [{"user": "{{ first }}"}, {"assistant": "{{ reply }}"}],
                    "writes": "user",
                }
            }
        },
    ],
    record={"messages": [{"user": "{{ first }}"}, {"assistant": "{{ reply }}"}, {"user": "{{ second }}"}]},
    tasks=6,
)


def magpie(root: Path, **parts: Any) -> Any:
    return loaded(root, {**MAGPIE, **parts}, rows=0)


def test_the_model_is_asked_with_the_turn_open(tmp_path: Path) -> None:
    engine = FakeEngine()
    result = run_it(magpie(tmp_path), engine, directory=tmp_path / "run")
    assert result.kept == 6
    asked = [list(request.messages) for request in engine.asked]
    opened = [messages for messages in asked if messages[-1] == {"role": "user"}]
    assert len(opened) == 12
    assert {messages[0]["content"] for messages in opened if len(messages) == 2} <= {
        "You help with sums.",
        "You help with poems.",
    }
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert len({row["messages"][0]["content"] for row in rows}) == 6  # each asked in its own right
    later = [messages for messages in opened if len(messages) == 3]
    assert [message["role"] for message in later[0]] == ["user", "assistant", "user"]


def test_the_key_holds_that_the_turn_is_open_and_no_other_key_changes() -> None:
    identity = ModelIdentity("fake", "m", revision="r")
    frame = request_frame(identity, sampling={"max_tokens": 5}, schema=None, seed=7, template_args={})
    system = {"role": "system", "content": "s"}
    opened, closed = (frame.body(m, repeat=0) for m in ([system, {"role": "user"}], [system]))
    assert request_key(opened) != request_key(closed)
    assert json.loads(opened)["messages"] == [system, {"role": "user"}]
    body = frame.body([{"role": "user", "content": "Hi"}], repeat=0)
    # As every synthgen so far has written it.
    assert body == (
        b'{"attempt":0,"engine":"fake","messages":[{"content":"Hi","role":"user"}],"model":{"id":"m",'
        b'"revision":"r"},"number":0,"repeat":0,"sampling":{"max_tokens":5},"schema":null,"seed":7,'
        b'"template":{"args":{},"sha256":null}}'
    )


def test_interrupted_and_resumed_it_is_the_same_and_replays(tmp_path: Path) -> None:
    whole = run_it(magpie(tmp_path / "a"), directory=tmp_path / "a" / "run")
    given, cancel = magpie(tmp_path / "b"), Stop()
    stopped = run_it(
        given, FakeEngine(no_more_than(7, cancel)), directory=tmp_path / "b" / "run", cancel=cancel
    )
    assert stopped.outcome == "interrupted"
    again = run_it(given, directory=tmp_path / "b" / "run")
    assert again.reused >= 7
    assert tree(again.dir / "dataset") == tree(whole.dir / "dataset")
    assert verify(whole.dir).findings.shown == []
    found = replay(whole.dir, sample=6)
    assert [record.transcript.outcome for record in found.records] == ["replayed"] * 6


def test_what_was_asked_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project(tmp_path, MAGPIE, rows=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    fake = FakeEngine()
    monkeypatch.setattr(engines, "open_engines", lambda models, *_, **__: dict.fromkeys(models, fake))
    for command in (["validate"], ["preview", "-n", "2"]):
        shown = CliRunner().invoke(app, [command[0], str(path), *command[1:]])
        assert shown.exit_code == 0, shown.output
        assert "the model writes this turn" in shown.output
    result = run_it(magpie(tmp_path), directory=tmp_path / "run")
    id = read_jsonl(result.dir / "dataset" / "train.jsonl")[0]["id"]
    for command in (["show", str(result.dir), id], ["audit", "show", str(result.dir), id]):
        shown = CliRunner().invoke(app, command)
        assert shown.exit_code == 0, shown.output
        assert "the model writes this turn" in shown.output
    told = json.loads(CliRunner().invoke(app, ["audit", "show", str(result.dir), id, "--json"]).stdout)
    assert told["requests"][0]["request"]["messages"][-1] == {"role": "user"}


def test_a_turn_that_cannot_be_used_is_asked_for_in_the_same_words(tmp_path: Path) -> None:
    """The model is not told: that would be a turn of the assistant's, after one that is not there."""
    engine = FakeEngine(lambda request: "<q>Why?</q>" if int(request.key[0], 16) % 2 else "no tag")
    step = {"prompt": {"writes": "user"}, "extract": {"tag": "q"}, "retries": 20}
    given = magpie(tmp_path, steps=[{"first": step}], record={"messages": [{"user": "{{ first }}"}]}, tasks=8)
    result = run_it(given, engine, directory=tmp_path / "run")
    assert result.kept == 8
    assert len(engine.asked) > 8
    assert {json.dumps(list(request.messages)) for request in engine.asked} == {'[{"role": "user"}]'}
    assert [record.transcript.outcome for record in replay(result.dir, sample=8).records] == ["replayed"] * 8


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({"user": "x", "writes": "user"}, "leaves the user's turn to the model"),
        ({"messages": [{"user": "x"}], "writes": "user"}, "leaves the user's turn to the model"),
        ({"system": "x", "writes": "user", "output": {"type": "object"}}, "free text"),
        ({"system": "x", "writes": "assistant"}, "'user'"),
        ({"system": "x"}, "either `user:`"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, prompt: dict[str, Any], said: str) -> None:
    steps = [{"first": {"prompt": prompt}}]
    record = {"messages": [{"user": "{{ first }}"}]}
    [found] = problems(project(tmp_path, {**MAGPIE, "steps": steps, "record": record}, rows=0))
    assert said in found.message
    assert found.line


def test_a_schema_of_the_step_is_refused_as_well(tmp_path: Path) -> None:
    steps = [{"first": {"prompt": {"writes": "user"}, "output": {"type": "object"}}}]
    record = {"messages": [{"user": "{{ first }}"}]}
    [found] = problems(project(tmp_path, {**MAGPIE, "steps": steps, "record": record}, rows=0))
    assert "free text" in found.message


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1"])
def test_openais_service_is_refused_before_anything_is_asked(tmp_path: Path, base_url: str | None) -> None:
    model = {"engine": "openai", "id": "gpt-x", **({"base_url": base_url} if base_url else {})}
    found = problems(project(tmp_path, {**MAGPIE, "model": model}, rows=0))
    assert len(found) == 2  # each of the two steps
    assert "OpenAI's service writes answers alone" in found[0].message
    assert "vllm or llamacpp" in str(found[0].hint)
    served = {**model, "base_url": "http://localhost:8000/v1"}
    assert loaded(tmp_path / "b", {**MAGPIE, "model": served}, rows=0).steps[0].prompt.writes == "user"


def test_a_filters_prompt_asks_for_an_answer(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("system: x\nwrites: user\n")
    with pytest.raises(RecipeError, match="a filter asks for an answer"):
        read_prompt(tmp_path / "p.yaml")


@pytest.mark.llamacpp
def test_the_embedded_engine_replays_the_turn_bit_for_bit(default_model: Path, tmp_path: Path) -> None:
    model = {"engine": "llamacpp", "id": "smollm2-135m", "options": {"slots": 1, "n_ctx": 256}}
    steps = [{"first": {"prompt": {"writes": "user"}, "sampling": {"max_tokens": 16}}}]
    record = {"messages": [{"user": "{{ first }}"}]}
    said = {**MAGPIE, "model": model, "steps": steps, "record": record, "tasks": 2}
    result = run(load(project(tmp_path, said, rows=0)), tmp_path / "run")
    found = replay(result.dir, sample=2, asking=Asking())
    assert [bits.outcome for record in found.records for bits in record.bits] == ["bit"] * 2


def test_a_conversation_asks_everyone_for_an_answer(tmp_path: Path) -> None:
    user = {"prompt": {"system": "x", "writes": "user"}}
    step = {"prompt": {"system": "y"}, "conversation": {"user": user, "turns": 2}}
    said = {**MAGPIE, "steps": [{"first": step}], "record": {"from": "first"}}
    [found] = problems(project(tmp_path, said, rows=0))
    assert "no `writes: user` here" in found.message
