"""Options that several commands share, and how their results are printed."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

OPEN = "… (the model writes this turn)"  # in place of a message's text
RecipeArgument = Annotated[str, typer.Argument(help="A recipe's file, or the name of one that ships.")]
DirectoryArgument = Annotated[Path, typer.Argument(help="A run directory.")]
VersionOption = Annotated[
    int | None, typer.Option("--version", help="A version that `synthgen curate` made, instead of the run's.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine", help="vllm, openai or llamacpp, instead of the recipe's.", envvar="SYNTHGEN_ENGINE"
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="An alias, a path or a hub id, instead of the recipe's.", envvar="SYNTHGEN_MODEL"
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option("--base-url", help="The OpenAI-compatible server to ask.", envvar="SYNTHGEN_BASE_URL"),
]
TasksOption = Annotated[
    int | None,
    typer.Option("--tasks", help="So many tasks, instead of the recipe's.", min=1, envvar="SYNTHGEN_TASKS"),
]
AllowOption = Annotated[
    list[Path] | None,
    typer.Option("--allow-path", help="A folder that seeds may be read from.", envvar="SYNTHGEN_ALLOW_PATH"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def version_callback(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from synthgen import __version__

        out(f"synthgen {__version__}")
        raise typer.Exit


@contextmanager
def results_only() -> Iterator[None]:
    """What filters print goes to standard error, where it is in nobody's way."""
    with redirect_stdout(sys.stderr):
        yield


def on_a_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def out(text: str) -> None:
    """A line of results, to standard output."""
    try:
        sys.stdout.write(f"{text}\n")
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        _mute(sys.stdout)  # a terminal that was closed


def note(text: str) -> None:
    """A line about what happens, to standard error, safe on a terminal whatever it quotes."""
    say(f"{plain(text)}\n")


def say(text: str) -> None:
    """Write to standard error, at once; that nobody hears it any more is no reason to end a run."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _mute(sys.stderr)


def _mute(stream: TextIO) -> None:
    """From here on it leads nowhere, what it still holds included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def out_json(data: Mapping[str, Any] | list[Any]) -> None:
    """Results as JSON, to standard output."""
    out(json.dumps(data, ensure_ascii=False, indent=2))


def plain(text: str, limit: int | None = None) -> str:
    """Text from a model or a file, safe on a terminal: no control codes; cut where it is too long."""
    text = text if limit is None else text[: limit + 1]
    safe = "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
    return safe if limit is None or len(safe) <= limit else safe[: limit - 1] + "…"


def bound(low: float | None, high: float | None) -> str:
    """A bound for people: `5 to 400`, `at most 0.5`, `at least 2`."""
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if high is not None:
        return f"at most {high:g}"
    return "" if low is None else f"at least {low:g}"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned columns, the first row as their heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])
