"""A graph drawn on the terminal: a node a line, from the top down, and a lane for what is looked at later."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from synthgen.graph import RECORD, Graph, Node

WIDE = 80
MOST_LANES = 16  # a graph with more is listed without them
WIDEST_NAME = 16
SIGNS = {"seed": "●", "step": "◆", "record": "■"}
PLAIN = str.maketrans("●◆■│─├┤┼╰╯┴←·→…", "o*#|-+++`'+<.>~")


class Lanes:
    """Which nodes have a lane, and what a line of them looks like."""

    def __init__(self, graph: Graph) -> None:
        order = {node.id: place for place, node in enumerate(graph.nodes)}
        self._last = dict.fromkeys(order, -1)
        for edge in graph.edges:
            if not edge.target.startswith("filter:"):  # those hang on the record, which has every field
                self._last[edge.source] = max(self._last[edge.source], order[edge.target])
        self._order = order
        self._lanes: list[str | None] = []
        self.widest = 0

    def node(self, node: Node, reads: Sequence[str]) -> str:
        """The line of a node that looks at these others."""
        if None not in self._lanes or node.id == RECORD:  # the filters hang on its right
            self._lanes.append(None)
        own = len(self._lanes) - 1 if node.id == RECORD else self._lanes.index(None)
        self.widest = max(self.widest, len(self._lanes))
        read = [place for place, id in enumerate(self._lanes) if id in reads]
        first, last = min([own, *read]), max([own, *read])
        line = ""
        for place, id in enumerate(self._lanes):
            sign = " " if id is None else "│"
            if place == own:
                sign = SIGNS[node.kind]
            elif place in read:
                goes_on = self._last[str(id)] > self._order[node.id]
                sign = ("├┤┼" if goes_on else "╰╯┴")[0 if place == first else 1 if place == last else 2]
            elif id is None and first < place < last:
                sign = "─"
            line += sign + ("─" if first <= place < last else " ")
        for place in read:
            if self._last[str(self._lanes[place])] <= self._order[node.id]:
                self._lanes[place] = None
        self._lanes[own] = (
            node.id if self._last[node.id] > self._order[node.id] or node.id == RECORD else None
        )
        while self._lanes and self._lanes[-1] is None:
            self._lanes.pop()
        return line

    def filter(self, *, last: bool) -> str:
        """The line of a filter, which hangs on the lane of the record; nothing comes after the last."""
        line = self.between()[:-2] + ("╰─" if last else "├─")
        if last:
            self._lanes = []
        return line

    def between(self) -> str:
        """A line between two nodes."""
        return "".join("  " if id is None else "│ " for id in self._lanes)


def draw(graph: Graph, said: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of at most 80 characters, but for names that are longer. `said` is what there is to say of each
    node, by its id: the first of it beside its name, each of the rest on lines of its own.
    """
    lanes = Lanes(graph)
    names = min(max(len(node.name) for node in graph.nodes), WIDEST_NAME)
    rows: list[tuple[str, str, list[str]]] = []
    for node in graph.nodes:
        reads = [edge.source for edge in graph.into(node.id)]
        start = (
            lanes.filter(last=node is graph.nodes[-1]) if node.kind == "filter" else lanes.node(node, reads)
        )
        text = [f"{node.name:<{names}}  {said[node.id][0]}".rstrip(), *said[node.id][1:]]
        rows.append((start, lanes.between(), text))
    if lanes.widest > MOST_LANES:
        signs = [SIGNS.get(node.kind, " ") + " " for node in graph.nodes]
        rows = [(sign, "", text) for sign, (_, _, text) in zip(signs, rows, strict=True)]
    gutter = max(len(start) for start, _, _ in rows) + 1
    lines = []
    for start, between, text in rows:
        before = start
        for number, part in enumerate(text):
            indent = "    " if number else ""
            room = max(WIDE - gutter, 24)
            for line in textwrap.wrap(
                part, room, initial_indent=indent, subsequent_indent="    ", break_long_words=False,
                break_on_hyphens=False,
            ) or [""]:  # fmt: skip
                lines.append(f"{before:<{gutter}}{line}".rstrip())
                before = between
    return lines


def readable(lines: Sequence[str], encoding: str | None) -> list[str]:
    """The lines as a terminal of this encoding can show them: without its signs, in plain ones."""
    try:
        "".join(SIGNS.values()).encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return [line.translate(PLAIN) for line in lines]
    return list(lines)
