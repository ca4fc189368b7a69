"""The published form of a manifest, and of a proof that a ledger has a record, version 1."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:synthgen:manifest:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


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
    """Size and root of the ledger, a Merkle tree after RFC 9162, with the count of each state."""

    file: str
    hash: Literal["rfc9162-sha256"]
    size: Count
    root: Sha256
    kept: Count
    dropped: Count
    failed: Count


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
