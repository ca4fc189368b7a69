"""Filters of installed packages, found by their entry points, also in processes that measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import project, read_jsonl, recipe, write

CODE = '''
from synthgen import filter

@filter(max=0)
def exclaims(record):
    """How many exclamation marks it has."""
    return record.text.count("!")

@filter(min=1)
class starts:
    """1 where it starts so."""
    def __init__(self, *, with_: str):
        self.start = with_
    def measure(self, record):
        return record.text.startswith(self.start)

@filter(min=1)
def breaks(record):
    """Raises, in a library of Python's own."""
    import json
    return json.loads(record.text)

def plain(record):
    return 1
'''


def installed(site: Path, name: str, entries: str) -> None:
    """What an installer leaves of a package."""
    write(
        site,
        {
            f"{name}.py": CODE,
            f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{name}-1.0.dist-info/entry_points.txt": f"[synthgen.filters]\n{entries}\n",
        },
    )


def synthgen(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-m", "synthgen", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=False,
    )


def curating(root: Path, *filters: object, rows: int = 3) -> Path:
    said = recipe(
        model=None,
        steps=None,
        seeds={"row": {"path": "data/docs.jsonl"}},
        record={"from": "row"},
        filters=list(filters),
    )
    chats = [{"prompt": "Say.", "completion": f"So{'!' * (number % 3)}"} for number in range(rows)]
    return project(root, said, rows=chats)


def test_a_package_gives_filters_by_name(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed(site, "loudness", "exclaims = loudness:exclaims\nbegins = loudness:starts")
    root = tmp_path / "project"
    curating(root, "exclaims", {"begins": {"with": "So"}}, rows=1500)  # measured in processes
    done = synthgen(site, "run", "recipes/a.yaml", "--json", cwd=root)
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["kept"], json.loads(done.stdout)["dropped"]) == (500, 1000)
    told = read_jsonl(root / "runs" / "a" / "dataset" / "provenance" / "train.jsonl")
    assert told[0]["measurements"]["begins"]["value"] == 1
    shown = synthgen(site, "filters", "show", "exclaims", cwd=root)
    assert "exclaims  (loudness, record)" in shown.stdout
    assert "begins" in synthgen(site, "filters", "list", cwd=root).stdout


def test_an_error_names_the_packages_own_line(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    installed(site, "loudness", "breaks = loudness:breaks")
    root = tmp_path / "project"
    curating(root, "breaks")
    done = synthgen(site, "run", "recipes/a.yaml", cwd=root)
    assert done.returncode == 3
    assert "JSONDecodeError" in done.stderr
    assert "(line 21 of loudness.py)" in done.stderr


def test_two_packages_of_one_name(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name in ("loudness", "noises"):
        installed(site, name, f"exclaims = {name}:exclaims")
    root = tmp_path / "project"
    curating(root, "exclaims")
    done = synthgen(site, "validate", "recipes/a.yaml", cwd=root)
    assert done.returncode == 2
    assert "loudness:exclaims and noises:exclaims" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_a_filter_or_does_not_import(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed(site, "loudness", "plain = loudness:plain\ngone = nowhere:it")
    for name, said in (("plain", "is not a filter"), ("gone", "No module named 'nowhere'")):
        root = tmp_path / name
        curating(root, name)
        done = synthgen(site, "validate", "recipes/a.yaml", cwd=root)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert said in done.stderr
