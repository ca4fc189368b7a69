"""The graph of a recipe: who looks at what, also through conditions, lists, cases and filters' parameters."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from synthgen.cli.drawing import MOST_LANES, WIDE, draw, readable
from synthgen.graph import Edge, Graph, Node, graph_of
from tests.support import loaded, recipe

FORKED = recipe(
    seeds={
        "doc": {"path": "data/docs.jsonl", "field": "text"},
        "level": {"choice": ["easy", "hard"]},
        "hint": {"by": "level", "cases": {"easy": {"text": "of {{ doc }}"}, "hard": {"choice": ["none"]}}},
    },
    steps=[
        {"facts": {"prompt": {"user": "{{ doc }}", "output": {"type": "object"}}}},
        {"ask": {"prompt": {"user": "{{ fact }} {{ hint }}"}, "foreach": "facts.list", "as": "fact"}},
        {"answer": {"prompt": {"user": "{{ ask }}"}, "when": "level == 'hard'", "n": 2, "gather": True}},
    ],
    record={
        "messages": [{"user": "{{ ask }}"}, {"assistant": "{{ answer }}"}],
        "level": "{{ level }}",
        "sure": {"value": "facts.list | length", "type": "integer"},
    },
    filters=[
        {"words": {"min": 1}},
        {"long": {"filter": "words", "of": "facts", "min": 1}},
        {"grounded": {"source": "doc", "min": 0.1}},
    ],
)  # fmt: skip


def test_edges_say_what_is_looked_at_and_as_what(tmp_path: Path) -> None:
    graph = graph_of(loaded(tmp_path, FORKED))
    assert [node.id for node in graph.nodes] == [
        "seed:doc", "seed:level", "seed:hint", "step:facts", "step:ask", "step:answer", "record",
        "filter:words", "filter:long", "filter:grounded",
    ]  # fmt: skip
    assert {(edge.source, edge.target): (edge.fields, edge.uses) for edge in graph.edges} == {
        ("seed:level", "seed:hint"): (("level",), ("by",)),
        ("seed:doc", "seed:hint"): (("doc",), ("text",)),
        ("seed:doc", "step:facts"): (("doc",), ("prompt",)),
        ("seed:hint", "step:ask"): (("hint",), ("prompt",)),
        ("step:facts", "step:ask"): (("facts",), ("foreach",)),
        ("seed:level", "step:answer"): (("level",), ("when",)),
        ("step:ask", "step:answer"): (("ask",), ("prompt",)),
        ("seed:level", "record"): (("level",), ("level",)),
        ("step:facts", "record"): (("facts",), ("sure",)),
        ("step:ask", "record"): (("ask",), ("messages",)),
        ("step:answer", "record"): (("answer",), ("messages",)),
        ("record", "filter:words"): (("answer",), ("of",)),
        ("step:facts", "filter:long"): (("facts",), ("of",)),
        ("record", "filter:grounded"): (("answer",), ("of",)),
        ("seed:doc", "filter:grounded"): (("doc",), ("source",)),
    }
    said = graph.as_json()
    assert said["nodes"][4] == {"id": "step:ask", "kind": "step", "name": "ask", "fields": ["fact", "ask"]}
    assert said["edges"][0].keys() == {"from", "to", "fields", "uses"}


def test_a_drawing_joins_what_is_looked_at_and_crosses_what_is_not(tmp_path: Path) -> None:
    graph = graph_of(loaded(tmp_path, FORKED))
    lines = draw(graph, {node.id: [node.kind] for node in graph.nodes})
    assert lines == [
        "●          doc       seed",
        "│ ●        level     seed",
        "├─┼─●      hint      seed",
        "╰─│─│─◆    facts     step",
        "◆─│─┴─┤    ask       step",
        "├─┼─◆ │    answer    step",
        "╰─┴─┴─┴─■  record    record",
        "        ├─ words     filter",
        "        ├─ long      filter",
        "        ╰─ grounded  filter",
    ]


@st.composite
def graphs(draw_: st.DrawFn) -> Graph:
    count = draw_(st.integers(2, 12))
    nodes = [Node(f"step:n{place}", "step", f"n{place}", (f"n{place}",)) for place in range(count)]
    nodes.append(Node("record", "record", "record"))
    edges = [
        Edge(nodes[before].id, nodes[after].id, (nodes[before].name,), ("prompt",))
        for after in range(1, count + 1)
        for before in sorted(draw_(st.sets(st.integers(0, after - 1), max_size=4)))
    ]
    return Graph(tuple(nodes), tuple(edges))


@given(graphs())
def test_the_lines_of_a_drawing_are_the_edges(graph: Graph) -> None:
    """Followed from its node down, a lane is joined in the lines of those that look at it, and no other."""
    lines = draw(graph, {node.id: [node.kind] for node in graph.nodes})
    assert len(lines) == len(graph.nodes)
    found: set[tuple[str, str]] = set()
    lanes: dict[int, str] = {}
    for node, line in zip(graph.nodes, lines, strict=True):
        [own] = [place for place, sign in enumerate(line) if sign in "◆■"]
        joined = {place for place, sign in enumerate(line[: line.index(node.name)]) if sign in "├┤┼╰╯┴"}
        found |= {(lanes[place], node.id) for place in joined}
        for place in joined:
            span = line[min(place, own) + 1 : max(place, own)]
            assert " " not in span  # a line leads from the lane to the node
            if line[place] in "╰╯┴":
                del lanes[place]
        assert {place for place, sign in enumerate(line[: line.index(node.name)]) if sign == "│"} == (
            lanes.keys() - joined
        )
        if any(edge.source == node.id for edge in graph.edges):
            assert own not in lanes
            lanes[own] = node.id
    assert found == {(edge.source, edge.target) for edge in graph.edges}


def test_a_drawing_of_many_lanes_is_a_list_and_fits_the_screen(tmp_path: Path) -> None:
    names = [f"seed_{number}" for number in range(MOST_LANES + 4)]
    user = " ".join(f"{{{{ {name} }}}}" for name in names)
    said = recipe(
        seeds={"doc": {"path": "data/docs.jsonl", "field": "text"}, **{name: ["a"] for name in names}},
        steps=[{"answer": {"prompt": {"user": user}}}],
    )
    graph = graph_of(loaded(tmp_path, said))
    lines = draw(graph, {node.id: ["word " * 40] for node in graph.nodes})
    assert max(map(len, lines)) <= WIDE
    assert not set("│├┤┼") & set("".join(lines))


def test_a_terminal_without_these_signs_gets_plain_ones() -> None:
    assert readable(["├─●─│ ◆"], "ascii") == ["+-o-| *"]
    assert readable(["├─●─│ ◆"], "utf-8") == ["├─●─│ ◆"]
