from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synthgen.workplace import workplace

KILLED = """
import os, signal, sys
from pathlib import Path
from synthgen.workplace import workplace

with workplace(Path(sys.argv[1])) as made:
    (made / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def held(folder: Path) -> list[Path]:
    """What is there but locks: filelock removes them or keeps them, by its version."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def make(target: Path) -> bool:
    with workplace(target) as made:
        if target.exists():
            return False
        (made / "whole").write_text("all of it")
        (made / "whole").rename(target)
        return True


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "weights"
    assert subprocess.run([sys.executable, "-c", KILLED, target], check=False).returncode == -signal.SIGKILL
    assert [file.read_text() for file in target.parent.rglob("half")] == ["of it"]
    assert make(target)
    assert held(target.parent) == [target]


def test_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, [tmp_path / "weights"] * 8)) == 1
    assert held(tmp_path) == [tmp_path / "weights"]


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with workplace(tmp_path / "weights") as made:
            (made / "half").write_text("of it")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert held(tmp_path) == []
