"""What docs/architecture.md says of the way through: nothing to the left imports from the right."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "synthgen").rglob("*.py"))
}
WAY = [
    "recipe",
    "plan",
    "loading",
    "engines.vllm",
    "journal",
    "generate",
    "curate",
    "export.dataset",
    "driver",
]
WAY += ["audit.verify", "report.collect", "cli"]


@cache
def imports(name: str) -> frozenset[str]:
    """The modules of synthgen that this one imports when it runs, at its head or within a function."""
    tree = ast.parse(MODULES[name].read_text())
    checked_alone = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in checked_alone:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in MODULES else node.module for part in parts}
    return frozenset((found & MODULES.keys()) - {name})


@cache
def reached(name: str) -> frozenset[str]:
    seen, ahead = {name}, [name]
    while ahead:
        fresh = imports(ahead.pop()) - seen
        seen |= fresh
        ahead += fresh
    return frozenset(seen)


def test_the_way_is_there() -> None:
    assert {f"synthgen.{name}" for name in WAY} <= MODULES.keys()
    assert "synthgen.journal" in reached("synthgen.cli.run")


def test_no_module_imports_itself_by_way_of_others() -> None:
    TopologicalSorter({name: imports(name) for name in MODULES}).prepare()


@pytest.mark.parametrize(("left", "right"), list(combinations(WAY, 2)))
def test_nothing_to_the_left_imports_from_the_right(left: str, right: str) -> None:
    assert f"synthgen.{right}" not in reached(f"synthgen.{left}")


def test_what_is_told_to_people_is_imported_by_commands_alone() -> None:
    for room in ("synthgen.cli", "synthgen.report"):
        for name in MODULES:
            if not name.startswith((room, "synthgen.cli", "synthgen.__main__")):
                assert not [found for found in imports(name) if found.startswith(room)], name


def test_only_one_file_of_the_audit_runs_filters() -> None:
    """The shipped ones, by name. All else that an audit reads is data."""
    audit = [name for name in MODULES if name.startswith("synthgen.audit")]
    assert not [
        name for name in audit if any(found.startswith("synthgen.filters") for found in imports(name))
    ]
    dynamic = [name for name in audit if "import_module" in MODULES[name].read_text()]
    assert dynamic == ["synthgen.audit.recompute"]
