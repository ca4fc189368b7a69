"""The journal: durable, held by one process at a time, and told apart from what it is not."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from synthgen.engines.base import Completion
from synthgen.errors import RunError, UsageError
from synthgen.journal import Journal, open_journal
from synthgen.journal_entries import RecordEntry

ANSWER = Completion("text", "stop", 3, 4)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = open_journal(tmp_path / "run", "a")
    opened.begin_session("run", {})
    yield opened
    opened.close()


def script(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def entry(task: int, state: str = "kept", content: bytes | None = None) -> RecordEntry:
    return RecordEntry(
        task=task,
        branch="0",
        id=f"{task:032x}",
        content=content,
        state=state,
        dropped_by="words" if state == "dropped" else None,
        verdicts={"words": {"value": 3, "verdict": "pass"}},
        requests=[key(task), key(task + 1)],
        sources=[{"seed": "doc", "row": task}],
        error="why" if state == "failed" else None,
    )


def test_answers_come_back_in_a_later_session(tmp_path: Path) -> None:
    first = open_journal(tmp_path, "a")
    first.begin_session("run", {"python": "3"})
    text = "üñí \0 \U0001f600\n"
    first.request_issued(key(1), b"{}")
    first.completed(key(1), Completion(text, "length", 1, 2))
    first.request_failed(key(2), "too long", final=True)
    first.request_failed(key(3), "busy", final=False)
    first.end_session("done")
    first.close()
    second = open_journal(tmp_path, "a")
    second.begin_session("run", {})
    assert second.session == 2
    assert second.stored_answer(key(1)) == Completion(text, "length", 1, 2)
    assert second.stored_answer(key(2)) is None
    assert second.stored_failure(key(2)) == "too long"
    assert second.stored_failure(key(3)) is None
    assert second.usage() == {"input_tokens": 0, "output_tokens": 0, "requests": 0}
    second.forget_failures()
    second.close()
    third = open_journal(tmp_path, "a")
    assert third.stored_failure(key(2)) is None
    third.close()
    rows = sqlite3.connect(tmp_path / "run.sqlite").execute("SELECT command, outcome FROM sessions")
    assert rows.fetchall() == [("run", "done"), ("run", None)]


def test_the_first_answer_stands(journal: Journal) -> None:
    journal.completed(key(1), ANSWER)
    journal.completed(key(1), Completion("another", "stop", 9, 9))
    journal.flush()
    rows = sqlite3.connect(journal.path).execute("SELECT text FROM completions").fetchall()
    assert rows == [("text",)]
    assert journal.usage() == {"input_tokens": 3, "output_tokens": 4, "requests": 1}


def test_an_answer_is_found_in_the_session_that_got_it(journal: Journal) -> None:
    journal.completed(key(1), ANSWER)
    assert journal.stored_answer(key(1)) == ANSWER
    journal.flush()
    assert journal.stored_answer(key(1)) == ANSWER
    assert journal.stored_answer(key(2)) is None


def test_half_of_a_character_does_not_bring_the_journal_down(journal: Journal) -> None:
    journal.completed(key(1), Completion("half \ud83d", "stop", 1, 1))
    journal.request_failed(key(2), "half \ud83d", final=True)
    journal.flush()
    found = journal.stored_answer(key(1))
    assert found is not None
    assert found.text.startswith("half ")
    found.text.encode()


def test_records_come_back_in_task_order(journal: Journal) -> None:
    version = journal.begin_version("run", "f")
    journal.add_content(key(7), b'{"row":{}}', {"1": [3, None]})
    for task in (2, 10, 1, 0):
        state = {2: "dropped", 10: "failed"}.get(task, "kept")
        journal.add_record(version, entry(task, state, None if state == "failed" else key(7)))
    journal.flush()
    found = list(journal.records(version))
    assert [record.task for record, _ in found] == [0, 1, 2, 10]
    assert found[0] == (entry(0, "kept", key(7)), b'{"row":{}}')
    assert found[3] == (entry(10, "failed"), None)
    assert [record.task for record, _ in journal.records(version, "kept")] == [0, 1]
    assert list(journal.records(version + 1)) == []


def test_an_unfinished_version_is_begun_anew(journal: Journal) -> None:
    assert journal.begin_version("run", "f") == 1
    journal.add_record(1, entry(0))
    journal.flush()
    assert journal.last_finished("run") is None
    assert journal.begin_version("run", "g") == 1
    assert list(journal.records(1)) == []
    journal.finish_version(1, {"kept": 5})
    assert journal.last_finished("run") == (1, "g", {"kept": 5}, None)
    assert journal.begin_version("curate", "h") == 2
    assert journal.last_finished("run") == (1, "g", {"kept": 5}, None)


def test_a_filters_number_stays(journal: Journal) -> None:
    one = journal.filter_number("key of words", "words", {})
    assert journal.filter_number("another key of words", "words", {}) != one
    assert journal.filter_number("key of words", "words", {"changed": "bounds"}) == one


def test_measurements_can_be_read_with_any_tool(journal: Journal) -> None:
    number = journal.filter_number("key", "words", {})
    journal.add_content(key(7), b"{}", {number: [3.5, {"why": "so"}]})
    journal.flush()
    rows = sqlite3.connect(journal.path).execute("SELECT content, filter, value, detail FROM measurements")
    assert rows.fetchall() == [(key(7).hex(), "words", 3.5, '{"why":"so"}')]


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from synthgen.engines.base import Completion
    from synthgen.journal import open_journal
    journal = open_journal(Path(sys.argv[1]), "a")
    journal.begin_session("run", {})
    async def main():
        flushing = asyncio.create_task(journal.keep_flushing())
        for number in range(100):
            journal.completed(number.to_bytes(32, "big"), Completion("text", "stop", 1, 1))
        if sys.argv[2] == "flush":
            journal.flush()
        else:
            while journal._waiting or journal._write.in_transaction or not journal._read.execute(
                "SELECT count(*) FROM completions").fetchone()[0]:
                await asyncio.sleep(0.01)
        journal.completed((200).to_bytes(32, "big"), Completion("not yet", "stop", 1, 1))
        os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["flush", "by itself"])
def test_what_was_committed_survives_a_kill(tmp_path: Path, how: str) -> None:
    ended = subprocess.run(script(KILLED, tmp_path, how), timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    after = open_journal(tmp_path, "a")
    assert [number for number in range(100) if after.stored_answer(key(number)) is None] == []
    assert after.stored_answer(key(200)) is None
    assert sqlite3.connect(after.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    after.close()


class Late(Future[None]):
    """A commit that its thread has not come to yet, and comes to when somebody asks how it went."""

    def __init__(self, commit: Callable[..., None], *arguments: Any) -> None:
        super().__init__()
        self._commit = partial(commit, *arguments)

    def result(self, timeout: float | None = None) -> None:
        if not self.done() and self.set_running_or_notify_cancel():
            try:
                self.set_result(self._commit())
            except RunError as error:
                self.set_exception(error)
        super().result(timeout)


@pytest.mark.parametrize("full", [False, True])
def test_what_is_taken_is_committed_though_nobody_waits_for_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    monkeypatch.setattr(journal._thread, "submit", Late)
    if full:
        monkeypatch.setattr(journal, "_commit", refuse)

    async def cancelled() -> None:
        flushing = asyncio.create_task(journal.keep_flushing())
        journal.completed(key(1), ANSWER)
        while journal._waiting:
            await asyncio.sleep(0.001)
        flushing.cancel()
        with pytest.raises(RunError if full else asyncio.CancelledError):
            await flushing

    asyncio.run(cancelled())
    stored = sqlite3.connect(journal.path).execute("SELECT key FROM completions").fetchall()
    assert stored == ([] if full else [(key(1),)])


def refuse(*_: object) -> None:
    raise RunError("the disk is full")


HOLDER = """
    import sys
    from pathlib import Path
    from synthgen.journal import open_journal
    journal = open_journal(Path(sys.argv[1]), "a")
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        script(HOLDER, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"another process .{holder.pid}. is running"):
            open_journal(tmp_path, "a")
    finally:
        holder.kill()
        holder.communicate()
    open_journal(tmp_path, "a").close()


