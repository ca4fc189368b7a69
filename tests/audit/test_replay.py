"""`audit replay`: what follows from the raw answers follows again, and an engine says the same again."""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen import load, run
from synthgen.audit.bits import SAME, first_difference, points
from synthgen.audit.findings import CannotJudge
from synthgen.audit.recorded import Answer
from synthgen.audit.replay import Asking, Replays, replay
from synthgen.cli import app
from synthgen.cli.audit.replay import show
from synthgen.engines.base import Completion, ModelIdentity, Request, RequestRetryable, Token
from synthgen.errors import UsageError
from tests.support import FakeEngine, answer_of, loaded, project, recipe, run_it

DETAILS = {
    "xllamacpp": "1", "n_ctx": 512, "threads": 2, "processor": "p", "n_batch": None, "n_gpu_layers": None,
    "slots": 1, "reuse_prefixes": False,
}  # fmt: skip
CARD = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def identity(**changed: Any) -> ModelIdentity:
    return ModelIdentity("llamacpp", "m", weights="sha256:" + "0" * 64, details={**DETAILS, **changed})


def engine(answer: Callable[[Request], Any] | None = None, **changed: Any) -> FakeEngine:
    return FakeEngine(answer, identity=identity(**changed))


def answer(request: Request) -> str:
    """JSON under a schema, after a first answer that is none; else a text with white space around it."""
    if request.schema is not None:
        return json.dumps({"a": request.key[:5]}) if int(request.key[0], 16) % 2 else "no JSON"
    return f" {answer_of(request)}\n"


SAID = recipe(
    seeds={
        "doc": {"path": "data/docs.jsonl", "field": "text"},
        "tone": {"choice": ["kind", "stern"]},
        "lang": ["en", "de"],
    },
    steps=[
        {"card": {"prompt": {"user": "Make a card of {{ doc }} in {{ lang }}", "output": CARD}}},
        {"answer": {"prompt": "tell"}},
        {"again": {"prompt": "tell", "sampling": {"temperature": 0.5}}},
        {"twice": {"prompt": "tell"}},
    ],
    record={
        "messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }} {{ card.a }}"}],
        "tone": "{{ tone }}",
    },
    filters=[{"words": {"min": 8}}],
)
TELL = {"prompts/tell.yaml": "user: Tell me in a {{ tone }} tone of {{ doc }}\n"}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    given = loaded(tmp_path, SAID, rows=8, files=TELL)
    result = run_it(given, engine(answer), directory=tmp_path / "runs" / "a")
    assert min(result.kept, result.dropped) > 0
    return result.dir


def changed(place: Path, *queries: str) -> None:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        for query in queries:
            assert journal.execute(query).rowcount > 0, query


def differing(found: Replays) -> list[str]:
    return [each for record in found.records for each in record.transcript.differs]


def test_everything_follows_again(finished: Path) -> None:
    found = replay(finished, sample=1000)
    assert differing(found) == []
    assert found.transcripts["replayed"] == len(found.records) > 8
    assert found.exit_code == 0


