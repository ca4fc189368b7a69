"""The graph of a recipe: seeds, steps, record and filters, and what each looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from synthgen.chain import ChainFilter
from synthgen.loaded import Loaded, LoadedStep
from synthgen.loading_seeds import seed_texts
from synthgen.prompt import TextTemplate
from synthgen.record import PARTS
from synthgen.row import Messages, RowShape, Text
from synthgen.seed_kinds import CasesSeed, Seed

RECORD = "record"


@dataclass(frozen=True)
class Node:
    """A seed, a step, the record or a filter, with the fields that it gives."""

    id: str
    kind: Literal["seed", "step", "record", "filter"]
    name: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edge:
    """`target` looks at these fields of `source`; `uses` says as what: `prompt`, `when`, a column ..."""

    source: str
    target: str
    fields: tuple[str, ...]
    uses: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they come to be, and edges from earlier ones to later ones."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def into(self, id: str) -> list[Edge]:
        """What a node looks at, in the order of the nodes."""
        return [edge for edge in self.edges if edge.target == id]

    def as_json(self) -> dict[str, Any]:
        """`nodes` (`id`, `kind`, `name`, `fields`) and `edges` (`from`, `to`, `fields`, `uses`)."""
        return {
            "nodes": [
                {"id": node.id, "kind": node.kind, "name": node.name, "fields": list(node.fields)}
                for node in self.nodes
            ],
            "edges": [
                {"from": edge.source, "to": edge.target, "fields": list(edge.fields), "uses": list(edge.uses)}
                for edge in self.edges
            ],
        }


Uses = Iterable[tuple[str, set[str]]]  # as what, and the names that are looked at


def graph_of(loaded: Loaded) -> Graph:
    """The graph of a recipe that is loaded."""
    recipe, columns = loaded.recipe, loaded.shape.columns
    seeds = [(Node(f"seed:{name}", "seed", name, (name,)), spec) for name, spec in recipe.seeds.items()]
    steps = [
        (Node(f"step:{step.name}", "step", step.name, (*step.fan.names,)), step) for step in loaded.steps
    ]
    record = Node(RECORD, "record", RECORD, tuple(columns))
    filters = [(Node(f"filter:{link.name}", "filter", link.name), link) for link in loaded.chain]
    givers = {field: node.id for node, _ in (*seeds, *steps) for field in node.fields}
    # A filter's names are first those of the record itself.
    measured = {**givers, **dict.fromkeys([*columns, *PARTS], RECORD)}
    edges = [
        *(edge for node, spec in seeds for edge in _edges(node, _of_seed(spec), givers)),
        *(edge for node, step in steps for edge in _edges(node, _of_step(step), givers)),
        *_edges(record, _of_row(loaded.shape), givers),
        *(edge for node, link in filters for edge in _edges(node, _of_filter(link), measured)),
    ]
    return Graph(tuple(node for node, _ in (*seeds, *steps, (record, None), *filters)), tuple(edges))


def _edges(node: Node, uses: Uses, givers: Mapping[str, str]) -> Iterator[Edge]:
    """One from each node whose fields are used, in the order of the nodes."""
    fields: dict[str, dict[str, None]] = {}
    manners: dict[str, dict[str, None]] = {}
    for manner, names in uses:
        for name in sorted(names & givers.keys()):
            if (source := givers[name]) != node.id:
                fields.setdefault(source, {})[name] = None
                manners.setdefault(source, {})[manner] = None
    for source in dict.fromkeys(givers.values()):
        if source in fields:
            yield Edge(source, node.id, tuple(fields[source]), tuple(manners[source]))


def _of_seed(spec: Seed) -> Uses:
    if isinstance(spec, CasesSeed):
        yield "by", {spec.by, spec.by.partition(".")[0]}
    for _, text in seed_texts(spec):
        yield "text", TextTemplate(text).names()


def _of_step(step: LoadedStep) -> Uses:
    yield "prompt", {name for _, template in step.prompt.turns for name in template.names()}
    for manner, expression in (("when", step.fan.when), ("foreach", step.fan.foreach)):
        if expression is not None:
            yield manner, expression.template.names()
    if step.talk is not None:
        yield "conversation", step.talk.names()


def _of_row(shape: RowShape) -> Uses:
    if shape.source is not None:
        yield "messages", {shape.source}
    for name, column in shape.made.items():
        if isinstance(column, Messages):
            yield name, {each for _, template in column.turns for each in template.names()}
        elif isinstance(column, Text):
            yield name, column.template.names()
        else:
            yield name, column.expression.template.names()


def _of_filter(link: ChainFilter) -> Uses:
    yield "of", {link.of}
    for parameter in link.definition.field_parameters:
        value = link.params.get(parameter)
        names = [str(each) for each in (value if isinstance(value, list) else [value]) if each is not None]
        yield parameter, {part for name in names for part in (name, name.partition(".")[0])}
