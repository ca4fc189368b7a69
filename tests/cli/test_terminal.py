"""What a model, a seed or a recipe says does nothing to a terminal, whichever command shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.engines.base import Request, RequestFailed
from tests.cli.test_commands import Command, command
from tests.hostile.previewed import TERMINAL
from tests.support import FakeEngine, project, recipe

__all__ = ["command"]


def quiet(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


@pytest.fixture
def hostile(tmp_path: Path, command: Command) -> str:
    """A run of which everything that may be a stranger's has control codes in it; the id of a record."""
    said = recipe(
        description=f"A recipe {TERMINAL}".replace("\0", ""),
        record={"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}], "more": "{{ doc }}"},
        filters=[{"words": {"min": 1}}, {"duplicate": {"max": 0.9}}],
    )
    rows = [{"text": f"{number} {TERMINAL}"} for number in range(6)]
    project(tmp_path, said, rows=rows)

    def answer(request: Request) -> object:
        content = str(request.messages[0]["content"])
        return RequestFailed(f"no {TERMINAL}") if "of 3 " in content else f"{content[-20:]} {TERMINAL} words"

    ended = command("run", "a", engine=FakeEngine(answer))
    assert quiet(ended.out + ended.err)
    assert "1 task failed" in ended.err
    return str(command("show", "runs/a", "--json").json[0]["id"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "runs/a"),
        ("show", "runs/a", "ID"),
        ("show", "runs/a", "--state", "failed"),
        ("status", "runs/a"),
        ("stats", "runs/a"),
        ("report", "runs/a", "--text"),
        ("audit", "show", "runs/a", "ID"),
        ("audit", "explain", "runs/a", "ID"),
        ("validate", "a"),
        ("preview", "a"),
    ],
    ids=" ".join,
)
def test_no_command_shows_a_control_code(command: Command, hostile: str, arguments: tuple[str, ...]) -> None:
    ended = command(*(hostile if each == "ID" else each for each in arguments), engine=FakeEngine())
    assert ended.code in (0, 3), ended.err
    assert ended.out
    assert quiet(ended.out + ended.err)


def test_names_in_a_recipe_are_shown_without_their_codes(tmp_path: Path, command: Command) -> None:
    project(tmp_path, recipe(model="org/\u202emodel\x1b[31m"))
    ended = command("validate", "a")
    assert quiet(ended.out + ended.err)
    broken = command("run", "\x1b[2Jnothing")
    assert broken.code == 2
    assert quiet(broken.err)
