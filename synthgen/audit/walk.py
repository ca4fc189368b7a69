"""One pass over a dataset's ledger, and over everything that it speaks of beside it."""

from __future__ import annotations

import hashlib
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from synthgen.audit.agreement import Agreement
from synthgen.audit.described import check_card, check_croissant
from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge, Findings
from synthgen.audit.lines import LIST_BYTES, Broken, lines, parsed, small_file
from synthgen.audit.place import LOCK, read_lock
from synthgen.audit.progress import Tell, counted
from synthgen.audit.stated import check_stated
from synthgen.audit.tables import rows_of_parquet
from synthgen.journal_entries import STATES
from synthgen.provenance.manifest import LEDGER, MANIFEST
from synthgen.provenance.merkle import Growing, leaf_hash
from synthgen.provenance.statement import without_provenance
from synthgen.seeds import that_come_again

if TYPE_CHECKING:
    from synthgen.audit.run import Claim
    from synthgen.audit.verify import FolderVerdict

ERASED = "provenance/erased.json"
LOCK_FILE = f"provenance/{LOCK}"
OF_EVERY = frozenset({"README.md", "croissant.json", LOCK_FILE, LEDGER, ERASED})
_ID = re.compile(r"[0-9a-f]{32}")
_STATED = re.compile(r"provenance/([A-Za-z0-9._-]{1,80})\.jsonl")


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


