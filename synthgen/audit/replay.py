"""`audit replay`: does a record follow from what was recorded, and does its engine say the same again?"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen.audit.bits import Bits, asked_again, pinned
from synthgen.audit.findings import CannotJudge
from synthgen.audit.recorded import Answer, RecordedRun
from synthgen.audit.transcript import Transcript, transcript
from synthgen.engines.base import Engine
from synthgen.errors import UsageError
from synthgen.recipe_models import ModelRef


@dataclass(frozen=True)
class Asking:
    """How engines are asked again, in the names of `run`'s options; `own` is an engine of the caller's."""

    engine: str | None = None
    model: str | None = None
    base_url: str | None = None
    own: Engine | None = None
    notify: Callable[[str], None] | None = None


@dataclass
class Replayed:
    """One record."""

    id: str
    transcript: Transcript
    bits: list[Bits] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "id": self.id,
            "transcript": self.transcript.outcome,
            "differs": self.transcript.differs,
            "unjudged": self.transcript.unjudged,
            "requests": [each.as_json() for each in self.bits],
        }


@dataclass
class Replays:
    """What a replay came to."""

    directory: Path
    asked: bool
    records: list[Replayed] = field(default_factory=list)

    @property
    def transcripts(self) -> Counter[str]:
        """How many records came to which outcome."""
        return Counter(each.transcript.outcome for each in self.records)

    @property
    def bits(self) -> Counter[str]:
        """How many requests came to which outcome."""
        return Counter(bits.outcome for each in self.records for bits in each.bits)

    @property
    def exit_code(self) -> int:
        """0 everything that was asked for was replayed, 1 something differs, 2 something cannot be judged."""
        if self.transcripts["differs"] or self.bits["differs"]:
            return 1
        return 2 if self.transcripts["not judged"] or self.bits["not comparable"] else 0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "dir": str(self.directory),
            "transcripts": {name: self.transcripts[name] for name in ("replayed", "differs", "not judged")},
            "bits": {name: self.bits[name] for name in ("bit", "differs", "not comparable")}
            if self.asked
            else None,
            "records": [each.as_json() for each in self.records],
        }


def replay(
    directory: Path,
    ids: Sequence[str] = (),
    *,
    sample: int | None = None,
    seed: int = 0,
    project: Path | None = None,
    asking: Asking | None = None,
) -> Replays:
    """Replay some records of a finished run, or so many that are drawn with a seed.

    Without `asking` it is the transcript alone. Raises CannotJudge where there is no finished run, UsageError
    for a record that is not there, EngineUnreachable.
    """
    run = RecordedRun(directory, project)
    try:
        if (sample is None) == (not ids):
            raise UsageError("name a record, or say how many with --sample N")
        if sample is not None:
            known = run.ids()
            chosen = set(random.Random(seed).sample(range(len(known)), min(sample, len(known))))  # noqa: S311
            ids = [id for place, id in enumerate(known) if place in chosen]
        found = Replays(directory, asking is not None)
        entries = [run.record(id) for id in ids]
        found.records = [Replayed(entry.id, transcript(run, entry, body)) for entry, body in entries]
        if asking is not None:
            keys = [entry.requests for entry, _ in entries]
            asyncio.run(_ask(run, found.records, keys, asking))
    except sqlite3.DatabaseError as error:
        raise CannotJudge(f"{directory / 'run.sqlite'} is damaged: {error}"[:300]) from None
    finally:
        run.close()
    return found


async def _ask(
    run: RecordedRun, records: Sequence[Replayed], keys: Sequence[Sequence[bytes]], asking: Asking
) -> None:
    engines = _Engines(run, asking)
    try:
        for record, asked in zip(records, keys, strict=True):
            record.bits = await asked_again(run, asked, engines.of)
    finally:
        await engines.close()


class _Engines:
    """Engines that are started when they are first asked something."""

    def __init__(self, run: RecordedRun, asking: Asking) -> None:
        self._run = run
        self._asking = asking
        self._started: dict[str, Engine | str] = {}

    async def of(self, name: str, said: Mapping[str, Any], answer: Answer) -> Engine | str:
        """The engine for the lock's model of that name, or why there is none. Raises EngineUnreachable."""
        if name not in self._started:
            engine = self._asking.own or self._opened(name, said, answer)
            self._started[name] = engine
            if not isinstance(engine, str):
                await engine.start()
        return self._started[name]

    async def close(self) -> None:
        for engine in self._started.values():
            if not isinstance(engine, str):
                await engine.close()

    def _opened(self, name: str, said: Mapping[str, Any], answer: Answer) -> Engine | str:
        from synthgen.engines import open_engines

        asking, recipe = self._asking, self._run.recorded.recipe
        locked = dict(self._run.lock["models"][name])
        if asking.engine or asking.base_url:
            locked["engine"] = asking.engine or "openai"
        if asking.model:
            locked |= {"id": asking.model, "revision": None}
        ref = recipe.models.get(name) or recipe.model
        same = locked["engine"] == said["engine"]
        before = answer.engines.get(name)
        model = pinned(
            locked,
            ref.options if same and ref is not None else {},
            before if same and isinstance(before, Mapping) else {},
            said["template"]["args"],
        )
        if model.engine == "openai":
            if asking.base_url is None:
                return "where it is served is not recorded: name the server with --base-url"
            model = ModelRef.model_validate({**model.model_dump(), "base_url": asking.base_url})
        return open_engines(
            {name: model}, {}, root=self._run.project.root, base_url=asking.base_url, notify=asking.notify
        )[name]
