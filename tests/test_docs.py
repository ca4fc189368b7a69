"""The documentation is true: its files are written, its recipes load, its code and commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from synthgen import load

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code: its language, the file it is to be written to, if any, and its text."""

    language: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*match.groups()) for match in BLOCK.finditer(page.read_text())]


def synthgen(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """With a configuration of its own, so that no key and no setting of whoever runs the tests is there."""
    command = [sys.executable, "-m", "synthgen", *arguments]
    environment = {**os.environ, "SYNTHGEN_CONFIG": str(cwd / "config" / "config.toml"), **more}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def project(page: Path, folder: Path) -> Path:
    """A new project with every file that the page shows."""
    made = synthgen("init", str(folder / "project"), cwd=folder)
    assert made.returncode == 0, made.stderr
    for block in blocks(page):
        if block.file:
            place = folder / "project" / block.file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.text)
    return folder / "project"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_load(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(page, tmp_path)
    monkeypatch.chdir(root)
    for block in blocks(page):
        if block.file.startswith("recipes/"):
            assert load(root / block.file).recipe.name == Path(block.file).stem


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_filters_measure(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(page, tmp_path)
    monkeypatch.chdir(root)
    for block in blocks(page):
        if block.file.startswith("filters/"):
            shown = synthgen("filters", "show", Path(block.file).stem, cwd=root)
            assert shown.returncode == 0, shown.stderr
            assert "(project," in shown.stdout


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of earlier pages: several run the recipe that `init` writes, and the model answers once."""
    return tmp_path_factory.mktemp("answered")


@pytest.mark.llamacpp
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_and_commands_run(page: Path, tmp_path: Path, answered: Path) -> None:
    root = project(page, tmp_path)
    reuse = {"SYNTHGEN_REUSE": str(answered)} if any(answered.iterdir()) else {}
    for block in blocks(page):
        if block.language == "console":
            for line in block.text.splitlines():
                if line.startswith("$ synthgen "):
                    done = synthgen(*line.removeprefix("$ synthgen ").split(), cwd=root, **reuse)
                    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        elif block.language == "python" and not block.file:
            done = subprocess.run(
                [sys.executable, "-c", block.text], cwd=root, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block.text}\n{done.stderr}"
    for run in root.glob("runs/*"):
        shutil.copytree(run, answered / f"{page.stem}-{run.name}")


def test_every_command_and_shipped_filter_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    listed = synthgen("--help", cwd=ROOT).stdout.partition("Commands:")[2]
    commands = re.findall(r"^  (\w+) ", listed, re.MULTILINE)
    assert "run" in commands
    assert [name for name in commands if f"synthgen {name}" not in text] == []
    names = [path.stem for path in (ROOT / "filters").glob("*.py") if path.stem[0] != "_"]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_schema_is_the_one_that_the_models_give() -> None:
    import json

    from synthgen.recipe_schema import json_schema

    written = json.loads((ROOT / "synthgen" / "recipe.schema.json").read_text())
    assert written == json_schema(), "run `make schema`"
