"""synthgen run: generate and curate."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import typer

from synthgen.cli.options import (
    AllowOption,
    BaseUrlOption,
    EngineOption,
    JsonOption,
    ModelOption,
    RecipeArgument,
    TasksOption,
    note,
    on_a_terminal,
    out_json,
    plain,
    results_only,
)
from synthgen.cli.run_options import (
    ConcurrencyOption,
    MaxFailuresOption,
    OutputOption,
    PatienceOption,
    RetryFailedOption,
    ReuseOption,
    YesOption,
)
from synthgen.cli.summary import show_summary
from synthgen.plural import many

if TYPE_CHECKING:
    from synthgen.loaded import Loaded
    from synthgen.run_result import RunResult

EXIT_SHORT = 3
EXIT_INTERRUPTED = 130


def run(
    recipe: RecipeArgument,
    output: OutputOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    tasks: TasksOption = None,
    allow_path: AllowOption = None,
    retry_failed: RetryFailedOption = False,
    reuse: ReuseOption = None,
    concurrency: ConcurrencyOption = None,
    max_failures: MaxFailuresOption = None,
    patience: PatienceOption = None,
    yes: YesOption = False,
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
    code = _ended(loaded, result, max_failures)
    if code:
        raise typer.Exit(code)


def _ended(loaded: Loaded, result: RunResult, max_failures: int | None) -> int:
    """Say how it ended, where that is not as wished. Gives the exit code."""
    if result.outcome == "interrupted":
        note("interrupted; run the same command again to go on")
        return EXIT_INTERRUPTED
    if result.failed:
        _show_failures(result)
    if result.outcome == "too many failures":
        most = many(max_failures or 0, "task")
        note(f"stopped: more than {most} failed (--max-failures); what was answered is kept")
        return EXIT_SHORT
    if result.target is not None and result.kept < result.target:
        kept = f"{result.kept:,} of {result.target:,} rows are kept"
        note(f"the target was missed: {kept}; {_why_short(loaded, result)}")
        return EXIT_SHORT
    if result.outcome == "short" or result.ended_by in ("output_tokens", "money", "seconds"):
        of = "" if loaded.plan.limit is None else f" of {loaded.plan.limit:,} tasks"
        what = "branches" if any(step.fan.branches for step in loaded.steps) else "tasks"
        done = f"{result.planned:,}{of or f' {what}'} were done"
        if of and what == "branches":
            done = f"{result.planned:,} branches{of} were done"
        note(f"{done}; {_why_short(loaded, result)}")
        return EXIT_SHORT
    if result.failed and (max_failures is None or result.failed > max_failures):
        return EXIT_SHORT
    return 0


def _confirm() -> bool:
    return typer.confirm("go on?", default=True, err=True)


def _show_failures(result: RunResult) -> None:
    where = f" (all of them: {result.dir}/failed.jsonl)"
    if result.outcome == "too many failures":
        where = f" (synthgen show {result.dir} --state failed)"
    note(f"{many(result.failed, 'task')} failed{where}")
    for error, count in result.errors:
        note(f"  {many(count, 'time')}: {plain(error, 300)}")
    refused, unusable = result.given_up
    if refused:
        note("  --retry-failed asks again what the engine refused")
    if unusable:
        note("  --retry-failed asks again where no answer could be used; where they come out the same, raise")
        note("  the step's `retries:` or `max_tokens:`, or change its prompt or its schema")
    if not refused and not unusable:
        note("  no model would mend that: change what is named there (row, template or filter) and run again")


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