class Walk:
    """A dataset's folder against its manifest, its ledger and itself."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        verdict: FolderVerdict,
        prefix: str,
        claims: Sequence[Claim],
        tell: Tell | None = None,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._verdict = verdict
        self._findings = verdict.findings
        self._prefix = prefix
        self._claims = claims
        self._tell = tell
        self._roots = dict.fromkeys((claim.size for claim in claims), "")  # that the ledger had, by its size
        self._reading = LEDGER
        self._gone = b""  # the list of what was erased, as it stands there
        self._ids = array("Q")  # the first halves of ids, to see which are there twice
        self._rows: dict[str, int] | None = None  # of each split; None where the walk did not come to its end
        self._lock: Mapping[str, Any] = {}
        self._agreement: Agreement | None = None

    def check(self) -> None:
        """Add to the verdict whatever is wrong."""
        own = Findings()
        with ThreadPoolExecutor(2) as threads:  # they take the other core
            looking = threads.submit(self._manifest.check_files, own)
            stated = [
                threads.submit(check_stated, self._folder, split, self._shards("provenance", split))
                for split in self._splits()
            ]
            self._try_to_walk()
            looking.result()
        walked = Findings(self._findings.count, self._findings.shown)
        self._findings.count, self._findings.shown = 0, []
        self._findings.take(own, self._prefix)
        self._findings.take(walked, "")
        for each in stated:
            self._findings.take(each.result().findings, self._prefix)
        self._described(synthetic=any(each.result().synthetic for each in stated))
        self._verdict.files += len(self._manifest.subjects)

    def _splits(self) -> list[str]:
        names = [name for name in self._manifest.subjects if name != LEDGER]
        return [match[1] for name in names if (match := _STATED.fullmatch(name)) is not None]

    def _try_to_walk(self) -> None:
        try:
            self._verdict.erased = self._tombstones()
            self._read_lock()
            self._walk()
        except Broken as broken:
            self._found(f"line {broken.number} {broken}", self._reading)
        except OSError as error:
            self._found(f"cannot be read: {error.strerror}", self._reading)

    def _found(
        self, message: str, file: str | None, record: str | None = None, field: str | None = None
    ) -> None:
        self._findings.add(message, f"{self._prefix}{file}", record, field)

    def _tombstones(self) -> frozenset[str]:
        """Raises Broken where they are none."""
        self._reading = ERASED
        if ERASED not in self._manifest.subjects or not (self._folder / ERASED).is_file():
            return frozenset()
        try:
            self._gone = small_file(self._folder / ERASED, LIST_BYTES)
            said = parsed(self._gone, 1)["erased"]
            return frozenset(str(each["id"]) for each in said)
        except (CannotJudge, LookupError, TypeError) as error:
            raise Broken(f"holds no list of what was erased: {error}", 1) from None

    def _read_lock(self) -> None:
        """What took effect, as far as it can be read; every file is to be of one of its splits."""
        if LOCK_FILE not in self._manifest.subjects:
            self._found("is missing", LOCK_FILE)
        elif (self._folder / LOCK_FILE).is_file():
            try:
                self._lock = read_lock(self._folder / LOCK_FILE)
                self._agreement = Agreement(self._lock)
            except (CannotJudge, ValueError) as error:
                self._found(str(error), LOCK_FILE)
        if self._agreement is None:
            return
        if not self._agreement.digest_fits:
            self._found("is not that of the recipe in it", LOCK_FILE, None, "recipe_sha256")
        there = self._manifest.subjects
        own = set(OF_EVERY)
        for split in self._agreement.splits:
            tables = [self._shards("provenance", split), self._shards("data", split)]
            own.update((f"{split}.jsonl", f"provenance/{split}.jsonl"), *tables)
            wanted = {f"provenance/{split}.jsonl": f"provenance/{split}.jsonl" in there}
            if "jsonl" in self._agreement.formats:
                wanted[f"{split}.jsonl"] = f"{split}.jsonl" in there
            if "parquet" in self._agreement.formats:
                wanted[f"data/{split}-*.parquet"] = bool(tables[1])
            for name, is_there in wanted.items():
                if not is_there:
                    self._found(f"is missing: {LOCK} has it", name)
        for name in there:
            if name not in own:
                self._found("is no file of a dataset that synthgen writes", name)

    def _shards(self, folder: str, split: str) -> list[str]:
        named = re.compile(rf"{folder}/{re.escape(split)}-\d{{5}}-of-\d{{5}}\.parquet")
        return sorted(name for name in self._manifest.subjects if named.fullmatch(name))

    def _heads(self) -> list[_Head]:
        heads = []
        for split in self._splits():
            name = f"provenance/{split}.jsonl"
            rows: list[tuple[str, Iterator[bytes]]] = []
            if f"{split}.jsonl" in self._manifest.subjects:
                rows.append((f"{split}.jsonl", lines(self._folder / f"{split}.jsonl")))
            if data := [self._folder / shard for shard in self._shards("data", split)]:
                rows.append((f"data/{split}-*.parquet", rows_of_parquet(data)))
            head = _Head(split, lines(self._folder / name), rows)
            self._reading = name
            head.advance()
            heads.append(head)
        return heads

    def _walk(self) -> None:
        self._reading = LEDGER
        heads = self._heads()
        tree, states = Growing(), Counter[str]()
        erased: list[dict[str, str]] = []
        self._note_root(tree)
        ledger = counted(lines(self._folder / LEDGER), f"{self._prefix}{LEDGER}", self._tell)
        for seen, line in enumerate(ledger, 1):
            self._reading = LEDGER
            entry = parsed(line, seen)
            try:
                id, state, stated = str(entry["id"]), str(entry["state"]), str(entry["statement"])
            except LookupError:
                raise Broken("is no entry of a ledger", seen) from None
            if _ID.fullmatch(id) is None:
                raise Broken("is no entry of a ledger: its id is none", seen)
            if line != orjson.dumps({"id": id, "state": state, "statement": stated}):
                self._found("is not as synthgen writes it", LEDGER, id)
            self._ids.append(int(id[:16], 16))
            tree.append(leaf_hash(line))
            self._note_root(tree)
            states[state] += 1
            if id in self._verdict.erased:
                erased.append({"id": id, "state": state})
                continue
            if state == "kept":
                self._kept(id, stated, heads)
            elif state not in STATES:
                self._found(f"there is no state {state[:40]!r}", LEDGER, id, "state")
        for head in heads:
            self._nothing_left(head)
        self._compare_erased(erased)
        self._compare(tree, states)
        self._extends(tree.size)
        self._no_id_twice()
        self._rows = {head.split: head.number - 1 for head in heads}

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
            self._found("is in the ledger as kept, and not where it should be", "provenance", id)
            return
        file = f"provenance/{head.split}.jsonl"
        assert head.line is not None
        if hashlib.sha256(head.line).hexdigest() != stated:
            self._found("was altered: it is not what the ledger has", file, id)
        if head.said.get("state") != "kept":
            self._found("is not what the ledger says", file, id, "state")
        for name, rows in head.rows:
            self._reading = name
            row = next(rows, None)
            bare = without_provenance(row, head.line) if row is not None else b""
            if row is None:
                self._found("its row is missing", name, id)
            elif hashlib.sha256(bare).hexdigest() != head.said.get("row_sha256"):
                field = None if parsed(row, head.number).get("id") == id else "id"
                self._found("its row is not the one of the ledger", name, id, field)
        self._reading = file
        head.advance()

    def _nothing_left(self, head: _Head) -> None:
        if head.line is not None:
            self._found(
                "has rows that the ledger does not know, or not there",
                f"provenance/{head.split}.jsonl",
                str(head.said.get("id"))[:80],
            )
        for name, rows in head.rows:
            self._reading = name
            if next(rows, None) is not None:
                self._found("has more rows than its provenance", name)

    def _compare_erased(self, there: list[dict[str, str]]) -> None:
        """The list of what was erased names records of the ledger, in its order, with their states."""
        if len(there) != len(self._verdict.erased):
            self._found("names records that the ledger has not", ERASED)
        elif self._gone and self._gone != orjson.dumps({"erased": there}):
            said = parsed(self._gone, 1)["erased"]
            other = next((each["id"] for each, now in zip(said, there, strict=False) if each != now), None)
            self._found("is not as synthgen writes it for what the ledger has", ERASED, other)

    def _compare(self, tree: Growing, states: Counter[str]) -> None:
        said = self._manifest.ledger
        verdict = self._verdict
        verdict.size, verdict.root, verdict.states = tree.size, tree.root().hex(), states
        if said.file != LEDGER:
            self._found(f"says that the ledger is {said.file[:80]!r}", MANIFEST)
        if tree.size != said.size:
            self._found(f"has {tree.size:,} entries, and {MANIFEST} says {said.size:,}", LEDGER)
        if tree.root().hex() != said.root:
            self._found(f"its root is not the one of {MANIFEST}", LEDGER)
        if said.erased != len(verdict.erased):
            self._found(f"has {len(verdict.erased):,} records, and {MANIFEST} says {said.erased:,}", ERASED)
        for state in STATES:
            stated = getattr(said, state)
            if states[state] != stated:
                message = f"has {states[state]:,} {state} records, and {MANIFEST} says {stated:,}"
                self._found(message, LEDGER, None, state)

    def _no_id_twice(self) -> None:
        again = that_come_again(self._ids)
        if not again:
            return
        self._reading = LEDGER
        begin = {int.from_bytes(each, sys.byteorder) for each in again}
        seen = set[str]()
        for number, line in enumerate(lines(self._folder / LEDGER), 1):
            id = str(parsed(line, number).get("id"))
            if int(id[:16], 16) in begin:
                if id in seen:
                    self._found("is there twice", LEDGER, id)
                seen.add(id)

    def _described(self, *, synthetic: bool) -> None:
        """What the card and Croissant say of it, as far as that follows from the rest."""
        if self._agreement is None or self._rows is None:
            return
        for name, check in (("README.md", check_card), ("croissant.json", check_croissant)):
            if name in self._manifest.subjects and (self._folder / name).is_file():
                for message, field in check(self._manifest, self._lock, self._rows, synthetic):
                    self._found(message, name, None, field)