def test_rows_that_were_curated_and_texts_that_were_redacted(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"Mail a{n}@mailhost.net about {n}"} for n in range(4)]
    said = recipe(
        model=None, steps=None, seeds={"row": {"path": "data/docs.jsonl"}}, record={"from": "row"},
        filters=[{"pii": {"action": "redact"}}],
    )  # fmt: skip
    result = run_it(loaded(tmp_path, said, rows=rows), directory=tmp_path / "run")
    assert "mailhost" not in (result.dir / "dataset" / "train.jsonl").read_text()
    found = replay(result.dir, sample=10, asking=Asking(own=engine()))
    assert (differing(found), found.exit_code, found.transcripts["replayed"]) == ([], 0, 4)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("UPDATE completions SET text = 'x' || text WHERE text LIKE '%answer-%'", "not what the raw answer"),
        ("UPDATE requests SET body = replace(body, 'kind', 'Kind')", "its key is not the digest"),
        ("UPDATE contents SET body = replace(body, 'kind', 'Kind')", "not what the recipe and the"),
        ("UPDATE contents SET body = replace(body, 'document', 'Document')", "source names"),
        ("UPDATE contents SET body = replace(body, 'role\":\"user', 'role\":\"User')", "row.messages"),
        ("UPDATE contents SET body = replace(body, '\"kind\"', '\"kind \"')", "request"),
        ("UPDATE contents SET body = '[]'", "are not what synthgen wrote"),
        ("UPDATE contents SET body = replace(body, '{\"fields\"', '{ \"fields\"')", "digest is another"),
        ("UPDATE records SET id = printf('%032x', task)", "id: does not follow"),
        ("UPDATE records SET requests = substr(requests, 33)", "request 1: "),
        ("UPDATE records SET requests = CAST(requests || zeroblob(32) AS BLOB)", "more than the steps"),
        ("DELETE FROM completions", "answer is not in the journal"),
        ("DELETE FROM requests", "is not in the journal"),
        ("DELETE FROM contents", "are not in the journal"),
    ],
)  # fmt: skip
def test_what_was_changed_is_named(finished: Path, query: str, said: str) -> None:
    changed(finished, query)
    found = replay(finished, sample=1000)
    assert any(said in each for each in differing(found)), differing(found)
    assert found.exit_code == 1


def test_a_lock_that_was_changed(finished: Path) -> None:
    lock = finished / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace("temperature: 0.5", "temperature: 0.6"))
    assert all("sampling" in each for each in differing(replay(finished, sample=1000)))


def test_a_prompt_that_is_another_now_proves_nothing(finished: Path) -> None:
    (finished.parent.parent / "prompts" / "tell.yaml").write_text("user: Other {{ doc }}\n")
    found = replay(finished, sample=5)
    assert (differing(found), found.exit_code) == ([], 2)
    assert "its file is not what it was" in found.records[0].transcript.unjudged[0]


def test_failed_records_have_nothing_to_compute(tmp_path: Path) -> None:
    given = loaded(tmp_path, recipe(steps=[{"answer": {"prompt": {"user": "{{ doc }}", "output": CARD}}}]))
    result = run_it(given, engine(lambda _: "no JSON"), directory=tmp_path / "run")
    assert result.failed == 5
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal:
        (id,) = journal.execute("SELECT id FROM records").fetchone()
    assert replay(result.dir, [id[:12]]).exit_code == 2
    changed(result.dir, "UPDATE requests SET body = replace(body, 'document', 'Document')")
    assert "its key is not the digest" in differing(replay(result.dir, [id]))[0]


def test_the_same_engine_says_the_same(finished: Path) -> None:
    again = engine(answer)
    found = replay(finished, sample=6, asking=Asking(own=again))
    assert found.exit_code == 0
    assert found.bits == {"bit": len(again.asked)}
    assert again.most == 1
    assert (again.started, again.closed) == (1, 1)


def test_another_answer_is_another(finished: Path) -> None:
    found = replay(finished, sample=6, asking=Asking(own=engine(lambda request: answer(request) + "!")))
    assert found.exit_code == 1
    assert set(found.bits) == {"differs"}
    one = found.records[0].bits[-1]
    assert one.at == len(answer_of(Request(one.key, (), {}, 0))) + 2
    assert one.now == one.before + "!"


class Words(FakeEngine):
    """Its tokens are words with the white space before them; the end of a text may be the end of all."""

    async def tokens(self, text: str) -> list[Token]:
        if "silent" in text:
            raise RequestRetryable("not now")
        return [Token(hash(piece), piece) for piece in re.findall(r"\s*\S+|\s+$", text)]


