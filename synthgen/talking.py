"""Conversations that are had: each question asked in its turn, through the run's journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.asking import Asker, Manner, Paper
from synthgen.loaded import LoadedStep
from synthgen.recipe_steps import MOST
from synthgen.talk import Question


def numbered_apart(place: int, before: int) -> int:
    """The number of a request that as many equal ones of its conversation come before.

    `place` counts the equal conversations before it, so that none of them shares an answer.
    """
    return place + MOST * before


async def had(
    asker: Asker, step: LoadedStep, values: Mapping[str, Any], place: int, paper: Paper
) -> list[dict[str, Any]]:
    """The messages of one conversation. Raises as `Talk.asking` and `Asker.answer` do."""
    assert step.talk is not None
    asking, answer = step.talk.asking(values), None
    manners: dict[tuple[str, int], Manner] = {}
    while True:
        try:
            question = asking.send(answer)
        except StopIteration as end:
            return list(end.value)
        who = question.voice, id(question.form)
        if who not in manners:
            manners[who] = _manner(asker, step, question)  # it holds the form: no other has that id
        body = manners[who].frame.body(question.messages, repeat=paper.repeat)
        number = numbered_apart(place, paper.numbered([body])[0])
        answer = await asker.answer(manners[who], question.messages, paper, (body, number))


def begun(asker: Asker, step: LoadedStep, values: Mapping[str, Any], repeat: int) -> bool:
    """Whether the first question of a conversation is answered already. Raises as `Talk.asking` does."""
    assert step.talk is not None
    question = next(step.talk.asking(values))
    return asker.knows(_manner(asker, step, question), question.messages, repeat)


def _manner(asker: Asker, step: LoadedStep, question: Question) -> Manner:
    voice = step.others[question.voice] if question.voice else step
    return asker.manner(voice.model, voice.sampling, question.form)
