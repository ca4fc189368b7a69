"""Checkpoints: what an auditor kept of a run that went on must be the beginning of what it came to."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen.audit.checkpoint import check_extension, checkpoint, saved
from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import place_of
from synthgen.audit.verify import FolderVerdict, verify
from synthgen.cli import app
from synthgen.provenance.keys import new_key, signing_key
from synthgen.provenance.schema import SessionLine
from synthgen.recurate import recurate
from synthgen.stopping import Stop
from tests.audit.test_verify import unnamed
from tests.support import FakeEngine, docs, loaded, no_more_than, read_jsonl, recipe, run_it, tree
from tests.test_law import outputs

SAID = recipe(filters=[{"words": {"min": 6}}])
ROWS = 30
FIRST = 11


def given(root: Path, rows: Any = ROWS) -> Any:
    return loaded(root, SAID, rows=rows)


def interrupted(root: Path) -> Path:
    stop = Stop()
    stop.at_once = True
    done = run_it(
        given(root), FakeEngine(no_more_than(FIRST, stop), slots=1), directory=root / "run", cancel=stop
    )
    assert done.outcome == "interrupted"
    assert 0 < done.kept + done.dropped < ROWS
    return done.dir


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed run that was interrupted and went on, with a checkpoint of each state: a.json, b.json."""
    root = tmp_path_factory.mktemp("audited")
    new_key(root / "key")
    new_key(root / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHGEN_SIGNING_KEY", str(root / "key.pem"))
        place = interrupted(root)
        key = signing_key({"SYNTHGEN_SIGNING_KEY": str(root / "key.pem")})
        (root / "a.json").write_bytes(checkpoint(place_of(place), key))
        run_it(given(root), directory=place)
        (root / "b.json").write_bytes(checkpoint(place_of(place), key))
        (root / "proof.json").write_bytes(checkpoint(place_of(place), key, root / "a.json"))
    return root


@pytest.fixture
def place(audited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(audited / "run", tmp_path / "run"))


def found(verdict: FolderVerdict) -> list[str]:
    return [str(finding) for finding in verdict.findings.shown]


def test_a_finished_run_extends_what_was_saved_of_it(audited: Path) -> None:
    first, last = saved(audited / "a.json", audited / "key.pub"), saved(audited / "b.json")
    assert 0 < first.size < last.size == ROWS
    assert (first.authentic, last.authentic) == (True, None)
    for directory in (audited / "run", audited / "run" / "dataset"):
        for name in ("a.json", "b.json"):
            verdict = verify(directory, audited / "key.pub", audited / name)
            assert verdict.intact, found(verdict)
    assert last.root == verify(audited / "run").root
    assert checkpoint(place_of(audited / "run" / "dataset"), None)  # the dataset alone has a ledger too
    assert saved(audited / "a.json", audited / "other.pub").authentic is False


def test_another_history_is_found_though_it_agrees_with_itself(audited: Path, tmp_path: Path) -> None:
    """Somebody ran it anew with a row changed, and put that in the place of the run."""
    forged = run_it(
        given(tmp_path, [*docs(3), {"text": "another"}, *docs(ROWS - 4, start=4)]),
        directory=tmp_path / "run",
    )
    assert verify(forged.dir).intact
    verdict = verify(forged.dir, None, audited / "a.json")
    assert found(verdict) == [
        f"{audited / 'a.json'}: the ledger's first {saved(audited / 'a.json').size} entries are not those of "
        "a checkpoint"
    ]
    shorter = run_it(given(tmp_path / "b", 3), directory=tmp_path / "b" / "run")
    assert "at a checkpoint, and has 3 now" in found(verify(shorter.dir, None, audited / "a.json"))[0]
    for other in (forged.dir, shorter.dir):
        with pytest.raises(CannotJudge):
            checkpoint(place_of(other), None, audited / "a.json")


def test_the_sessions_are_published_with_their_checkpoints(audited: Path) -> None:
    sessions = [SessionLine.model_validate(row) for row in read_jsonl(audited / "run" / "sessions.jsonl")]
    assert [each.command for each in sessions] == ["run", "run"]
    assert [each.outcome for each in sessions] == ["interrupted", None]
    sizes = [[point.size for point in each.checkpoints] for each in sessions]
    assert sizes == [[saved(audited / "a.json").size], [ROWS]]
    assert sessions[0].checkpoints[0].root == saved(audited / "a.json").root
    for each in sessions:
        ran_on = each.environment
        assert len(ran_on["source"]["sha256"]) == 64
        assert ran_on["recipe_file_sha256"]
        assert ran_on["arguments"]["retry_failed"] is False
    manifest = json.loads((audited / "run" / "manifest.json").read_bytes())
    named = {item["name"] for item in json.loads(base64.b64decode(manifest["payload"]))["subject"]}
    assert "sessions.jsonl" in named
    assert verify(audited / "run").checkpoints == 4


def test_equal_runs_give_equal_bytes_whatever_their_sessions(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTHGEN_SIGNING_KEY", str(audited / "key.pem"))
    other = run_it(given(tmp_path), directory=tmp_path / "run").dir
    ours = {name: data for name, data in outputs(audited / "run").items() if "manifest" not in name}
    assert ours == {name: data for name, data in outputs(other).items() if "manifest" not in name}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("UPDATE checkpoints SET root = zeroblob(32)", "run.sqlite: the ledger's first"),
        ("UPDATE checkpoints SET size = 4000", "run.sqlite: the ledger had 4,000 entries"),
        ("DELETE FROM checkpoints", "run.sqlite: session 1: checkpoints"),
        ("INSERT INTO checkpoints VALUES (1, 3, zeroblob(32), 1, 'now')", "the ledger's first 3"),
        ("DELETE FROM sessions WHERE session = 1", "session 1: is not in the journal"),
        ("UPDATE sessions SET engines = '{\"default\": {\"slots\": 1}}'", "session 1: engines"),
        ("UPDATE sessions SET environment = '{}' WHERE session = 2", "session 2: environment"),
        ("UPDATE sessions SET outcome = 'done' WHERE session = 1", "session 1: outcome"),
        ("UPDATE sessions SET environment = '['", "is not a journal that synthgen wrote"),
        ("UPDATE checkpoints SET root = 'x'", "is not a journal that synthgen wrote"),
    ],
)  # fmt: skip
def test_a_journal_whose_sessions_were_edited(place: Path, query: str, said: str) -> None:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        journal.execute(query)
    assert any(said in each for each in found(verify(place))), found(verify(place))


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def lines(data: bytes) -> bytes:
        rows = [json.loads(line) for line in data.splitlines()]
        change(rows[0])
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    return lines


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edited(lambda row: row["checkpoints"][0].update(root="0" * 64)), "sessions.jsonl: the ledger's"),
        (edited(lambda row: row["checkpoints"].clear()), "session 1: checkpoints"),
        (edited(lambda row: row.update(more=1)), "line 1 is no session: more"),
        (edited(lambda row: row.update(session=9)), "session 9: is not in the journal"),
        (lambda _: b"[" * 100_000, "sessions.jsonl: "),
        (lambda _: b"\n", "sessions.jsonl: "),
    ],
)  # fmt: skip
def test_sessions_that_were_edited(place: Path, change: Callable[[bytes], bytes], said: str) -> None:
    path = place / "sessions.jsonl"
    path.write_bytes(change(path.read_bytes()))
    assert any(said in each for each in found(verify(place))), found(verify(place))
    assert any("sessions.jsonl: " in each for each in found(verify(place)))  # its digest