@pytest.mark.parametrize(
    ("change", "token", "before", "now"),
    [
        (lambda said: said + " more", 4, None, " more"),
        (lambda said: said.replace(" word", " wort", 1), 1, " word", " wort"),
        (lambda said: "x" + said, 0, None, None),
        (lambda said: said + " silent", None, None, None),
    ],
)
def test_the_first_token_that_differs_is_named(
    tmp_path: Path, change: Callable[[str], str], token: int | None, before: str | None, now: str | None
) -> None:
    four = "answer word word word"
    result = run_it(loaded(tmp_path), engine(lambda _: four), directory=tmp_path / "run")
    again = Words(lambda _: change(four), identity=identity())
    one = replay(result.dir, sample=1, asking=Asking(own=again)).records[0].bits[0]
    assert (one.outcome, one.token) == ("differs", token)
    assert one.at == first_difference(four, change(four))
    if token:
        assert (one.token_before, one.token_now) == (before, now)
        assert one.as_json()["token_now"] == now


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Completion("the same", "length", 10, 5), "finish reason: stop, now length"),
        (Completion("the same", "stop", 10, 6), "tokens: 5, now 6"),
    ],
)
def test_the_same_text_in_other_tokens_is_another(tmp_path: Path, given: Completion, said: str) -> None:
    result = run_it(loaded(tmp_path), engine(lambda _: "the same"), directory=tmp_path / "run")
    found = replay(result.dir, sample=1, asking=Asking(own=engine(lambda _: given)))
    assert found.exit_code == 1
    assert said in found.records[0].bits[0].points[0]


@pytest.mark.parametrize(
    ("other", "point"),
    [
        (identity(xllamacpp="2"), "xllamacpp: 1, now 2"),
        (identity(processor="q"), "processor: p, now q"),
        (identity(threads=8), "threads: 2, now 8"),
        (dataclasses.replace(identity(), engine="vllm"), "engine: llamacpp, now vllm"),
        (dataclasses.replace(identity(), weights="sha256:1"), "weights: "),
        (dataclasses.replace(identity(), weights=None), "weights: "),
        (dataclasses.replace(identity(), chat_template="x"), "chat template"),
    ],
)
@pytest.mark.parametrize("same", [True, False])
def test_where_it_cannot_be_compared_it_never_passes(
    finished: Path, other: ModelIdentity, point: str, same: bool
) -> None:
    again = FakeEngine(answer if same else answer_of, identity=other)
    found = replay(finished, sample=3, asking=Asking(own=again))
    assert set(found.bits) == {"not comparable"}
    assert found.exit_code == 2
    assert any(point in each for each in found.records[0].bits[0].points)


def test_an_answer_that_was_made_among_others(tmp_path: Path) -> None:
    """The same text is a replay; another text is no proof of anything."""
    result = run_it(loaded(tmp_path), engine(slots=16), directory=tmp_path / "run")
    assert replay(result.dir, sample=5, asking=Asking(own=engine())).exit_code == 0
    found = replay(result.dir, sample=5, asking=Asking(own=engine(lambda _: "other")))
    assert found.exit_code == 2
    assert "slots: 16" in found.records[0].bits[0].points[0]


def test_a_server_is_asked_only_where_somebody_names_it(standin: Any, tmp_path: Path) -> None:
    said = recipe(model={"engine": "openai", "id": "standin", "base_url": standin.url})
    result = run(load(project(tmp_path, said)), tmp_path / "run")
    asked = standin.requests
    found = replay(result.dir, sample=5, asking=Asking())
    assert found.exit_code == 2
    assert "--base-url" in found.records[0].bits[0].points[0]
    assert standin.requests == asked
    found = replay(result.dir, sample=5, asking=Asking(base_url=standin.url))
    assert found.exit_code == 2
    assert {bits.at for record in found.records for bits in record.bits} == {None}


