"""The published forms, version 1: statements of records, lines of the ledger, manifests and proofs.

provenance.schema.json has them as JSON schema. A manifest's `predicateType` names the version.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:synthgen:manifest:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
CHECKPOINT_TYPE = "application/vnd.synthgen.checkpoint+json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**53, strict=True)]
HalfDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
State = Literal["kept", "dropped", "failed"]


class _Form(BaseModel):
    """Parameters that nobody knows are refused, as SLSA asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Digest(_Form):
    """Of a file's bytes."""

    sha256: Sha256


class Annotations(_Form):
    """A file's size, and where it holds rows how many."""

    bytes: Count
    rows: Count | None = None


class Subject(_Form):
    """One file, by its path beneath the folder."""

    name: str = Field(min_length=1, max_length=4096)
    digest: Digest
    annotations: Annotations


class LedgerHead(_Form):
    """Size and root of the ledger, a Merkle tree after RFC 9162, with the count of each state.

    `erased` counts those of whatever state whose contents were erased.
    """

    file: Literal["provenance/ledger.jsonl"]
    hash: Literal["rfc9162-sha256"]
    size: Count
    root: Sha256
    kept: Count
    dropped: Count
    failed: Count
    erased: Count = 0


class Predicate(_Form):
    """What is stated of the files beside their digests."""

    ledger: LedgerHead


class Statement(_Form):
    """An in-toto statement, version 1."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[Subject]
    predicate_type: Literal["urn:synthgen:manifest:v1"] = Field(alias="predicateType")
    predicate: Predicate


class Signature(_Form):
    """One signature over the envelope's pre-authentication encoding."""

    keyid: str = ""
    sig: str


class Envelope(_Form):
    """A DSSE envelope, version 1."""

    payload: str
    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    signatures: list[Signature]


class Proof(_Form):
    """That a ledger has this entry: its line, the path to the root, and the manifest that states the root.

    `path` has the hashes after RFC 9162, 2.1.3, the lowest first; `sha256` is of all the rest.
    """

    format: Literal["urn:synthgen:proof:v1"]
    entry: str = Field(max_length=4096)
    index: Count
    size: Count
    path: list[Sha256] = Field(max_length=64)
    root: Sha256
    manifest: Envelope
    sha256: Sha256


class Checkpoint(_Form):
    """How far the ledger of a run was, and its root then: the payload of a signed checkpoint."""

    format: Literal["urn:synthgen:checkpoint:v1"]
    run: str = Field(min_length=1, max_length=200, description="The recipe's name.")
    hash: Literal["rfc9162-sha256"]
    size: Count
    root: Sha256


class SignedCheckpoint(_Form):
    """A checkpoint in a DSSE envelope."""

    payload: str
    payload_type: Literal["application/vnd.synthgen.checkpoint+json"] = Field(alias="payloadType")
    signatures: list[Signature]


class Extension(_Form):
    """That a later ledger begins with an earlier one: `path` is a consistency proof after RFC 9162, 2.1.4."""

    format: Literal["urn:synthgen:extension:v1"]
    before: SignedCheckpoint
    path: list[Sha256] = Field(max_length=65)
    after: SignedCheckpoint


class CheckpointLine(_Form):
    """One that a session made."""

    size: Count
    root: Sha256
    at: str = Field(max_length=80)


class SessionLine(_Form):
    """One session of a run, a line of `sessions.jsonl`: when, on what, and the checkpoints that it made.

    `ended` and `outcome` are null of one that was killed, and of the one that wrote the file. `reason` says
    of one that failed why: the error and its sentence, without secrets and folders of the machine.
    """

    session: Count
    command: str
    started: str
    ended: str | None
    outcome: str | None
    reason: str | None = Field(None, max_length=2000)
    environment: dict[str, Any]
    engines: dict[str, Any]
    checkpoints: list[CheckpointLine] = Field(description="Of the version whose files these are.")


