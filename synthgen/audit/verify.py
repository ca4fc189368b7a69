"""`audit verify`: is a dataset, or a whole run, as it was published?

Integrity is whether everything agrees with the manifest. Authenticity is whether somebody signed that. A
manifest without a signature can be made by anybody who can write to the folder, and is called unsigned.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen.audit.checkpoint import Saved, saved
from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge, Findings
from synthgen.audit.place import NUMBER, journal_of
from synthgen.audit.progress import Tell
from synthgen.audit.run import Claim, check_run, checkpoints, derived_versions
from synthgen.audit.walk import Walk
from synthgen.export.durable import STAGING
from synthgen.journal import VERSIONS
from synthgen.journal_entries import STATES
from synthgen.provenance.keys import public_key
from synthgen.provenance.manifest import MANIFEST, REPORT


@dataclass(slots=True)
class FolderVerdict:
    """What the audit of a run, a version or a dataset came to."""

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
    not_bound: list[str] = field(default_factory=list)  # files that are there, and no manifest is over
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
            "not_bound": self.not_bound,
            "checkpoints": self.checkpoints,
            "checkpoint": None if self.checkpoint is None else self.checkpoint.as_json(),
            "signed_by": self.signers,
            "authentic": self.authentic,
        }


def verify(
    directory: Path,
    key: Path | None = None,
    checkpoint: Path | None = None,
    *,
    version_of: Path | None = None,
    tell: Tell | None = None,
) -> FolderVerdict:
    """Verify a dataset's directory, or a run's with all that it holds; its signature against a public key.

    With a checkpoint that `audit checkpoint` wrote, also that the ledger extends the one that it had then.
    `version_of` is the run that a version's directory is in, where that is known; `tell` hears how far it is.
    Raises CannotJudge where there is no manifest to verify it by, or no checkpoint in that file; UsageError
    for a key that is none.
    """
    verdict = FolderVerdict(directory)
    if checkpoint is not None:
        verdict.checkpoint = saved(checkpoint, key)
    whole = (directory / "dataset").is_dir()
    dataset = directory / "dataset" if whole else directory
    if not (dataset / MANIFEST).is_file():
        raise CannotJudge(f"{dataset} holds no dataset of synthgen: there is no {MANIFEST}")
    manifest = Manifest(dataset)
    verdict.signers = [each.keyid for each in manifest.envelope.signatures]
    if version_of is None:
        run, version = journal_of(directory)
        version_of = None if version is None else run
    claims = checkpoints(directory) if whole else []
    verdict.checkpoints = len(claims)
    if verdict.checkpoint is not None:
        claims.append(Claim(verdict.checkpoint.size, verdict.checkpoint.root, str(checkpoint)))
    Walk(dataset, manifest, verdict, "dataset/" if whole else "", claims, tell).check()
    if key is not None:
        found = Findings()
        verdict.authentic = manifest.check_signature(key, found)
        verdict.findings.take(found, "dataset/" if whole else "")
        if verdict.authentic:
            verdict.signers = [
                public_key(key).keyid
            ]  # whom else it names did not sign, as far as anybody knows
    verdict.run = whole
    if whole and os.path.lexists(directory / REPORT):
        verdict.not_bound.append(REPORT)
    if whole:
        check_run(directory, verdict, key, version_of=version_of, tell=tell)
    if whole and version_of is None:
        _check_versions(directory, verdict, key, tell)
    return verdict


def _check_versions(directory: Path, verdict: FolderVerdict, key: Path | None, tell: Tell | None) -> None:
    """What `curate` and the like made of the run later, each as a run's directory of its own."""
    folder = directory / VERSIONS
    for number in derived_versions(directory):
        if not os.path.lexists(folder / str(number)):
            verdict.findings.add("is missing: the journal has it", f"{VERSIONS}/{number}")
    if folder.is_symlink() or not folder.is_dir():
        if os.path.lexists(folder):
            verdict.findings.add("is no folder", VERSIONS)
        return
    for place in sorted(folder.iterdir()):
        name = f"{VERSIONS}/{place.name}"
        made = not place.is_symlink() and place.is_dir() and NUMBER.fullmatch(place.name) is not None
        if made and not any(path.name != STAGING for path in place.iterdir()):
            continue  # begun, and ended before it was written
        if not made:
            verdict.findings.add("was added: it is no version of synthgen's", name)
            continue
        try:
            version = verify(place, key, version_of=directory, tell=tell)
        except CannotJudge as error:
            verdict.findings.add(str(error), name)
            continue
        verdict.versions.append(place.name)
        verdict.files += version.files
        verdict.not_bound += [f"{name}/{file}" for file in version.not_bound]
        verdict.findings.take(version.findings, f"{name}/")
        if verdict.authentic:
            verdict.authentic = version.authentic