def test_later_sessions_change_nothing_of_the_earlier_ones(place: Path, audited: Path) -> None:
    done = recurate(place, ["words.min=1"], project=audited)
    for directory in (place, done.result.dir):
        assert verify(directory).intact, found(verify(directory))
    sessions = read_jsonl(done.result.dir / "sessions.jsonl")
    assert [len(each["checkpoints"]) for each in sessions] == [0, 0, 1]


def test_a_run_of_an_earlier_synthgen_has_no_such_file(place: Path) -> None:
    """Its manifest does not name it, and it is as intact as it was."""
    unnamed(place, "sessions.jsonl", "answers.jsonl")
    assert verify(place).intact, found(verify(place))


def test_a_proof_that_one_state_extends_another(audited: Path) -> None:
    verdict = check_extension(audited / "proof.json", audited / "key.pub", audited / "a.json")
    assert (verdict.intact, verdict.authentic) == (True, True)
    assert verdict.before.said == saved(audited / "a.json").said
    assert verdict.after.said == saved(audited / "b.json").said
    assert check_extension(audited / "proof.json", audited / "other.pub").authentic is False
    assert not check_extension(audited / "proof.json", None, audited / "b.json").intact


def test_every_byte_of_such_a_proof_counts(audited: Path, tmp_path: Path) -> None:
    """Of those that can be changed, none lets it say anything else."""
    whole = (audited / "proof.json").read_bytes()
    said = check_extension(audited / "proof.json", audited / "key.pub", audited / "a.json")
    path = tmp_path / "proof.json"
    for at in range(0, len(whole), 3):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        try:
            verdict = check_extension(path, audited / "key.pub", audited / "a.json")
        except CannotJudge:
            continue
        if verdict.intact and verdict.authentic:  # white space, or another way to write the same
            assert (verdict.before.said, verdict.after.said) == (said.before.said, said.after.said)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"payload": "e30="}', b"null"])