class AnswersLine(_Form):
    """A record's line in `answers.jsonl`, where it has anything behind its contents."""

    id: HalfDigest
    sha256: Sha256 = Field(
        description="Of its requests' answers and errors, its own error, and what it was before "
        "anything was redacted, as run.sqlite has them."
    )


class Source(_Form):
    """What a seed's value was taken from: a row of a file, or, where `grow:` added it, a record of the run.

    The file's digest is in recipe.lock.yaml, under `seeds`.
    """

    seed: str = Field(description="The seed's name in the recipe.")
    path: str | None = Field(None, description="The file, relative to the project.")
    row: Count | None = Field(None, description="Its line, or its row, from 1.")
    record: str | None = Field(None, description="The id of the record, kept in an earlier round.")
    generation: Count | None = Field(
        None, description="How many records stand between it and the rows of files, that record among them."
    )
    sha256: HalfDigest = Field(
        description="The first half of the digest of its value as JSON with sorted keys."
    )
    licence: str | None = Field(None, description="As the recipe states it.")
    origin: Any = Field(
        None,
        description="What the row itself says of where it is from: of a mix, its dataset and its statement.",
    )
    start: Count | None = Field(None, description="Of a chunk: where its text begins, in characters from 0.")
    end: Count | None = Field(
        None, description="Of a chunk: where its text ends; `start` is in it, `end` not."
    )
    page: Count | None = Field(None, description="Of a PDF: the page, from 1, on which it begins.")
    heading: list[str] | None = Field(None, description="The headings that it stands under, from the top.")


class Stated(_Form):
    """What a filter measured, the bounds that it was judged by, and the verdict.

    The filter's name leads to its code's digest, its parameters and its files in recipe.lock.yaml, under
    `filters`. The detail explains the value: that of a duplicate names, as `of`, the record that stayed, to
    which the value is the similarity.
    """

    value: float | None = Field(description="None where the filter abstains; the detail then says why.")
    min: float | None = Field(None, description="The least that passes; no key where there is no such bound.")
    max: float | None = Field(None, description="The most that passes; no key where there is no such bound.")
    verdict: Literal["pass", "flag", "redact", "drop", "fail", "unmeasured"]
    detail: dict[str, Any] | None = None


class RecordStatement(_Form):
    """What is stated of one record: a line of `provenance/SPLIT.jsonl`, and what its leaf commits to."""

    id: HalfDigest
    task: Count = Field(description="Its place in the order of the plan.")
    branch: str
    state: State = Field(description="What was decided.")
    dropped_by: str | None = Field(description="The first filter in order whose bound it fails.")
    content_sha256: Sha256 | None = Field(description="Of its contents: its fields and its row, as JSON.")
    row_sha256: Sha256 | None = Field(description="Of its row as a line of JSON, without the line's end.")
    sources: list[Source]
    requests: list[Sha256] = Field(
        description="Keys of its requests, in order: each the digest of model, rendered messages, sampling, "
        "schema and seed as run.sqlite has them, under `requests`."
    )
    measurements: dict[str, Stated] = Field(description="By the filter's name, in the order of the recipe.")
    synthetic: bool = Field(description="Whether a model wrote any of it.")
    salt: HalfDigest = Field(description="Depends on all of its contents, and stands nowhere else.")


class LedgerLine(_Form):
    """One record's line in `provenance/ledger.jsonl`; its bytes, without the line's end, are a leaf."""

    id: HalfDigest
    state: State
    statement: Sha256 = Field(description="Of the record's statement.")


def json_schema() -> dict[str, Any]:
    """The JSON schema of everything that is published, by name under `$defs`."""
    from pydantic.json_schema import models_json_schema

    models = (
        RecordStatement, LedgerLine, Statement, Envelope, Proof, Checkpoint, SignedCheckpoint, Extension,
        SessionLine, AnswersLine,
    )  # fmt: skip
    _, schema = models_json_schema(
        [(model, "validation") for model in models], title="What synthgen states of a dataset, version 1"
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
