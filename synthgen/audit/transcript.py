"""Transcript replay: everything that follows from a record's seeds and the raw answers, computed again.

The prompts are rendered anew, requests and their keys built from that, the answers put where they belong,
and the row made of it. It needs no engine and holds anywhere. Templates are rendered in their sandbox; the
file of a prompt counts only where its digest is the one that was locked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import orjson

from synthgen.answers import Form, InvalidAnswer, form_of
from synthgen.asking import numbered
from synthgen.audit.recorded import RecordedRun
from synthgen.conversation import NoConversation
from synthgen.digests import RequestFrame, record_id, request_frame, request_key, value_digest
from synthgen.engines.base import ModelIdentity
from synthgen.growth import grown_row
from synthgen.journal_entries import RecordEntry
from synthgen.prompt import Expression, Prompt, PromptFailed
from synthgen.recipe_steps import Step
from synthgen.samplers import CannotDraw, Samplers, SeedFailed, needs_file
from synthgen.seed_kinds import FileSeed, goes_through, uses_faker
from synthgen.seeds import Draw
from synthgen.steps import Fan, NoQuestions, path_of
from synthgen.talk import Talk, talk_of
from synthgen.talking import numbered_apart


@dataclass
class Transcript:
    """What differs, each with its place, and what could not be judged."""

    differs: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """`differs`, `not judged` or `replayed`."""
        return "differs" if self.differs else "not judged" if self.unjudged else "replayed"


# Its messages, the schema of its prompt, and its number among equal ones; None where they are not known.
_Question = tuple[Any, Mapping[str, Any] | None, int | None]


class _Differs(Exception):
    """What follows cannot be computed."""


class _Unjudged(Exception):
    """What follows cannot be computed, for want of something that is noted."""


def transcript(run: RecordedRun, entry: RecordEntry, body: bytes | None) -> Transcript:
    """Replay one record from its original contents."""
    found = Transcript()
    try:
        if entry.erased is not None:
            found.unjudged.append("its contents were erased")
        elif body is not None:
            _Replay(run, entry, found).go(body)
        elif entry.state == "failed":
            _requests_alone(run, entry, found)
            found.unjudged.append("the record failed before it had contents")
        else:
            found.differs.append("contents: are not in the journal")
    except _Unjudged:
        pass  # what is missing is noted
    except _Differs as difference:
        found.differs.append(str(difference))
    except (PromptFailed, NoConversation, NoQuestions) as error:
        found.differs.append(f"row: {error}")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        found.differs.append(f"contents: are not what synthgen wrote: {type(error).__name__}: {error}"[:300])
    return found


def _requests_alone(run: RecordedRun, entry: RecordEntry, found: Transcript) -> None:
    for number, key in enumerate(entry.requests, 1):
        body = run.request(key)
        if body is not None and request_key(body) != key:
            found.differs.append(f"request {number}: its key is not the digest of its body")


class _Replay:
    """One record at work."""

    def __init__(self, run: RecordedRun, entry: RecordEntry, found: Transcript) -> None:
        self._run = run
        self._entry = entry
        self._found = found
        self._recipe = run.recorded.recipe
        self._keys = iter(entry.requests)
        self._number = 0
        self._repeat: int | None = None
        self._alike: dict[bytes, int] = {}
        self._turns: list[int] = []

    def go(self, body: bytes) -> None:
        contents = orjson.loads(body)
        fields, row = contents["fields"], contents["row"]
        fans = self._run.recorded.fans
        made_of_steps = {name for fan in fans for name in fan.names}
        values = {name: value for name, value in fields.items() if name not in made_of_steps}
        self._check_sources(values)
        for fan in fans:
            self._step(fan, values)
            for name in fan.names:
                if values[name] != fields.get(name):
                    raise _Differs(f"fields.{name}: is not what the raw answer gives")
        if path_of(self._turns) != self._entry.branch:
            raise _Differs("branch: is none that the steps make")
        for _ in self._keys:
            raise _Differs("requests: there are more than the steps ask")
        made = self._run.recorded.shape.make(values)
        for name in [*made, *(name for name in row if name not in made)]:
            if name not in row or name not in made or made[name] != row[name]:
                self._found.differs.append(f"row.{name}: is not what the fields give")
        digest = hashlib.sha256(body).digest()
        if digest != (self._entry.original or self._entry.content):
            self._found.differs.append("contents: their digest is another")
        elif not self._found.differs and orjson.dumps({"fields": values, "row": made}) != body:
            self._found.differs.append("contents: are not the bytes that the fields and the row give")
        self._check_id(values)

    def _check_sources(self, values: Mapping[str, Any]) -> None:
        for source in self._entry.sources:
            seed = source["seed"]
            spec = self._recipe.seeds.get(seed)
            several = isinstance(spec, FileSeed) and spec.n is not None
            there = values.get(seed)
            held = there if several and isinstance(there, list) else [there]
            if seed not in values or source["sha256"] not in {value_digest(each).hex() for each in held}:
                self._found.differs.append(f"fields.{seed}: is not the seed row that its source names")
            elif "record" in source:
                self._check_grown(source)

    def _check_grown(self, source: Mapping[str, Any]) -> None:
        """What was added to a seed follows from the record that it was taken from."""
        seed, added = source["seed"], self._recipe.grow.get(source["seed"])
        parent = self._run.kept(source["record"])
        if added is None or parent is None or parent[0].task >= self._entry.task:
            self._found.differs.append(f"fields.{seed}: was not added by the record that its source names")
            return
        entry, body = parent
        if entry.erased is not None or body is None:
            self._found.unjudged.append(f"the record {entry.id}, which its seed was taken from, was erased")
            return
        fields = orjson.loads(body)["fields"]
        row = grown_row(Expression(added.add), fields, entry.id, source["generation"])
        if row is None or row.digest.hex() != source["sha256"]:
            self._found.differs.append(f"fields.{seed}: is not what the record that it was taken from adds")

    def _check_id(self, values: Mapping[str, Any]) -> None:
        """The id follows from the rows; so do the choices that were drawn."""
        seeds = self._recipe.seeds
        rows = [name for name, spec in seeds.items() if goes_through(spec)]
        material = b"".join(name.encode() + b"\0" + value_digest(values[name]) for name in rows)
        task = hashlib.sha256(material).digest()[:16]
        if self._repeat is None:
            return
        if record_id(self._recipe.name, task, self._repeat, self._entry.branch) != self._entry.id:
            self._found.differs.append("id: does not follow from the seeds")
        for name, spec in seeds.items():
            if goes_through(spec) or isinstance(spec, FileSeed) or needs_file(spec):
                continue  # what is drawn from a file has a source, which names its digest
            try:
                sampler = Samplers(self._run.project).make(spec)
                again = sampler.pick(Draw(self._recipe.seed, name, task, self._repeat, values))
            except (CannotDraw, SeedFailed) as error:
                self._found.unjudged.append(f"fields.{name}: cannot be drawn again: {error}")
                continue
            if again.value == values[name]:
                continue
            said = self._run.lock["seeds"].get(name, {})
            if uses_faker(spec) and said.get("reader") != [f"faker {version('faker')}"]:
                self._found.unjudged.append(f"fields.{name}: another Faker made it up: {said.get('reader')}")
            else:
                self._found.differs.append(f"fields.{name}: is not what is drawn for this task")

    def _step(self, fan: Fan, values: dict[str, Any]) -> None:
        """Add what a step adds to the values."""
        scopes = fan.scopes(values)
        if scopes is None:
            values |= fan.skipped()
            return
        asked = self._asked(fan, values, scopes)
        if fan.branches:
            turn = self._turn(fan, scopes)
            values |= {**scopes[turn], **fan.given(asked[turn]())}
        elif fan.gathers:
            values |= fan.given([ask() for ask in asked])
        else:
            values |= fan.given(asked[0]())

    def _turn(self, fan: Fan, scopes: Sequence[Mapping[str, Any]]) -> int:
        """Which of a step's questions is that of this branch."""
        parts = self._entry.branch.split(".")
        part = parts[len(self._turns)] if len(self._turns) < len(parts) else ""
        if not (part.isascii() and part.isdigit() and int(part) < len(scopes)):
            raise _Differs(f"branch: step {fan.name} makes {len(scopes)} of them, and none is this")
        self._turns.append(int(part))
        return int(part)

    def _asked(
        self, fan: Fan, values: Mapping[str, Any], scopes: Sequence[Mapping[str, Any]]
    ) -> list[Callable[[], Any]]:
        """What gives the answer to each question of a step."""
        if fan.conversation is not None:
            return self._conversations(fan, values, scopes)
        prompt = self._prompt(fan.name)
        if prompt is None:
            return [partial(self._answer, fan.name, (None, None, None))] * len(scopes)
        rendered = fan.rendered(prompt, values, scopes)
        frame = self._frame(
            fan.name, self._args(fan.name), form_of(self._step_of(fan.name), prompt.schema).schema
        )
        bodies = [b"" if isinstance(each, PromptFailed) else frame.body(each, repeat=0) for each in rendered]
        numbers = numbered(bodies, self._alike)
        return [
            partial(self._answer, fan.name, (messages, prompt.schema, number))
            for messages, number in zip(rendered, numbers, strict=True)
        ]

    def _conversations(
        self, fan: Fan, values: Mapping[str, Any], scopes: Sequence[Mapping[str, Any]]
    ) -> list[Callable[[], Any]]:
        step, prompts = self._step_of(fan.name), {}
        assert step.conversation is not None
        for key in ("", *step.conversation.voices):
            prompt = self._prompt(f"{fan.name}/{key}" if key else fan.name)
            if prompt is None:
                raise _Unjudged
            prompts[key] = prompt
        talk = talk_of(step, prompts.pop(""), prompts)
        places = numbered([orjson.dumps(scope, option=orjson.OPT_SORT_KEYS) for scope in scopes], {})
        alike = {**self._alike}
        return [
            partial(self._conversation, fan.name, talk, {**values, **scope}, place, alike)
            for scope, place in zip(scopes, places, strict=True)
        ]

    def _conversation(
        self, name: str, talk: Talk, values: Mapping[str, Any], place: int, alike: Mapping[bytes, int]
    ) -> list[dict[str, Any]]:
        """The messages that the answers come to."""
        asking, answer, counts = talk.asking(values), None, {**alike}
        while True:
            try:
                question = asking.send(answer)
            except StopIteration as end:
                self._alike |= counts
                return list(end.value)
            voice = f"{name}/{question.voice}" if question.voice else name
            frame = self._frame(voice, self._args(voice), question.form.schema)
            before = numbered([frame.body(question.messages, repeat=0)], counts)[0]
            number = numbered_apart(place, before)
            answer = self._answer(voice, (question.messages, None, number), question.form)

    def _prompt(self, name: str) -> Prompt | None:
        """A prompt as it was; None, with the reason noted, where it is not at hand."""
        prompt = self._run.recorded.prompts[name]
        if isinstance(prompt, Prompt) and prompt.sha256 == self._run.lock["prompts"][name]["sha256"]:
            return prompt
        why = prompt if isinstance(prompt, str) else "its file is not what it was"
        self._found.unjudged.append(f"step {name}: the prompt cannot be rendered again: {why}")
        return None

    def _args(self, name: str) -> Mapping[str, Any]:
        model = self._recipe.models.get(self._model_of(name) or "") or self._recipe.model
        return model.template_args if model is not None else {}

    def _step_of(self, name: str) -> Step:
        return dict(self._recipe.named_steps())[name]

    def _model_of(self, name: str) -> str | None:
        """The model that a step or one of its voices is asked of, as the recipe says."""
        name, _, key = name.partition("/")
        step = self._step_of(name)
        own = step.conversation.voices[key].model if key and step.conversation is not None else None
        return own or step.model

    def _answer(self, name: str, question: _Question, given: Form | None = None) -> Any:
        """The answer that counts, after those that could not be used; `given` is a talk's form."""
        messages, schema, number = question
        if isinstance(messages, PromptFailed):
            raise messages
        first: Any = None
        attempt = 0
        while True:
            key, said = self._next(name)
            if attempt == 0:
                if messages is None:
                    messages, schema, number = said["messages"], said["schema"], int(said["number"])
                if self._repeat is None:
                    self._repeat = int(said["repeat"])
                first = messages
                form = given or form_of(self._step_of(name), schema)
                frame = self._frame(name, said["template"]["args"], form.schema)
            wanted = frame.body(messages, repeat=self._repeat or 0, number=number or 0, attempt=attempt)
            if request_key(wanted) != key:
                raise _Differs(f"request {self._number}: {_fields_that_differ(orjson.loads(wanted), said)}")
            answer = self._run.answer(key)
            if answer is None:
                raise _Differs(f"request {self._number}: its answer is not in the journal")
            try:
                return form.read(answer.completion)
            except InvalidAnswer as error:
                if attempt == form.retries:
                    raise _Differs(f"step {name}: no answer can be used: {error}") from None
                messages = form.again(first, answer.completion.text, error)
            attempt += 1

    def _next(self, step: str) -> tuple[bytes, dict[str, Any]]:
        key = next(self._keys, None)
        self._number += 1
        if key is None:
            raise _Differs(f"requests: there is none for step {step}")
        body = self._run.request(key)
        if body is None:
            raise _Differs(f"request {self._number}: is not in the journal")
        said = orjson.loads(body)
        if request_key(body) != key:
            raise _Differs(f"request {self._number}: its key is not the digest of its body")
        return key, said

    def _frame(
        self, step: str, template_args: Mapping[str, Any], schema: Mapping[str, Any] | None
    ) -> RequestFrame:
        """As the lock has it."""
        name = self._model_of(step) or "default"
        model = self._run.lock["models"][name]
        identity = ModelIdentity(
            model["engine"], model["id"], model["revision"], model["weights"], model["chat_template"]
        )
        return request_frame(
            identity,
            sampling=self._run.lock["sampling"][step],
            schema=schema,
            seed=self._recipe.seed,
            template_args=template_args,
        )


def _fields_that_differ(wanted: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    names = ", ".join(_differing(wanted, said)) or "its bytes"
    return f"{names}: not what the recipe and the seeds give"


def _differing(wanted: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*wanted, *said}):
        if wanted.get(name) != said.get(name):
            yield name
