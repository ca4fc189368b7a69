"""The first tasks' prompts, rendered without asking anything: what `validate` shows and `run` checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from synthgen.errors import Problem, RecipeError
from synthgen.loading import Loaded, LoadedStep
from synthgen.prompt import PromptFailed

SAMPLE = 20


@dataclass(frozen=True)
class Trial:
    """The first prompt, the mean number of characters and messages that a task asks, and how many failed.

    Characters and messages are by the step's name; those that did not render failed.
    """

    first: Sequence[Mapping[str, str]]
    characters: Mapping[str, float]
    messages: Mapping[str, float]
    failed: int


class _Later:
    """Stands for an answer that is not there yet when a prompt is shown: any part of it is another."""

    def __getattr__(self, name: str) -> _Later:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __str__(self) -> str:
        return "…"


def trial(loaded: Loaded) -> Trial:
    """Render the first tasks. Raises RecipeError, naming the prompt, where none of them renders."""
    names = {name for step in loaded.steps for name in (*step.fan.names, step.fan.item)}
    later: dict[str, Any] = {name: _Later() for name in names}
    tasks = list(islice(loaded.plan.tasks(), SAMPLE))
    first: list[dict[str, str]] = []
    characters, messages = Counter[str](), Counter[str]()
    failures: list[Problem] = []
    for task in tasks:
        if task.fault is not None:
            failures.append(Problem(task.fault, loaded.file.path))
            continue
        for step in loaded.steps:
            try:
                rendered = step.prompt.render({**later, **task.values})
            except PromptFailed as error:
                if _needs(step, later):
                    continue  # it works on an answer that is not there yet
                where = step.prompt.file or loaded.file.path
                failures.append(Problem(f"step {step.name} does not render: {error}", where))
                break
            first = first or rendered
            times = loaded.questions[step.name]
            messages[step.name] += times * len(rendered)
            characters[step.name] += times * sum(len(message["content"]) for message in rendered)
    if tasks and len(failures) == len(tasks):
        raise RecipeError(failures[:1])
    count = max(len(tasks) - len(failures), 1)
    each = [step.name for step in loaded.steps]
    return Trial(
        first,
        {name: characters[name] / count for name in each},
        {name: messages[name] / count for name in each},
        len(failures),
    )


def _needs(step: LoadedStep, later: Mapping[str, Any]) -> bool:
    return any(later.keys() & template.names() for _, template in step.prompt.turns)
