"""What a run meets with: signals, terminals that close, servers and disks that fail, clocks, other versions.

Each time it ends with a sentence and the right code, keeps what was answered, and goes on to the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sqlite3
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver, stopping
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import RunError, UsageError
from synthgen.journal import Journal, open_journal
from synthgen.stopping import Stop, cancel_on
from synthgen.workers import InProcess
from tests.processes import ended, query, start, started, wait_for
from tests.standin import Settings, StandIn, serving
from tests.support import FakeEngine, answer_of, docs, loaded, project, read_jsonl, recipe, run_it, tree

pytestmark = pytest.mark.slow

ROWS = 150
RECIPE = recipe(
    model={"engine": "openai", "id": "standin"},
    filters=[{"words": {"min": 14}}],
    output={"split": {"train": 0.8, "test": 0.2}},
)


OF_SESSIONS = ("manifest.json", "sessions.jsonl", "answers.jsonl")


def outputs(directory: Path) -> dict[str, bytes]:
    """Every output of a run that says nothing of its sessions and their tries."""
    return {
        name: data
        for name, data in tree(directory).items()
        if not name.startswith("run.") and name not in OF_SESSIONS
    }


class Runs:
    """Runs of one project against one server, and what an undisturbed one writes."""

    def __init__(self, root: Path, server: StandIn) -> None:
        self.root = root
        self.server = server
        self.directory = root / "runs" / "a"
        self.env = {"SYNTHGEN_BASE_URL": server.url}
        self.arguments: tuple[str, ...] = ("run", "a", "--json")

    def started(self, *more: str, **options: Any) -> Any:
        env = {**self.env, **options.pop("env", {})}
        return started(*self.arguments, *more, cwd=self.root, env=env, **options)

    def ended(self, *more: str, **options: Any) -> tuple[dict[str, Any] | None, str]:
        env = {**self.env, **options.pop("env", {})}
        out, err = ended(*self.arguments, *more, cwd=self.root, env=env, **options)
        return json.loads(out) if out else None, err

    def answered(self) -> int:
        """So many answers are in the journal."""
        found = query(self.directory, "SELECT count(*) FROM completions")
        return found[0][0] if found else 0

    def goes_on(self, undisturbed: dict[str, bytes], *, asked_again: int = 0) -> dict[str, Any]:
        """The next run comes to the same bytes, and asks for nothing that was answered."""
        self.server.set(pace=0.0, latency=0.0, faults={}, outage=None)
        said, _ = self.ended()
        assert said is not None
        assert outputs(self.directory) == undisturbed
        again = {seed: n for seed, n in Counter(seed for _, seed in self.server.answered).items() if n > 1}
        assert len(again) <= asked_again
        return said


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    project(tmp_path, RECIPE, rows=ROWS)
    with serving(Settings(keep_answers=True)) as server:
        yield Runs(tmp_path, server)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    project(root, RECIPE, rows=ROWS)
    with serving() as server:
        ended("run", "a", cwd=root, env={"SYNTHGEN_BASE_URL": server.url})
    return outputs(root / "runs" / "a")


# Signals and terminals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(runs: Runs, undisturbed: dict[str, bytes], number: signal.Signals) -> None:
    runs.server.set(pace=0.02)
    with runs.started() as process:
        wait_for(lambda: runs.server.completed > 20, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; run the same command again to go on" in err
    assert "Traceback" not in err
    said = json.loads(out)
    assert said["pending"] > 0
    assert said["kept"] + said["dropped"] + said["pending"] == said["planned"] == ROWS
    assert said["usage"]["requests"] == runs.answered() == runs.server.completed
    assert runs.goes_on(undisturbed)["usage"]["requests"] == ROWS - said["usage"]["requests"]


def test_a_second_ctrl_c_does_not_wait(runs: Runs, undisturbed: dict[str, bytes]) -> None:
    with runs.started() as process:
        wait_for(lambda: runs.server.completed > 0, process)
        runs.server.set(latency=1000.0)
        wait_for(lambda: runs.server.in_flight > 0 or runs.server.completed == ROWS, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("once more stops at once" in line for line in process.stderr)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < stopping.DRAIN_SECONDS - 2
    assert "Traceback" not in err
    kept = runs.answered()
    assert kept == runs.server.completed
    said = runs.goes_on(undisturbed)
    assert said["usage"]["requests"] == ROWS - kept


def test_the_second_signal_strikes_only_where_nobody_heeds_it() -> None:
    stop, said = Stop(), []
    with cancel_on([signal.SIGINT], stop, said.append) as came:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        stop.heeded = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.at_once
        stop.heeded = False
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (len(came), len(said)) == (3, 1)


def on_a_terminal(follower: int) -> Callable[[], None]:
    def begin() -> None:
        os.setsid()
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)

    return begin


@pytest.mark.parametrize("hang_up", [True, False], ids=["with-sighup", "without"])
def test_a_terminal_that_closes(runs: Runs, undisturbed: dict[str, bytes], hang_up: bool) -> None:
    """With SIGHUP it ends as at Ctrl-C; where nobody sends one it goes on, and writes to nowhere."""
    runs.server.set(pace=0.02)
    leader, follower = os.openpty()
    process = start(
        "run", "a", cwd=runs.root, env=runs.env, text=False, stdin=follower, stdout=follower, stderr=follower,
        preexec_fn=on_a_terminal(follower) if hang_up else os.setsid,
    )  # fmt: skip
    try:
        os.close(follower)
        wait_for(lambda: runs.server.completed > 20, process)  # type: ignore[arg-type]
        os.close(leader)
        assert process.wait(timeout=60) == (130 if hang_up else 0)
    finally:
        process.kill()
        process.wait()
    (outcome,) = query(runs.directory, "SELECT outcome FROM sessions")
    assert outcome == ("interrupted" if hang_up else "done",)
    if hang_up:
        assert 0 < runs.answered() < ROWS
        runs.goes_on(undisturbed)
    else:
        assert outputs(runs.directory) == undisturbed


def test_nohup_is_heeded(runs: Runs, undisturbed: dict[str, bytes]) -> None:
    runs.server.set(pace=0.01)
    with runs.started(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        wait_for(lambda: runs.server.completed > 20, process)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert outputs(runs.directory) == undisturbed


# Servers


def test_a_server_that_says_nothing_any_more(runs: Runs, undisturbed: dict[str, bytes]) -> None:
    runs.server.set(pace=0.01)
    with runs.started(env={"SYNTHGEN_REQUEST_TIMEOUT": "0.5"}) as process:
        wait_for(lambda: runs.answered() > 20, process)
        runs.server.set(faults={"hang": 1.0})
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (4, "")
    assert time.monotonic() - began < 6 * 0.5 + 10
    assert "has not said a word" in err
    assert "SYNTHGEN_REQUEST_TIMEOUT" in err
    assert "Traceback" not in err
    assert runs.answered() == runs.server.completed
    runs.goes_on(undisturbed)


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_errors_are_ridden_out_for_so_long(runs: Runs, undisturbed: dict[str, bytes], fault: str) -> None:
    runs.server.set(pace=0.01)
    with runs.started("--patience", "1.5") as process:
        wait_for(lambda: runs.answered() > 20, process)
        runs.server.set(faults={fault: 1.0})
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (4, "")
    assert 1.5 < time.monotonic() - began < 15
    assert "the engine has answered nothing for" in err
    assert ("503" if fault == "503" else "connection") in err
    assert "run the same command again" in err
    assert runs.answered() == runs.server.completed
    runs.goes_on(undisturbed)


def test_an_outage_that_ends(runs: Runs, undisturbed: dict[str, bytes]) -> None:
    runs.server.set(outage=(60, 80))
    said, _ = runs.ended()
    assert said is not None
    assert runs.server.faulted["reset"] == 80
    assert (said["usage"]["requests"], said["failed"]) == (ROWS, 0)
    assert outputs(runs.directory) == undisturbed


def test_nobody_is_there(runs: Runs) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        began = time.monotonic()
        _, err = runs.ended(code=4, env={"SYNTHGEN_BASE_URL": url})
    assert time.monotonic() - began < 10
    assert "nothing answers at" in err
    assert not (runs.directory / "dataset").exists()


# Disks, other processes, clocks


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


@pytest.mark.usefixtures("_in_process")
def test_a_full_disk_under_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = loaded(tmp_path, RECIPE, rows=400)
    undisturbed = run_it(given, directory=tmp_path / "undisturbed")

    def small(directory: Path, name: str) -> Journal:
        journal = open_journal(directory, name)
        pages = journal._write.execute("PRAGMA page_count").fetchone()[0]
        journal._write.execute(f"PRAGMA max_page_count = {pages + 60}")
        return journal

    with monkeypatch.context() as patch:
        patch.setattr(driver, "open_journal", small)
        first = FakeEngine(slowly, slots=4)
        with pytest.raises(RunError, match="the disk is full") as full:
            run_it(given, first, directory=tmp_path / "full")
        assert full.value.exit_code == 1
    stored = {key.hex() for (key,) in query(tmp_path / "full", "SELECT key FROM completions")}
    assert 0 < len(stored) < 400
    second = FakeEngine()
    result = run_it(given, second, directory=tmp_path / "full")
    assert stored.isdisjoint(second.keys)
    assert len(second.keys) == 400 - len(stored)
    assert result.kept == undisturbed.kept
    assert outputs(tmp_path / "full") == outputs(tmp_path / "undisturbed")


async def slowly(request: Request) -> str:
    """So slowly that the journal commits several times."""
    await asyncio.sleep(0.02)
    return answer_of(request)


def test_two_processes_and_a_dead_ones_lock(runs: Runs, undisturbed: dict[str, bytes]) -> None:
    runs.server.set(pace=0.02)
    with runs.started() as first:
        wait_for(lambda: runs.answered() > 5, first)
        began = time.monotonic()
        _, err = runs.ended(code=2)
        assert time.monotonic() - began < 10
        assert f"another process ({first.pid}) is running in" in err
        first.kill()
        first.communicate()
    assert (runs.directory / "run.lock").read_text() == str(first.pid)
    kept = runs.answered()
    runs.server.answered.clear()  # what had been answered in the last moment is lost, and asked again
    assert runs.goes_on(undisturbed)["usage"]["requests"] == ROWS - kept


BACK = """
    import sys, time
    real, asked = time.time, []
    def back():
        asked.append(None)
        return real() - 86400 * (len(asked) > 150)
    time.time = back
    from synthgen.cli import main
    try:
        main()
    finally:
        sys.stderr.write(f"asked {len(asked)} times")
