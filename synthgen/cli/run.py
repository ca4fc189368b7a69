"""synthgen run: generate and curate."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.options import (
    AllowOption,
    BaseUrlOption,
    EngineOption,
    JsonOption,
    ModelOption,
    RecipeArgument,
    TasksOption,
    bound,
    note,
    out,
    out_json,
    plain,
    results_only,
    table,
)

if TYPE_CHECKING:
    from synthgen.driver import RunResult
    from synthgen.loading import Loaded

EXIT_SHORT = 3
EXIT_INTERRUPTED = 130


def run(
    recipe: RecipeArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The run directory; runs/NAME by default.", envvar="SYNTHGEN_OUTPUT"
        ),
    ] = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    tasks: TasksOption = None,
    allow_path: AllowOption = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask failed requests again.", envvar="SYNTHGEN_RETRY_FAILED"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate and curate; goes on with what the run directory holds."""
    from synthgen import api
    from synthgen.cli.progress import ProgressLine
    from synthgen.driver import cancel_on

    with results_only():
        loaded = api.load(
            recipe, engine=engine, model=model, base_url=base_url, tasks=tasks, allow=tuple(allow_path or ())
        )
    for notice in loaded.notices:
        note(f"note: {notice}")
    cancel = threading.Event()
    line = ProgressLine()
    stops = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    try:
        with cancel_on(stops, cancel, note), results_only():
            result = api.run(
                loaded, output, cancel=cancel, on_progress=line, on_notice=note, retry_failed=retry_failed
            )
    finally:
        line.end()
    if as_json:
        out_json(result.as_json())
    else:
        show_summary(loaded, result)
    if result.outcome == "interrupted":
        note("interrupted; run the same command again to go on")
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.target is not None and result.kept < result.target:
        note(
            f"the target was missed: {result.kept:,} of {result.target:,} rows are kept; {_why_short(loaded)}"
        )
        raise typer.Exit(EXIT_SHORT)
    if result.failed:
        note(f"{result.failed:,} tasks failed (all of them: {result.dir}/failed.jsonl)")
        for error, count in result.errors:
            note(f"  {count:,} times: {plain(error, 300)}")
        note("  --retry-failed asks again what the engine refused or answered wrongly")
        raise typer.Exit(EXIT_SHORT)


def _why_short(loaded: Loaded) -> str:
    limit = loaded.plan.limit
    if loaded.recipe.budget.attempts == limit:
        return f"the budget of {limit:,} attempts is spent"
    if loaded.recipe.passes is not None:
        return "the seeds are exhausted; raise `passes:` or the budget"
    return f"{limit:,} attempts were made (ten for each row wanted); raise `budget: {{attempts: ...}}`"


def show_summary(loaded: Loaded, result: RunResult) -> None:
    """A table of what each filter dropped, and where everything is."""
    if result.outcome == "nothing to do":
        out("nothing to do: this run is finished, and nothing that it depends on has changed")
    left = result.planned - result.failed - result.pending
    rows: list[tuple[str, ...]] = [("filter", "looks at", "bound", "dropped", "flagged", "of")]
    for link in loaded.chain:
        counts = result.filters.get(link.name, {"dropped": 0, "flagged": 0})
        rows.append(
            (
                link.name,
                link.of,
                bound(link.min, link.max),
                f"{counts['dropped']:,}",
                f"{counts['flagged']:,}",
                f"{left:,}",
            )
        )
        left -= counts["dropped"]
    if loaded.chain:
        out(table(rows))
        out("")
    out(
        f"planned {result.planned:,} = kept {result.kept:,} + dropped {result.dropped:,} "
        f"+ failed {result.failed:,} + pending {result.pending:,}"
    )
    usage = result.usage
    out(
        f"{usage['requests']:,} requests asked, {result.reused:,} answers reused, "
        f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out, {result.seconds:.1f} s"
    )
    if result.outcome != "interrupted":
        out(f"dataset  {result.dir}/dataset")
        out(f"dropped  {result.dir}/dropped.jsonl")
