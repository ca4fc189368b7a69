"""`audit verify`: a thousand ways to change a finished run, every one of them found and named."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from synthgen.audit.findings import CannotJudge
from synthgen.audit.verify import FolderVerdict, verify
from synthgen.cli import app
from synthgen.engines.base import Request, RequestFailed
from synthgen.recurate import recurate
from tests.support import FakeEngine, answer_of, loaded, read_jsonl, recipe, run_it, tree

MUTATIONS = 1000
AS_WRITTEN = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
SPLITS = {"train": 0.7, "test": 0.3}


def answer(request: Request) -> Any:
    return RequestFailed("too long") if request.key.startswith(("7", "8")) else answer_of(request)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with rows that are kept, dropped and failed; its journal in one file."""
    root = tmp_path_factory.mktemp("finished")
    said = recipe(
        filters=[{"words": {"min": 5}}, {"duplicate": {"of": "instruction"}}], output={"split": SPLITS}
    )
    result = run_it(loaded(root, said, rows=60), FakeEngine(answer), directory=root / "run")
    assert min(result.kept, result.dropped, result.failed) > 4
    return result.dir


def copied(finished: Path, place: Path) -> Path:
    shutil.copytree(finished, place)
    return place


def found(verdict: FolderVerdict) -> str:
    return "\n".join(map(str, verdict.findings.shown))


def test_a_finished_run_is_intact(finished: Path) -> None:
    verdict = verify(finished)
    assert verdict.intact, found(verdict)
    assert verdict.journal
    rows = [row for split in SPLITS for row in read_jsonl(finished / "dataset" / f"{split}.jsonl")]
    assert verdict.states["kept"] == len(rows)
    assert verdict.states["dropped"] == len(read_jsonl(finished / "dropped.jsonl"))
    assert verdict.states["failed"] == len(read_jsonl(finished / "failed.jsonl"))
    assert verdict.size == sum(verdict.states.values()) == 60


def test_the_dataset_alone_is_enough(finished: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "published"
    shutil.copytree(finished / "dataset", dataset)
    verdict = verify(dataset)
    assert verdict.intact, found(verdict)
    assert not verdict.journal
    assert verdict.root == verify(finished).root


def test_a_version_of_curate_and_the_run_it_stands_in(finished: Path, tmp_path: Path) -> None:
    place = copied(finished, tmp_path / "run")
    done = recurate(place, ["words.min=7"], project=finished.parent)
    verdict = verify(done.result.dir)
    assert verdict.intact, found(verdict)
    assert verdict.journal
    again = verify(place)
    assert again.intact, found(again)
    assert again.root != verdict.root


def test_parquet_alone_and_jsonl_alone(tmp_path: Path) -> None:
    for format in ("parquet", "jsonl"):
        root = tmp_path / format
        result = run_it(loaded(root, recipe(output={"formats": [format]})), directory=root / "run")
        verdict = verify(result.dir)
        assert verdict.intact, found(verdict)
        shutil.rmtree(result.dir / "dataset" / "provenance")
        assert not verify(result.dir).intact


def test_a_later_run_of_which_all_failed_leaves_the_dataset_intact(tmp_path: Path) -> None:
    place = run_it(loaded(tmp_path, recipe()), directory=tmp_path / "run").dir
    failing = FakeEngine(lambda request: RequestFailed("no"))
    later = run_it(loaded(tmp_path, recipe(seed=9)), failing, directory=tmp_path / "run")
    assert later.outcome == "failures"
    assert (place / "failed.jsonl").is_file()
    assert verify(place).intact, found(verify(place))
    (place / "more.jsonl").write_text("")
    assert "more.jsonl" in found(verify(place))


def test_it_runs_nothing_of_the_project(tmp_path: Path) -> None:
    """Not even where the filters that it names are gone, or would raise."""
    code = "from synthgen import filter\n@filter(min=0)\ndef mine(record):\n    return 1\n"
    given = loaded(tmp_path, recipe(filters=["mine"]), filters={"mine": code})
    result = run_it(given, directory=tmp_path / "runs" / "a")
    (tmp_path / "filters" / "mine.py").write_text("raise SystemExit('executed')")
    assert verify(result.dir).intact


def unnamed(place: Path, *names: str) -> None:
    """A run of an earlier synthgen, which wrote no such files."""
    for name in names:
        (place / name).unlink()
    path = place / "manifest.json"
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    said["subject"] = [item for item in said["subject"] if item["name"] not in names]
    envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))


