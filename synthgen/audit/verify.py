"""`audit verify`: is a dataset, or a whole run, as it was published?

Integrity is whether everything agrees with the manifest. Authenticity is whether somebody signed that. A
manifest without a signature can be made by anybody who can write to the folder, and is called unsigned.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen.audit.checkpoint import Saved, saved
from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge, Findings
from synthgen.audit.lines import LIST_BYTES, Broken, lines, parsed, rows_of_parquet, small_file
from synthgen.audit.run import Claim, check_run, checkpoints
from synthgen.export.durable import STAGING
from synthgen.journal import STATES, VERSIONS
from synthgen.provenance.manifest import LEDGER, MANIFEST
from synthgen.provenance.merkle import Growing, leaf_hash
from synthgen.provenance.statement import without_provenance

ERASED = "provenance/erased.json"


@dataclass(slots=True)
class Verdict:
    """What an audit came to."""

    directory: Path
    findings: Findings = field(default_factory=Findings)
    states: Counter[str] = field(default_factory=Counter)
    erased: frozenset[str] = frozenset()  # ids of records whose contents were erased
    size: int = 0
    root: str = ""
    files: int = 0
    run: bool = False  # whether it is a run's directory, or a version's, and not a dataset alone
    journal: bool = False
    versions: list[str] = field(default_factory=list)  # of the run, that were verified too
    checkpoints: int = 0  # of the run's sessions, that the ledger was held against
    checkpoint: Saved | None = None  # the auditor's own
    signers: list[str] = field(default_factory=list)
    authentic: bool | None = None  # None: no key was given to check it against

    @property
    def intact(self) -> bool:
        """Whether nothing was altered, added or is missing."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "dir": str(self.directory),
            "intact": self.intact,
            "findings": [finding.as_json() for finding in self.findings.shown],
            "count": self.findings.count,
            "files": self.files,
            "ledger": {
                "size": self.size,
                "root": self.root,
                **{state: self.states[state] for state in STATES},
                "erased": len(self.erased),
            },
            "journal": self.journal,
            "versions": self.versions,
            "checkpoints": self.checkpoints,
            "checkpoint": None if self.checkpoint is None else self.checkpoint.as_json(),
            "signed_by": self.signers,
            "authentic": self.authentic,
        }


def verify(directory: Path, key: Path | None = None, checkpoint: Path | None = None) -> Verdict:
    """Verify a dataset's directory, or a run's with all that it holds; its signature against a public key.

    With a checkpoint that `audit checkpoint` wrote, also that the ledger extends the one that it had then.
    Raises CannotJudge where there is no manifest to verify it by, or no checkpoint in that file; UsageError
    for a key that is none.
    """
    verdict = Verdict(directory)
    if checkpoint is not None:
        verdict.checkpoint = saved(checkpoint, key)
    whole = (directory / "dataset").is_dir()
    dataset = directory / "dataset" if whole else directory
    if not (dataset / MANIFEST).is_file():
        raise CannotJudge(f"{dataset} holds no dataset of synthgen: there is no {MANIFEST}")
    manifest = Manifest(dataset)
    verdict.signers = [each.keyid for each in manifest.envelope.signatures]
    if key is not None:
        verdict.authentic = manifest.signed_by(key)
    claims = checkpoints(directory) if whole else []
    verdict.checkpoints = len(claims)
    if verdict.checkpoint is not None:
        claims.append(Claim(verdict.checkpoint.size, verdict.checkpoint.root, str(checkpoint)))
    _Dataset(dataset, manifest, verdict, "dataset/" if whole else "", claims).check()
    verdict.run = whole
    if whole:
        check_run(directory, verdict, key)
        _check_versions(directory, verdict, key)
    return verdict