def test_files_of_a_hostile_person(audited: Path, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(CannotJudge):
        saved(path)
    with pytest.raises(CannotJudge):
        check_extension(path)
    with pytest.raises(CannotJudge):
        verify(audited / "run", None, path)


def test_an_empty_ledger_is_extended_by_every_other(audited: Path, tmp_path: Path) -> None:
    empty = json.loads((audited / "a.json").read_bytes())
    said = json.loads(base64.b64decode(empty["payload"]))
    said |= {"size": 0, "root": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    empty["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    assert verify(audited / "run", None, tmp_path / "empty.json").intact
    proof = checkpoint(place_of(audited / "run"), None, tmp_path / "empty.json")
    (tmp_path / "proof.json").write_bytes(proof)
    assert check_extension(tmp_path / "proof.json").intact


def test_the_commands(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHGEN_SIGNING_KEY", str(audited / "key.pem"))
    runner, run, first = CliRunner(), str(audited / "run"), str(audited / "a.json")
    before = tree(audited / "run" / "dataset")
    taken = runner.invoke(app, ["audit", "checkpoint", run])
    assert (taken.exit_code, taken.stdout.encode()) == (0, (audited / "b.json").read_bytes())
    into = ["-o", str(tmp_path / "proof.json")]
    assert runner.invoke(app, ["audit", "checkpoint", run, "--since", first, *into]).exit_code == 0
    nowhere = ["-o", str(tmp_path / "none" / "x.json")]
    assert runner.invoke(app, ["audit", "checkpoint", run, *nowhere]).exit_code != 0
    key = ["--require-signature", str(audited / "key.pub")]
    for arguments in ([run, "--checkpoint", first], ["--proof", str(tmp_path / "proof.json")]):
        done = runner.invoke(app, ["audit", "verify", *arguments, *key])
        assert (done.exit_code, "intact" in done.stdout) == (0, True), done.output
        told = runner.invoke(app, ["audit", "verify", *arguments, "--json"])
        assert json.loads(told.stdout)["intact"] is True
    both = ["audit", "verify", "--proof", str(tmp_path / "proof.json"), "--checkpoint"]
    assert runner.invoke(app, [*both, first]).exit_code == 0
    assert runner.invoke(app, [*both, str(audited / "b.json")]).exit_code == 1
    assert runner.invoke(app, [*both, str(tmp_path / "none.json")]).exit_code == 2
    assert tree(audited / "run" / "dataset") == before
