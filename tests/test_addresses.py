"""Addresses of servers that filters name: what they carry besides is nowhere that a run writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen import driver
from synthgen.chain import without_secrets
from synthgen.engines import embeddings
from synthgen.errors import SynthgenError
from synthgen.workers import InProcess
from tests.support import loaded, recipe, run_it, tree


@pytest.mark.parametrize(
    "address", ["http://me:canary77@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key=canary77"]
)
def test_an_address_that_carries_a_secret(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings.random, "uniform", lambda low, high: 0.0)
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    said = recipe(
        filters=[{"semantic_duplicate": {"model": {"id": "some", "base_url": address}, "max": 0.9}}],
        steps=None, model=None, record={"from": "doc"},
        seeds={"doc": {"path": "data/docs.jsonl"}},
    )  # fmt: skip
    rows = [{"prompt": f"ask {number}", "completion": f"say {number}"} for number in range(3)]
    with pytest.raises(SynthgenError):
        run_it(loaded(tmp_path, said, rows=rows), directory=tmp_path / "run")
    held = tree(tmp_path / "run")
    assert "run.sqlite" in held
    assert [name for name, data in held.items() if b"canary77" in data] == []


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("http://me:x@host:8000/v1", "http://host:8000/v1"),
        ("https://host/v1/?key=x#y", "https://host/v1/"),
        ("http://[::1]:80/v1?a", "http://[::1]:80/v1"),
        ("http://host/v1/", "http://host/v1/"),
        ("http://[half", ""),
    ],
)
def test_what_is_left_of_it(given: str, left: str) -> None:
    assert without_secrets({"a": [{"base_url": given}], "b": given}) == {
        "a": [{"base_url": left}],
        "b": given,
    }
