"""Croissant 1.1 (MLCommons): the dataset's files, its fields, and where they come from in terms of PROV-O.

What nobody stated is not there: no licence, no creator, no date, no limitation is made up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synthgen.export import stated
from synthgen.export.card import shards_of
from synthgen.recipe_record import RecordShape

CROISSANT = "croissant.json"
PROVENANCE = "provenance"
ENCODINGS = {
    ".jsonl": "application/jsonlines",
    ".parquet": "application/x-parquet",
    ".json": "application/json",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
}
DATA_TYPES = {"integer": "sc:Integer", "number": "sc:Float", "boolean": "sc:Boolean"}
KINDS = {"int64": "integer", "double": "number", "bool": "boolean"}
MESSAGE = {"role": "text", "content": "text"}  # of calls readers find no row where a message has none
Column = str | Mapping[str, str]  # a kind of value, or those in each of a list of mappings
# The context that the specification gives, with the vocabulary of PROV.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "conformsTo": "dct:conformsTo",
    **{
        name: f"cr:{name}"
        for name in (
            "arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject "
            "fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet "
            "references regex repeated replace samplingRate separator source subField transform"
        ).split()
    },
}


@dataclass(frozen=True)
class File:
    """A file of the dataset: its size, and the digest of its bytes."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Material:
    """What is told of: the dataset's folder, what took effect, its files, its splits, rows and signers.

    `synthetic` says whether a model wrote any of the rows.
    """

    dataset: Path
    lock: Mapping[str, Any]
    files: Mapping[str, File]
    splits: Sequence[str]
    rows: int
    keys: Sequence[str]
    synthetic: bool

    def shards(self, split: str, folder: str = "data") -> list[str]:
        """The names of a split's files of Parquet."""
        named = re.compile(rf"{folder}/{re.escape(split)}-\d+-of-\d+\.parquet")
        return sorted(name for name in self.files if named.fullmatch(name))


def croissant(material: Material, *, earlier: bool = False) -> dict[str, Any]:
    """The JSON-LD. Raises ValueError where a file is not one that synthgen wrote.

    With `earlier` what was written before provenance had record sets, and when JSON in JSONL was called text.
    """
    lock = material.lock
    recipe = lock["recipe"]
    name = str(recipe.get("name"))
    described = f"{material.rows:,} rows, made by synthgen {lock.get('synthgen')} from the recipe {name}."
    if recipe.get("description"):
        described = f"{str(recipe['description']).strip()}\n\n{described}"
    whole: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": described,
        "keywords": ["synthetic", "synthgen"] if material.synthetic else ["synthgen"],
        "isLiveDataset": False,
    }
    licences = lock.get("licences")
    if isinstance(licences, list) and licences:
        whole["license"] = [str(each) for each in licences]
    told_of = [] if earlier else [split for split in material.splits if material.shards(split, PROVENANCE)]
    whole["distribution"] = [
        *_files(material),
        *(
            _file_set(f"data/{split}", f"data/{shards_of(split, material.splits)}")
            for split in material.splits
            if material.shards(split)
        ),
        *(_file_set(name, name) for name in map(partial(_stated_in, material), told_of)),
    ]
    whole["recordSet"] = [
        *(_rows(material, split, earlier=earlier) for split in material.splits),
        *(_statements(material, split) for split in told_of),
    ]
    whole |= _provenance(lock, material)
    return whole


def _files(material: Material) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": _plain(name),
            "contentUrl": name,
            "contentSize": f"{item.bytes} B",
            "encodingFormat": ENCODINGS.get(Path(name).suffix, "application/octet-stream"),
            "sha256": item.sha256,
        }
        for name, item in material.files.items()
        if name != CROISSANT
    ]


def _file_set(id: str, glob: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": id,
        "name": _plain(id),
        "encodingFormat": ENCODINGS[".parquet"],
        "includes": glob,
    }


def _rows(material: Material, split: str, *, earlier: bool) -> dict[str, Any]:
    parquet = material.shards(split)
    place = {"fileSet": {"@id": f"data/{split}"}} if parquet else {"fileObject": {"@id": f"{split}.jsonl"}}
    columns = _of_parquet(material, parquet[0]) if parquet else _of_jsonl(material, earlier=earlier)
    return _record_set(split, place, columns)


