"""What the commands of `audit` are given by a stranger: pipes, devices, keys and files that are none."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from synthgen.audit.findings import CannotJudge
from synthgen.audit.verify import verify
from synthgen.provenance.keys import new_key
from tests.audit.test_verify import AS_WRITTEN, found
from tests.support import loaded, recipe, run_it


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    said = recipe(filters=[{"words": {"min": 5}}])
    return run_it(loaded(root, said, rows=12), directory=root / "runs" / "a").dir


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / "a"))


def audited(*arguments: object, seconds: float = 60) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "synthgen", "audit", *map(str, arguments)],
        capture_output=True, check=False, text=True, timeout=seconds,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def no_file(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/zero")
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
@pytest.mark.parametrize("option", ["--proof", "--checkpoint", "--key", "--require-signature"])
def test_an_argument_that_is_no_file(place: Path, tmp_path: Path, kind: str, option: str) -> None:
    given = tmp_path / "given"
    no_file(given, kind)
    code, said = audited("verify", *([] if option == "--proof" else [place]), option, given)
    assert code == 2, said
    assert "is no regular file" in said


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/zero")
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
@pytest.mark.parametrize(
    "command",
    [
        "replay {0} --sample 1 --no-engine", "trace {0} words", "export {0} prov", "export {0}/dataset csv",
        "diff {0} {0}", "checkpoint {0}", "checkpoint {0} --since {0}/recipe.lock.yaml", "explain {0} {1}",
        "show {0}/dataset {1}", "erase {0} {1} --yes", "trace {0} words --quarantine",
    ],
)  # fmt: skip
def test_a_lock_that_is_no_file(place: Path, kind: str, command: str) -> None:
    id = json.loads((place / "dataset" / "train.jsonl").read_text().splitlines()[0])["id"]
    for name in ("recipe.lock.yaml", "dataset/provenance/recipe.lock.yaml"):
        no_file(place / name, kind)
    code, said = audited(*command.format(place, id).split())
    assert code in (0, 2), said


@pytest.mark.parametrize(
    "name", ["provenance/a\0b.jsonl", "data/\0.parquet", "x" * 4000, "a//b", "./train.jsonl"]
)
def test_names_that_no_file_has(place: Path, name: str) -> None:
    path = place / "dataset" / "manifest.json"
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    said["subject"].append({**said["subject"][0], "name": name})
    envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))
    assert name in found(verify(place))


def signed(place: Path, *signatures: dict[str, str]) -> None:
    for path in (place / "dataset" / "manifest.json", place / "manifest.json"):
        envelope = json.loads(path.read_bytes())
        envelope["signatures"] += signatures
        path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))


def test_a_signature_that_bears_the_name_of_the_key_and_is_none_of_it(place: Path, tmp_path: Path) -> None:
    """Somebody took the key's name; that is an edit, also for those who do not require a signature."""
    keyid = new_key(tmp_path / "mine")
    signed(place, {"keyid": keyid, "sig": base64.b64encode(bytes(64)).decode()})
    verdict = verify(place, tmp_path / "mine.pub")
    assert not verdict.authentic
    for name in ("dataset/manifest.json", "manifest.json"):
        assert f"{name}: signatures: names the key that was given, which did not sign this" in found(verdict)


def test_a_name_that_was_added_to_the_signers_is_not_shown_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key(tmp_path / "mine")
    monkeypatch.setenv("SYNTHGEN_SIGNING_KEY", str(tmp_path / "mine.pem"))
    place = run_it(loaded(tmp_path, recipe(), rows=4), directory=tmp_path / "runs" / "a").dir
    code, said = audited("verify", place / "dataset", "--key", tmp_path / "mine.pub")
    assert code == 0, said
    famous = "f" * 64
    signed(place, {"keyid": famous, "sig": base64.b64encode(bytes(64)).decode()})
    code, said = audited("verify", place / "dataset", "--key", tmp_path / "mine.pub")
    assert "signed by the key that was given" in said
    assert famous not in said.split("authentic")[1]
    shown: dict[str, Any] = json.loads(
        audited("verify", place / "dataset", "--key", tmp_path / "mine.pub", "--json")[1]
    )
    assert famous not in shown["signed_by"]


def test_a_journal_with_columns_that_are_computed(place: Path) -> None:
    """Each row of it would take as long as whoever made it likes."""
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        journal.executescript(
            "ALTER TABLE requests RENAME TO old; CREATE TABLE requests (key BLOB PRIMARY KEY, body BLOB AS "
            "(hex(zeroblob(400000000))) VIRTUAL, session INTEGER, issued REAL); "
            "INSERT INTO requests (key, session, issued) SELECT key, session, issued FROM old"
        )
    code, said = audited("verify", place)
    assert code == 1
    assert "run.sqlite" in said


@pytest.mark.parametrize("gone", ["requests", "records"])
def test_what_a_record_followed_from_is_there(place: Path, gone: str) -> None:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        journal.execute(
            f"DELETE FROM {gone} WHERE rowid = 1" if gone == "requests" else "DELETE FROM records"
        )
    assert "run.sqlite" in found(verify(place)) or "ledger.jsonl" in found(verify(place))


def test_versions_in_versions_are_not_followed_down(place: Path) -> None:
    folder = place
    for _ in range(60):
        folder = folder / "versions" / "2"
    folder.mkdir(parents=True)
    for each in (place / "versions" / "2", place / "versions" / "2" / "versions" / "2"):
        shutil.copytree(place / "dataset", each / "dataset")
    verdict = verify(place)
    assert not verdict.intact
    assert "versions/2" in found(verdict)


@pytest.mark.parametrize("name", ["9" * 30, "\u0663", "007", "2.5"])
def test_a_version_of_a_number_that_is_none(place: Path, name: str) -> None:
    shutil.copytree(place, place / "versions" / name, ignore=shutil.ignore_patterns("versions", "run.*"))
    assert f"versions/{name}: was added" in found(verify(place))
    assert not verify(place / "versions" / name).journal


def test_a_journal_with_versions_without_end(place: Path) -> None:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        journal.execute(
            "INSERT INTO versions (version, command, fingerprint, started, finished, summary, chain) "
            "SELECT 9000000000000000000, command, 'x', started, finished, summary, chain FROM versions"
        )
    assert not verify(place).intact


def test_a_lock_nested_as_deep_as_can_be(place: Path) -> None:
    for text in ("[" * 200_000, "a: " * 3 + "\n" + "- " * 100_000, "x: &a [1]\n" + "y: *a\n" * 100_000):
        (place / "dataset" / "provenance" / "recipe.lock.yaml").write_text(text)
        with pytest.raises(CannotJudge):
            raise_of(place)


def raise_of(place: Path) -> None:
    from synthgen.audit.place import place_of

    place_of(place).lock()
