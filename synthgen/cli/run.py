"""synthgen run: generate and curate."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    on_a_terminal,
    out,
    out_json,
    plain,
    results_only,
    table,
)
from synthgen.plural import many

if TYPE_CHECKING:
    from synthgen.loaded import Loaded
    from synthgen.run_result import RunResult

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
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            "--reuse",
            help="Take answers to equal requests from this run, or from every run in this folder.",
            envvar="SYNTHGEN_REUSE",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            min=1,
            help="So many requests at a time, whatever the recipe's options say.",
            envvar="SYNTHGEN_CONCURRENCY",
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures",
            min=0,
            help="So many failed tasks are tolerable; the run stops at one more.",
            envvar="SYNTHGEN_MAX_FAILURES",
        ),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            "--patience",
            min=0,
            help="Seconds for which an engine's errors are ridden out while it answers nothing (300).",
            envvar="SYNTHGEN_PATIENCE",
        ),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Ask no question before an edited recipe.", envvar="SYNTHGEN_YES"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate and curate; goes on with what the run directory holds."""
    from synthgen import api
    from synthgen.cli.progress import ProgressLine
    from synthgen.collecting import collect_less
    from synthgen.stopping import Stop, cancel_on

    with results_only():
        loaded = api.load(
            recipe, engine=engine, model=model, base_url=base_url, tasks=tasks, allow=tuple(allow_path or ())
        )
    for notice in loaded.notices:
        note(f"note: {notice}")
    collect_less()
    stop = Stop()
    line = ProgressLine()
    stops = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup was asked to see to it
        stops.append(signal.SIGHUP)
    try:
        with cancel_on(stops, stop, note), results_only():
            result = api.run(
                loaded,
                output,
                cancel=stop,
                on_progress=line,
                on_notice=note,
                confirm=None if yes or not on_a_terminal() else _confirm,
                retry_failed=retry_failed,
                reuse=tuple(reuse or ()),
                concurrency=concurrency,
                max_failures=max_failures,
                patience=patience,
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
    if result.failed:
        _show_failures(result)
    if result.outcome == "too many failures":
        most = many(max_failures or 0, "task")
        note(f"stopped: more than {most} failed (--max-failures); what was answered is kept")
        raise typer.Exit(EXIT_SHORT)
    if result.target is not None and result.kept < result.target:
        kept = f"{result.kept:,} of {result.target:,} rows are kept"
        note(f"the target was missed: {kept}; {_why_short(loaded, result)}")
        raise typer.Exit(EXIT_SHORT)
    if result.outcome == "short" or result.ended_by in ("output_tokens", "money", "seconds"):
        of = "" if loaded.plan.limit is None else f" of {loaded.plan.limit:,} tasks"
        what = "branches" if any(step.fan.branches for step in loaded.steps) else "tasks"
        done = f"{result.planned:,}{of or f' {what}'} were done"
        if of and what == "branches":
            done = f"{result.planned:,} branches{of} were done"
        note(f"{done}; {_why_short(loaded, result)}")
        raise typer.Exit(EXIT_SHORT)
    if result.failed and (max_failures is None or result.failed > max_failures):
        raise typer.Exit(EXIT_SHORT)


def _confirm() -> bool:
    return typer.confirm("go on?", default=True, err=True)


def _show_failures(result: RunResult) -> None:
    where = f" (all of them: {result.dir}/failed.jsonl)"
    if result.outcome == "too many failures":
        where = f" (synthgen show {result.dir} --state failed)"
    note(f"{many(result.failed, 'task')} failed{where}")
    for error, count in result.errors:
        note(f"  {many(count, 'time')}: {plain(error, 300)}")
    note("  --retry-failed asks again what the engine refused or answered wrongly")


def _why_short(loaded: Loaded, result: RunResult) -> str:
    budget, attempts = loaded.recipe.budget, loaded.attempts or 0
    if result.ended_by == "output_tokens":
        return f"the budget of {budget.output_tokens:,} output tokens is spent"
    if result.ended_by == "money":
        return f"the budget of {budget.money:g} is spent"
    if result.ended_by == "seconds":
        return f"the budget of {budget.seconds:g} seconds is spent"
    if budget.attempts is not None and result.planned >= budget.attempts:
        return f"the budget of {attempts:,} attempts is spent"
    if loaded.recipe.passes is not None:
        return "the seeds are exhausted; raise `passes:` or the budget"
    return f"{attempts:,} attempts were made (ten for each row wanted); raise `budget: {{attempts: ...}}`"


def _growth(growth: Mapping[str, Any]) -> Iterator[str]:
    """How the seeds grew, a line each."""
    kept = ", ".join(f"{name}: {count:,}" for name, count in growth.get("kept_by_generation", {}).items())
    if kept:
        yield f"kept by generation: {kept}"
    for name, said in growth.get("seeds", {}).items():
        yield f"{plain(name)} gained {said['added']:,} rows"
        for reason, count in said["refused"].items():
            yield f"  {count:,} kept records added none: {plain(reason, 200)}"


def show_summary(loaded: Loaded, result: RunResult) -> None:
    """A table of what each filter dropped, and where everything is."""
    if result.outcome == "nothing to do":
        out("nothing to do: this run is finished, and nothing that it depends on has changed")
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
    if loaded.chain:
        out(table(rows))
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