OF_5 = [
    *(f"ALTER TABLE {table} DROP COLUMN reasoning" for table in ("completions", "set_aside")),
    "ALTER TABLE sessions DROP COLUMN reason",
]
EARLIER = {
    5: OF_5,
    4: [*OF_5, "DROP TABLE asked"],
    3: [*OF_5, "DROP TABLE asked", "ALTER TABLE records DROP COLUMN erased"],
    2: [f"ALTER TABLE records DROP COLUMN {name}" for name in ("erased", "original", "leaf")]
    + [*OF_5, "DROP TABLE checkpoints", "DROP TABLE asked"],
}


@pytest.mark.parametrize("schema", EARLIER)
def test_a_journal_of_an_earlier_schema_is_read_as_it_is(finished: Path, tmp_path: Path, schema: int) -> None:
    place = copied(finished, tmp_path / "run")
    if schema < 3:
        unnamed(place, "sessions.jsonl", "answers.jsonl")
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        for change in EARLIER[schema]:
            journal.execute(change)
        journal.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(schema),))
        id = journal.execute("SELECT id FROM records WHERE state = 'kept'").fetchone()[0]
    before = (place / "run.sqlite").read_bytes()
    verdict = verify(place)
    assert verdict.intact, found(verdict)
    assert verdict.journal
    runner = CliRunner()
    commands = ["audit show", "show", "audit explain", "audit replay --no-engine"]
    asked = [
        *(f"{command} {{0}} {id}" for command in commands),
        "audit diff {0} {0}",
        "audit trace {0} words",
    ]
    for command in (*asked, "status {0}", "stats {0}", "audit checkpoint {0}", "audit export {0} csv"):
        done = runner.invoke(app, command.format(place).split())
        assert done.exit_code == 0, done.output
    assert (place / "run.sqlite").read_bytes() == before


@pytest.mark.parametrize("schema", ["99", "9" * 5000, "\u0664", "", "x"])
def test_a_journal_of_another_synthgen_cannot_be_judged(finished: Path, tmp_path: Path, schema: str) -> None:
    """Nothing says that it was tampered with. Where something does, that is said too."""
    place = copied(finished, tmp_path / "run")
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        journal.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (schema,))
    with pytest.raises(CannotJudge, match="written by another version of synthgen"):
        verify(place)
    done = CliRunner().invoke(app, ["audit", "verify", str(place)])
    assert done.exit_code == 2
    assert "run it with that version" in done.stderr
    (place / "dropped.jsonl").write_text("")
    assert "dropped.jsonl" in found(verify(place))
    assert "another version" in found(verify(place))


def judged(place: Path) -> tuple[FolderVerdict | None, str]:
    """The verdict, or why there is none."""
    try:
        return verify(place), ""
    except CannotJudge as error:
        return None, str(error)


# What a hostile person might do: each takes the folder of a run and a generator, and says what it touched.
Mutation = Callable[[Path, random.Random], str]


def files_of(place: Path) -> list[Path]:
    return [path for path in sorted(place.rglob("*")) if path.is_file() and not path.name.startswith("run.")]


def flipped(place: Path, chance: random.Random) -> str:
    path = chance.choice([path for path in files_of(place) if path.stat().st_size])
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return path.name


def truncated(place: Path, chance: random.Random) -> str:
    path = chance.choice([path for path in files_of(place) if path.stat().st_size])
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])
    return path.name


def removed(place: Path, chance: random.Random) -> str:
    path = chance.choice(files_of(place))
    path.unlink()
    return path.name


def renamed(place: Path, chance: random.Random) -> str:
    path = chance.choice([path for path in files_of(place) if path.name != "manifest.json"])
    path.rename(path.with_name(f"x{path.name}"))
    return path.name


def added(place: Path, chance: random.Random) -> str:
    folder = chance.choice(
        [place, place / "dataset", place / "dataset" / "data", place / "dataset" / "provenance"]
    )
    name = chance.choice(["more.jsonl", "notes.txt", ".hidden"])
    (folder / name).write_text("{}\n")
    return name


def line_edited(place: Path, chance: random.Random) -> str:
    """A row removed, doubled, swapped, moved or edited, in a file of lines."""
    names = [
        "dataset/train.jsonl",
        "dataset/provenance/train.jsonl",
        "dataset/provenance/ledger.jsonl",
        "dropped.jsonl",
    ]
    path = place / chance.choice(names)
    rows = path.read_bytes().splitlines(keepends=True)
    at, other = chance.sample(range(len(rows)), 2)
    how = chance.choice(["remove", "double", "swap", "move", "edit"])
    if how == "remove":
        del rows[at]
    elif how == "double":
        rows.insert(other, rows[at])
    elif how == "swap":
        rows[at], rows[other] = rows[other], rows[at]
    elif how == "move":
        rows.insert(other, rows.pop(at))
    else:
        said = json.loads(rows[at])
        key = chance.choice(sorted(said))
        said[key] = "edited"
        rows[at] = (json.dumps(said, separators=(",", ":")) + "\n").encode()
    path.write_bytes(b"".join(rows))
    resigned(place)
    return path.name


