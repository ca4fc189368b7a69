"""What is installed is whole: a wheel built from the sdist holds filters, prompts and recipes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTENT = ("filters", "prompts", "recipes")
OTHERS = ("synthgen/starter", "synthgen/report", "synthgen/py.typed", "synthgen/recipe.schema.json")


def expected() -> set[str]:
    """The files of the content folders, of the starter project and of reports, as a wheel names them."""
    tracked = subprocess.run(
        ["git", "ls-files", *CONTENT, *OTHERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {name if name.startswith("synthgen/") else f"synthgen/{name}" for name in tracked}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from an sdist, as an installer without a wheel would."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_content_folders(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert expected() - set(archive.namelist()) == set()


@pytest.mark.slow
def test_installed_it_validates_a_shipped_recipe_by_name(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import sys; sys.path.insert(0, 'site'); from synthgen.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "validate", "quickstart"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
