"""Signatures: who signed, whether it was the key that the auditor brings, and that nobody else can."""

from __future__ import annotations

import base64
import json
import shutil
import stat
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.errors import UsageError
from synthgen.provenance.keys import new_key, signing_key
from tests.audit.test_verify import AS_WRITTEN
from tests.support import loaded, run_it


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTHGEN_CONFIG", str(tmp_path / "config" / "config.toml"))
    return tmp_path / "config" / "keys"


def test_a_run_is_signed_with_the_default_key(keys: Path, tmp_path: Path) -> None:
    keyid = new_key(keys / "default")
    assert stat.S_IMODE((keys / "default.pem").stat().st_mode) == 0o600
    result = run_it(loaded(tmp_path), directory=tmp_path / "run")
    assert verify(result.dir).signers == [keyid]
    assert verify(result.dir).authentic is None
    assert verify(result.dir, keys / "default.pub").authentic is True
    shutil.copytree(result.dir / "dataset", tmp_path / "published")
    assert verify(tmp_path / "published", keys / "default.pub").authentic is True


def test_another_key_or_none_is_told(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_key(keys / "other")
    unsigned = run_it(loaded(tmp_path), directory=tmp_path / "unsigned")
    assert verify(unsigned.dir, keys / "other.pub").authentic is False
    new_key(keys / "mine")
    monkeypatch.setenv("SYNTHGEN_SIGNING_KEY", str(keys / "mine.pem"))
    signed = run_it(loaded(tmp_path), directory=tmp_path / "signed")
    assert verify(signed.dir, keys / "other.pub").authentic is False
    assert verify(signed.dir, keys / "mine.pub").authentic is True


@pytest.mark.parametrize("which", ["dataset/manifest.json", "manifest.json"])
@pytest.mark.parametrize("how", ["payload", "signature", "removed", "keyid"])
def test_a_signed_manifest_that_was_edited(keys: Path, tmp_path: Path, which: str, how: str) -> None:
    new_key(keys / "default")
    result = run_it(loaded(tmp_path), directory=tmp_path / "run")
    path = result.dir / which
    envelope = json.loads(path.read_bytes())
    if how == "payload":
        said = json.loads(base64.b64decode(envelope["payload"]))
        said["subject"][0]["digest"]["sha256"] = "0" * 64
        envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    elif how == "signature":
        sig = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        sig[5] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(sig).decode()
    elif how == "keyid":
        envelope["signatures"][0]["keyid"] = "0" * 64
    else:
        envelope["signatures"] = []
    path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))
    assert verify(result.dir, keys / "default.pub").authentic is False


def test_equal_runs_are_signed_alike(keys: Path, tmp_path: Path) -> None:
    """What they publish; the run's own manifest is over their sessions too."""
    new_key(keys / "default")
    one = run_it(loaded(tmp_path), directory=tmp_path / "one")
    two = run_it(loaded(tmp_path), directory=tmp_path / "two")
    first, second = ((each.dir / "dataset" / "manifest.json").read_bytes() for each in (one, two))
    assert first == second
    assert verify(two.dir, keys / "default.pub").authentic is True


def test_keys_that_are_none(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no key")
    monkeypatch.setenv("SYNTHGEN_SIGNING_KEY", str(bad))
    with pytest.raises(UsageError, match="cannot be read"):
        run_it(loaded(tmp_path), directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("SYNTHGEN_SIGNING_KEY", str(tmp_path / "gone.pem"))
    with pytest.raises(UsageError, match="cannot be read"):
        signing_key({"SYNTHGEN_SIGNING_KEY": str(tmp_path / "gone.pem")})
    monkeypatch.delenv("SYNTHGEN_SIGNING_KEY")
    result = run_it(loaded(tmp_path), directory=tmp_path / "run")
    with pytest.raises(UsageError, match="public key"):
        verify(result.dir, bad)


def test_the_commands(keys: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    made = runner.invoke(app, ["keys", "new"])
    assert made.exit_code == 0, made.output
    public = Path(made.stdout.strip())
    assert public == keys / "default.pub"
    result = run_it(loaded(tmp_path), directory=tmp_path / "run")
    shown = runner.invoke(app, ["audit", "verify", str(result.dir)])
    assert shown.exit_code == 0
    assert "intact" in shown.stdout
    assert "not checked" in shown.stdout
    for option in ("--key", "--require-signature"):
        done = runner.invoke(app, ["audit", "verify", str(result.dir), option, str(public)])
        assert done.exit_code == 0, done.output
        assert "signed by the key that was given" in done.stdout
    new_key(keys / "other")
    other = str(keys / "other.pub")
    assert runner.invoke(app, ["audit", "verify", str(result.dir), "--key", other]).exit_code == 0
    refused = runner.invoke(app, ["audit", "verify", str(result.dir), "--require-signature", other, "--json"])
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["authentic"] is False
    (result.dir / "dataset" / "train.jsonl").write_text("{}\n")
    altered = runner.invoke(app, ["audit", "verify", str(result.dir)])
    assert altered.exit_code == 1
    assert "dataset/train.jsonl" in altered.stdout
    assert runner.invoke(app, ["audit", "verify", str(tmp_path)]).exit_code == 2
