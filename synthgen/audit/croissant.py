"""Croissant of a dataset that is there, also of one that was written without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge
from synthgen.audit.material import Material
from synthgen.audit.place import entries, splits
from synthgen.export import croissant as written


def croissant(material: Material) -> dict[str, Any]:
    """The JSON-LD. Raises CannotJudge where the directory is not one that synthgen wrote."""
    synthetic = any(
        said.get("synthetic") is True for path in splits(material.dataset) for _, _, said in entries(path)
    )
    try:
        return croissant_of(material.manifest, material.lock, material.splits, synthetic=synthetic)
    except ValueError as error:
        raise CannotJudge(str(error)) from None


def croissant_of(
    manifest: Manifest,
    lock: Mapping[str, Any],
    splits: Sequence[str],
    *,
    synthetic: bool,
    earlier: bool = False,
) -> dict[str, Any]:
    """What follows from a manifest and a lock; `earlier` as it was written at first.

    Raises ValueError where they are not what synthgen wrote.
    """
    files = {
        name: written.File(item.annotations.bytes, item.digest.sha256)
        for name, item in manifest.subjects.items()
    }
    keys = [signature.keyid for signature in manifest.envelope.signatures]
    rows = manifest.ledger.kept
    material = written.Material(manifest.folder, lock, files, splits, rows, keys, synthetic)
    return written.croissant(material, earlier=earlier)
