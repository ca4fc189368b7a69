"""Why a session failed is said, in the journal and in sessions.jsonl, with nothing in it that is private."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.audit.erase import erase
from synthgen.audit.verify import verify
from synthgen.engines.base import Request
from synthgen.errors import RunError, SynthgenError
from synthgen.why import LONGEST, why
from tests.support import FakeEngine, answer_of, loaded, read_jsonl, recipe, run_it, tree

CANARY = "c4n4ry-of-a-secret"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"the server says: bad key {CANARY}", "the server says: bad key ***"),
        ("http://me:hunter22@host/v1?token=abc123 is gone", "http://***@host/v1?*** is gone"),
        ("401: Bearer abcdef123456", "401: Bearer ***"),
        ("hf_abcdefghijklmnop is no token", "*** is no token"),
        ("/home/someone/models/a.gguf: cannot be read", "a.gguf: cannot be read"),
        ("ROOT/data/docs.jsonl:3: is not JSON", "data/docs.jsonl:3: is not JSON"),
        ("a and/or b", "a and/or b"),
        ("https://host/v1/models says no", "https://host/v1/models says no"),
    ],
)
def test_nothing_private_is_in_it(tmp_path: Path, said: str, kept: str) -> None:
    error = RunError(said.replace("ROOT", str(tmp_path)), hint="a hint")
    assert why(error, tmp_path, {"SOME_API_KEY": CANARY, "HOME": "/home/someone"}) == f"RunError: {kept}"


def test_any_error_is_a_short_sentence(tmp_path: Path) -> None:
    assert why(KeyboardInterrupt(), tmp_path, {}) == "KeyboardInterrupt"
    assert len(why(ValueError("a\nb " * 10_000), tmp_path, {})) <= LONGEST


def test_a_session_that_failed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", CANARY)

    def dies(request: Request) -> str:
        raise RunError(f"the engine is gone, with {CANARY} and {tmp_path}/data/docs.jsonl")

    with pytest.raises(SynthgenError):
        run_it(loaded(tmp_path, recipe()), FakeEngine(dies), directory=tmp_path / "run")
    place = run_it(loaded(tmp_path, recipe()), FakeEngine(), directory=tmp_path / "run").dir
    first, second = read_jsonl(place / "sessions.jsonl")
    assert first["outcome"] == "failed"
    assert first["reason"] == "RunError: the engine is gone, with *** and data/docs.jsonl"
    assert second["reason"] is None
    assert verify(place).intact
    assert [name for name, data in tree(place).items() if CANARY.encode() in data] == []


def test_what_it_quotes_goes_with_what_is_erased(tmp_path: Path) -> None:
    """A filter's error may have a record's words in it."""

    def dies(request: Request) -> str:
        raise RunError(f"no answer to {request.messages[-1]['content']}")

    given = loaded(tmp_path, recipe(), rows=[{"text": f"{CANARY} said"}, {"text": "another"}])
    with pytest.raises(SynthgenError):
        run_it(given, FakeEngine(dies), directory=tmp_path / "run")
    place = run_it(given, FakeEngine(answer_of), directory=tmp_path / "run").dir
    assert CANARY in (place / "sessions.jsonl").read_text()
    [id] = [row["id"] for row in read_jsonl(place / "dataset" / "train.jsonl") if CANARY in str(row)]
    erase(place, [id])
    assert [name for name, data in tree(place).items() if CANARY.encode() in data] == []
    assert read_jsonl(place / "sessions.jsonl")[0]["reason"] == "RunError"
    assert verify(place).intact