def _check_versions(directory: Path, verdict: Verdict, key: Path | None) -> None:
    """What `curate` and the like made of the run later, each as a run's directory of its own."""
    folder = directory / VERSIONS
    if folder.is_symlink() or not folder.is_dir():
        if os.path.lexists(folder):
            verdict.findings.add("is no folder", VERSIONS)
        return
    for place in sorted(folder.iterdir()):
        name = f"{VERSIONS}/{place.name}"
        made = not place.is_symlink() and place.is_dir() and place.name.isdecimal()
        if made and not any(path.name != STAGING for path in place.iterdir()):
            continue  # begun, and ended before it was written
        if not made:
            verdict.findings.add("was added: it is no version of synthgen's", name)
            continue
        try:
            version = verify(place, key)
        except CannotJudge as error:
            verdict.findings.add(str(error), name)
            continue
        verdict.versions.append(place.name)
        verdict.files += version.files
        verdict.findings.take(version.findings, f"{name}/")
        if verdict.authentic:
            verdict.authentic = version.authentic


@dataclass(slots=True)
class _Head:
    """One split, at the record that comes next: its line of provenance and its row in each format."""

    split: str
    provenance: Iterator[bytes]
    rows: list[tuple[str, Iterator[bytes]]]
    line: bytes | None = None
    said: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    def advance(self) -> None:
        """Go on to the next line. Raises Broken."""
        self.line = next(self.provenance, None)
        self.number += 1
        self.said = {} if self.line is None else parsed(self.line, self.number)