"""


def test_a_clock_that_steps_a_day_back(runs: Runs, undisturbed: dict[str, bytes]) -> None:
    runs.server.set(faults={"429-after": 0.1, "half": 0.02}, retry_after=0.01)
    said, err = runs.ended(script=BACK)
    assert int(err.rsplit("asked ", 1)[1].split()[0]) > 200
    assert said is not None
    assert said["failed"] == 0
    assert outputs(runs.directory) == undisturbed
    times = [at for (at,) in query(runs.directory, "SELECT arrived FROM completions ORDER BY rowid")]
    assert times[-1] < times[0] - 80_000
    ended("status", runs.directory, cwd=runs.root)


# Failures


def failing(*numbers: int) -> FakeEngine:
    """Fails for these rows."""
    texts = [f"document number {number}'" for number in numbers]
    return FakeEngine(
        lambda request: (
            RequestFailed("no")
            if any(text in f"{request.messages[0]['content']}'" for text in texts)
            else answer_of(request)
        ),
        slots=2,
    )


@pytest.mark.usefixtures("_in_process")
def test_failed_ones_are_asked_again_for_a_new_version(tmp_path: Path) -> None:
    given = loaded(tmp_path, recipe(), rows=30)
    first = run_it(given, failing(3, 7))
    assert (first.failed, first.kept) == (2, 28)
    before = outputs(first.dir)
    second = failing(7)
    result = run_it(given, second, retry_failed=True)
    assert (len(second.asked), result.failed, result.kept) == (2, 1, 29)
    versions = query(first.dir, "SELECT version, finished IS NOT NULL FROM versions ORDER BY version")
    assert versions == [(1, 1), (2, 1)]
    assert outputs(first.dir) != before
    assert [row["task"] for row in read_jsonl(first.dir / "failed.jsonl")] == [7]
    last = failing()
    assert run_it(given, last, retry_failed=True).outcome == "done"
    assert len(last.asked) == 1
    whole = run_it(given, failing(), directory=tmp_path / "whole")
    assert outputs(first.dir) == outputs(whole.dir)


@pytest.mark.usefixtures("_in_process")
def test_a_retry_that_was_interrupted_is_not_taken_for_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = loaded(tmp_path, recipe(), rows=30)
    first = run_it(given, failing(3, 7))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish_version", lambda *_: (_ for _ in ()).throw(RunError("dies")))
        with pytest.raises(RunError, match="dies"):
            run_it(given, failing(7), retry_failed=True)
    engine = failing()
    again = run_it(given, engine)
    assert (again.outcome, again.failed, engine.asked) == ("failures", 1, [])
    assert [row["task"] for row in read_jsonl(first.dir / "failed.jsonl")] == [7]
    assert run_it(given, engine).outcome == "nothing to do"


def test_so_many_failures_are_tolerable(runs: Runs) -> None:
    rows = [{"text": "long " * 60} if number % 20 == 10 else row for number, row in enumerate(docs(80))]
    project(runs.root, RECIPE, rows=rows)
    runs.server.set(context=50, pace=0.005)
    said, err = runs.ended("--max-failures", "3", code=3)
    assert said is not None
    assert (said["outcome"], said["failed"]) == ("too many failures", 4)
    assert said["pending"] == 80 - said["kept"] - said["dropped"] - 4
    assert "more than 3 tasks failed" in err
    assert not (runs.directory / "dataset").exists()
    said, err = runs.ended("--max-failures", "4")
    assert said is not None
    assert (said["failed"], said["pending"], said["planned"]) == (4, 0, 80)
    assert max(Counter(seed for _, seed in runs.server.answered).values()) == 1
    assert len(read_jsonl(runs.directory / "failed.jsonl")) == 4


# Other versions


VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    session INTEGER PRIMARY KEY, command TEXT NOT NULL, started TEXT NOT NULL, ended TEXT,
    outcome TEXT, environment TEXT NOT NULL, engines TEXT);
CREATE TABLE requests (
    key BLOB PRIMARY KEY, body BLOB NOT NULL, session INTEGER NOT NULL, issued REAL NOT NULL);
CREATE TABLE completions (
    key BLOB PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, session INTEGER NOT NULL, arrived REAL NOT NULL);
CREATE TABLE set_aside (
    key BLOB NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, session INTEGER NOT NULL, arrived REAL NOT NULL);
CREATE TABLE failures (
    key BLOB NOT NULL, error TEXT NOT NULL, final INTEGER NOT NULL, session INTEGER NOT NULL,
    at REAL NOT NULL);
CREATE INDEX failures_key ON failures (key);
CREATE TABLE filters (
    filter INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, description TEXT NOT NULL);
CREATE TABLE contents (
    sha256 BLOB PRIMARY KEY, body BLOB NOT NULL, measured TEXT NOT NULL);
CREATE TABLE versions (
    version INTEGER PRIMARY KEY, command TEXT NOT NULL, fingerprint TEXT NOT NULL, started TEXT NOT NULL,
    finished TEXT, summary TEXT);
CREATE TABLE records (
    version INTEGER NOT NULL, task INTEGER NOT NULL, branch TEXT NOT NULL, id TEXT NOT NULL,
    content BLOB, state TEXT NOT NULL CHECK (state IN ('kept', 'dropped', 'failed')),
    dropped_by TEXT, verdicts TEXT NOT NULL, requests BLOB NOT NULL, sources TEXT NOT NULL, error TEXT,
    PRIMARY KEY (version, task, branch)) WITHOUT ROWID;
CREATE INDEX records_id ON records (id);
CREATE VIEW measurements AS
    SELECT lower(hex(contents.sha256)) AS content, filters.name AS filter,
           json_extract(item.value, '$[0]') AS value, json_extract(item.value, '$[1]') AS detail
    FROM contents, json_each(contents.measured) AS item JOIN filters ON filters.filter = item.key;
"""


