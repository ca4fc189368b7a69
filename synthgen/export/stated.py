"""The provenance of rows as columns of one type each: the dataset's second configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def schema(*, grows: bool = False) -> Any:
    """Of `provenance/SPLIT-*.parquet`: what `schema.RecordStatement` states, lists for mappings.

    A source may be a record where the recipe `grows`.
    """
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    whole = pa.int64()
    source = [("seed", text), ("path", text), ("row", whole), ("sha256", text), ("licence", text)]
    source += [
        ("start", whole),
        ("end", whole),
        ("page", whole),
        ("heading", pa.list_(text)),
        ("origin", text),
        *([("record", text), ("generation", whole)] if grows else []),
    ]
    measured = [("filter", text), ("value", number), ("min", number), ("max", number)]
    return pa.schema(
        [
            ("id", text),
            ("task", whole),
            ("branch", text),
            ("state", text),
            ("dropped_by", text),
            ("content_sha256", text),
            ("row_sha256", text),
            ("sources", pa.list_(pa.struct(source))),
            ("requests", pa.list_(text)),
            ("measurements", pa.list_(pa.struct([*measured, ("verdict", text), ("detail", text)]))),
            ("synthetic", pa.bool_()),
            ("salt", text),
        ]
    )


def as_row(said: Mapping[str, Any]) -> dict[str, Any]:
    """A statement as a row of that: measurements as a list in the order of the filters, the rest as JSON."""
    measurements = [
        {
            "filter": name,
            "value": each["value"],
            "min": each.get("min"),
            "max": each.get("max"),
            "verdict": each["verdict"],
            "detail": orjson.dumps(each["detail"]).decode() if each.get("detail") else None,
        }
        for name, each in said["measurements"].items()
    ]
    sources = [
        {**each, "origin": orjson.dumps(each["origin"]).decode()} if "origin" in each else each
        for each in said["sources"]
    ]
    return {**said, "sources": sources, "measurements": measurements}
