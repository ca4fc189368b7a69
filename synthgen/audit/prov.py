"""W3C PROV-JSON (submission of 24 April 2013), streamed: memory does not grow with the records.

Entities are the files of seeds, the prompts, the recipe, the filters, every record and the dataset;
activities are generation and curation; agents are synthgen, the models, and the key that signed. A record
that was dropped is invalidated by curation; of one that failed, its state says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO
from urllib.parse import quote

import orjson

from synthgen.audit.material import Material, Told, mapping, mappings

PREFIXES = "recipe file prompt filter record dataset activity model agent".split()
GENERATION, CURATION, SYNTHGEN = "activity:generation", "activity:curation", "agent:synthgen"

Item = tuple[str, dict[str, Any]]


def write_prov(material: Material, out: TextIO) -> None:
    """Write the document. Raises CannotJudge."""
    document = _Document(material)
    prefixes = {"synthgen": "urn:synthgen:", **{name: f"urn:synthgen:{name}:" for name in PREFIXES}}
    out.write(f'{{"prefix": {_json(prefixes)}')
    for section, items in document.sections():
        first = True
        for name, item in items:
            out.write(f',\n"{section}": {{\n' if first else ",\n")
            out.write(f"{_json(name)}: {_json(item)}")
            first = False
        if not first:
            out.write("\n}")
    out.write("}\n")


class _Document:
    """A run as PROV has it."""

    def __init__(self, material: Material) -> None:
        self._material = material
        lock = material.lock
        self._lock = lock
        self._recipe = f"recipe:{_local(lock['recipe'].get('name'))}"
        self._dataset = f"dataset:{_local(lock['recipe'].get('name'))}"
        self._filters = [each for each in mappings(lock.get("filters")) if "name" in each]
        self._models = mapping(lock.get("models"))
        self._prompts = mapping(lock.get("prompts"))
        self._generated = bool(self._prompts)

    def sections(self) -> Iterator[tuple[str, Iterable[Item]]]:
        """Each with its items, in an order in which nothing need be kept."""
        yield "entity", self._entities()
        yield "activity", self._activities()
        yield "agent", self._agents()
        yield "used", self._used()
        yield "wasAssociatedWith", self._associated()
        yield "wasAttributedTo", self._attributed()
        yield "wasGeneratedBy", self._generations()
        yield "wasInvalidatedBy", self._each("i", self._invalidated)
        yield "wasDerivedFrom", self._each("d", self._derived)
        yield "hadMember", self._each("m", self._member)

    def _files(self) -> Iterator[tuple[str, str]]:
        for seed in mapping(self._lock.get("seeds")).values():
            yield from mapping(mapping(seed).get("files")).items()

    def _entities(self) -> Iterator[Item]:
        lock = self._lock
        plan = {"prov:type": _qualified("prov:Plan")}
        yield self._recipe, {**plan, "synthgen:sha256": str(lock.get("recipe_sha256"))}
        yield (
            self._dataset,
            {
                "prov:type": _qualified("prov:Collection"),
                "synthgen:ledgerRoot": self._material.manifest.ledger.root,
                "synthgen:ledgerSize": self._material.manifest.ledger.size,
            },
        )
        for path, digest in dict(self._files()).items():
            yield _file(path), {"prov:label": str(path), "synthgen:sha256": str(digest)}
        for step, prompt in self._prompts.items():
            said = mapping(prompt)
            yield (
                f"prompt:{_local(step)}",
                {**plan, "prov:label": str(said.get("name")), "synthgen:sha256": str(said.get("sha256"))},
            )
        for link in self._filters:
            bounds = {
                f"synthgen:{name}": link[name]
                for name in ("min", "max")
                if _number(link.get(name)) is not None
            }
            code = {"synthgen:codeSha256": str(link.get("code_sha256"))}
            yield f"filter:{_local(link['name'])}", {**plan, **code, **bounds}
        for told in self._material.records():
            yield f"record:{_local(told.id)}", _record(told)

    def _activities(self) -> Iterator[Item]:
        times = self._material.times
        said = {"prov:startTime": times[0], "prov:endTime": times[1]} if times else {}
        if self._generated:
            yield GENERATION, {"prov:label": "prompts are rendered, and a model answers them", **said}
        yield CURATION, {"prov:label": "records are measured, and kept or dropped", **said}

    def _agents(self) -> Iterator[Item]:
        software = {"prov:type": _qualified("prov:SoftwareAgent")}
        yield SYNTHGEN, {**software, "synthgen:version": str(self._lock.get("synthgen"))}
        for name, model in self._models.items():
            said = mapping(model)
            known = {
                f"synthgen:{key}": str(said[key])
                for key in ("engine", "id", "revision", "weights", "chat_template")
                if said.get(key) is not None
            }
            yield f"model:{_local(name)}", {**software, **known}
        for signature in self._material.manifest.envelope.signatures:
            yield f"agent:key-{_local(signature.keyid)}", {"synthgen:keyid": signature.keyid}

    def _used(self) -> Iterator[Item]:
        first = GENERATION if self._generated else CURATION
        used = [(first, _file(path)) for path in dict(self._files())]
        used += [(GENERATION, f"prompt:{_local(step)}") for step in self._prompts]
        used += [(CURATION, f"filter:{_local(link['name'])}") for link in self._filters]
        for number, (activity, entity) in enumerate(used):
            yield f"_:u{number}", {"prov:activity": activity, "prov:entity": entity}

    def _associated(self) -> Iterator[Item]:
        plan = {"prov:plan": self._recipe}
        yield "_:a0", {"prov:activity": CURATION, "prov:agent": SYNTHGEN, **plan}
        if self._generated:
            yield "_:a1", {"prov:activity": GENERATION, "prov:agent": SYNTHGEN, **plan}
            for number, name in enumerate(self._models, 2):
                yield (
                    f"_:a{number}",
                    {"prov:activity": GENERATION, "prov:agent": f"model:{_local(name)}", **plan},
                )

    def _attributed(self) -> Iterator[Item]:
        agents = [f"agent:key-{_local(each.keyid)}" for each in self._material.manifest.envelope.signatures]
        for number, agent in enumerate([SYNTHGEN, *agents]):
            yield f"_:t{number}", {"prov:entity": self._dataset, "prov:agent": agent}

    def _each(self, letter: str, tell: Callable[[Told], Iterable[dict[str, Any]]]) -> Iterator[Item]:
        number = 0
        for told in self._material.records():
            for said in tell(told):
                yield f"_:{letter}{number}", said
                number += 1

    def _generations(self) -> Iterator[Item]:
        yield "_:g", {"prov:entity": self._dataset, "prov:activity": CURATION}
        yield from self._each("g", self._generation)

    def _generation(self, told: Told) -> Iterator[dict[str, Any]]:
        if self._generated:
            yield {"prov:entity": f"record:{_local(told.id)}", "prov:activity": GENERATION}

    def _invalidated(self, told: Told) -> Iterator[dict[str, Any]]:
        if told.state != "dropped":
            return
        said: dict[str, Any] = {"prov:entity": f"record:{_local(told.id)}", "prov:activity": CURATION}
        if told.said.get("dropped_by") is not None:
            said["synthgen:filter"] = f"filter:{_local(told.said['dropped_by'])}"
        for name in ("value", "min", "max"):
            if _number(told.why.get(name)) is not None:
                said[f"synthgen:{name}"] = told.why[name]
        yield said

    def _derived(self, told: Told) -> Iterator[dict[str, Any]]:
        for source in told.said.get("sources", ()):
            said: dict[str, Any] = {
                "prov:generatedEntity": f"record:{_local(told.id)}",
                "prov:usedEntity": f"record:{_local(source['record'])}"
                if "record" in source
                else _file(source.get("path")),
                "synthgen:sha256": str(source.get("sha256")),
            }
            if _number(source.get("row")) is not None:
                said["synthgen:row"] = source["row"]
            if source.get("licence") is not None:
                said["synthgen:licence"] = str(source["licence"])
            yield said

    def _member(self, told: Told) -> Iterator[dict[str, Any]]:
        if told.state == "kept":
            yield {"prov:collection": self._dataset, "prov:entity": f"record:{_local(told.id)}"}


def _record(told: Told) -> dict[str, Any]:
    said: dict[str, Any] = {"synthgen:state": told.state}
    if told.said.get("content_sha256") is not None:
        said["synthgen:sha256"] = str(told.said["content_sha256"])
    if requests := told.said.get("requests"):
        said["synthgen:request"] = requests
    if measured := told.said.get("measurements"):
        said["synthgen:measurement"] = [
            f"{name}: {mapping(each).get('value')}, {mapping(each).get('verdict')}"
            for name, each in measured.items()
        ]
    return said


def _file(path: Any) -> str:
    return f"file:{_local(path)}"


def _local(name: Any) -> str:
    """The local part of a qualified name."""
    return quote(str(name).encode(errors="replace")[:400], safe="/")


def _qualified(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