def test_the_same_process_is_refused_too_and_can_come_again(journal: Journal) -> None:
    with pytest.raises(UsageError, match=str(os.getpid())):
        open_journal(journal.path.parent, "a")


def test_another_recipes_run_is_refused(tmp_path: Path) -> None:
    open_journal(tmp_path, "a").close()
    with pytest.raises(UsageError, match="holds the run of the recipe 'a', not of 'b'"):
        open_journal(tmp_path, "b")
    open_journal(tmp_path, "a").close()


def test_another_schema_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_journal(tmp_path, "a").close()
    with sqlite3.connect(tmp_path / "run.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(UsageError, match="schema 99"):
        open_journal(tmp_path, "a")


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.sqlite").write_text("this is not a database, whatever its name says\n" * 50)
    with pytest.raises(RunError, match="is damaged"):
        open_journal(tmp_path / "text", "a")
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / "run.sqlite") as connection:
        connection.execute("CREATE TABLE something_else (x)")
    with pytest.raises(UsageError, match="not a journal"):
        open_journal(tmp_path / "other", "a")
    (tmp_path / "folder" / "run.sqlite").mkdir(parents=True)
    with pytest.raises(RunError):
        open_journal(tmp_path / "folder", "a")


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        open_journal(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="cannot be made"):
        open_journal(tmp_path / "thesis.txt", "a")
    with pytest.raises(UsageError, match="cannot be made"):
        open_journal(tmp_path / "thesis.txt" / "below", "a")


