"""Proofs that a ledger has a record: one file, of which no byte can be edited."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import place_of
from synthgen.audit.proof import ProofVerdict, check_proof, write_proof
from synthgen.cli import app
from synthgen.errors import UsageError
from synthgen.provenance.keys import new_key
from tests.support import loaded, read_jsonl, recipe, run_it


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run that is signed, and the proof of one of its records."""
    root = tmp_path_factory.mktemp("signed")
    new_key(root / "key")
    new_key(root / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHGEN_SIGNING_KEY", str(root / "key.pem"))
        run_it(loaded(root, recipe(filters=[{"words": {"min": 6}}]), rows=21), directory=root / "run")
    write_proof(place_of(root / "run"), ids(root / "run")[5], root / "proof.json")
    return root


def ids(run: Path) -> list[str]:
    return [row["id"] for row in read_jsonl(run / "dataset" / "provenance" / "ledger.jsonl")]


def refused(file: Path, key: Path | None) -> bool:
    try:
        return not check_proof(file, key).intact
    except CannotJudge:
        return True


def test_every_record_can_be_proved_whatever_its_fate(signed: Path, tmp_path: Path) -> None:
    states = set()
    for index, id in enumerate(ids(signed / "run")):
        write_proof(place_of(signed / "run"), id, tmp_path / "p.json")
        verdict = check_proof(tmp_path / "p.json", signed / "key.pub")
        assert verdict.intact
        assert verdict.authentic is True
        assert (verdict.record["id"], verdict.index, verdict.size) == (id, index, 21)
        assert len(json.loads((tmp_path / "p.json").read_bytes())["path"]) <= 5
        states.add(verdict.record["state"])
    assert states == {"kept", "dropped"}


def test_the_dataset_alone_gives_the_same_proof(signed: Path, tmp_path: Path) -> None:
    shutil.copytree(signed / "run" / "dataset", tmp_path / "published")
    write_proof(place_of(tmp_path / "published"), ids(signed / "run")[5], tmp_path / "p.json")
    assert (tmp_path / "p.json").read_bytes() == (signed / "proof.json").read_bytes()


@pytest.mark.parametrize("key", ["key.pub", "other.pub", None])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_edited_byte_is_refused(
    signed: Path, tmp_path: Path, key: str | None, data: st.DataObject
) -> None:
    whole = (signed / "proof.json").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["replace", "insert", "remove"]))
    byte = data.draw(st.binary(min_size=1, max_size=1).filter(lambda each: each != whole[at : at + 1]))
    middle = {"replace": byte, "insert": byte + whole[at : at + 1], "remove": b""}[how]
    edited = whole[:at] + middle + whole[at + 1 :]
    place = tmp_path / "p.json"
    place.write_bytes(edited)
    assert refused(place, signed / key if key else None)


