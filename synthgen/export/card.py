"""The dataset's card: README.md with the front matter that hubs read. The same for equal runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from synthgen.provenance.lock import licences
from synthgen.recipe import Recipe

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner


class Bounded(Protocol):
    """What is published of a filter."""

    @property
    def name(self) -> str:
        """Its name in the recipe."""

    @property
    def of(self) -> str:
        """What it measures."""

    @property
    def min(self) -> float | None:
        """The least that passes."""

    @property
    def max(self) -> float | None:
        """The most that passes."""

    @property
    def asks(self) -> bool:
        """Whether it asks a model."""

    @property
    def model(self) -> str:
        """The name of that model; empty for the recipe's own."""


@dataclass(frozen=True)
class Published:
    """What a dataset's files are made from besides its records; `models` has the id of each, by name.

    `signer` is the key that signs its manifests, if there is one.
    """

    recipe: Recipe
    chain: Sequence[Bounded]
    columns: Sequence[str]
    models: Mapping[str, str]
    signer: CryptoSigner | None = None


def card(about: Published, summary: Mapping[str, Any]) -> str:
    """The text of the card."""
    recipe = about.recipe
    files = []
    for split in recipe.output.split:
        pattern = f"data/{split}-*.parquet" if "parquet" in recipe.output.formats else f"{split}.jsonl"
        files.append(f"  - split: {split}\n    path: {pattern}")
    erased = summary.get("erased", 0)
    size = summary["kept"] - erased
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *files,
        *_licence(recipe),
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
        *_steps(about),
        "",
        "## What was removed",
        "",
        f"Of {summary['planned']:,} planned records {summary['kept']:,} were kept, "
        f"{summary['dropped']:,} dropped and {summary['failed']:,} failed.",
        "",
        *([f"The contents of {erased:,} kept ones were erased later.", ""] if erased else []),
        "| filter | measures | min | max | dropped |",
        "|---|---|---|---|---|",
        *(
            f"| {link.name} | {link.of} | {_bound(link.min)} | {_bound(link.max)} "
            f"| {summary['filters'][link.name]['dropped']:,} |"
            for link in about.chain
        ),
        "",
        "`provenance/` has one row for each row here, joined by `id`: its sources, the keys of its requests",
        "and its measurements. `manifest.json` has the digest of every file.",
    ]
    return "\n".join(lines) + "\n"


def _steps(about: Published) -> list[str]:
    steps = about.recipe.named_steps()
    asking = [link for link in about.chain if link.asks]
    asked = [
        f"The filter `{link.name}` asked `{about.models.get(link.model, 'a model')}` about records."
        for link in asking
    ]
    if not steps:
        return [f"Existing rows were curated{'.' if asking else '; no model was asked.'}", *asked]
    return [
        f"{number}. `{name}`: prompt `{step.prompt if isinstance(step.prompt, str) else 'inline'}`, "
        f"model `{about.models[step.model or '']}`"
        for number, (name, step) in enumerate(steps, 1)
    ] + (["", *asked] if asked else [])


def _licence(recipe: Recipe) -> list[str]:
    """What the recipe says of its sources' licences; nothing where it says nothing."""
    named = licences(recipe)
    return ["license: other", f"license_name: {json.dumps(' AND '.join(named))}"] if named else []


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