def _statements(material: Material, split: str) -> dict[str, Any]:
    """What is stated of each row: a record set of its own, with the same key."""
    columns: dict[str, Column] = {}
    for field in stated.schema(grows=bool(_mapping(material.lock["recipe"]).get("grow"))):
        parts = getattr(getattr(field.type, "value_type", None), "fields", None)
        columns[field.name] = (
            _kind(field.type) if parts is None else {part.name: _kind(part.type) for part in parts}
        )
    place = {"fileSet": {"@id": _stated_in(material, split)}}
    return _record_set(f"{PROVENANCE}/{split}", place, columns)


def _stated_in(material: Material, split: str) -> str:
    return f"{PROVENANCE}/{shards_of(split, material.splits)}"


def _record_set(id: str, place: Mapping[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
    fields = []
    for name, column in columns.items():
        source = {**place, "extract": {"column": name}}
        if isinstance(column, str):
            fields.append(_field(f"{id}/{name}", name, column, source))
            continue
        within = [
            _field(f"{id}/{name}/{part}", part, kind, {**source, "transform": {"jsonPath": f"$[*].{part}"}})
            for part, kind in column.items()
        ]
        listed = {"@type": "cr:Field", "@id": f"{id}/{name}", "name": _plain(name)}
        fields.append({**listed, "repeated": True, "subField": within})
    return {
        "@type": "cr:RecordSet",
        "@id": id,
        "name": _plain(id),
        "key": {"@id": f"{id}/id"},
        "field": fields,
    }


def _field(id: str, name: str, kind: str, source: Mapping[str, Any]) -> dict[str, Any]:
    said = {"@type": "cr:Field", "@id": id, "name": _plain(name), "dataType": DATA_TYPES.get(kind, "sc:Text")}
    return {**said, **({"repeated": True} if kind == "texts" else {}), "source": source}


def _of_parquet(material: Material, name: str) -> dict[str, Column]:
    """The columns in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(material.dataset / name)
        kinds = {str(field.name): _kind(field.type) for field in schema}
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} is not Parquet: {error}") from None
    return {each: MESSAGE if kind == "texts" else kind for each, kind in kinds.items()}


def _of_jsonl(material: Material, *, earlier: bool) -> dict[str, Column]:
    """The columns in order, but for those that may hold any JSON, of which Croissant has no type."""
    try:
        kinds = RecordShape.model_validate(material.lock["recipe"].get("record")).kinds
    except ValueError as error:
        raise ValueError(f"recipe.lock.yaml is not what synthgen wrote: {error}"[:300]) from None
    if _mapping(material.lock["recipe"].get("output")).get("provenance") == "column":
        kinds = {**kinds, "provenance": "text"}
    return {
        name: MESSAGE if kind in ("messages", "tool messages") else kind
        for name, kind in {"id": "text", **kinds}.items()
        if earlier or kind != "json"
    }


def _kind(type: Any) -> str:
    name = str(type).partition("<")[0]
    return "texts" if name == "list" else KINDS.get(name, "text")


def _provenance(lock: Mapping[str, Any], material: Material) -> dict[str, Any]:
    """Where it came from: the seeds' files with their digests, the models, synthgen, the key that signed."""
    files = {
        str(path): str(digest)
        for seed in _mapping(lock.get("seeds")).values()
        for path, digest in _mapping(_mapping(seed).get("files")).items()
    }
    models = [
        {
            "@type": "prov:SoftwareAgent",
            "prov:label": str(model.get("id")),
            **{key: str(model[key]) for key in ("engine", "revision", "weights") if model.get(key)},
        }
        for model in map(_mapping, _mapping(lock.get("models")).values())
    ]
    synthgen = {"@type": "prov:SoftwareAgent", "prov:label": "synthgen", "version": str(lock.get("synthgen"))}
    activity = {
        "@type": "prov:Activity",
        "prov:label": "generation and curation" if lock.get("prompts") else "curation",
        "prov:wasAssociatedWith": [synthgen, *models],
    }
    said: dict[str, Any] = {"prov:wasGeneratedBy": activity}
    if files:
        said["prov:wasDerivedFrom"] = [
            {"@type": "prov:Entity", "prov:label": path, "sha256": digest} for path, digest in files.items()
        ]
    if material.keys:
        signers = [{"@type": "prov:Agent", "prov:label": f"key {key}"} for key in material.keys]
        said["prov:wasAttributedTo"] = signers
    return said


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
