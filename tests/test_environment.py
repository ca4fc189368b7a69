"""What a session runs on: the state of the source, and no variable that is not on the list."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synthgen import environment as module
from synthgen.environment import environment, source


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a package of two files, in which synthgen believes to be."""
    package = tmp_path / "synthgen"
    package.mkdir()
    (package / "a.py").write_text("A = 1\n")
    (package / "b.py").write_text("B = 1\n")
    monkeypatch.setattr(module, "_PACKAGE", package)
    return package


def said() -> dict[str, Any]:
    source.cache_clear()
    try:
        return dict(source())
    finally:
        source.cache_clear()


def git(place: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", str(place), *who, *arguments], capture_output=True, check=True, text=True
    )
    return done.stdout.strip()


def test_the_digest_is_of_every_file(checkout: Path) -> None:
    first = said()
    assert list(first) == ["sha256"]  # no checkout yet
    assert said() == first
    (checkout / "b.py").write_text("B = 2\n")
    second = said()
    (checkout / "c.py").write_text("")
    third = said()
    assert len({each["sha256"] for each in (first, second, third)}) == 3


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_checkout_has_a_commit_and_may_be_dirty(checkout: Path) -> None:
    root = checkout.parent
    git(root, "init", "-q")
    assert "commit" not in said()
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "one")
    commit = git(root, "rev-parse", "HEAD")
    assert (said()["commit"], said()["dirty"]) == (commit, False)
    (root / "notes.txt").write_text("nothing of synthgen's")
    assert said()["dirty"] is False
    (checkout / "a.py").write_text("A = 2\n")
    assert (said()["commit"], said()["dirty"]) == (commit, True)
    git(root, "checkout", "-q", "--", "synthgen")
    (checkout / "new.py").write_text("")
    assert said()["dirty"] is True


def test_without_git_there_is_the_digest(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout.parent / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert list(said()) == ["sha256"]


def test_variables_are_those_of_the_list_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in module.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("SYNTHGEN_PATIENCE", "/home/somebody/secret")
    monkeypatch.setenv("SYNTHGEN_API_KEY", "hidden")
    monkeypatch.setenv("SYNTHGEN_BASE_URL", "hidden")
    monkeypatch.setenv("SYNTHGEN_MODEL", "hidden")
    assert environment()["variables"] == {"OMP_NUM_THREADS": "2"}
    assert "hidden" not in str(environment())


def test_it_says_what_this_process_is() -> None:
    found = environment()
    assert {"orjson", "pydantic", "pydantic-core", "typer"} <= found["packages"].keys()
    assert found["python"] == sys.version.split()[0]
    assert found["source"] == said()
