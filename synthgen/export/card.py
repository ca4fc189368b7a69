"""The dataset's card: README.md with the front matter that hubs read. The same for equal runs.

It says what is known: what the recipe states, what ran, what was measured. What nobody stated is `unknown`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from synthgen.export.measured import QUANTILES, Measured
from synthgen.export.rows import LARGE_ROW
from synthgen.plural import many
from synthgen.recipe import Recipe
from synthgen.seed_kinds import FileSeed

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

LANGUAGE_SHARE = 0.01  # of the rows whose language was found, for a language to be one of the dataset's
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
         (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip
# The Hub's names of the licences that a source is likely to have.
LICENCES = frozenset(
    "apache-2.0 mit cc0-1.0 cc-by-4.0 cc-by-3.0 cc-by-2.0 cc-by-sa-4.0 cc-by-sa-3.0 cc-by-nc-4.0 "
    "cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-nc-nd-4.0 odc-by odbl pddl bsd bsd-2-clause bsd-3-clause gpl-2.0 "
    "gpl-3.0 lgpl-2.1 lgpl-3.0 agpl-3.0 mpl-2.0 openrail unlicense isc artistic-2.0 bsl-1.0 epl-2.0 "
    "eupl-1.2 gfdl wtfpl cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 unknown".split()
)


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
    def action(self) -> str:
        """What it does with what does not."""

    @property
    def asks(self) -> bool:
        """Whether it asks a model."""

    @property
    def model(self) -> str:
        """The name of that model; empty for the recipe's own."""


@dataclass(frozen=True)
class Published:
    """What a dataset's files are made from besides its records; `lock` is what took effect.

    `signer` is the key that signs its manifests, if there is one.
    """

    recipe: Recipe
    chain: Sequence[Bounded]
    columns: Sequence[str]
    lock: Mapping[str, Any]
    signer: CryptoSigner | None = None

    def model(self, name: str | None) -> Mapping[str, Any]:
        """What is known of a model by its name; of the recipe's own where there is none."""
        return self.lock["models"].get(name or "default") or {}


def configurations(
    globs: Mapping[str, Callable[[str], str]], rows: Mapping[str, int], contents: str
) -> Iterator[str]:
    """The front matter that tells `datasets` and the Hub which files make which split, a glob by its split.

    `datasets` cannot read files without rows, so splits without any are left out, unless all are. And it
    takes what it has in its cache for whatever has a folder and configurations of these names, whatever the
    rows: `contents`, a digest, is what tells one dataset from another there.
    """
    yield "configs:"
    for name, glob in globs.items():
        yield from (f"- config_name: {name}", f'  description: "contents {contents[:16]}"', "  data_files:")
        for split, count in rows.items():
            if count or not any(rows.values()):
                yield from (f"  - split: {split}", f"    path: {glob(split)}")


def card(about: Published, summary: Mapping[str, Any], measured: Measured, contents: str) -> str:
    """The text of the card; `contents` is another wherever the rows are others."""
    recipe = about.recipe
    erased = summary.get("erased", 0)
    size = summary["kept"] - erased
    whole = [
        "---",
        *_front(about, measured, size, contents),
        "---",
        "",
        f"# {recipe.name}",
        "",
        *([recipe.description.strip(), ""] if recipe.description else []),
        f"{many(size, 'row')}, made by synthgen from the recipe in `provenance/recipe.lock.yaml`. "
        + _among([f"{measured.rows[split]:,} in `{split}`" for split in recipe.output.split])
        + ".",
        "",
        *_section("How it was made", _made(about, measured)),
        *_section("What was removed, and why", _funnel(about, summary, erased)),
        *_section("Measurements", _measurements(about, measured)),
        *_section("Licences and terms", _licences(about)),
        *_section("Known limits", _limits(about, summary, measured)),
        *_section("How to load it", _load(about)),
        *_section("How to verify it", _verify()),
    ]
    return "\n".join(whole).rstrip() + "\n"


