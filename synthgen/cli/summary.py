"""What a run came to, as a table and a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from synthgen.cli.options import bound, out, plain, table
from synthgen.plural import many

if TYPE_CHECKING:
    from synthgen.loaded import Loaded
    from synthgen.run_result import RunResult


def show_summary(loaded: Loaded, result: RunResult) -> None:
    """A table of what each filter dropped, and where everything is."""
    if result.outcome == "nothing to do":
        out("nothing to do: this run is finished, and nothing that it depends on has changed")
    if loaded.chain:
        out(table(_filters(loaded, result)))
        out("")
    out(
        f"planned {result.planned:,} = kept {result.kept:,} + dropped {result.dropped:,} "
        f"+ failed {result.failed:,} + pending {result.pending:,}"
    )
    for field, values in result.balance.items():
        shown = (
            f"{plain(value, 40)} {said['share'] or 0:.0%} (wished {said['wished']:.0%})"
            for value, said in values.items()
        )
        out(f"balance of {plain(field)}: {', '.join(shown)}")
    for line in _growth(result.growth):
        out(line)
    usage = result.usage
    out(
        f"{many(usage['requests'], 'request')} asked, {many(result.reused, 'answer')} reused, "
        f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out, {result.seconds:.1f} s"
    )
    for name, count in result.reused_from.items():
        out(f"{count:,} of them from the run {name}")
    if result.money is not None:
        out(f"the answers of this dataset's tasks cost {result.money:,.4f}")
    if not result.written:
        out(f"{result.dir}/dataset is left as it was: every task failed")
    elif result.outcome not in ("interrupted", "too many failures"):
        out(f"dataset  {result.dir}/dataset")
        out(f"dropped  {result.dir}/dropped.jsonl")
        out(f"report   synthgen report {result.dir}")


def _filters(loaded: Loaded, result: RunResult) -> list[tuple[str, ...]]:
    """A row for each filter: what it took of what those before it left."""
    left = result.planned - result.failed - result.pending
    redacts = any(link.action == "redact" for link in loaded.chain)
    heads = ["filter", "looks at", "bound", "dropped", "flagged", *(["redacted"] if redacts else []), "of"]
    rows: list[tuple[str, ...]] = [tuple(heads)]
    for link in loaded.chain:
        counts = result.filters.get(link.name, {"dropped": 0, "flagged": 0})
        rows.append(
            (
                link.name,
                link.of,
                bound(link.min, link.max),
                f"{counts['dropped']:,}",
                f"{counts['flagged']:,}",
                *([f"{counts.get('redacted', 0):,}"] if redacts else []),
                f"{left:,}",
            )
        )
        left -= counts["dropped"]
    return rows


def _growth(growth: Mapping[str, Any]) -> Iterator[str]:
    """How the seeds grew, a line each."""
    kept = ", ".join(f"{name}: {count:,}" for name, count in growth.get("kept_by_generation", {}).items())
    if kept:
        yield f"kept by generation: {kept}"
    for name, said in growth.get("seeds", {}).items():
        yield f"{plain(name)} gained {said['added']:,} rows"
        for reason, count in said["refused"].items():
            yield f"  {count:,} kept records added none: {plain(reason, 200)}"