class _Dataset:
    """Walks the ledger, and everything that it speaks of beside it, in one pass."""

    def __init__(
        self, folder: Path, manifest: Manifest, verdict: Verdict, prefix: str, claims: Sequence[Claim]
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._verdict = verdict
        self._findings = verdict.findings
        self._prefix = prefix
        self._claims = claims
        self._roots = dict.fromkeys((claim.size for claim in claims), "")  # that the ledger had, by its size
        self._reading = LEDGER

    def check(self) -> None:
        """Add to the verdict whatever is wrong."""
        own = Findings()
        with ThreadPoolExecutor(1) as thread:  # digests take the other core
            looking = thread.submit(self._manifest.check_files, own)
            self._try_to_walk()
            looking.result()
        walked = Findings(self._findings.count, self._findings.shown)
        self._findings.count, self._findings.shown = 0, []
        for found, prefix in ((own, self._prefix), (walked, "")):
            self._findings.take(found, prefix)
        self._verdict.files += len(self._manifest.subjects)

    def _try_to_walk(self) -> None:
        try:
            self._verdict.erased = self._tombstones()
            self._walk()
        except Broken as broken:
            self._findings.add(f"line {broken.number} {broken}", f"{self._prefix}{self._reading}")
        except OSError as error:
            self._findings.add(f"cannot be read: {error.strerror}", f"{self._prefix}{self._reading}")

    def _tombstones(self) -> frozenset[str]:
        """Raises Broken where they are none."""
        self._reading = ERASED
        if ERASED not in self._manifest.subjects or not (self._folder / ERASED).is_file():
            return frozenset()
        try:
            said = parsed(small_file(self._folder / ERASED, LIST_BYTES), 1)["erased"]
            return frozenset(str(each["id"]) for each in said)
        except (CannotJudge, LookupError, TypeError) as error:
            raise Broken(f"holds no list of what was erased: {error}", 1) from None

    def _heads(self) -> list[_Head]:
        heads = []
        for name in self._manifest.subjects:
            parts = Path(name).parts
            if len(parts) != 2 or parts[0] != "provenance" or not name.endswith(".jsonl") or name == LEDGER:
                continue
            split = Path(name).stem
            rows: list[tuple[str, Iterator[bytes]]] = []
            if f"{split}.jsonl" in self._manifest.subjects:
                rows.append((f"{split}.jsonl", lines(self._folder / f"{split}.jsonl")))
            shards = [
                self._folder / other
                for other in sorted(self._manifest.subjects)
                if other.startswith(f"data/{split}-") and other.endswith(".parquet")
            ]
            if shards:
                rows.append((f"data/{split}-*.parquet", rows_of_parquet(shards)))
            head = _Head(split, lines(self._folder / name), rows)
            self._reading = name
            head.advance()
            heads.append(head)
        return heads

    def _walk(self) -> None:
        self._reading = LEDGER
        heads = self._heads()
        tree, states, erased = Growing(), Counter[str](), 0
        self._note_root(tree)
        for seen, line in enumerate(lines(self._folder / LEDGER), 1):
            self._reading = LEDGER
            entry = parsed(line, seen)
            try:
                id, state, stated = str(entry["id"]), str(entry["state"]), str(entry["statement"])
            except LookupError:
                raise Broken("is no entry of a ledger", seen) from None
            tree.append(leaf_hash(line))
            self._note_root(tree)
            states[state] += 1
            if id in self._verdict.erased:
                erased += 1
                continue
            if state == "kept":
                self._kept(id, stated, heads)
            elif state not in STATES:
                self._findings.add(
                    f"there is no state {state[:40]!r}", f"{self._prefix}{LEDGER}", id, "state"
                )
        for head in heads:
            self._nothing_left(head)
        if erased != len(self._verdict.erased):
            self._findings.add("names records that the ledger has not", f"{self._prefix}{ERASED}")
        self._compare(tree, states)
        self._extends(tree.size)

    def _note_root(self, tree: Growing) -> None:
        if tree.size in self._roots:
            self._roots[tree.size] = tree.root().hex()

    def _extends(self, size: int) -> None:
        """Whether the ledger begins with what it was at each checkpoint."""
        for claim in self._claims:
            if claim.size > size:
                message = f"the ledger had {claim.size:,} entries at a checkpoint, and has {size:,} now"
                self._findings.add(message, claim.file)
            elif self._roots[claim.size] != claim.root:
                message = f"the ledger's first {claim.size:,} entries are not those of a checkpoint"
                self._findings.add(message, claim.file)

    def _kept(self, id: str, stated: str, heads: list[_Head]) -> None:
        head = next((head for head in heads if head.said.get("id") == id), None)
        if head is None:
            self._findings.add(
                "is in the ledger as kept, and not where it should be", self._prefix + "provenance", id
            )
            return
        file = f"{self._prefix}provenance/{head.split}.jsonl"
        assert head.line is not None
        if hashlib.sha256(head.line).hexdigest() != stated:
            self._findings.add("was altered: it is not what the ledger has", file, id)
        if head.said.get("state") != "kept":
            self._findings.add("is not what the ledger says", file, id, "state")
        for name, rows in head.rows:
            self._reading = name
            row = next(rows, None)
            bare = without_provenance(row, head.line) if row is not None else b""
            if row is None:
                self._findings.add("its row is missing", f"{self._prefix}{name}", id)
            elif hashlib.sha256(bare).hexdigest() != head.said.get("row_sha256"):
                field = None if parsed(row, head.number).get("id") == id else "id"
                self._findings.add("its row is not the one of the ledger", f"{self._prefix}{name}", id, field)
        self._reading = f"provenance/{head.split}.jsonl"
        head.advance()

    def _nothing_left(self, head: _Head) -> None:
        if head.line is not None:
            self._findings.add(
                "has rows that the ledger does not know, or not there",
                f"{self._prefix}provenance/{head.split}.jsonl",
                str(head.said.get("id"))[:80],
            )
        for name, rows in head.rows:
            self._reading = name
            if next(rows, None) is not None:
                self._findings.add("has more rows than its provenance", f"{self._prefix}{name}")

    def _compare(self, tree: Growing, states: Counter[str]) -> None:
        said, file = self._manifest.ledger, f"{self._prefix}{LEDGER}"
        verdict = self._verdict
        verdict.size, verdict.root, verdict.states = tree.size, tree.root().hex(), states
        if said.file != LEDGER:
            self._findings.add(f"says that the ledger is {said.file[:80]!r}", f"{self._prefix}{MANIFEST}")
        if tree.size != said.size:
            self._findings.add(f"has {tree.size:,} entries, and {MANIFEST} says {said.size:,}", file)
        if tree.root().hex() != said.root:
            self._findings.add(f"its root is not the one of {MANIFEST}", file)
        if said.erased != len(verdict.erased):
            message = f"has {len(verdict.erased):,} records, and {MANIFEST} says {said.erased:,}"
            self._findings.add(message, f"{self._prefix}{ERASED}")
        for state in STATES:
            stated = getattr(said, state)
            if states[state] != stated:
                message = f"has {states[state]:,} {state} records, and {MANIFEST} says {stated:,}"
                self._findings.add(message, file, None, state)
