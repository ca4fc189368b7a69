"""A proof that a ledger has a record: one file, checked with nothing but it and the signer's public key."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from synthgen.audit.files import Manifest, stated_in
from synthgen.audit.findings import CannotJudge, Findings
from synthgen.audit.lines import small_file
from synthgen.audit.place import Place, entries, reading
from synthgen.errors import UsageError
from synthgen.provenance.manifest import LEDGER
from synthgen.provenance.merkle import includes, inclusion_proof, leaf_hash, root_of
from synthgen.provenance.schema import Proof

SIZE = 32


def write_proof(place: Place, id: str, file: Path) -> None:
    """Prove that the ledger of a dataset has the record of that id.

    Raises CannotJudge where there is no dataset, or its ledger is not the one of its manifest; UsageError
    where the file cannot be written.
    """
    if place.dataset is None:
        raise CannotJudge(f"{place.directory} holds no dataset, whose ledger could prove anything")
    with reading(place.directory):
        data = _proof(place.dataset, id)
    try:
        file.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None


def _proof(dataset: Path, id: str) -> bytes:
    manifest = Manifest(dataset)
    hashes, found = bytearray(), None
    for number, line, said in entries(dataset / LEDGER):
        hashes += leaf_hash(line)
        if found is None and said.get("id") == id:
            found = number - 1, line
    size = len(hashes) // SIZE
    root = root_of(bytes(hashes[at : at + SIZE]) for at in range(0, len(hashes), SIZE)).hex()
    if found is None or (root, size) != (manifest.ledger.root, manifest.ledger.size):
        raise CannotJudge(
            f"the ledger of {dataset} is not what its manifest says; synthgen audit verify says more"
        )
    index, entry = found
    proof = Proof(
        format="urn:synthgen:proof:v1",
        entry=entry.decode(),
        index=index,
        size=size,
        path=[each.hex() for each in inclusion_proof(bytes(hashes), index)],
        root=root,
        manifest=manifest.envelope,
        sha256="0" * SIZE * 2,
    )
    return _written(proof.model_copy(update={"sha256": _checksum(proof)}))


def _checksum(proof: Proof) -> str:
    """Of all but itself: what is damaged on the way is found, though no key is there."""
    return hashlib.sha256(orjson.dumps(proof.model_dump(by_alias=True, exclude={"sha256"}))).hexdigest()


def _written(proof: Proof) -> bytes:
    return orjson.dumps(
        proof.model_dump(by_alias=True), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    )


@dataclass(slots=True)
class ProofVerdict:
    """What a proof came to. `authentic` is None where no key was given to check the signature against."""

    file: Path
    findings: Findings = field(default_factory=Findings)
    record: dict[str, Any] = field(default_factory=dict)
    index: int = 0
    size: int = 0
    root: str = ""
    signers: list[str] = field(default_factory=list)
    authentic: bool | None = None

    @property
    def intact(self) -> bool:
        """Whether it proves what it says."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "proof": str(self.file),
            "intact": self.intact,
            "findings": [finding.as_json() for finding in self.findings.shown],
            "count": self.findings.count,
            "record": self.record,
            "ledger": {"index": self.index, "size": self.size, "root": self.root},
            "signed_by": self.signers,
            "authentic": self.authentic,
        }


def check_proof(file: Path, key: Path | None = None) -> ProofVerdict:
    """Check a proof, and the signature of the manifest in it against a public key.

    Raises CannotJudge where the file holds none, UsageError for a key that is none.
    """
    raw = small_file(file)
    try:
        proof = Proof.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CannotJudge(f"{file} is no proof of synthgen: {where}: {first['msg']}") from None
    verdict = ProofVerdict(file, index=proof.index, size=proof.size, root=proof.root)
    verdict.signers = [each.keyid for each in proof.manifest.signatures]

    def wrong(message: str, field: str | None = None) -> None:
        verdict.findings.add(message, file.name, None, field)

    if _written(proof) != raw:
        wrong("is not as synthgen writes it: somebody edited it")
    if _checksum(proof) != proof.sha256:
        wrong("is damaged, or somebody edited it: its digest is another", "sha256")
    entry = proof.entry.encode()
    try:
        said = orjson.loads(entry)
        verdict.record = {name: str(said[name]) for name in ("id", "state", "statement")}
    except (ValueError, LookupError, TypeError):
        wrong("is no entry of a ledger", "entry")
    path = [bytes.fromhex(each) for each in proof.path]
    if not includes(bytes.fromhex(proof.root), proof.size, proof.index, leaf_hash(entry), path):
        wrong("leads to another root: the ledger has no such entry there", "path")
    ledger = stated_in(proof.manifest, f"the manifest in {file}").predicate.ledger
    if ledger.root != proof.root:
        wrong("is not the one of the manifest", "root")
    if ledger.size != proof.size:
        wrong("is not the one of the manifest", "size")
    if not all(_plain_base64(each.sig) for each in proof.manifest.signatures):
        wrong("is not as signatures are written", "manifest.signatures")
    if key is not None:
        from synthgen.provenance.keys import public_key, signed_by

        public = public_key(key)
        verdict.authentic = signed_by(proof.manifest.model_dump(by_alias=True), public)
        if verdict.authentic:
            verdict.signers = [public.keyid]
        elif public.keyid in verdict.signers:
            wrong("names the key that was given, which did not sign this", "manifest.signatures")
    return verdict


def _plain_base64(text: str) -> bool:
    """Whether it is the one way to write these bytes: others that mean the same are edits too."""
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except (binascii.Error, ValueError):
        return False
