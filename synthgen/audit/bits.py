"""Bit replay: the same request asked again of the same engine, one at a time.

An answer counts as another only where nothing but the record can be the cause: the same engine in the same
version with the same weights on the same processor, and alone both times. Whatever else differs makes it not
comparable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from synthgen.audit.findings import CannotJudge
from synthgen.audit.recorded import Answer, RecordedRun
from synthgen.digests import sampling_seed
from synthgen.engines.base import (
    Completion,
    Engine,
    ModelIdentity,
    Request,
    RequestFailed,
    RequestRetryable,
    Tokenizer,
)
from synthgen.journal import storable
from synthgen.recipe_models import ModelRef

# What an answer may depend on besides its request, of each engine whose answers can be had again.
SAME = {
    "llamacpp": ("xllamacpp", "n_ctx", "threads", "processor", "n_batch", "n_gpu_layers"),
    "vllm": ("vllm", "torch", "device", "dtype", "context", "processor", "cores"),
}
# What is compared where it was recorded: an earlier synthgen did not.
ALSO = {"llamacpp": (), "vllm": ("cuda", "driver", "parallel")}
SHOWN = 40


@dataclass(frozen=True, slots=True)
class Bits:
    """One request asked again: `bit`, `differs` or `not comparable`, with the points that say why.

    `at` is the first character that differs, from 0; None where none does, or nothing was answered. `token`
    is the first token that does, from 0, with what it is in each, where the engine says what tokens a text
    has; None stands for the end of the text.
    """

    key: str
    outcome: str
    points: Sequence[str] = ()
    at: int | None = None
    before: str = ""
    now: str = ""
    token: int | None = None
    token_before: str | None = None
    token_now: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "request": self.key,
            "outcome": self.outcome,
            "points": list(self.points),
            "at": self.at,
            "before": self.before,
            "now": self.now,
            "token": self.token,
            "token_before": self.token_before,
            "token_now": self.token_now,
        }


def first_difference(one: str, other: str) -> int | None:
    """The first character, from 0, in which two texts differ; None where they are the same."""
    if one == other:
        return None
    least = min(len(one), len(other))
    return next((place for place in range(least) if one[place] != other[place]), least)


def points(said: Mapping[str, Any], answer: Answer, name: str, now: ModelIdentity) -> list[str]:
    """In what the engine that answered and the one that is asked now are not the same."""
    found = []
    if answer.source is not None:
        found.append(f"the answer was taken from {answer.source}")
    if said["engine"] != now.engine:
        found.append(f"engine: {said['engine']}, now {now.engine}")
    weights = said["model"].get("weights")
    if weights is None or now.weights is None:
        found.append("weights: their digest is not known")
    elif weights != now.weights:
        found.append(f"weights: {weights[:19]}, now {now.weights[:19]}")
    if said["template"]["sha256"] != now.chat_template:
        found.append("chat template: another")
    if said["engine"] not in SAME:
        return [*found, "the engine's version and hardware are not known"]
    before = answer.engines.get(name)
    if not isinstance(before, Mapping) or not before:
        return [*found, "what the engine ran on was not recorded"]
    for key in SAME[said["engine"]]:
        if key not in before:
            found.append(f"{key}: was not recorded")
        elif before[key] != now.details.get(key):
            found.append(f"{key}: {before[key]}, now {now.details.get(key)}")
    for key in ALSO[said["engine"]]:
        if key in before and before[key] != now.details.get(key):
            found.append(f"{key}: {before[key]}, now {now.details.get(key)}")
    return found


def company(engine: str, details: Mapping[str, Any]) -> str | None:
    """Why an answer may be another than one given alone; None where it was made under the pinned profile."""
    if engine == "llamacpp" and details.get("slots") != 1:
        return f"made with slots: {details.get('slots')}; with slots: 1 it could be compared"
    if engine == "vllm" and details.get("sequences") != 1:
        return f"made with max_num_seqs: {details.get('sequences')}; with 1 it could be compared"
    if engine == "vllm" and details.get("prefix_caching") is not False:
        return "made with prefix caching; with enable_prefix_caching: false it could be compared"
    return None


def compared(
    key: bytes, said: Mapping[str, Any], answer: Answer, name: str, now: ModelIdentity, given: Completion
) -> Bits:
    """One answer beside the stored one."""
    text = storable(given.text)
    before = answer.completion
    at = first_difference(before.text, text)
    # Texts do not tell tokens apart that read the same; how many there were does.
    otherwise = [
        f"the same text, {what}: {one}, now {other}"
        for what, one, other in (
            ("finish reason", before.finish_reason, given.finish_reason),
            ("tokens", before.output_tokens, given.output_tokens),
        )
        if at is None and one != other
    ]
    if at is None and before.reasoning is not None and before.reasoning != given.reasoning:
        otherwise.append("the same text after other thoughts")
    same = at is None and not otherwise
    found = points(said, answer, name, now)
    if not same and not found and (why := company(said["engine"], answer.engines[name])):
        found = [why]
    outcome = "not comparable" if found else "bit" if same else "differs"
    if at is None:
        return Bits(key.hex(), outcome, [*found, *otherwise])
    start = max(0, at - SHOWN)
    return Bits(key.hex(), outcome, found, at, before.text[start : at + SHOWN], text[start : at + SHOWN])


def model_of(lock: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """The name in the lock of the model that a request was for."""
    for name, model in lock["models"].items():
        identity = (
            {"weights": model["weights"]}
            if model["weights"]
            else {"id": model["id"], "revision": model["revision"]}
        )
        if model["engine"] == said["engine"] and identity == said["model"]:
            return str(name)
    raise CannotJudge("a request is for a model that recipe.lock.yaml does not have")


Engines = Callable[[str, Mapping[str, Any], Answer], Awaitable[Engine | str]]


async def asked_again(run: RecordedRun, keys: Sequence[bytes], engines: Engines) -> list[Bits]:
    """Ask these requests again, one after the other. `engines` gives one that runs, or why there is none."""
    found = []
    for key in keys:
        body, answer = run.request(key), run.answer(key)
        if body is None or answer is None:
            found.append(Bits(key.hex(), "not comparable", ["it, or its answer, is not in the journal"]))
            continue
        said = orjson.loads(body)
        name = model_of(run.lock, said)
        engine = await engines(name, said, answer)
        if isinstance(engine, str):
            found.append(Bits(key.hex(), "not comparable", [engine]))
            continue
        request = Request(key.hex(), said["messages"], said["sampling"], sampling_seed(key), said["schema"])
        try:
            given = await engine.complete(request)
        except (RequestFailed, RequestRetryable) as error:
            found.append(Bits(key.hex(), "not comparable", [f"the engine does not answer: {error}"]))
            continue
        bits = compared(key, said, answer, name, engine.identity, given)
        if bits.at is not None and isinstance(engine, Tokenizer):
            bits = await _by_token(bits, engine, answer.completion.text, storable(given.text))
        found.append(bits)
    return found


async def _by_token(bits: Bits, engine: Tokenizer, before: str, now: str) -> Bits:
    """The same, with the first token that differs, as the engine reads the texts."""
    try:
        one, other = await engine.tokens(before), await engine.tokens(now)
    except RequestRetryable:
        return bits  # the character that differs is known all the same
    at = next(
        (place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right),
        min(len(one), len(other)),
    )
    left, right = (side[at].text if at < len(side) else None for side in (one, other))
    return replace(bits, token=at, token_before=left, token_now=right)


def pinned(
    model: Mapping[str, Any],
    options: Mapping[str, Any],
    details: Mapping[str, Any],
    template_args: Mapping[str, Any],
) -> ModelRef:
    """A model as the lock has it, to be asked one request at a time with as many threads as then."""
    options = dict(options)
    if model["engine"] == "llamacpp":
        options.pop("n_parallel", None)
        options |= {"slots": 1, "reuse_prefixes": False}
        for option, detail in (("n_ctx", "n_ctx"), ("n_threads", "threads")):
            if isinstance(details.get(detail), int):
                options[option] = details[detail]
    elif model["engine"] == "vllm":
        options |= {"max_num_seqs": 1, "enable_prefix_caching": False}
        if isinstance(details.get("context"), int):
            options["max_model_len"] = details["context"]
    return ModelRef(
        engine=model["engine"],
        id=model["id"],
        revision=model["revision"],
        options=options,
        template_args=dict(template_args),
    )