def as_version_1(directory: Path, into: Path) -> None:
    """The same run, as an earlier synthgen left it."""
    into.mkdir()
    with contextlib.closing(sqlite3.connect(into / "run.sqlite")) as old, old:
        old.executescript(VERSION_1)
        old.execute("ATTACH ? AS new", (str(directory / "run.sqlite"),))
        tables = [name for (name,) in old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for name in tables:
            columns = ", ".join(row[1] for row in old.execute(f"PRAGMA main.table_info({name})"))
            old.execute(f"INSERT INTO main.{name} ({columns}) SELECT {columns} FROM new.{name}")
        old.execute("UPDATE main.meta SET value = '1' WHERE key = 'schema'")


def columns(directory: Path) -> dict[str, list[str]]:
    tables = query(directory, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name: [row[1] for row in query(directory, f"PRAGMA table_info({name})")] for (name,) in tables}


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_of_the_first_version_goes_on(
    runs: Runs, undisturbed: dict[str, bytes], finished: bool
) -> None:
    if not finished:
        runs.server.set(pace=0.02)
    with runs.started() as process:
        if not finished:
            wait_for(lambda: runs.answered() > 20, process)
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    made, runs.directory = runs.directory, runs.root / "old"
    as_version_1(made, runs.directory)
    kept = runs.answered()
    assert kept == ROWS if finished else 0 < kept < ROWS
    ended("status", "old", cwd=runs.root, code=2)
    runs.arguments = (*runs.arguments, "-o", "old")
    assert runs.goes_on(undisturbed)["usage"]["requests"] == ROWS - kept
    ended("status", "old", cwd=runs.root)
    assert runs.answered() == ROWS
    assert columns(runs.directory) == columns(made)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_run_of_a_later_version_is_left_as_it_is(tmp_path: Path, mode: str) -> None:
    project(tmp_path, recipe(), rows=3)
    directory = tmp_path / "runs" / "a"
    open_journal(directory, "a").close()
    with contextlib.closing(sqlite3.connect(directory / "run.sqlite")) as journal, journal:
        journal.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with contextlib.closing(sqlite3.connect(directory / "run.sqlite")) as journal:
        journal.execute(f"PRAGMA journal_mode = {mode}")
    (directory / "run.lock").unlink()
    before = tree(directory)
    with pytest.raises(UsageError, match=r"written by another version of synthgen \(journal schema 99"):
        run_it(tmp_path / "recipes" / "a.yaml")
    assert {name: data for name, data in tree(directory).items() if name != "run.lock"} == before


# Looking on


def test_a_run_is_looked_at_while_it_runs(runs: Runs, undisturbed: dict[str, bytes]) -> None:
    runs.server.set(until=40)  # so it cannot end while it is looked at, however long that takes
    with runs.started() as process:
        wait_for(lambda: query(runs.directory, "SELECT 1 FROM records LIMIT 1"), process)
        out, _ = ended("status", runs.directory, "--json", cwd=runs.root)
        shown, _ = ended("show", runs.directory, "--json", cwd=runs.root)
        assert process.poll() is None
        said = json.loads(out)
        assert (said["state"], said["process"]) == ("running", str(process.pid))
        assert said["planned"] == ROWS == said["kept"] + said["dropped"] + said["failed"] + said["pending"]
        assert 0 < said["kept"] + said["dropped"] <= said["answers"] <= said["requests"] < ROWS
        assert {record["state"] for record in json.loads(shown)} <= {"kept", "dropped"}
        assert len(json.loads(shown)) > 0
        runs.server.set(until=None)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert outputs(runs.directory) == undisturbed
    out, _ = ended("status", runs.directory, "--json", cwd=runs.root)
    assert json.loads(out)["state"] == "finished"


def test_what_the_engine_runs_on_is_known_before_its_first_answer(tmp_path: Path) -> None:
    """So the answers of a session that was killed can still be replayed."""
    given, known = loaded(tmp_path, rows=30), []

    class Detailed(FakeEngine):
        async def start(self) -> None:
            self.identity = replace(self.identity, details={"device": "a card"})

    def answer(request: Request) -> str:
        known.extend(query(tmp_path / "run", "SELECT engines, ended FROM sessions"))
        return answer_of(request)

    run_it(given, Detailed(answer, slots=3), directory=tmp_path / "run")
    assert {(json.loads(engines)["default"]["device"], ended) for engines, ended in known} == {
        ("a card", None)
    }