def test_an_empty_folder_and_an_interrupted_beginning_are_taken(tmp_path: Path) -> None:
    (tmp_path / "run.lock").touch()
    open_journal(tmp_path, "a").close()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.sqlite").touch()
    open_journal(tmp_path / "b", "a").close()


@pytest.mark.parametrize("write", ["flush", "begin_session", "begin_version", "filter_number", "end_session"])
def test_a_full_disk_is_said_and_loses_nothing_that_was_committed(tmp_path: Path, write: str) -> None:
    journal = open_journal(tmp_path, "a")
    journal.begin_session("run", {})
    journal.completed(key(1), ANSWER)
    journal.flush()
    pages = journal._write.execute("PRAGMA page_count").fetchone()[0]
    journal._write.execute(f"PRAGMA max_page_count = {pages}")
    big = "x" * 100_000
    journal.completed(key(2), Completion(big if write == "flush" else "", "stop", 1, 1))
    writes = {
        "flush": journal.flush,
        "begin_session": lambda: journal.begin_session(big, {}),
        "begin_version": lambda: journal.begin_version("run", big),
        "filter_number": lambda: journal.filter_number("k", big, {}),
        "end_session": lambda: journal.end_session(big),
    }
    with pytest.raises(RunError, match="the disk is full"):
        writes[write]()
    journal.close()
    after = open_journal(tmp_path, "a")
    assert after.stored_answer(key(1)) == ANSWER
    assert (after.stored_answer(key(2)) is None) == (write == "flush")
    after.close()


LIMITED = """
    import resource, sys
    from pathlib import Path
    from synthgen.engines.base import Completion
    from synthgen.errors import RunError
    from synthgen.journal import open_journal
    journal = open_journal(Path(sys.argv[1]), "a")
    journal.completed(bytes(32), Completion("text", "stop", 1, 1))
    journal.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    journal.completed(b"1" * 32, Completion("x" * 1_000_000, "stop", 1, 1))
    try:
        journal.flush()
    except RunError as error:
        print(error)
"""


def test_a_file_that_may_not_grow_is_said(tmp_path: Path) -> None:
    ended = subprocess.run(script(LIMITED, tmp_path), timeout=60, check=False, capture_output=True, text=True)
    assert "run.sqlite cannot be written" in ended.stdout, ended.stderr
    after = open_journal(tmp_path, "a")
    assert after.stored_answer(bytes(32)) is not None
    after.close()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    share = tmp_path / "my share"
    share.mkdir()
    escaped = str(share).replace(" ", "\\040")
    mounts = f"/dev/root / ext4 rw 0 0\nhost:/x {escaped} {kind} rw 0 0\n"
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, *a, **k: mounts if str(self) == "/proc/mounts" else read(self, *a, **k),
    )
    with pytest.raises(UsageError, match=f"network file system .{kind}."):
        open_journal(share / "runs" / "a", "a")
    open_journal(tmp_path / "local", "a").close()


def test_where_mounts_cannot_be_read_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    open_journal(tmp_path, "a").close()