def test_nothing_to_replay(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(CannotJudge):
        replay(tmp_path / "nowhere", sample=1)
    with pytest.raises(UsageError, match="no record begins"):
        replay(finished, ["ffffffffffff"])
    with pytest.raises(UsageError, match="--sample"):
        replay(finished)
    (finished / "recipe.lock.yaml").write_text("recipe: [")
    with pytest.raises(CannotJudge):
        replay(finished, sample=1)


def test_the_command(finished: Path) -> None:
    runner = CliRunner()
    arguments = ["audit", "replay", str(finished), "--sample", "3", "--no-engine"]
    done = runner.invoke(app, arguments)
    assert (done.exit_code, "3 replayed" in done.stdout) == (0, True), done.output
    assert [record.id for record in replay(finished, sample=3, seed=1).records] == [
        record.id for record in replay(finished, sample=3, seed=1).records
    ]
    changed(finished, "UPDATE completions SET text = '\x1b[2J' || text")
    done = runner.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["transcripts"]["differs"] == 3
    assert "\x1b" not in runner.invoke(app, arguments).stdout
    assert runner.invoke(app, ["audit", "replay", str(finished.parent), "x", "--no-engine"]).exit_code == 2


def test_what_is_noted_since_is_compared_where_it_was_noted() -> None:
    details = dict.fromkeys(SAME["vllm"], 1)
    said = {"engine": "vllm", "model": {"weights": "w"}, "template": {"sha256": None}}
    now = ModelIdentity("vllm", "m", weights="w", details={**details, "driver": "550", "cuda": "12"})

    def found(before: dict[str, Any]) -> list[str]:
        answer = Answer(Completion("a", "stop", 1, 1), None, {"default": {**details, **before}})
        return points(said, answer, "default", now)

    assert found({}) == found({"driver": "550"}) == []
    assert found({"driver": "535", "cuda": "12"}) == ["driver: 535, now 550"]


@pytest.mark.parametrize(
    ("one", "other", "at"), [("a", "a", None), ("", "a", 0), ("abc", "abd", 2), ("ab", "abc", 2)]
)
def test_the_first_difference(one: str, other: str, at: int | None) -> None:
    assert first_difference(one, other) == at


RECORDS = 100
THINGS = ["rivers", "the bread of the south", "chess", "stars that nobody has seen since winter", "rain"]
REAL = recipe(
    seeds={"thing": THINGS, "number": list(range(RECORDS // 5))},
    steps=[{"answer": {"prompt": {"system": "Be brief.", "user": "On {{ thing }} {{ number }}"}}}],
    sampling={"temperature": 0.8, "max_tokens": 6},
    record={"messages": [{"user": "{{ thing }} {{ number }}"}, {"assistant": "{{ answer }}"}]},
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "options", [{"slots": 1}, {"slots": 32, "reuse_prefixes": False}], ids=["alone", "among 32"]
)
def test_the_embedded_engine_replays_bit_for_bit(
    default_model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Each request alone, one after the other, when it was made alone and when 32 were answered at a time."""
    pytest.importorskip("xllamacpp")
    model = {"engine": "llamacpp", "id": "smollm2-135m", "options": {"n_ctx": 64, "n_threads": 1, **options}}
    result = run(load(project(tmp_path, {**REAL, "model": model}, rows=0)), tmp_path / "run")
    assert result.kept == RECORDS
    found = replay(result.dir, sample=RECORDS, asking=Asking())
    assert [(bits.outcome, bits.points) for record in found.records for bits in record.bits] == [
        ("bit", [])
    ] * RECORDS
    assert found.exit_code == 0
    changed(result.dir, "UPDATE completions SET text = text || ' zebra'")
    for record in replay(result.dir, sample=3, asking=Asking()).records:
        [bits] = record.bits
        if options["slots"] == 1:
            assert bits.outcome == "differs"
        assert bits.token is not None
        assert (bits.token_before, bits.token_now) == (" zebra", None)


def test_what_many_requests_have_in_common_is_said_once(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(replay(finished, sample=3, asking=Asking(own=FakeEngine(answer, identity=identity(processor="q")))))
    said = capsys.readouterr().out.splitlines()
    [line] = [each for each in said if each.startswith("!")]
    assert "engine not comparable: processor: p, now q  (" in line
    assert re.search(r"\d+ times in 3 records, such as [0-9a-f]{32}\)$", line)
    assert said[-1].startswith("engine      ")
    show(replay(finished, sample=3, asking=Asking(own=engine(lambda _: "other"))))
    said = capsys.readouterr().out.splitlines()
    assert all("engine differs in request" in each for each in said if each.startswith("!"))
    changed(finished, "UPDATE completions SET text = 'another'")
    show(replay(finished, sample=3))
    assert "transcript differs" in capsys.readouterr().out.splitlines()[0]