def resigned(place: Path) -> None:
    """What somebody does who knows the format: manifests fit again, but for the ledger's root."""
    for folder in (place / "dataset", place):
        path = folder / "manifest.json"
        if not path.is_file():
            continue
        envelope = json.loads(path.read_bytes())
        said = json.loads(base64.b64decode(envelope["payload"]))
        for item in said["subject"]:
            data = (folder / item["name"]).read_bytes()
            item["digest"]["sha256"] = hashlib.sha256(data).hexdigest()
            item["annotations"]["bytes"] = len(data)
            if "rows" in item["annotations"] and item["name"].endswith(".jsonl"):
                item["annotations"]["rows"] = data.count(b"\n")
        envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
        path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))


def journal_edited(place: Path, chance: random.Random) -> str:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        how = chance.choice(
            ["verdicts", "body", "state", "sources", "requests", "remove", "request", "dropped_by"]
        )
        task = chance.choice(journal.execute("SELECT task FROM records WHERE state = 'dropped'").fetchall())[
            0
        ]
        if how == "verdicts":
            journal.execute("UPDATE records SET verdicts = '{}' WHERE task = ?", (task,))
        elif how == "body":
            query = (
                "UPDATE contents SET body = replace(body, 'word', 'wurd') WHERE sha256 IN "
                "(SELECT content FROM records WHERE task = ?)"
            )
            journal.execute(query, (task,))
        elif how == "state":
            journal.execute("UPDATE records SET state = 'kept', dropped_by = NULL WHERE task = ?", (task,))
        elif how == "sources":
            journal.execute("UPDATE records SET sources = '[]' WHERE task = ?", (task,))
        elif how == "requests":
            journal.execute("UPDATE records SET requests = zeroblob(32) WHERE task = ?", (task,))
        elif how == "remove":
            journal.execute("DELETE FROM records WHERE task = ?", (task,))
        elif how == "dropped_by":
            journal.execute("UPDATE records SET dropped_by = 'other' WHERE task = ?", (task,))
        else:
            journal.execute("UPDATE requests SET body = replace(body, 'Say', 'Cry') WHERE rowid = 1")
    return "run.sqlite"


def ledger_rewritten(place: Path, chance: random.Random) -> str:
    """A dropped record becomes a kept one, in the ledger and in its file, and the manifests fit."""
    path = place / "dataset" / "provenance" / "ledger.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    row = chance.choice([row for row in rows if row["state"] == "dropped"])
    row["state"] = "kept"
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    resigned(place)
    return "ledger.jsonl"


def old_manifest(place: Path, chance: random.Random) -> str:
    """That of another run is put in its place."""
    path = place / chance.choice(["manifest.json", "dataset/manifest.json"])
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    key = chance.choice(["root", "size", "kept", "dropped", "failed"])
    said["predicate"]["ledger"][key] = "0" * 64 if key == "root" else 7
    envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))
    return "manifest.json"


MUTATED: list[tuple[Mutation, int]] = [
    (flipped, 8), (truncated, 2), (removed, 1), (renamed, 1), (added, 1), (line_edited, 8),
    (journal_edited, 4), (ledger_rewritten, 1), (old_manifest, 1),
]  # fmt: skip


@pytest.mark.slow
def test_every_mutation_is_found(finished: Path, tmp_path: Path) -> None:
    chance = random.Random(20261125)
    weights = [weight for _, weight in MUTATED]
    whole = tree(finished)
    place = copied(finished, tmp_path / "run")
    for number in range(MUTATIONS):
        mutation = chance.choices([mutate for mutate, _ in MUTATED], weights)[0]
        touched = mutation(place, chance)
        told = f"{number}: {mutation.__name__} of {touched}"
        if tree(place) != whole:
            verdict, refusal = judged(place)
            if verdict is None:
                assert "manifest.json" in refusal, told
                assert touched in refusal, told
            else:
                assert not verdict.intact, told
                assert all(finding.file for finding in verdict.findings.shown), told
        restored(place, whole)


def restored(place: Path, whole: dict[str, bytes]) -> None:
    for name, data in tree(place).items():
        if whole.get(name) != data:
            (place / name).unlink()
    for name, data in whole.items():
        if not (place / name).exists():
            (place / name).write_bytes(data)


