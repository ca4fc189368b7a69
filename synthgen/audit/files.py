"""Every file that a manifest names, and none besides: digests, sizes, rows."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
from pydantic import ValidationError

from synthgen.audit.findings import CannotJudge, Findings
from synthgen.audit.lines import Broken, digest_of, rows_in, small_file
from synthgen.provenance.manifest import MANIFEST
from synthgen.provenance.schema import Envelope, Statement, Subject


class Manifest:
    """A manifest that was read and is well formed. Raises CannotJudge where there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = str(folder / MANIFEST)
        raw = small_file(folder / MANIFEST)
        try:
            self.envelope = Envelope.model_validate_json(raw)
        except ValidationError as error:
            raise _none(name, error) from None
        said = stated_in(self.envelope, name)
        self._plain = _as_written(self.envelope) == raw
        self.subjects = {item.name: item for item in said.subject}
        self.ledger = said.predicate.ledger
        if len(self.subjects) != len(said.subject):
            raise CannotJudge(f"{folder / MANIFEST} names a file twice")

    def signed_by(self, key: Path) -> bool:
        """Whether it bears a valid signature of the public key in that file. Raises UsageError."""
        from synthgen.provenance.keys import public_key, signed_by

        return signed_by(self.envelope.model_dump(by_alias=True), public_key(key))

    def check_signature(self, key: Path, findings: Findings) -> bool:
        """Whether that key signed it; where it bears its name, and the key did not, somebody edited it."""
        from synthgen.provenance.keys import public_key

        if self.signed_by(key):
            return True
        if public_key(key).keyid in [each.keyid for each in self.envelope.signatures]:
            findings.add(
                "names the key that was given, which did not sign this", MANIFEST, None, "signatures"
            )
        return False

    def check_files(self, findings: Findings, leave_out: Sequence[str] = ()) -> None:
        """Whether every file named is there as it was, and nothing else is."""
        if not self._plain:
            findings.add("is not as synthgen writes it: somebody edited it", MANIFEST)
        there = set(_files(self.folder, leave_out))
        for name, item in self.subjects.items():
            path = self.folder / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                findings.add("leads out of the folder", name)
            elif Path(name).parts[0] in leave_out:
                continue
            elif name not in there:
                findings.add("is missing", name)
            else:
                try:
                    _check_file(path, item, findings)
                except OSError as error:
                    findings.add(f"cannot be read: {error.strerror}", name)
        for name in sorted(there - self.subjects.keys() - {MANIFEST}):
            findings.add("was added: the manifest does not name it", name)


def _as_written(envelope: Envelope) -> bytes:
    """The bytes that synthgen writes for what an envelope says: others that mean the same are edits too."""
    payload = orjson.dumps(orjson.loads(base64.b64decode(envelope.payload)))
    said = {**envelope.model_dump(by_alias=True), "payload": base64.b64encode(payload).decode()}
    return orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _check_file(path: Path, item: Subject, findings: Findings) -> None:
    said, size = item.annotations, path.stat().st_size
    if size != said.bytes:
        findings.add(f"has {size:,} bytes instead of {said.bytes:,}", item.name)
        return
    digest, rows = digest_of(path)
    if digest != item.digest.sha256:
        findings.add("was altered: its digest is another", item.name)
    elif said.rows is not None:
        if path.suffix == ".parquet":
            try:
                rows = rows_in(path)
            except Broken as broken:
                findings.add(str(broken), item.name)
                return
        if rows != said.rows:
            findings.add(f"has {rows:,} rows, and {MANIFEST} says {said.rows:,}", item.name, None, "rows")


def stated_in(envelope: Envelope, name: str) -> Statement:
    """The statement in an envelope. Raises CannotJudge, with the name, where it is none of synthgen's."""
    try:
        return Statement.model_validate_json(base64.b64decode(envelope.payload, validate=True))
    except ValidationError as error:
        raise _none(name, error) from None
    except ValueError as error:
        raise CannotJudge(f"{name} is not a manifest of synthgen: {error}") from None


def _none(name: str, error: ValidationError) -> CannotJudge:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return CannotJudge(f"{name} is not a manifest of synthgen: {place}: {first['msg']}")


def _files(folder: Path, leave_out: Sequence[str]) -> Iterator[str]:
    """Every file beneath a folder by its name; links are not followed, and count as files, as pipes do."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in leave_out:
            continue
        if path.is_symlink():
            yield f"{name.as_posix()} (a link)"
        elif not path.is_dir():
            yield name.as_posix() if path.is_file() else f"{name.as_posix()} (no regular file)"
