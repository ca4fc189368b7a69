"""Every recipe that ships runs, on the embedded model where it asks one."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonlines
import pytest
from jsonschema import Draft202012Validator

from synthgen import Measurement, Record, load, run
from synthgen.audit.tables import rows_of_parquet
from synthgen.audit.verify import verify
from synthgen.engines.base import Request
from synthgen.filters.tool_calls import tool_calls
from synthgen.journal_reading import open_for_reading, stored_records
from synthgen.recipe_schema import json_schema
from synthgen.yamlfile import read_yaml
from tests.standin import example
from tests.support import FakeEngine, answer_of

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))


def rows(file: Path) -> list[dict[str, Any]]:
    with jsonlines.open(file) as lines:
        return list(lines)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_loads_and_fits_the_schema_for_editors(path: Path) -> None:
    assert load(path).recipe.name == path.stem
    assert list(Draft202012Validator(json_schema()).iter_errors(read_yaml(path).data)) == []


def test_curating_what_exists_drops_what_was_planted(tmp_path: Path) -> None:
    result = run(FOLDER / "curate-chat.yaml", tmp_path / "run")
    assert result.planned == 40
    assert result.failed == 0
    assert result.usage["requests"] == 0
    why = {name for name, counts in result.filters.items() if counts["dropped"]}
    assert why == {"words", "refusal", "quality", "language", "toxicity", "duplicate"}
    dropped = rows(tmp_path / "run" / "dropped.jsonl")
    assert len(dropped) == result.dropped == 7


# How many of four rows are kept at the least: the embedded model knows no French, and little Python.
WRITTEN = {
    "quickstart": 2, "classify": 2, "preference-pairs": 2, "backtranslation": 1, "persona-chat": 1,
    "rewrite-and-clean": 1, "code-exercises": 0, "magpie": 1, "translation-pairs": 0,
}  # fmt: skip


def test_every_recipe_is_run_here() -> None:
    others = {"curate-chat", "classification-balanced", "grounded-qa", "self-instruct", "evol-instruct"}
    assert {path.stem for path in RECIPES} == {*WRITTEN, *others, "tool-calling"}


def calls_of(file: Path) -> list[str]:
    """The tools that are called in the rows of a file, each call valid under the schema of its tool."""
    found = []
    for row in rows(file):
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
        for call in [call for message in row["messages"] for call in message.get("tool_calls", ())]:
            found.append(call["function"]["name"])
            arguments = json.loads(call["function"]["arguments"])
            assert list(Draft202012Validator(schemas[found[-1]]).iter_errors(arguments)) == []
        assert row["messages"][-1]["role"] == "assistant"
    return found


def test_each_tool_can_be_called_and_its_results_go_back(tmp_path: Path) -> None:
    def answered(request: Request) -> str:
        if request.schema is None:
            return (
                f"{answer_of(request)} is what I was about to say to you, and so is this, in many more words"
            )
        return json.dumps(example(request.schema, hashlib.sha256(request.key.encode()).digest()))

    loaded = load(FOLDER / "tool-calling.yaml", tasks=40)
    result = run(loaded, tmp_path / "run", engine=FakeEngine(answered))
    assert (result.kept, result.failed) == (40, 0)
    called = calls_of(tmp_path / "run" / "dataset" / "train.jsonl")
    known = {
        tool["function"]["name"] for box in rows(FOLDER / "data" / "toolboxes.jsonl") for tool in box["tools"]
    }
    assert len(called) > 40
    assert len(set(called)) > len(known) // 2
    dataset = tmp_path / "run" / "dataset"
    lines = (dataset / "train.jsonl").read_bytes().splitlines()
    assert list(rows_of_parquet(sorted((dataset / "data").glob("*.parquet")))) == lines
    assert verify(tmp_path / "run").intact
    records = [Record("r", {}, json.loads(line)) for line in lines]
    assert tool_calls.make().measure(records) == [Measurement(0.0)] * 40


@pytest.mark.llamacpp
def test_conversations_with_tools_are_had(tmp_path: Path, default_model: Path) -> None:
    """The embedded model does not find an end to all that it says, so that some of them fail."""
    result = run(load(FOLDER / "tool-calling.yaml", tasks=4), tmp_path / "run")
    assert result.planned == 4 == result.kept + result.dropped + result.failed
    assert result.kept >= 1
    calls_of(tmp_path / "run" / "dataset" / "train.jsonl")


@pytest.mark.llamacpp
@pytest.mark.parametrize("name", WRITTEN)
def test_generating_ones_write_rows(name: str, tmp_path: Path, default_model: Path) -> None:
    result = run(load(FOLDER / f"{name}.yaml", tasks=4), tmp_path / "run")
    assert result.planned == 4 == result.kept + result.dropped
    assert result.usage["output_tokens"] > 0
    kept = [row for file in (tmp_path / "run" / "dataset").glob("*.jsonl") for row in rows(file)]
    assert len(kept) == result.kept >= WRITTEN[name]
    again = run(load(FOLDER / f"{name}.yaml", tasks=4), tmp_path / "run")
    assert again.outcome == "nothing to do"


@pytest.mark.llamacpp
def test_pairs_of_questions_and_answers_know_their_place_in_a_document(
    tmp_path: Path, default_model: Path
) -> None:
    result = run(load(FOLDER / "grounded-qa.yaml", tasks=3), tmp_path / "run")
    assert result.planned == 6 == result.kept + result.dropped + result.failed
    assert result.kept >= 1
    for row in rows(tmp_path / "run" / "dataset" / "provenance" / "train.jsonl"):
        [source] = row["sources"]
        assert str(source["path"]).startswith("recipes/data/handbook/")
        assert source["end"] > source["start"]


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    ("name", "edits"),
    [
        ("evol-instruct", {"path: recipes": "limit: 5, path: recipes", "depth: 4": "depth: 2"}),
        ("self-instruct", {"round: 16": "round: 3", "tasks: 48": "tasks: 9", "n: 8": "n: 3"}),
    ],
)
def test_growing_ones_feed_on_what_they_kept(
    name: str, edits: dict[str, str], tmp_path: Path, default_model: Path
) -> None:
    said = (FOLDER / f"{name}.yaml").read_text()
    for before, after in edits.items():
        assert before in said
        said = said.replace(before, after)
    recipe = tmp_path / "recipes" / f"{name}.yaml"
    shutil.copytree(FOLDER / "data", recipe.parent / "data")
    recipe.write_text(said)
    result = run(recipe, tmp_path / "run")
    added = result.growth["seeds"].popitem()[1]["added"]
    assert added > 0
    if name == "evol-instruct":
        assert added == result.growth["kept_by_generation"]["1"] == result.planned - 5
    else:
        assert added == result.kept
    with closing(open_for_reading(tmp_path / "run")) as journal:
        sources = [source for entry, _ in stored_records(journal, 1) for source in entry.sources]
    assert any("record" in source for source in sources)


@pytest.mark.llamacpp
def test_a_balanced_one_keeps_as_many_of_each_as_it_can(tmp_path: Path, default_model: Path) -> None:
    said = (FOLDER / "classification-balanced.yaml").read_text()
    recipe = tmp_path / "recipes" / "classification-balanced.yaml"
    recipe.parent.mkdir()
    recipe.write_text(
        said.replace("target: 12", "target: 4").replace("label: even", "label: {food: 1, money: 1}")
    )
    result = run(recipe, tmp_path / "run")
    assert result.kept == 4
    shares = result.balance["label"]
    assert {shares["food"]["kept"], shares["money"]["kept"]} <= {1, 2, 3}


@pytest.mark.vllm
def test_the_quickstart_runs_through_vllm(tmp_path: Path, default_model: Path) -> None:
    result = run(load(FOLDER / "quickstart.yaml", tasks=3, engine="vllm"), tmp_path / "run")
    assert result.planned == 3 == result.kept + result.dropped
    assert result.usage["requests"] >= 6
    assert "engine: vllm" in (tmp_path / "run" / "recipe.lock.yaml").read_text()
