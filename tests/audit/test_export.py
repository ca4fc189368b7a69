"""`audit export`: PROV-JSON, Croissant and a table: valid as others judge it, and nothing is made up."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.audit.croissant import croissant
from synthgen.audit.findings import CannotJudge
from synthgen.audit.material import Material
from synthgen.audit.prov import write_prov
from synthgen.audit.spreadsheet import HEADS, cell, first_words, write_csv
from synthgen.audit.verify import verify
from synthgen.cli.audit.export import FORMS
from synthgen.engines.base import Request, RequestFailed
from synthgen.recurate import recurate
from tests.processes import ended
from tests.support import FakeEngine, answer_of, loaded, read_jsonl, recipe, run_it

SPLITS = {"train": 0.7, "test": 0.3}
SEEDS = {"doc": {"path": "data/docs.jsonl", "field": "text", "licence": "CC0-1.0"}}
RECORDS = 40
FORMULA = '=HYPERLINK("http://localhost")'


def answer(request: Request) -> Any:
    if request.key.startswith("7"):
        return RequestFailed("too long")
    return f"{FORMULA} {answer_of(request)}" if request.key.startswith("a") else answer_of(request)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    chain = [{"words": {"min": 5}}, {"duplicate": {"of": "instruction"}}]
    said = recipe(seeds=SEEDS, filters=chain, output={"split": SPLITS})
    result = run_it(loaded(root, said, rows=RECORDS), FakeEngine(answer), directory=root / "run")
    assert min(result.kept, result.dropped, result.failed) > 0
    return result.dir


def kept(directory: Path) -> set[str]:
    return {row["id"] for split in SPLITS for row in read_jsonl(directory / "dataset" / f"{split}.jsonl")}


def prov_of(directory: Path) -> dict[str, Any]:
    out = io.StringIO()
    write_prov(Material(directory), out)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a key twice"
        return dict(pairs)

    return dict(json.loads(out.getvalue(), object_pairs_hook=once))


def read_prov(directory: Path) -> tuple[Any, Any]:
    """The document as the prov package reads it, and its graph: the same when it is written and read again.

    Every name that it uses is one that it has.
    """
    import prov.model as prov_model  # here, since the environment of the tests with vLLM does not have it
    from prov.graph import prov_to_graph
    from prov.identifier import QualifiedName

    out = io.StringIO()
    write_prov(Material(directory), out)
    document = prov_model.ProvDocument.deserialize(content=out.getvalue(), format="json")
    again = prov_model.ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
    assert again == document
    assert (
        len(again.records)
        == len(document.records)
        == sum(len(section) for name, section in prov_of(directory).items() if name != "prefix")
    )
    for element in ("ProvEntity", "ProvActivity", "ProvAgent"):
        names = [each.identifier for each in document.get_records(getattr(prov_model, element))]
        assert len(set(names)) == len(names) > 0
    known = {each.identifier for each in document.get_records(prov_model.ProvElement)}
    for relation in document.get_records(prov_model.ProvRelation):
        assert {each for each in relation.args if isinstance(each, QualifiedName)} <= known
    graph = prov_to_graph(document)
    assert {each.identifier for each in graph} == known
    return document, graph


# What the submission asks of each relation.
RELATIONS = {
    "used": ("prov:activity", "prov:entity"),
    "wasAssociatedWith": ("prov:activity", "prov:agent"),
    "wasAttributedTo": ("prov:entity", "prov:agent"),
    "wasGeneratedBy": ("prov:entity", "prov:activity"),
    "wasInvalidatedBy": ("prov:entity", "prov:activity"),
    "wasDerivedFrom": ("prov:generatedEntity", "prov:usedEntity"),
    "hadMember": ("prov:collection", "prov:entity"),
}


def test_prov_has_every_record_with_where_it_came_from(finished: Path) -> None:
    said = prov_of(finished)
    assert said.keys() == {"prefix", "entity", "activity", "agent", *RELATIONS}
    known = {name for section in ("entity", "activity", "agent") for name in said[section]}
    assert {name.partition(":")[0] for name in known} <= said["prefix"].keys()
    for section, needed in RELATIONS.items():
        for name, item in said[section].items():
            assert name.startswith("_:")
            assert {item[key] for key in needed} <= known
    records = {name for name in said["entity"] if name.startswith("record:")}
    assert len(records) == RECORDS
    assert {item["prov:entity"] for item in said["hadMember"].values()} == {
        f"record:{id}" for id in kept(finished)
    }
    dropped = {f"record:{row['id']}" for row in read_jsonl(finished / "dropped.jsonl")}
    assert {item["prov:entity"] for item in said["wasInvalidatedBy"].values()} == dropped
    assert {item["synthgen:filter"] for item in said["wasInvalidatedBy"].values()} == {"filter:words"}
    rows = Counter(item["synthgen:row"] for item in said["wasDerivedFrom"].values())
    assert rows == Counter(range(1, RECORDS + 1))
    assert said["entity"]["prompt:answer"]["synthgen:sha256"]
    assert said["agent"]["model:default"]["synthgen:id"] == "fake-model"
    assert (
        said["activity"]["activity:generation"]["prov:startTime"]
        <= (said["activity"]["activity:generation"]["prov:endTime"])
    )


@pytest.mark.parametrize("alone", [False, True])
def test_prov_is_read_by_the_prov_package(finished: Path, tmp_path: Path, alone: bool) -> None:
    import networkx as nx
    from prov.model import ProvDerivation

    place = finished
    if alone:
        place = shutil.copytree(finished / "dataset", tmp_path / "dataset")
    document, graph = read_prov(place)
    ids = kept(finished) if alone else {told.id for told in Material(finished).records()}
    derived = {str(each.args[0]): str(each.args[1]) for each in document.get_records(ProvDerivation)}
    assert derived == dict.fromkeys((f"record:{id}" for id in ids), "file:data/docs.jsonl")
    [whole] = document.get_record("dataset:a")
    for id in ids:
        [record] = document.get_record(f"record:{id}")
        assert (graph.has_edge(whole, record)) == (id in kept(finished))
    for name in ("file:data/docs.jsonl", "prompt:answer", "filter:words", "agent:synthgen", "model:default"):
        [found] = document.get_record(name)
        assert nx.has_path(graph, whole, found)


def test_prov_of_what_was_only_curated_and_of_what_grew_is_read(tmp_path: Path) -> None:
    import networkx as nx
    from prov.model import ProvEntity

    chats = [{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}]
    seeds = {"row": {"path": "data/docs.jsonl"}}
    curated = recipe(model=None, steps=None, seeds=seeds, record={"from": "row"})
    read_prov(run_it(loaded(tmp_path / "curated", curated, rows=chats), directory=tmp_path / "one").dir)
    grown = recipe(
        seeds=seeds,
        steps=[{"answer": {"prompt": {"user": "{{ row.text }}"}}}],
        record={"messages": [{"user": "{{ row.text }}"}, {"assistant": "{{ answer }}"}]},
        grow={"row": {"add": "{'text': answer}", "depth": 3}},
        round=4,
    )
    document, graph = read_prov(run_it(loaded(tmp_path, grown, rows=4), directory=tmp_path / "two").dir)
    [file] = document.get_record("file:data/docs.jsonl")
    [*records] = (each for each in document.get_records(ProvEntity) if str(each.identifier)[:7] == "record:")
    assert len(records) == 12
    assert all(nx.has_path(graph, each, file) for each in records)  # through those that they grew from


def test_a_dataset_alone_tells_of_what_was_kept(finished: Path, tmp_path: Path) -> None:
    for name in ("dataset", "parquet alone"):
        shutil.copytree(finished / "dataset", tmp_path / name)
    for split in SPLITS:
        (tmp_path / "parquet alone" / f"{split}.jsonl").unlink()
    whole = {told.id: told for told in Material(finished).records()}
    for name in ("dataset", "parquet alone"):
        alone = list(Material(tmp_path / name).records())
        assert [told.id for told in alone] == list(whole)
        for told in alone:
            assert told.state == whole[told.id].state
            if told.state == "kept":
                expected = whole[told.id]
                assert told.row == {"id": told.id, **(expected.row or {})}
                assert {key: told.said[key] for key in expected.said} == expected.said
            else:
                assert told.row is None
    assert len(prov_of(tmp_path / "dataset")["wasDerivedFrom"]) == len(kept(finished))


def test_a_version_of_curate(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    done = recurate(place, ["words.min=8"], project=finished.parent)
    said = prov_of(done.result.dir)
    assert len(said["hadMember"]) == done.result.kept < len(kept(finished))
    assert {item["synthgen:min"] for item in said["wasInvalidatedBy"].values()} == {8}


def test_croissant_says_what_is_known_and_no_more(finished: Path, tmp_path: Path) -> None:
    said = croissant(Material(finished))
    assert said["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert said["license"] == ["CC0-1.0"]
    files = {item["@id"]: item for item in said["distribution"] if item["@type"] == "cr:FileObject"}
    there = {
        path.relative_to(finished / "dataset").as_posix() for path in (finished / "dataset").rglob("*.*")
    }
    assert files.keys() == there - {"manifest.json", "croissant.json"}
    assert json.loads((finished / "dataset" / "croissant.json").read_bytes()) == said
    stated = {f"provenance/{split}" for split in SPLITS}
    assert {item["@id"] for item in said["recordSet"]} == SPLITS.keys() | stated
    [file] = said["prov:wasDerivedFrom"]
    assert file["prov:label"] == "data/docs.jsonl"
    plain = run_it(loaded(tmp_path, recipe(), rows=2), directory=tmp_path / "run")
    silent = croissant(Material(plain.dir))
    made_up = {"license", "creator", "datePublished", "version", "url", "citeAs"}
    assert made_up.isdisjoint(silent)
    assert not [key for key in silent if key.startswith("rai:")]


def test_the_table_has_a_row_for_each_record(finished: Path) -> None:
    out = io.StringIO()
    write_csv(Material(finished), out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert list(rows[0]) == HEADS
    assert [row["id"] for row in rows] == [told.id for told in Material(finished).records()]
    assert {row["id"] for row in rows if row["state"] == "kept"} == kept(finished)
    dropped = [row for row in rows if row["state"] == "dropped"]
    assert {(row["dropped_by"], row["bound"]) for row in dropped} == {("words", "min 5.0")}
    assert all(float(row["value"]) < 5 for row in dropped)
    assert {row["answer"] for row in rows if row["state"] == "failed"} == {"too long"}
    assert rows[0]["sources"] == "data/docs.jsonl:1"
    assert rows[0]["question"] == "document number 0"
    defused = [row["answer"] for row in rows if "HYPERLINK" in row["answer"]]
    assert defused
    assert all(text.startswith("'=") for text in defused)


@given(st.text(st.sampled_from("=+-@\t\r\n \x1b[]31m;\x07\x9b'a\u202e\x00")) | st.text())
def test_no_cell_is_calculated_and_none_commands_a_terminal(text: str) -> None:
    made = cell(text)
    assert made[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert made.isprintable()
    out = io.StringIO()
    csv.writer(out).writerow([made])
    assert next(csv.reader(io.StringIO(out.getvalue())), [""]) == [made]


def test_cells() -> None:
    assert cell("=1+1") == "'=1+1"
    assert cell("  @SUM(A1)") == "'@SUM(A1)"
    assert cell("\x1b[31m=1") == "'=1"
    assert cell("\x1b]0;title\x07red \x1b[1mbold\x1b[0m") == "red bold"
    assert cell(-0.5) == "'-0.5"
    assert cell(None) == ""
    assert cell("well - said = so") == "well - said = so"


@pytest.mark.parametrize(
    "hostile", ["\x1b[" * 500_000, "\x1b]" + "a" * 1_000_000, "\x1b]a" * 300_000, "= " * 500_000]
)
def test_a_text_of_a_hostile_person_takes_no_time(hostile: str) -> None:
    assert len(cell(hostile)) <= len(hostile) + 1
    assert len(first_words(hostile)) < 400


@pytest.mark.parametrize("form", FORMS)
def test_the_command(finished: Path, tmp_path: Path, form: str) -> None:
    out, err = ended("audit", "export", finished, form, cwd=tmp_path)
    assert err == ""
    _, err = ended("audit", "export", finished, form, "-o", "there", cwd=tmp_path)
    assert (tmp_path / "there").read_text() == out
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    _, err = ended("audit", "export", finished, form, "-o", finished / "dataset" / "x", cwd=tmp_path, code=2)
    assert "the manifest" in err
    assert verify(finished).intact
    _, err = ended("audit", "export", finished, form, "-o", "no/such/folder", cwd=tmp_path, code=2)
    assert "cannot be written" in err


def test_what_cannot_be_exported(finished: Path, tmp_path: Path) -> None:
    _, err = ended("audit", "export", finished, "prof", cwd=tmp_path, code=2)
    assert "did you mean 'prov'?" in err
    _, err = ended("audit", "export", tmp_path, "prov", "-o", "there", cwd=tmp_path, code=2)
    assert "holds no run and no dataset of synthgen" in err
    assert list(tmp_path.iterdir()) == []


HOSTILE = [
    b"",
    b"{}\n",
    b"[]\n",
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b'{"id": 3, "state": [], "sources": 7}\n',
]


@pytest.mark.parametrize(
    "name", ["provenance/ledger.jsonl", "provenance/train.jsonl", "provenance/recipe.lock.yaml"]
)
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_files_of_a_hostile_person_end_in_a_sentence(
    finished: Path, tmp_path: Path, name: str, number: int
) -> None:
    place = tmp_path / "dataset"
    shutil.copytree(finished / "dataset", place)
    (place / name).write_bytes(HOSTILE[number])
    material = Material(place)
    for tell in (write_prov, write_csv, lambda material, _: croissant(material)):
        with contextlib.suppress(CannotJudge):
            tell(material, io.StringIO())


@pytest.mark.parametrize("column", ["verdicts", "sources", "requests", "id"])
@pytest.mark.parametrize("value", ["3", "null", '"x"', "[3]", '{"words": 3}', "{"])
def test_a_journal_of_a_hostile_person_ends_in_a_sentence(
    finished: Path, tmp_path: Path, column: str, value: str
) -> None:
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        journal.execute(f"UPDATE records SET {column} = ?", (value,))
    for tell in (write_prov, write_csv):
        with contextlib.suppress(CannotJudge):
            tell(Material(place), io.StringIO())
