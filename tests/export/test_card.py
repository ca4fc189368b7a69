"""The card: what the Hub reads of it is right, what it says was measured, and nothing is made up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from synthgen import driver
from synthgen.dataset_folders import FRONT_MATTER, data_files
from synthgen.engines.base import Request, RequestFailed
from synthgen.export import measured
from synthgen.export.card import LICENCES, SIZES
from synthgen.export.measured import QUANTILES, Values
from synthgen.recurate import recurate
from synthgen.run_result import RunResult
from synthgen.workers import InProcess
from synthgen.yamlfile import read_yaml
from tests.support import FakeEngine, answer_of, loaded, recipe, run_it

ENGLISH = "This is an answer of some length in plain English, and it is meant to be read."
GERMAN = "Das ist eine Antwort von einiger L\u00e4nge in einfachem Deutsch, damit man sie lesen kann."


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


def made(root: Path, engine: Any = None, rows: Any = 20, **parts: Any) -> RunResult:
    return run_it(loaded(root, recipe(**parts), rows=rows), engine or FakeEngine(), directory=root / "run")


def card(result: RunResult) -> tuple[dict[str, Any], str]:
    """What is in its front matter, and the rest."""
    text = (result.dir / "dataset" / "README.md").read_text()
    head = FRONT_MATTER.match(text)
    assert head is not None
    return YAML(typ="safe").load(head[1]), text[head.end() :]


def seeds(**licences: str | None) -> dict[str, Any]:
    return {
        name: {"path": "data/docs.jsonl", "field": "text", **({"licence": said} if said else {})}
        for name, said in licences.items()
    }


def table(text: str, heading: str) -> list[dict[str, str]]:
    """The table beneath a heading, a mapping a row."""
    lines = text.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_configurations_lead_to_files(tmp_path: Path) -> None:
    result = made(tmp_path, output={"split": {"train": 0.5, "test": 0.5}})
    front, _ = card(result)
    assert [each["config_name"] for each in front["configs"]] == ["default", "provenance"]
    for config in front["configs"]:
        for each in config["data_files"]:
            assert [path.name for path in (result.dir / "dataset").glob(each["path"])] == [
                f"{each['split']}-00000-of-00001.parquet"
            ]
    assert {path.parent.name for path in data_files(result.dir / "dataset")} == {"data"}
    alone = made(tmp_path / "jsonl", output={"formats": ["jsonl"]})
    assert [each["config_name"] for each in card(alone)[0]["configs"]] == ["default"]
    assert '"provenance"' not in card(alone)[1]


def test_configurations_tell_contents_apart(tmp_path: Path) -> None:
    """`datasets` takes one dataset's rows from its cache for another's whose configurations are the same."""
    half: dict[str, Any] = {"split": {"train": 0.5, "test": 0.5}}
    ways: list[dict[str, Any]] = [{"rows": 20}, {"rows": 21}, {"output": half}]
    configs = [card(made(tmp_path / str(n), **way))[0]["configs"] for n, way in enumerate(ways)]
    again = card(made(tmp_path / "again", rows=20))[0]["configs"]
    said = [each[0]["description"] for each in configs]
    assert len({*said}) == 3
    assert again == configs[0]


def test_a_split_without_rows_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    front, text = card(made(tmp_path, rows=3, output={"split": {"train": 0.9999, "test": 0.0001}}))
    for config in front["configs"]:
        assert [each["split"] for each in config["data_files"]] == ["train"]
    assert "There are no rows in `test`." in text


@pytest.mark.parametrize(
    ("licences", "front"),
    [
        ({"doc": "CC0-1.0"}, {"license": ["cc0-1.0"]}),
        ({"doc": "MIT", "other": "Apache-2.0"}, {"license": ["apache-2.0", "mit"]}),
        ({"doc": "our own"}, {"license": "other", "license_name": "our own"}),
        ({"doc": "MIT", "other": "our own"}, {"license": "other", "license_name": "MIT AND our own"}),
        ({"doc": None}, {"license": "unknown"}),
        ({"doc": "MIT", "other": None}, {"license": "unknown"}),
    ],
)
def test_licences_are_rolled_up(
    tmp_path: Path, licences: Mapping[str, str | None], front: Mapping[str, Any]
) -> None:
    said, text = card(made(tmp_path, rows=2, seeds=seeds(**licences)))
    assert {name: value for name, value in said.items() if name.startswith("license")} == front
    for name, licence in licences.items():
        assert f"- `{name}`: {licence or 'unknown'}" in text
    assert all(name == name.lower() for name in LICENCES)


def test_a_recipe_without_files_has_no_licence_to_state(tmp_path: Path) -> None:
    said, text = card(made(tmp_path, seeds={"doc": ["one", "two"]}))
    assert said["license"] == "unknown"
    assert "The recipe reads no files." in text
    assert "- what `fake-model` wrote: terms unknown" in text


def test_the_terms_of_a_model_are_those_that_the_recipe_states(tmp_path: Path) -> None:
    given = made(tmp_path, rows=2, model={"id": "some-model", "terms": "Apache-2.0"})
    assert "- what `fake-model` wrote: Apache-2.0" in card(given)[1]
    locked = read_yaml(given.dir / "recipe.lock.yaml").data
    assert locked["recipe"]["model"]["terms"] == "Apache-2.0"


def test_languages_are_those_that_were_found(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        return GERMAN if "number 1" in str(request.messages) else ENGLISH

    said, text = card(
        made(
            tmp_path,
            FakeEngine(answer),
            filters=[{"tongue": {"filter": "language", "is": "en", "action": "flag"}}],
        )
    )
    assert said["language"] == ["de", "en"]
    assert "Languages found: `de` 11 (55.0%), `en` 9 (45.0%)." in text
    assert "- 11 rows are outside the bound of `tongue`, which flags." in text
    assert "language" not in card(made(tmp_path / "without"))[0]


def test_norwegian_is_no_truth_value(tmp_path: Path) -> None:
    text = "Dette er et svar p\u00e5 norsk som handler om fjell, fjorder og sn\u00f8, og det er ganske langt."
    filters = [{"language": {"is": "no"}}]
    result = made(tmp_path, FakeEngine(lambda _: text), filters=filters)
    assert card(result)[0]["language"] == ["no"]
    assert '- "no"' in (result.dir / "dataset" / "README.md").read_text()


def test_the_funnel_and_the_measurements_add_up(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        return RequestFailed("too long") if "number 3" in str(request.messages) else answer_of(request)

    filters = [
        {"words": {"min": 5}},
        {"characters": {"max": 50}},
        {"long": {"filter": "words", "max": 6, "action": "flag"}},
    ]
    result = made(tmp_path, FakeEngine(answer), rows=40, filters=filters)
    said, text = card(result)
    assert said["size_categories"] == ["n<1K"]
    assert said["tags"] == ["synthetic", "synthgen"]
    funnel = table(text, "What was removed, and why")
    assert [row["filter"] for row in funnel] == ["words", "characters", "long"]
    left = result.kept + result.dropped
    for row in funnel:
        left -= int(row["dropped"])
        assert int(row["left"]) == left
        assert int(row["dropped"]) == result.filters[row["filter"]]["dropped"]
    assert left == result.kept
    measured = {row["filter"]: row for row in table(text, "Measurements")}
    assert {int(row["measured"]) for row in measured.values()} == {result.kept}
    assert float(measured["words"]["least"]) >= 5
    assert float(measured["characters"]["most"]) <= 50
    assert f"- {result.failed} records failed; not here." in text
    assert "too long" not in text


def test_how_it_was_made(tmp_path: Path) -> None:
    steps = [{"answer": {"prompt": {"user": "A fence: ``` and {{ doc }}"}, "sampling": {"temperature": 0.5}}}]
    _, text = card(made(tmp_path, steps=steps))
    assert "- Seed `doc`: 20 rows of `data/docs.jsonl`." in text
    assert "model `fake-model` (fake); max_tokens 512, temperature 0.5." in text
    assert "````yaml\nversion: 1\n" in text  # a longer fence than the one in it
    assert text.count("````") == 2


def test_limits_are_those_that_were_measured(tmp_path: Path) -> None:
    assert "None was measured." in card(made(tmp_path))[1]
    missed = made(
        tmp_path / "missed", target=9, budget={"attempts": 5}, output={"split": {"a": 0.999, "b": 0.001}}
    )
    _, text = card(missed)
    assert "- The target of 9 rows was missed." in text
    assert "- There are no rows in `b`." in text


def test_a_version_of_curate_has_its_own(tmp_path: Path) -> None:
    result = made(tmp_path, filters=[{"words": {"min": 4}}])
    done = recurate(result.dir, ["words.min=6"], project=tmp_path)
    [row] = table(card(done.result)[1], "What was removed, and why")
    assert (row["min"], row["left"]) == ("6", str(done.result.kept))


def test_sizes_are_in_order() -> None:
    assert [most for most, _ in SIZES] == sorted(most for most, _ in SIZES)


@given(st.lists(st.floats(-1e9, 1e9), max_size=60), st.integers(4, 64))
def test_quantiles_are_of_values_evenly_taken(values: list[float], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "MOST", most)
        taken = Values()
        for value in values:
            taken.add(value)
    assert taken.count == len(values)
    ordered = sorted(values[:: taken.stride])
    assert taken.quantiles() == [ordered[round(share * (len(ordered) - 1))] for share in QUANTILES if ordered]
    assert taken.stride == 1 or len(values) >= most
