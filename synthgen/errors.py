"""Errors that are meant to be read by people, each with the exit code it ends a command with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class SynthgenError(Exception):
    """What went wrong, and what to do next. The command line prints it without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one place of a file; line and column count from 1."""

    message: str
    file: Path | None = None
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        where = "" if self.file is None else str(self.file)
        if self.line is not None:
            where += f":{self.line}"
            if self.column is not None:
                where += f":{self.column}"
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class UsageError(SynthgenError):
    """The command or one of its arguments is wrong (exit 2)."""

    exit_code = 2


class RecipeError(SynthgenError):
    """The recipe, or a file that it names, is wrong (exit 2). Carries every problem found."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class RunError(SynthgenError):
    """A run failed while running (exit 1)."""


class EngineUnreachable(SynthgenError):
    """The engine, its server or its model cannot be had (exit 4)."""

    exit_code = 4
