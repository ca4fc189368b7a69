"""The dataset's card: README.md with the front matter that hubs read. The same for equal runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synthgen.loading import Loaded


def card(loaded: Loaded, summary: Mapping[str, Any]) -> str:
    """The text of the card."""
    recipe = loaded.recipe
    files = []
    for split in recipe.output.split:
        pattern = f"data/{split}-*.parquet" if "parquet" in recipe.output.formats else f"{split}.jsonl"
        files.append(f"  - split: {split}\n    path: {pattern}")
    size = summary["kept"]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *files,
        *_licence(loaded),
        "tags:",
        *(["- synthetic"] if recipe.steps else []),
        "- synthgen",
        "---",
        "",
        f"# {recipe.name}",
        "",
        *([recipe.description.strip(), ""] if recipe.description else []),
        f"{size:,} rows, made by synthgen from the recipe in `provenance/recipe.lock.yaml`.",
        "",
        "## How it was made",
        "",
        *_steps(loaded),
        "",
        "## What was removed",
        "",
        f"Of {summary['planned']:,} planned records {size:,} were kept, {summary['dropped']:,} dropped and "
        f"{summary['failed']:,} failed.",
        "",
        "| filter | measures | min | max | dropped |",
        "|---|---|---|---|---|",
        *(
            f"| {link.name} | {link.of} | {_bound(link.min)} | {_bound(link.max)} "
            f"| {summary['filters'][link.name]['dropped']:,} |"
            for link in loaded.chain
        ),
        "",
        "`provenance/` has one row for each row here, joined by `id`: its sources, the keys of its requests",
        "and its measurements. `manifest.json` has the digest of every file.",
    ]
    return "\n".join(lines) + "\n"


def _steps(loaded: Loaded) -> list[str]:
    if not loaded.steps:
        return ["Existing rows were curated; no model was asked."]
    return [
        f"{number}. `{step.name}`: prompt `{step.prompt.name}`, model `{loaded.models[step.model].id}`"
        for number, step in enumerate(loaded.steps, 1)
    ]


def _licence(loaded: Loaded) -> list[str]:
    """What the recipe says of its sources' licences; nothing where it says nothing."""
    named = sorted({rows.spec.licence for rows in loaded.files.values() if rows.spec.licence})
    return ["license: other", f"license_name: {json.dumps(' AND '.join(named))}"] if named else []


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