def _section(title: str, lines: Iterator[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _front(about: Published, measured: Measured, size: int, contents: str) -> Iterator[str]:
    recipe = about.recipe
    rows = {split: measured.rows[split] for split in recipe.output.split}
    yield from of_splits(rows, contents, parquet="parquet" in recipe.output.formats)
    yield from _list("language", _languages(measured))
    yield from licence(_stated(about))
    yield from sized(size)
    if {"messages", "prompt", "chosen"} & {*about.columns}:
        yield from _list("task_categories", ["text-generation"])
    yield from tagged(synthetic=measured.synthetic)


def of_splits(rows: Mapping[str, int], contents: str, *, parquet: bool) -> Iterator[str]:
    """The configurations of a dataset with so many rows in each split."""
    globs: dict[str, Callable[[str], str]] = {"default": "{}.jsonl".format}
    if parquet:
        shards = {split: shards_of(split, rows) for split in rows}
        globs = {
            "default": lambda split: f"data/{shards[split]}",
            "provenance": lambda split: f"provenance/{shards[split]}",
        }
    yield from configurations(globs, rows, contents)


def shards_of(split: str, splits: Iterable[str]) -> str:
    """The glob of a split's shards: a plain one, unless the files of another split fit it too."""
    ambiguous = any(other.startswith(f"{split}-") for other in splits)
    return f"{split}-?????-of-?????.parquet" if ambiguous else f"{split}-*.parquet"


def sized(size: int) -> Iterator[str]:
    """The front matter's word for so many rows."""
    yield from _list("size_categories", [_size(size)])


def tagged(*, synthetic: bool) -> Iterator[str]:
    """Its tags: whether a model wrote any of the rows is said for machines, too."""
    yield from _list("tags", [*(["synthetic"] if synthetic else []), "synthgen"])


def _list(name: str, values: Sequence[str]) -> Iterator[str]:
    if values:
        yield f"{name}:"
        yield from (f"- {_scalar(value)}" for value in values)


def _scalar(value: str) -> str:
    """As YAML 1.1 reads it again: `no` is a language, too."""
    return (
        value if re.fullmatch(r"[a-z][a-z0-9<-]*", value) and value not in ("no", "on", "y") else f'"{value}"'
    )


def _languages(measured: Measured) -> list[str]:
    least = measured.languages.total() * LANGUAGE_SHARE
    return sorted(code for code, many in measured.languages.items() if many >= least)


def _size(size: int) -> str:
    return next((name for most, name in SIZES if size < most), "n>1T" if size > 10**12 else "1B<n<10B")


def _stated(about: Published) -> dict[str, str | None]:
    """The licence of each source, None where the recipe states none."""
    seeds = about.recipe.seeds.items()
    return {name: seed.licence for name, seed in seeds if isinstance(seed, FileSeed)}


def licence(stated: Mapping[str, str | None]) -> Iterator[str]:
    """The front matter's word for the sources' licences, by seed: `unknown` where one is."""
    named = sorted({licence for licence in stated.values() if licence})
    if not named or None in stated.values():
        yield "license: unknown"
    elif all(licence.lower() in LICENCES for licence in named):
        yield from _list("license", [licence.lower() for licence in named])
    else:
        import json

        yield from ("license: other", f"license_name: {json.dumps(' AND '.join(named))}")


def _licences(about: Published) -> Iterator[str]:
    """Of the sources, and of what models wrote, as far as the recipe states them."""
    recipe, stated = about.recipe, _stated(about)
    if not stated:
        yield "- The recipe reads no files."
    yield from (f"- `{name}`: {licence or 'unknown'}" for name, licence in stated.items())
    asked = [model for _, step in recipe.named_steps() for model in (step.model, *step.others.values())]
    for name in dict.fromkeys(asked):
        given = recipe.models.get(name) if name else recipe.model
        terms = given.terms if given is not None else None
        yield f"- what `{about.model(name).get('id', 'a model')}` wrote: {terms or 'terms unknown'}"


def _made(about: Published, measured: Measured) -> Iterator[str]:
    recipe, lock = about.recipe, about.lock
    steps = recipe.named_steps()
    asking = [link for link in about.chain if link.asks]
    for name, seed in lock["seeds"].items():
        files = [f"`{path}`" for path in seed["files"]]
        more = [f"{len(files) - 20:,} more files"] if len(files) > 20 else []
        said = f"{many(seed['rows'], 'row')} of " if "rows" in seed else "drawn from "
        if files:
            yield f"- Seed `{name}`: {said}{_among([*files[:20], *more])}."
        else:
            yield f"- Seed `{name}`: made up by {_among(seed.get('reader', []))}."
    if not steps:
        yield f"- Existing rows were curated{'.' if asking else '; no model was asked.'}"
        if measured.synthetic:
            yield "- What models wrote of them before is in `provenance/`, as each row's `origin`."
    for number, (name, step) in enumerate(steps, 1):
        prompt, sampling = lock["prompts"][name], lock["sampling"][name]
        said = ", ".join(f"{key} {value}" for key, value in sorted(sampling.items()))
        named = f"`{step.prompt}`" if isinstance(step.prompt, str) else "in the recipe"
        asked = _model(about.model(step.model))
        yield f"- Step {number}, `{name}`: prompt {named} ({prompt['sha256'][:12]}), model {asked}; {said}."
        for key, other in step.others.items():
            prompt, sampling = lock["prompts"][f"{name}/{key}"], lock["sampling"][f"{name}/{key}"]
            said = ", ".join(f"{setting} {value}" for setting, value in sorted(sampling.items()))
            asked = _model(about.model(other))
            yield f"  - Its `{key}`: prompt {prompt['sha256'][:12]}, model {asked}; {said}."
    for link in asking:
        model = about.model(link.model)
        yield f"- The filter `{link.name}` asked {_model(model) if model else 'a model'} about records."
    yield ""
    recipe_said = {name: value for name, value in lock["recipe"].items() if name != "filters"}
    yield from ("<details><summary>The recipe, but for its filters</summary>", "", *_yaml(recipe_said), "")
    yield "</details>"


def _model(model: Mapping[str, Any]) -> str:
    parts = [f"`{model['id']}`"]
    if model.get("revision"):
        parts.append(f"revision `{model['revision']}`")
    if model.get("weights"):
        parts.append(f"weights {str(model['weights']).removeprefix('sha256:')[:12]}")
    return f"{parts[0]} ({', '.join([*parts[1:], model['engine']])})"


def _yaml(said: Mapping[str, Any]) -> list[str]:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(dict(said), out)
    text = out.getvalue().rstrip()
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{fence}yaml", *text.split("\n"), fence]


def _funnel(about: Published, summary: Mapping[str, Any], erased: int) -> Iterator[str]:
    yield (
        f"Of {summary['planned']:,} planned records {summary['kept']:,} were kept, "
        f"{summary['dropped']:,} dropped and {summary['failed']:,} failed. A record counts for "
        "the first filter, in order, whose bound it fails."
    )
    yield ""
    if erased:
        yield from (f"The contents of {erased:,} kept ones were erased later.", "")
    left = summary["kept"] + summary["dropped"]
    yield from ("| filter | measures | min | max | action | dropped | flagged | left |", "|---|" + "---|" * 7)
    for link in about.chain:
        counts = summary["filters"][link.name]
        left -= counts["dropped"]
        yield (
            f"| {link.name} | {link.of} | {_bound(link.min)} | {_bound(link.max)} | {link.action} "
            f"| {counts['dropped']:,} | {counts['flagged'] + counts.get('redacted', 0):,} | {left:,} |"
        )


def _measurements(about: Published, measured: Measured) -> Iterator[str]:
    yield "Of the rows that were kept:"
    yield ""
    heads = {0.0: "least", 0.5: "median", 1.0: "most"}
    shown = [heads.get(share, f"{share:.0%}") for share in QUANTILES]
    yield f"| filter | measured | abstained | {' | '.join(shown)} |"
    yield "|---|" + "---|" * (2 + len(QUANTILES))
    thinned = 1
    for link in about.chain:
        values = measured.values.get(link.name)
        numbers = [f"{value:.4g}" for value in values.quantiles()] if values else [""] * len(QUANTILES)
        thinned = max(thinned, values.stride if values else 1)
        count = values.count if values else 0
        yield f"| {link.name} | {count:,} | {measured.abstained[link.name]:,} | {' | '.join(numbers)} |"
    if thinned > 1:
        yield from ("", f"Quantiles are of every {thinned}th row where there are very many.")
    if measured.languages:
        total = measured.languages.total()
        ordered = sorted(measured.languages.items(), key=lambda each: (-each[1], each[0]))
        listed = [f"`{code}` {many:,} ({many / total:.1%})" for code, many in ordered[:20]]
        more = len(ordered) - len(listed)
        yield from ("", f"Languages found: {', '.join(listed)}{f' and {more:,} more' if more else ''}.")


def _limits(about: Published, summary: Mapping[str, Any], measured: Measured) -> Iterator[str]:
    found = []
    for link in about.chain:
        if measured.flagged[link.name]:
            flagged = many(measured.flagged[link.name], "row", "is")
            found.append(f"{flagged} outside the bound of `{link.name}`, which flags.")
        if measured.abstained[link.name]:
            found.append(f"`{link.name}` could not measure {many(measured.abstained[link.name], 'row')}.")
    if measured.large:
        found.append(f"{many(measured.large, 'row', 'is')} larger than {LARGE_ROW // 1_000_000} MB.")
    if summary["failed"]:
        found.append(f"{many(summary['failed'], 'record')} failed; not here.")
    target = about.recipe.target
    if target is not None and summary["kept"] < target:
        found.append(f"The target of {target:,} rows was missed.")
    empty = [f"`{split}`" for split in about.recipe.output.split if not measured.rows[split]]
    if empty:
        found.append(f"There are no rows in {_among(empty)}.")
    if not found:
        yield "None was measured. What no filter above measured is not known."
        return
    yield from ("Those that were measured; what no filter above measured is not known.", "")
    yield from (f"- {each}" for each in found)


def _load(about: Published) -> Iterator[str]:
    parquet = "parquet" in about.recipe.output.formats
    yield from (
        "```python",
        "from datasets import load_dataset",
        "",
        'rows = load_dataset("PATH OR REPOSITORY")',
    )
    if parquet:
        yield 'provenance = load_dataset("PATH OR REPOSITORY", "provenance")  # joined by id'
    yield "```"
    yield ""
    columns = _among([f"`{name}`" for name in about.columns])
    yield f"A row has an `id`, and {columns}. `provenance/` has a row for each, joined by `id`: its sources,"
    yield "the keys of its requests and its measurements."
    if about.recipe.record.calls:
        yield ""
        yield "`tools` are what a message may call: JSON, which is a text in Parquet. The arguments of a call"
        yield "are JSON in a text everywhere; `synthgen export FOLDER messages` makes objects of them."


def _verify() -> Iterator[str]:
    yield "`manifest.json` has the digest of every file, and the root of the ledger of all records:"
    yield from ("", "```", "synthgen audit verify FOLDER", "```")


def _among(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "nothing"


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
