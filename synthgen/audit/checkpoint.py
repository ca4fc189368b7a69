"""`audit checkpoint`: how far a run's ledger is, for an auditor to keep; and that a later one extends it.

A checkpoint is the size and the root of the ledger, signed where there is a key. It can be taken at any time,
also of a run that goes on or has stopped. With an earlier one at hand, a consistency proof after RFC 9162
shows whoever has neither ledger that nothing in the first was changed, removed or inserted.
"""

from __future__ import annotations

import base64
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from synthgen.audit.findings import CannotJudge, Findings
from synthgen.audit.lines import small_file
from synthgen.audit.place import Place, entries, reading
from synthgen.journal_reading import open_for_reading, stored_records
from synthgen.provenance.keys import signatures
from synthgen.provenance.manifest import LEDGER
from synthgen.provenance.merkle import SIZE, consistency_proof, consistent, leaf_hash, root_of
from synthgen.provenance.schema import CHECKPOINT_TYPE, Checkpoint, Extension, SignedCheckpoint
from synthgen.provenance.statement import leaf_of

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was read. `authentic` is None where no key was given to check it against.

    `signers` are the keys that it names, or the one that was given, where that signed it.
    """

    said: Checkpoint
    envelope: SignedCheckpoint
    authentic: bool | None
    signers: list[str]

    @property
    def size(self) -> int:
        """Of the ledger."""
        return self.said.size

    @property
    def root(self) -> str:
        """Of the ledger, in hexadecimal."""
        return self.said.root

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": self.said.run,
            "size": self.size,
            "root": self.root,
            "signed_by": self.signers,
            "authentic": self.authentic,
        }


def saved(file: Path, key: Path | None = None) -> Saved:
    """The checkpoint in a file. Raises CannotJudge where there is none, UsageError for a key that is none."""
    try:
        envelope = SignedCheckpoint.model_validate_json(small_file(file))
    except ValidationError as error:
        raise _none(str(file), error) from None
    return opened(envelope, str(file), key)


def opened(envelope: SignedCheckpoint, name: str, key: Path | None) -> Saved:
    """The checkpoint in an envelope. Raises CannotJudge, with the name, where there is none."""
    from synthgen.provenance.keys import public_key, signed_by

    try:
        said = Checkpoint.model_validate_json(base64.b64decode(envelope.payload, validate=True))
    except ValidationError as error:
        raise _none(name, error) from None
    except ValueError as error:
        raise CannotJudge(f"{name} is no checkpoint of synthgen: {error}") from None
    signers = [each.keyid for each in envelope.signatures]
    if key is None:
        return Saved(said, envelope, None, signers)
    public = public_key(key)
    authentic = signed_by(envelope.model_dump(by_alias=True), public)
    return Saved(said, envelope, authentic, [public.keyid] if authentic else signers)


def _none(name: str, error: ValidationError) -> CannotJudge:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return CannotJudge(f"{name} is no checkpoint of synthgen: {place}: {first['msg']}")


def checkpoint(place: Place, signer: CryptoSigner | None, since: Path | None = None) -> bytes:
    """The checkpoint of what a place holds now; with an earlier one, the proof that it extends that.

    Raises CannotJudge where the ledger cannot be read, or does not extend the earlier one.
    """
    with reading(place.directory):
        run, hashes = _leaves(place)
    leaves = (hashes[at : at + SIZE] for at in range(0, len(hashes), SIZE))
    said = Checkpoint(
        format="urn:synthgen:checkpoint:v1",
        run=run,
        hash="rfc9162-sha256",
        size=len(hashes) // SIZE,
        root=root_of(leaves).hex(),
    )
    payload = orjson.dumps(said.model_dump())
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": CHECKPOINT_TYPE,
        "signatures": signatures(payload, CHECKPOINT_TYPE, signer),
    }
    if since is None:
        return _written(envelope)
    earlier = saved(since)
    if earlier.said.run != run:
        raise CannotJudge(f"{since} is of the run {earlier.said.run!r}, not of {run!r}")
    if earlier.size > said.size:
        raise CannotJudge(f"{since} has {earlier.size:,} entries, and the ledger has only {said.size:,} now")
    path = consistency_proof(hashes, earlier.size) if earlier.size else []
    extension = {
        "format": "urn:synthgen:extension:v1",
        "before": earlier.envelope.model_dump(by_alias=True),
        "path": [each.hex() for each in path],
        "after": envelope,
    }
    if not _holds(earlier.said, said, path):
        raise CannotJudge(
            f"the ledger does not extend {since}: its first {earlier.size:,} entries are others now"
        )
    return _written(extension)


def _written(said: dict[str, Any]) -> bytes:
    return orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _leaves(place: Place) -> tuple[str, bytes]:
    """The recipe's name, and the hashes of the ledger's leaves: the journal's, or else the dataset's."""
    hashes = bytearray()
    if place.run is not None:
        with closing(open_for_reading(place.run)) as journal:
            name = journal.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()[0]
            for entry, body in stored_records(journal, place.version or 0):
                hashes += leaf_of(entry, body)
        return str(name), bytes(hashes)
    assert place.dataset is not None
    for _, line, _ in entries(place.dataset / LEDGER):
        hashes += leaf_hash(line)
    return str(place.lock()["recipe"]["name"]), bytes(hashes)


def _holds(before: Checkpoint, after: Checkpoint, path: list[bytes]) -> bool:
    if before.size == 0:  # every ledger extends the empty one, which has one root
        return before.root == root_of(()).hex() and not path
    one, other = bytes.fromhex(before.root), bytes.fromhex(after.root)
    return consistent(one, before.size, other, after.size, path)


@dataclass(slots=True)
class ExtensionVerdict:
    """What a proof that a ledger extends an earlier one came to."""

    file: Path
    before: Saved
    after: Saved
    findings: Findings = field(default_factory=Findings)

    @property
    def intact(self) -> bool:
        """Whether it proves what it says."""
        return not self.findings

    @property
    def signers(self) -> list[str]:
        """The keys that the later checkpoint names."""
        return self.after.signers

    @property
    def authentic(self) -> bool | None:
        """Whether the key that was given signed the later checkpoint."""
        return self.after.authentic

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "proof": str(self.file),
            "intact": self.intact,
            "findings": [finding.as_json() for finding in self.findings.shown],
            "count": self.findings.count,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "signed_by": self.signers,
            "authentic": self.authentic,
        }


def check_extension(file: Path, key: Path | None = None, checkpoint: Path | None = None) -> ExtensionVerdict:
    """Check a proof that `audit checkpoint --since` wrote; `checkpoint` is the one that the auditor kept.

    Raises CannotJudge where a file holds none, UsageError for a key that is none.
    """
    try:
        proof = Extension.model_validate_json(small_file(file))
    except ValidationError as error:
        raise _none(str(file), error) from None
    before, after = (opened(each, str(file), key) for each in (proof.before, proof.after))
    verdict = ExtensionVerdict(file, before, after)
    if before.said.run != after.said.run:
        verdict.findings.add("is of another run than the later one", file.name, None, "before")
    if not _holds(before.said, after.said, [bytes.fromhex(each) for each in proof.path]):
        verdict.findings.add("does not lead from the one root to the other", file.name, None, "path")
    if checkpoint is not None and saved(checkpoint).said != before.said:
        verdict.findings.add(f"is not the checkpoint in {checkpoint}", file.name, None, "before")
    return verdict


def is_extension(file: Path) -> bool:
    """Whether a file says of itself that it is such a proof. Raises CannotJudge where it cannot be read."""
    try:
        said = orjson.loads(small_file(file))
    except orjson.JSONDecodeError:
        return False
    return isinstance(said, dict) and said.get("format") == "urn:synthgen:extension:v1"
