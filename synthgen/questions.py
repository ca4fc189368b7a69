"""The filters that ask a model, at work: their questions, the answers, and what these say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from synthgen.answers import Form, InvalidAnswer
from synthgen.asking import Asker, Manner, Paper
from synthgen.chain import ChainFilter
from synthgen.engines.base import RequestFailed
from synthgen.measure import EngineMeasure, FilterFailed, Measurement, Question
from synthgen.record import Record
from synthgen.spending import Spent

SAMPLING: dict[str, Any] = {"temperature": 0.0, "max_tokens": 512}


class Questions:
    """Asks for each filter of kind `engine`. Raises nothing but Stopped and EngineUnreachable."""

    def __init__(self, chain: Sequence[ChainFilter], asker: Asker) -> None:
        self._asker = asker
        self._at_work: dict[str, tuple[ChainFilter, EngineMeasure]] = {}
        self._manners: dict[bytes, Manner] = {}
        for link in chain:
            if link.asks and isinstance(made := link.make(), EngineMeasure):
                self._at_work[link.name] = (link, made)

    @property
    def ahead(self) -> int:
        """How many records are worth being asked about at a time."""
        return max(2 * self._asker.slots, 16)

    async def about(self, name: str, task: int, id: str, body: bytes) -> Measurement | str:
        """What the filter of that name measures of a record, given as JSON; the error where it fails."""
        link, filter = self._at_work[name]
        content = orjson.loads(body)
        try:
            record = Record(id, content["fields"], content["row"]).pick(link.of)
        except KeyError as error:
            return f"filter {name}: {error.args[0]}"
        questions = filter.questions(record)
        if isinstance(questions, FilterFailed):
            return str(questions)
        paper = Paper(task, content=hashlib.sha256(body).digest())
        answers = []
        for question in questions:
            try:
                answers.append(
                    await self._asker.answer(self._manner(link, question), question.messages, paper)
                )
            except InvalidAnswer:
                answers.append(None)
            except RequestFailed as failure:
                return f"filter {name}: {failure}"
        measured = filter.value(record, answers)
        if isinstance(measured, FilterFailed):
            return str(measured)
        asked = {"requests": [key.hex() for key in paper.requests]} if paper.requests else {}
        return Measurement(measured.value, {**(measured.detail or {}), **asked} or None)

    def spent_on(self, name: str, detail: Mapping[str, Any] | None) -> Spent:
        """What was spent on a measurement with this detail, whenever that was."""
        link, _ = self._at_work[name]
        keys = [bytes.fromhex(key) for key in (detail or {}).get("requests", ())]
        return self._asker.spent_on(link.model, keys)

    def _manner(self, link: ChainFilter, question: Question) -> Manner:
        sampling = {**SAMPLING, **question.sampling}
        known = orjson.dumps([link.model, sampling, question.output], option=orjson.OPT_SORT_KEYS)
        if known not in self._manners:
            self._manners[known] = self._asker.manner(link.model, sampling, Form(question.output))
        return self._manners[known]
