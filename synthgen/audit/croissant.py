"""Croissant of a dataset that is there, also of one that was written without."""

from __future__ import annotations

from typing import Any

from synthgen.audit.findings import CannotJudge
from synthgen.audit.material import Material
from synthgen.audit.place import entries, splits
from synthgen.export import croissant as written


def croissant(material: Material) -> dict[str, Any]:
    """The JSON-LD. Raises CannotJudge where the directory is not one that synthgen wrote."""
    manifest = material.manifest
    files = {
        name: written.File(item.annotations.bytes, item.digest.sha256)
        for name, item in manifest.subjects.items()
    }
    keys = [signature.keyid for signature in manifest.envelope.signatures]
    rows = manifest.ledger.kept
    synthetic = any(
        said.get("synthetic") is True for path in splits(material.dataset) for _, _, said in entries(path)
    )
    told = written.Material(material.dataset, material.lock, files, material.splits, rows, keys, synthetic)
    try:
        return written.croissant(told)
    except ValueError as error:
        raise CannotJudge(str(error)) from None