def test_every_bit_of_every_tenth_byte(signed: Path, tmp_path: Path) -> None:
    whole = (signed / "proof.json").read_bytes()
    for at in range(0, len(whole), 10):
        edited = bytearray(whole)
        edited[at] ^= 1 << (at // 10 % 8)
        (tmp_path / "p.json").write_bytes(edited)
        assert refused(tmp_path / "p.json", None), at


def forged(signed: Path, place: Path, change: Any) -> Path:
    """What somebody makes who knows the format: all that can be computed without the key is computed."""
    said = json.loads((signed / "proof.json").read_bytes())
    change(said)
    rest = {name: value for name, value in said.items() if name != "sha256"}
    said["sha256"] = hashlib.sha256(orjson.dumps(rest)).hexdigest()
    place.write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return place


def _state(said: dict[str, Any]) -> None:
    said["entry"] = said["entry"].replace('"kept"', '"failed"').replace('"dropped"', '"failed"')


def _root(said: dict[str, Any]) -> None:
    """A tree of one leaf, and a manifest that fits, with the signature of the other."""
    root = hashlib.sha256(b"\x00" + said["entry"].encode()).hexdigest()
    said |= {"path": [], "index": 0, "size": 1, "root": root}
    manifest = json.loads(base64.b64decode(said["manifest"]["payload"]))
    manifest["predicate"]["ledger"] |= {"size": 1, "root": root}
    said["manifest"]["payload"] = base64.b64encode(json.dumps(manifest).encode()).decode()


FORGED = {
    "entry": _state,
    "index": lambda said: said.update(index=said["index"] + 1),
    "size": lambda said: said.update(size=said["size"] + 1),
    "huge": lambda said: said.update(size=2**53 - 1, index=2**53 - 2),
    "path": lambda said: said["path"].append("0" * 64),
    "shorter": lambda said: said["path"].pop(),
    "root": lambda said: said.update(root="0" * 64),
    "not an entry": lambda said: said.update(entry="[]"),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_is_forged_without_touching_the_manifest(signed: Path, tmp_path: Path, how: str) -> None:
    assert not check_proof(forged(signed, tmp_path / "p.json", FORGED[how])).intact


def test_a_forged_manifest_is_unsigned(signed: Path, tmp_path: Path) -> None:
    """Without the key everything can be made to agree; that is why the signature is checked."""
    place = forged(signed, tmp_path / "p.json", _root)
    verdict = check_proof(place, signed / "key.pub")
    assert not verdict.intact
    assert verdict.authentic is False
    named = forged(
        signed, tmp_path / "q.json", lambda said: (_root(said), said["manifest"].update(signatures=[]))
    )
    assert check_proof(named, signed / "key.pub").authentic is False
    assert check_proof(named).intact  # unsigned, and says so
    assert check_proof(named).signers == []


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"{" * 100_000, b"\xff", b'{"format": "urn:synthgen:proof:v1"}', b"1e999"]
)
def test_what_is_no_proof(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.json").write_bytes(data)
    with pytest.raises(CannotJudge, match="is no proof of synthgen"):
        check_proof(tmp_path / "p.json")


def test_a_ledger_that_was_altered_proves_nothing(signed: Path, tmp_path: Path) -> None:
    shutil.copytree(signed / "run" / "dataset", tmp_path / "published")
    path = tmp_path / "published" / "provenance" / "ledger.jsonl"
    path.write_text(path.read_text().replace('"dropped"', '"kept"'))
    with pytest.raises(CannotJudge, match="is not what its manifest says"):
        write_proof(place_of(tmp_path / "published"), ids(signed / "run")[5], tmp_path / "p.json")
    with pytest.raises(UsageError, match="cannot be written"):
        write_proof(place_of(signed / "run"), ids(signed / "run")[5], tmp_path)


def test_the_commands(signed: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    file, id = tmp_path / "p.json", ids(signed / "run")[5]
    shown = runner.invoke(app, ["audit", "show", str(signed / "run"), id, "--proof", str(file)])
    assert shown.exit_code == 0, shown.output
    assert file.read_bytes() == (signed / "proof.json").read_bytes()
    done = runner.invoke(app, ["audit", "verify", "--proof", str(file)])
    assert done.exit_code == 0
    assert "intact" in done.stdout
    assert "not checked" in done.stdout
    for option, key, code in [
        ("--key", "key.pub", 0), ("--key", "other.pub", 0),
        ("--require-signature", "key.pub", 0), ("--require-signature", "other.pub", 1),
    ]:  # fmt: skip
        done = runner.invoke(app, ["audit", "verify", "--proof", str(file), option, str(signed / key)])
        assert done.exit_code == code, done.output
        assert ("NOT signed by the key" in done.stdout) == (key == "other.pub")
    file.write_bytes(file.read_bytes().replace(b'"index": 5', b'"index": 6'))
    altered = runner.invoke(app, ["audit", "verify", "--proof", str(file), "--json"])
    assert altered.exit_code == 1
    assert json.loads(altered.stdout)["intact"] is False
    (tmp_path / "none.json").write_text("{}")
    assert runner.invoke(app, ["audit", "verify", "--proof", str(tmp_path / "none.json")]).exit_code == 2


def test_a_proof_of_a_run_that_published_nothing(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, recipe()), directory=tmp_path / "run")
    shutil.rmtree(result.dir / "dataset")
    with pytest.raises(CannotJudge, match="holds no dataset"):
        write_proof(place_of(result.dir), "00", tmp_path / "p.json")
    assert isinstance(ProofVerdict(tmp_path).as_json(), dict)
