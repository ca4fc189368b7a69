"""The published forms: every line of a finished run has one, and the JSON schema is what the models give."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from synthgen.chain import Verdict
from synthgen.engines.base import Request, RequestFailed
from synthgen.journal_entries import RecordEntry
from synthgen.journal_reading import open_for_reading, stored_records
from synthgen.provenance import schema
from synthgen.provenance.schema import LedgerLine, RecordStatement
from synthgen.provenance.statement import row_bytes, statement
from tests.support import FakeEngine, answer_of, loaded, read_jsonl, recipe, run_it

PUBLISHED = Path(schema.__file__).parent.parent / "provenance.schema.json"
CHAIN = [
    {"words": {"min": 5}},
    {"characters": {"max": 60, "action": "flag"}},
    {"language": {"is": "en"}},
    {"pii": {"action": "redact"}},
    {"duplicate": {"of": "instruction"}},
]


def answer(request: Request) -> Any:
    return RequestFailed("too long") if request.key.startswith("7") else answer_of(request)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    seeds = {"doc": {"path": "data/docs.jsonl", "field": "text", "licence": "CC0-1.0"}}
    said = recipe(seeds=seeds, filters=CHAIN, output={"split": {"train": 0.7, "test": 0.3}})
    result = run_it(loaded(root, said, rows=40), FakeEngine(answer), directory=root / "run")
    assert min(result.kept, result.dropped, result.failed) > 0
    return result.dir


def validator(name: str) -> Draft202012Validator:
    whole = json.loads(PUBLISHED.read_text())
    return Draft202012Validator({**whole, "$ref": f"#/$defs/{name}"})


def test_the_published_schema_is_the_one_that_the_models_give() -> None:
    assert json.loads(PUBLISHED.read_text()) == schema.json_schema(), "run `make schema`"
    Draft202012Validator.check_schema(schema.json_schema())


def test_every_line_of_a_finished_run_has_the_form(finished: Path) -> None:
    folder = finished / "dataset" / "provenance"
    forms = {"train": RecordStatement, "test": RecordStatement, "ledger": LedgerLine}
    for name, form in forms.items():
        lines = (folder / f"{name}.jsonl").read_bytes().splitlines()
        assert lines
        published = validator(form.__name__)
        for line in lines:
            form.model_validate_json(line)
            published.validate(json.loads(line))


def test_what_is_stated_of_records_that_are_not_kept_has_the_form_too(finished: Path) -> None:
    states = set()
    for entry, body in stored_records(open_for_reading(finished), 1):
        said = RecordStatement.model_validate_json(statement(entry, body))
        assert said.state == entry.state
        states.add(said.state)
    assert states == {"kept", "dropped", "failed"}


@pytest.mark.parametrize("folder", ["", "dataset"])
def test_manifests_have_the_form(finished: Path, folder: str) -> None:
    envelope = json.loads((finished / folder / "manifest.json").read_bytes())
    validator("Envelope").validate(envelope)
    validator("Statement").validate(json.loads(base64.b64decode(envelope["payload"])))


def test_each_measurement_has_the_bounds_it_was_judged_by(finished: Path) -> None:
    [first, *_] = read_jsonl(finished / "dataset" / "provenance" / "train.jsonl")
    bounds = {name: (said.get("min"), said.get("max")) for name, said in first["measurements"].items()}
    assert bounds["words"] == (5, None)
    assert bounds["characters"] == (None, 60)
    assert list(bounds) == [*(next(iter(use)) for use in CHAIN), "straddle"]
    assert first["sources"][0]["licence"] == "CC0-1.0"
    assert "licences:\n- CC0-1.0\n" in (finished / "recipe.lock.yaml").read_text()


def test_what_nobody_knows_is_refused(finished: Path) -> None:
    [first, *_] = read_jsonl(finished / "dataset" / "provenance" / "train.jsonl")
    for wrong in ({"times": 3}, {"state": "lost"}, {"salt": "x"}, {"task": -1}, {"id": 3}):
        with pytest.raises(ValidationError):
            RecordStatement.model_validate({**first, **wrong})
        assert not validator("RecordStatement").is_valid({**first, **wrong})


def test_every_verdict_that_there_is_can_be_stated() -> None:
    assert get_args(schema.Stated.model_fields["verdict"].annotation) == get_args(Verdict)


def test_it_is_small(finished: Path) -> None:
    lines = (finished / "dataset" / "provenance" / "train.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) < 1500


NAMES = st.sampled_from(["row", "id", "fields", "messages", "text"]) | st.text(max_size=5)
TRICKS = st.sampled_from(['"row":', ',"row":', '"},"row":{"', '"id":'])
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | TRICKS
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(NAMES.filter(lambda name: name.isprintable()), VALUES, max_size=4)


@given(MAPPINGS, MAPPINGS)
def test_a_row_is_cut_out_of_its_contents_as_if_it_were_read(
    fields: dict[str, Any], row: dict[str, Any]
) -> None:
    body = orjson.dumps({"fields": fields, "row": row})
    assert row_bytes("a", body) == orjson.dumps({"id": "a", **orjson.loads(body)["row"]})


def test_equal_records_have_equal_statements() -> None:
    entry = RecordEntry(0, "0", "0" * 32, b"\0" * 32, "kept", None, {}, [], [], None)
    body = orjson.dumps({"fields": {}, "row": {"text": "x"}})
    assert statement(entry, body) == statement(entry, body, row_bytes(entry.id, body))
