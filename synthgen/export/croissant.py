"""Croissant 1.1 (MLCommons): the dataset's files, its fields, and where they come from in terms of PROV-O.

What nobody stated is not there: no licence, no creator, no date, no limitation is made up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.export.card import shards_of
from synthgen.recipe_record import RecordShape

CROISSANT = "croissant.json"
ENCODINGS = {
    ".jsonl": "application/jsonlines",
    ".parquet": "application/x-parquet",
    ".json": "application/json",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
}
DATA_TYPES = {"integer": "sc:Integer", "number": "sc:Float", "boolean": "sc:Boolean"}
KINDS = {"list": "messages", "int64": "integer", "double": "number", "bool": "boolean"}
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

    def shards(self, split: str) -> list[str]:
        """The names of a split's files of Parquet."""
        named = re.compile(rf"data/{re.escape(split)}-\d+-of-\d+\.parquet")
        return sorted(name for name in self.files if named.fullmatch(name))


def croissant(material: Material) -> dict[str, Any]:
    """The JSON-LD. Raises ValueError where a file is not one that synthgen wrote."""
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
    whole["distribution"] = _distribution(material)
    whole["recordSet"] = [_record_set(material, split) for split in material.splits]
    whole |= _provenance(lock, material)
    return whole


def _distribution(material: Material) -> list[dict[str, Any]]:
    files = [
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
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": _set(split),
            "name": _plain(_set(split)),
            "encodingFormat": ENCODINGS[".parquet"],
            "includes": f"data/{shards_of(split, material.splits)}",
        }
        for split in material.splits
        if material.shards(split)
    ]
    return [*files, *sets]


def _record_set(material: Material, split: str) -> dict[str, Any]:
    parquet = material.shards(split)
    place = {"fileSet": {"@id": _set(split)}} if parquet else {"fileObject": {"@id": f"{split}.jsonl"}}

    def source(column: str, **transform: str) -> dict[str, Any]:
        transforms = {"transform": transform} if transform else {}
        return {**place, "extract": {"column": column}, **transforms}

    fields = []
    for name, kind in _columns(material, parquet).items():
        id = f"{split}/{name}"
        data = DATA_TYPES.get(kind, "sc:Text")
        field: dict[str, Any] = {"@type": "cr:Field", "@id": id, "name": _plain(name), "dataType": data}
        if kind in ("messages", "tool messages"):  # of calls readers find no row where a message has none
            del field["dataType"]
            field["repeated"] = True
            field["subField"] = [
                {
                    "@type": "cr:Field",
                    "@id": f"{id}/{part}",
                    "name": part,
                    "dataType": "sc:Text",
                    "source": source(name, jsonPath=f"$[*].{part}"),
                }
                for part in ("role", "content")
            ]
        else:
            field["source"] = source(name)
        fields.append(field)
    keyed = {"key": {"@id": f"{split}/id"}}
    return {"@type": "cr:RecordSet", "@id": split, "name": _plain(split), **keyed, "field": fields}


def _columns(material: Material, parquet: list[str]) -> dict[str, str]:
    """The fields in order, each with its kind."""
    if parquet:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(material.dataset / parquet[0])
            return {str(field.name): KINDS.get(str(field.type).partition("<")[0], "text") for field in schema}
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{parquet[0]} is not Parquet: {error}") from None
    try:
        kinds = RecordShape.model_validate(material.lock["recipe"].get("record")).kinds
    except ValueError as error:
        raise ValueError(f"recipe.lock.yaml is not what synthgen wrote: {error}"[:300]) from None
    stated = _mapping(material.lock["recipe"].get("output")).get("provenance") == "column"
    return {"id": "text", **kinds, **({"provenance": "text"} if stated else {})}


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


def _set(split: str) -> str:
    return f"data/{split}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
