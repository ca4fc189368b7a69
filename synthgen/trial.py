"""The first tasks' prompts, rendered without asking anything: what `validate` shows and `run` checks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from synthgen.errors import Problem, RecipeError
from synthgen.loaded import Loaded, LoadedStep
from synthgen.prompt import PromptFailed
from synthgen.steps import NoQuestions
from synthgen.yamlfile import did_you_mean

SAMPLE = 20


@dataclass(frozen=True)
class Trial:
    """The first prompt, the mean number of characters and messages that a task asks, and how many failed.

    Characters and messages are by the names of `Loaded.questions`; tasks that did not render failed.
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
    first: Sequence[Mapping[str, str]] = []
    characters, messages = Counter[str](), Counter[str]()
    failures: list[Problem] = []
    for task in tasks:
        if task.fault is not None:
            failures.append(Problem(task.fault, loaded.file.path))
            continue
        for step in loaded.steps:
            try:
                asked = _asked(step, {**later, **task.values})
            except (PromptFailed, NoQuestions) as error:
                if later.keys() & step.reads:
                    continue  # it works on an answer that is not there yet
                failures.append(_failure(loaded, step, str(error), task.values))
                break
            first = first or asked.get(f"{step.name}/user") or asked[step.name]
            for name, rendered in asked.items():
                times = loaded.questions[name]
                messages[name] += times * len(rendered)
                characters[name] += times * sum(len(message.get("content", "")) for message in rendered)
    if tasks and len(failures) == len(tasks):
        raise RecipeError(failures[:1])
    count = max(len(tasks) - len(failures), 1)
    each = loaded.questions
    return Trial(
        first,
        {name: characters[name] / count for name in each},
        {name: messages[name] / count for name in each},
        len(failures),
    )


def _failure(loaded: Loaded, step: LoadedStep, error: str, values: Mapping[str, Any]) -> Problem:
    """Where a step does not render: the line of its prompt, with the nearest name where one is not there."""
    said = f"step {step.name} does not render: {error}"
    missing = re.search(r"has no attribute '([^']+)'$", error)
    known = {str(key) for value in values.values() if isinstance(value, Mapping) for key in value}
    hint = did_you_mean(missing[1], known) if missing else None
    if step.prompt.file is not None:
        lines = step.prompt.file.read_text().splitlines()
        word = rf"\b{re.escape(missing[1])}\b" if missing else "$^"
        line = next((number for number, text in enumerate(lines, 1) if re.search(word, text)), None)
        return Problem(said, step.prompt.file, line, hint=hint)
    place = next(at for at, (name, _) in enumerate(loaded.recipe.named_steps()) if name == step.name)
    return loaded.file.problem(("steps", place, step.name, "prompt"), said, hint)


def _asked(step: LoadedStep, values: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, str]]]:
    """What is asked first, by whom it is asked of."""
    if step.talk is None:
        return {step.name: step.prompt.render(values)}
    return {step.called(key): rendered for key, rendered in step.talk.beginnings(values).items()}
