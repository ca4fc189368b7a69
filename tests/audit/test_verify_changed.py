"""`audit verify` of a run that went on: redacted, curated again, quarantined, erased; every edit is found."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from synthgen.audit.erase import erase
from synthgen.audit.place import place_of
from synthgen.audit.quarantine import quarantine
from synthgen.audit.trace import trace
from synthgen.audit.verify import verify
from synthgen.engines.base import Request, RequestFailed, RequestRetryable
from synthgen.recurate import recurate
from tests.audit.test_verify import (
    Mutation,
    added,
    copied,
    flipped,
    found,
    judged,
    ledger_rewritten,
    line_edited,
    old_manifest,
    removed,
    renamed,
    resigned,
    restored,
    truncated,
)
from tests.support import FakeEngine, answer_of, loaded, recipe, run_it, tree

MUTATIONS = 400
ROWS = 48
FOLDERS = ("", "versions/2", "versions/3")


def answering() -> Callable[[Request], Any]:
    """Some fail for good, some at first, some are redacted."""
    tried: set[str] = set()

    def answer(request: Request) -> Any:
        if request.key.startswith("7"):
            return RequestFailed("too long")
        if request.key.startswith("8") and request.key not in tried:
            tried.add(request.key)
            return RequestRetryable("busy", retry_after=0)
        mail = f" mail a{request.key[:4]}@mailhost.net" if request.key[1] < "6" else ""
        return f" {answer_of(request)}{mail}\n"

    return answer


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("changed")
    said = recipe(
        filters=[{"pii": {"action": "redact"}}, {"words": {"min": 5}}, {"duplicate": {"of": "instruction"}}],
        output={"split": {"train": 0.7, "test": 0.3}},
    )
    place = run_it(loaded(root, said, rows=ROWS), FakeEngine(answering()), directory=root / "runs" / "a").dir
    recurate(place, ["words.min=7"], project=root)
    quarantine(trace(place_of(place), "data/docs.jsonl:5"))
    states = {state: ids(place, f"state = '{state}'") for state in ("kept", "dropped", "failed")}
    erase(place, [of_state[-1] for of_state in states.values()])
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        assert journal.execute("SELECT count(*) FROM failures WHERE final = 0").fetchone()[0] > 1
        assert journal.execute("SELECT count(*) FROM records WHERE original NOT NULL").fetchone()[0] > 6
    return place


def ids(place: Path, where: str) -> list[str]:
    query = f"SELECT id FROM records WHERE version = 1 AND {where} ORDER BY task"
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        return [row[0] for row in journal.execute(query)]


def test_all_of_it_is_intact(changed: Path) -> None:
    verdict = verify(changed)
    assert verdict.intact, found(verdict)
    assert (verdict.versions, len(verdict.erased)) == (["2", "3"], 3)


def somewhere(mutate: Mutation) -> Mutation:
    """The same in the run's folder or in a version's."""

    def mutation(place: Path, chance: random.Random) -> str:
        return mutate(place / chance.choice(FOLDERS), chance)

    mutation.__name__ = mutate.__name__
    return mutation


def tombstone(place: Path, chance: random.Random) -> str:
    """Somebody says that another was erased, or that one was not."""
    folder = place / chance.choice(FOLDERS)
    path = folder / "dataset" / "provenance" / "erased.json"
    said = json.loads(path.read_text())["erased"]
    how = chance.choice(["more", "less", "other", "state", "none"])
    if how == "more":
        said.append({"id": chance.choice(ids(place, "erased IS NULL")), "state": "kept"})
    elif how == "less":
        said.pop(chance.randrange(len(said)))
    elif how == "other":
        said[0]["id"] = "0" * 32
    elif how == "state":
        said = [each["id"] for each in said]
    path.write_text(json.dumps({"erased": said}))
    if how == "none":
        path.unlink()
    else:
        resigned(folder)
    return "erased.json" if how != "more" else "erased"


def edits(place: Path, chance: random.Random) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """SQL that changes what is behind one record, or what was erased."""
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        alive = journal.execute(
            "SELECT version, task, requests FROM records AS r WHERE erased IS NULL AND error IS NULL "
            "AND EXISTS (SELECT 1 FROM completions AS c WHERE c.key = r.requests)"
        ).fetchall()
        version, task, key = chance.choice(sorted(alive))
        gone = chance.choice(
            journal.execute(
                "SELECT version, task FROM records WHERE erased NOT NULL AND state <> 'failed'"
            ).fetchall()
        )
        redacted = chance.choice(
            journal.execute("SELECT version, task, original FROM records WHERE original NOT NULL").fetchall()
        )
        tried = chance.choice(journal.execute("SELECT DISTINCT key FROM failures").fetchall())
        query = "SELECT version, task FROM records WHERE error NOT NULL AND erased IS NULL"
        failed = chance.choice(journal.execute(query).fetchall())
    here = (version, task)
    of = " WHERE version = ? AND task = ?"
    return {
        "answer": ("UPDATE completions SET text = text || ' ' WHERE key = ?", (key,)),
        "reason": ("UPDATE completions SET finish_reason = 'length' WHERE key = ?", (key,)),
        "tokens": ("UPDATE completions SET output_tokens = output_tokens + 1 WHERE key = ?", (key,)),
        "source": ("UPDATE completions SET source = 'elsewhere' WHERE key = ?", (key,)),
        "unanswered": ("DELETE FROM completions WHERE key = ?", (key,)),
        "request": ("UPDATE requests SET body = replace(body, 'Say', 'Cry') WHERE key = ?", (key,)),
        "untried": ("DELETE FROM failures WHERE key = ?", tried),
        "try": ("UPDATE failures SET error = 'another' WHERE key = ?", tried),
        "retried": ("INSERT INTO failures VALUES (?, 'invented', 0, 1, 1.0)", (key,)),
        "error": ("UPDATE records SET error = 'another'" + of, failed),
        "invented": ("UPDATE records SET error = 'invented'" + of, here),
        "original": ("UPDATE records SET original = NULL" + of, redacted[:2]),
        "unredacted": ("UPDATE records SET original = content" + of, redacted[:2]),
        "before": ("UPDATE contents SET body = replace(body, 'mail', 'male') WHERE sha256 = ?", redacted[2:]),
        "revived": ("UPDATE records SET erased = NULL" + of, gone),
        "reerased": ("UPDATE records SET erased = zeroblob(32)" + of, gone),
        "erased": ("UPDATE records SET erased = zeroblob(32)" + of, here),
        "moved": ("UPDATE records SET state = 'failed', dropped_by = NULL" + of, gone),
        "leaf": ("UPDATE records SET leaf = zeroblob(32), verdicts = '{}'" + of, here),
        "session": ("UPDATE sessions SET engines = '{}' WHERE session = 1", ()),
        "checkpoint": ("UPDATE checkpoints SET root = zeroblob(32) WHERE version = ?", (version,)),
    }  # fmt: skip


KINDS = """
answer reason tokens source unanswered request untried try retried error invented original unredacted before
revived reerased erased moved leaf session checkpoint
""".split()


def behind(kind: str | None = None) -> Mutation:
    def mutation(place: Path, chance: random.Random) -> str:
        which = kind or chance.choice(KINDS)
        query, values = edits(place, chance)[which]
        with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
            assert journal.execute(query, values).rowcount > 0, which
        mutation.__name__ = which
        return "run.sqlite"

    return mutation


@pytest.mark.parametrize("kind", KINDS)
def test_each_edit_of_the_journal_is_found(changed: Path, tmp_path: Path, kind: str) -> None:
    place = copied(changed, tmp_path / "run")
    behind(kind)(place, random.Random(3))
    verdict = verify(place)
    assert "run.sqlite" in found(verdict), kind


def whole_version(place: Path, chance: random.Random) -> str:
    """Another version in its place, or one that nobody made."""
    source, other = chance.sample(["versions/2", "versions/3"], 2)
    if chance.random() < 0.5:
        shutil.rmtree(place / other)
        shutil.copytree(place / source, place / other)
        return other
    name = chance.choice(["versions/9", "versions/x", "versions/2.old"])
    shutil.copytree(place / source, place / name)
    return name


MUTATED: list[tuple[Mutation, int]] = [
    *((somewhere(mutate), weight) for mutate, weight in
      ((flipped, 4), (truncated, 1), (removed, 1), (renamed, 1), (added, 1), (line_edited, 4),
       (ledger_rewritten, 1), (old_manifest, 1))),
    (tombstone, 3), (behind(), 6), (whole_version, 1),
]  # fmt: skip


@pytest.mark.slow
def test_every_mutation_is_found(changed: Path, tmp_path: Path) -> None:
    chance = random.Random(20261125)
    weights = [weight for _, weight in MUTATED]
    whole = tree(changed)
    place = copied(changed, tmp_path / "run")
    for number in range(MUTATIONS):
        mutation = chance.choices([mutate for mutate, _ in MUTATED], weights)[0]
        touched = mutation(place, chance)
        told = f"{number}: {mutation.__name__} of {touched}"
        if tree(place) != whole:
            verdict, refusal = judged(place)
            if verdict is None:
                assert "manifest.json" in refusal, told
            else:
                assert not verdict.intact, told
                assert touched in found(verdict), (told, found(verdict))
                assert all(finding.file for finding in verdict.findings.shown), told
        for extra in ("versions/9", "versions/x", "versions/2.old"):
            shutil.rmtree(place / extra, ignore_errors=True)
        restored(place, whole)


@pytest.mark.parametrize("place", range(len(MUTATED)))
def test_each_kind_of_mutation(changed: Path, tmp_path: Path, place: int) -> None:
    run = copied(changed, tmp_path / "run")
    touched = MUTATED[place][0](run, random.Random(11))
    verdict, refusal = judged(run)
    assert touched in (refusal if verdict is None else found(verdict))
