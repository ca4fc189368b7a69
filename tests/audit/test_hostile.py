"""Files as large and as broken as a hostile person would make them: a sentence, soon, in bounded memory."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from synthgen.audit.findings import CannotJudge
from synthgen.audit.lines import MANIFEST_BYTES
from synthgen.audit.verify import verify
from synthgen.cli import app, main
from synthgen.errors import SynthgenError
from tests.support import loaded, recipe, run_it

LARGE = 10 << 30
ROOM = 3 << 30
PARQUET = "dataset/data/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    return run_it(loaded(root, recipe(filters=[{"words": {"min": 5}}]), rows=20), directory=root / "run").dir


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def audited(*arguments: object) -> tuple[int, str]:
    """What the command says, in a process that has no more than 3 GiB to itself."""

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))

    done = subprocess.run(
        [sys.executable, "-m", "synthgen", "audit", *map(str, arguments)],
        capture_output=True, check=False, text=True, timeout=90, preexec_fn=little,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="files with holes, and limits of memory")
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dataset/provenance/ledger.jsonl", 1),
        ("dataset/provenance/recipe.lock.yaml", 1),
        ("recipe.lock.yaml", 1),
        ("dropped.jsonl", 1),
        ("sessions.jsonl", 1),
        ("answers.jsonl", 1),
        ("dataset/manifest.json", 2),
        (PARQUET, 1),
    ],
)
def test_ten_gigabytes_in_the_place_of_a_file(place: Path, name: str, code: int) -> None:
    os.truncate(place / name, LARGE)
    found, said = audited("verify", place)
    assert found == code, said
    assert Path(name).name in said
    if name.startswith("dataset/provenance/"):
        id = json.loads((place / "dropped.jsonl").read_text().splitlines()[0])["id"]
        assert audited("show", place / "dataset", id)[0] == 2
        assert audited("diff", place / "dataset", place / "dataset")[0] == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
@pytest.mark.parametrize("dictionary", [True, False])
def test_parquet_that_unpacks_to_more_than_memory(place: Path, dictionary: bool) -> None:
    """A hundred gigabytes in 645 bytes, or values of 200 MB each."""
    if dictionary:
        column = pa.DictionaryArray.from_arrays(
            pa.array([0] * 20_000, pa.int32()), pa.array(["a" * 5_000_000])
        )
        pq.write_table(pa.table({"id": column}), place / PARQUET, compression="zstd")
    else:
        one = pa.table({"id": pa.array(["a" * 200_000_000], pa.large_string())})
        with pq.ParquetWriter(
            place / PARQUET, one.schema, compression="zstd", use_dictionary=False
        ) as writer:
            for _ in range(20):
                writer.write_table(one)
        del one
    assert (place / PARQUET).stat().st_size < 500_000
    code, said = audited("verify", place)
    assert code == 1
    assert "train-" in said


def test_a_manifest_that_names_a_million_files(place: Path) -> None:
    path = place / "dataset" / "manifest.json"
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    item = {"digest": {"sha256": "0" * 64}, "annotations": {"bytes": 1}}
    said["subject"] += [{"name": f"x/{number}", **item} for number in range(1_000_000)]
    envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    path.write_bytes(orjson.dumps(envelope))
    with pytest.raises(CannotJudge, match=f"larger than {MANIFEST_BYTES:,} bytes"):
        verify(place)


@pytest.mark.parametrize(
    "name",
    [
        "dataset/manifest.json",
        "dataset/provenance/erased.json",
        "dataset/provenance/recipe.lock.yaml",
        "manifest.json",
        "recipe.lock.yaml",
        "sessions.jsonl",
        "answers.jsonl",
        "dropped.jsonl",
        "run.sqlite",
        "versions",
        "versions/2",
        "dataset/more",
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "link to /dev/zero", "link to itself"])
def test_what_is_no_file(place: Path, name: str, kind: str) -> None:
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if "zero" in kind else path)
    if name == "dataset/manifest.json":
        with pytest.raises(CannotJudge, match=r"manifest\.json"):
            verify(place)
        return
    shown = list(map(str, verify(place).findings.shown))
    assert any(path.name in each for each in shown), shown


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE requests; CREATE VIEW requests AS WITH RECURSIVE n(key, body) AS (SELECT x'00', x'00' "
        "UNION ALL SELECT key, body FROM n) SELECT key, body FROM n",
        "CREATE TRIGGER t AFTER INSERT ON requests BEGIN SELECT 1; END",
        "DROP TABLE requests; CREATE VIRTUAL TABLE requests USING fts5(key, body)",
        "UPDATE records SET verdicts = zeroblob(900000000) WHERE task = 1",
        "UPDATE records SET verdicts = zeroblob(10), requests = 'x', sources = 7",
    ],
)
def test_a_journal_that_is_a_trap(place: Path, change: str) -> None:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        journal.executescript(change)
    code, said = audited("verify", place)
    assert code in (1, 2), said
    assert "run.sqlite" in said or "memory" in said


READERS = (
    "show {0}", "show {0} {1}", "status {0}", "stats {0}", "report {0} --text", "compare {0} {0}",
    "curate {0} --set words.min=1 --dry-run",
)  # fmt: skip


@pytest.mark.parametrize(
    ("table", "column"),
    [("records", "verdicts"), ("records", "sources"), ("contents", "body"), ("contents", "measured"),
     ("requests", "body"), ("versions", "chain"), ("versions", "summary"), ("sessions", "environment"),
     ("sessions", "engines"), ("filters", "description")],
)  # fmt: skip
@pytest.mark.parametrize("value", ['{"words": {}}', "nothing"])
def test_what_makes_no_sense_is_said_by_every_command(
    place: Path, table: str, column: str, value: str
) -> None:
    id = json.loads((place / "dataset" / "train.jsonl").read_text().splitlines()[0])["id"]
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        journal.execute(f"UPDATE {table} SET {column} = ?", (value,))
    for command in READERS:
        done = CliRunner().invoke(app, command.format(place, id).split())
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, SynthgenError), (command, repr(done.exception))


CODES = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202e"
COMMANDS = (
    "show {0} {1}", "show {0}", "status {0}", "audit show {0} {1}", "audit explain {0} {1}",
    "audit verify {0}", "audit trace {0} words", "audit diff {0} {0}", "audit export {0} csv",
    "audit replay {0} --sample 2 --no-engine",
)  # fmt: skip


@pytest.mark.parametrize(
    ("table", "column"),
    [("records", "state"), ("records", "dropped_by"), ("records", "error"), ("completions", "text"),
     ("completions", "finish_reason"), ("sessions", "ended"), ("sessions", "outcome"), ("meta", "value")],
)  # fmt: skip
def test_what_a_terminal_would_obey_is_printed_by_no_command(place: Path, table: str, column: str) -> None:
    id = json.loads((place / "dataset" / "train.jsonl").read_text().splitlines()[0])["id"]
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        journal.execute("PRAGMA ignore_check_constraints = 1")
        journal.execute(f"UPDATE {table} SET {column} = coalesce({column}, '') || ?", (CODES,))
    for command in COMMANDS:
        with (
            pytest.MonkeyPatch.context() as patch,
            closing(io.StringIO()) as out,
            closing(io.StringIO()) as err,
        ):
            patch.setattr(sys, "argv", ["synthgen", *command.format(place, id).split()])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with contextlib.suppress(SystemExit):
                main()
            said = out.getvalue() + err.getvalue()
        assert said, command
        assert not set("\x1b\x07\x9b\u202e") & set(said), (command, said)
