"""Identities: canonical JSON (RFC 8785), the key of a request, the id of a record, keyed draws."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import rfc8785

from synthgen.engines.base import Message, ModelIdentity


def canonical(value: Any) -> bytes:
    """Canonical JSON after RFC 8785. Raises ValueError for what JSON cannot hold."""
    return rfc8785.dumps(value)


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Hex digest of every file beneath a folder, with their names; what Python compiled there is left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(folder).as_posix().encode()
            digest.update(b"%s\0%s" % (name, bytes.fromhex(file_digest(path))))
    return digest.hexdigest()


def value_digest(value: Any) -> bytes:
    """16 bytes that stand for a seed's value: equal JSON, equal digest."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()[:16]


@dataclass(frozen=True, slots=True)
class RequestFrame:
    """All of a step's requests but what differs from one to the next, canonical once and for all.

    What is in a key: messages, model (weights, or id and revision), engine, chat template and its
    arguments, sampling, output schema, the recipe's seed, `number`, `attempt` and `repeat`. What is not:
    addresses, engine versions, names of steps and runs.
    """

    engine: bytes
    model: bytes
    sampling: bytes
    schema: bytes
    seed: bytes
    template: bytes

    def body(self, messages: Sequence[Message], *, repeat: int, number: int = 0, attempt: int = 0) -> bytes:
        """The canonical bytes that are hashed for the key, and stored.

        Messages hold strings alone, for which orjson with sorted keys writes what RFC 8785 asks.
        """
        return b"".join(
            (
                b'{"attempt":%d,"engine":' % attempt,
                self.engine,
                b',"messages":',
                orjson.dumps(messages, option=orjson.OPT_SORT_KEYS),
                b',"model":',
                self.model,
                b',"number":%d,"repeat":%d,"sampling":' % (number, repeat),
                self.sampling,
                b',"schema":',
                self.schema,
                b',"seed":',
                self.seed,
                b',"template":',
                self.template,
                b"}",
            )
        )


def request_frame(
    identity: ModelIdentity,
    *,
    sampling: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    seed: int,
    template_args: Mapping[str, Any],
) -> RequestFrame:
    """The frame of one step's requests."""
    model = (
        {"weights": identity.weights}
        if identity.weights
        else {"id": identity.id, "revision": identity.revision}
    )
    return RequestFrame(
        engine=canonical(identity.engine),
        model=canonical(model),
        sampling=canonical(dict(sampling)),
        schema=canonical(schema),
        seed=b"%d" % seed,
        template=canonical({"args": dict(template_args), "sha256": identity.chat_template}),
    )


def request_key(body: bytes) -> bytes:
    """SHA-256 of a request's canonical bytes."""
    return hashlib.sha256(body).digest()


def sampling_seed(key: bytes) -> int:
    """The seed that a request is sampled with: 31 bits of its key."""
    return int.from_bytes(key[:4], "big") & 0x7FFFFFFF


def record_id(recipe: str, task: bytes, repeat: int, branch: str) -> str:
    """32 hex digits for one branch of one task, the same wherever the task stands in the order."""
    return hashlib.sha256(b"%s\0%s\0%d\0%s" % (recipe.encode(), task, repeat, branch.encode())).hexdigest()[
        :32
    ]


def draw(seed: int, field: str, task: bytes, repeat: int) -> float:
    """A number in [0, 1) that depends on the recipe's seed, the field, the task's rows and repeat alone."""
    material = b"%d\0%s\0%s\0%d" % (seed, field.encode(), task, repeat)
    return int.from_bytes(hashlib.sha256(material).digest()[:8], "big") / 2**64
