"""What a dataset's card and its Croissant say, against what the rest of it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from synthgen import __version__
from synthgen.audit.croissant import croissant_of
from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge
from synthgen.audit.lines import Broken, parsed, small_file
from synthgen.audit.material import mappings
from synthgen.dataset_folders import FRONT_MATTER
from synthgen.errors import RecipeError
from synthgen.export.card import licence, of_splits, sized, tagged
from synthgen.yamlfile import MAX_BYTES, parse_plain

Problem = tuple[str, str | None]
# What any version of synthgen writes alike.
ALWAYS = ("@type", "name", "license", "distribution")


def check_card(
    manifest: Manifest, lock: Mapping[str, Any], rows: Mapping[str, int], synthetic: bool
) -> Iterator[Problem]:
    """What its front matter tells programs: which files are rows, how many, the licence, whether synthetic.

    Its text for people is bound by its digest alone.
    """
    path = manifest.folder / "README.md"
    parquet = any(name.startswith("data/") for name in manifest.subjects)
    splits = lock["recipe"].get("output", {}).get("split", {"train": 1})
    ordered = {split: rows.get(split, 0) for split in splits}
    stated = {
        name: seed.get("licence")
        for name, seed in lock["recipe"].get("seeds", {}).items()
        if isinstance(seed, dict) and "path" in seed
    }
    try:
        text = small_file(path, MAX_BYTES * 4).decode()
        head = FRONT_MATTER.match(text)
        said = _front(head[1] if head else "", path)
        parts = [
            *of_splits(ordered, "", parquet=parquet), *licence(stated), *sized(sum(rows.values())),
            *tagged(synthetic=synthetic),
        ]  # fmt: skip
        wanted = _front("\n".join(parts), path)
    except (CannotJudge, RecipeError, ValueError) as error:
        yield f"cannot be read: {error}"[:300], None
        return
    for name in ("configs", "license", "license_name", "size_categories", "tags"):
        if _bare(said.get(name)) != _bare(wanted.get(name)):
            yield "is not what the rest of the dataset says", name


def _front(text: str, path: Path) -> Mapping[str, Any]:
    if len(text) > MAX_BYTES:
        raise ValueError("its front matter is too long")
    said = parse_plain(text, path)
    return said if isinstance(said, dict) else {}


def _bare(said: Any) -> Any:
    """Configurations without the digest of what they hold, which is there for caches."""
    if not isinstance(said, list):
        return said
    return [
        {key: value for key, value in each.items() if key != "description"}
        if isinstance(each, dict)
        else each
        for each in said
    ]


def check_croissant(
    manifest: Manifest, lock: Mapping[str, Any], rows: Mapping[str, int], synthetic: bool
) -> Iterable[Problem]:
    """Whether it is what synthgen writes for the dataset, or wrote at first; of another version in part."""
    try:
        said = parsed(small_file(manifest.folder / "croissant.json"), 1)
        wanted = croissant_of(manifest, lock, sorted(rows), synthetic=synthetic)
        if said == wanted or said == croissant_of(
            manifest, lock, sorted(rows), synthetic=synthetic, earlier=True
        ):
            return []
        names = {**wanted, **said} if lock.get("synthgen") == __version__ else ALWAYS
        return [
            (f"is not what the rest of the dataset says{_of_files(said, wanted, name)}", name)
            for name in names
            if said.get(name) != wanted.get(name)
        ]
    except (Broken, CannotJudge, ValueError, LookupError, TypeError, AttributeError) as error:
        return [(f"cannot be read: {error}"[:300], None)]


def _of_files(said: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> str:
    """Which files' digests are others: it may be one of them that somebody changed."""
    if name != "distribution":
        return ""
    stated, there = (
        {each.get("name"): each.get("sha256") for each in mappings(side.get(name))} for side in (said, wanted)
    )
    others = [str(file)[:80] for file, digest in there.items() if stated.get(file) != digest]
    return f" of {', '.join(others[:5])}" if others else ""