@pytest.mark.parametrize("mutation", [mutate for mutate, _ in MUTATED], ids=lambda each: each.__name__)
def test_each_kind_of_mutation(finished: Path, tmp_path: Path, mutation: Mutation) -> None:
    place = copied(finished, tmp_path / "run")
    touched = mutation(place, random.Random(7))
    verdict, refusal = judged(place)
    if verdict is None:
        assert touched in refusal
    else:
        assert not verdict.intact
        assert touched in found(verdict), found(verdict)


HOSTILE = [
    b"", b"{}", b"[]", b"null", b"{" * 100_000, b"[" * 100_000, b'{"payload": 3}', b"\xff\xfe",
    b'"' + b"a" * 10_000_000,
    b'{"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}',
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_manifest_of_a_hostile_person_ends_in_a_sentence(
    finished: Path, tmp_path: Path, number: int
) -> None:
    place = copied(finished, tmp_path / "run")
    (place / "dataset" / "manifest.json").write_bytes(HOSTILE[number])
    with pytest.raises(CannotJudge, match=r"manifest\.json"):
        verify(place)


@pytest.mark.parametrize(
    "name",
    [
        "dataset/train.jsonl",
        "dataset/provenance/ledger.jsonl",
        "dataset/provenance/test.jsonl",
        "dropped.jsonl",
        "run.sqlite",
    ],
)
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_files_of_a_hostile_person_are_findings(
    finished: Path, tmp_path: Path, name: str, number: int
) -> None:
    place = copied(finished, tmp_path / "run")
    (place / name).write_bytes(HOSTILE[number])
    verdict = verify(place)
    assert not verdict.intact
    assert Path(name).name in found(verdict)


def test_names_that_lead_out_and_links(finished: Path, tmp_path: Path) -> None:
    place = copied(finished, tmp_path / "run")
    (tmp_path / "secret").write_text("x")
    path = place / "dataset" / "manifest.json"
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    item = {
        "name": "../../secret",
        "digest": {"sha256": hashlib.sha256(b"x").hexdigest()},
        "annotations": {"bytes": 1},
    }
    said["subject"].append(item)
    envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))
    assert "leads out of the folder" in found(verify(place))
    linked = copied(finished, tmp_path / "linked")
    original = linked / "dataset" / "train.jsonl"
    original.rename(tmp_path / "elsewhere.jsonl")
    original.symlink_to(tmp_path / "elsewhere.jsonl")
    assert "train.jsonl" in found(verify(linked))


@pytest.mark.parametrize("name", ["manifest.json", "dataset/manifest.json"])
def test_a_manifest_that_means_the_same_and_reads_otherwise(
    finished: Path, tmp_path: Path, name: str
) -> None:
    place = copied(finished, tmp_path / "run")
    whole = (place / name).read_bytes()
    envelope = json.loads(whole)
    spaced = {**envelope, "payload": base64.b64encode(base64.b64decode(envelope["payload"]) + b" ").decode()}
    for edited in (
        whole + b"\n",
        whole.replace(b"  ", b"\t", 1),
        orjson.dumps(envelope),
        orjson.dumps(spaced, option=AS_WRITTEN),
    ):
        (place / name).write_bytes(edited)
        assert found(verify(place)) == f"{name}: is not as synthgen writes it: somebody edited it"


@pytest.mark.parametrize(
    "name", ["train.jsonl", "provenance/ledger.jsonl", "data/test-00000-of-00001.parquet"]
)
def test_a_count_of_rows_that_is_wrong(finished: Path, tmp_path: Path, name: str) -> None:
    place = copied(finished, tmp_path / "run")
    path = place / "dataset" / "manifest.json"
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    [item] = [item for item in said["subject"] if item["name"] == name]
    item["annotations"]["rows"] += 1
    envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))
    [finding] = verify(place).findings.shown
    assert (finding.file, finding.field) == (f"dataset/{name}", "rows")


@pytest.mark.parametrize("name", ["train.jsonl", "data/test-00000-of-00001.parquet"])
def test_a_pipe_in_the_place_of_a_file_is_not_read(finished: Path, tmp_path: Path, name: str) -> None:
    place = copied(finished, tmp_path / "run")
    (place / "dataset" / name).unlink()
    os.mkfifo(place / "dataset" / name)
    said = found(verify(place))
    assert f"dataset/{name}: is missing" in said
    assert "is no regular file" in said


def test_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(CannotJudge, match="holds no dataset of synthgen"):
        verify(tmp_path)
