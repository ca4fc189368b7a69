"""synthgen curate: new bounds for a finished run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.options import (
    BaseUrlOption,
    DirectoryArgument,
    EngineOption,
    JsonOption,
    ModelOption,
    note,
    out,
    out_json,
    results_only,
    table,
)
from synthgen.plural import many

if TYPE_CHECKING:
    from synthgen.recurate import Recurated

SHOWN = 10
EXIT_SHORT = 3
EXIT_INTERRUPTED = 130


def curate(
    directory: DirectoryArgument,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="A change such as toxicity.max=0.3; may be given several times."),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option("--project", help="Where the project's own filters are, if not above runs/."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show who would enter and who would leave.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Let filters that ask a model ask about what they have not measured."),
    ] = False,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Curate a finished run with other bounds into versions/N; no model is asked unless with --measure."""
    from synthgen.journal_reading import making_sense
    from synthgen.recurate import recurate
    from synthgen.stopping import Stop, cancel_on

    cancel = Stop()
    stops = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    with cancel_on(stops, cancel, note), results_only(), making_sense(directory):
        done = recurate(
            directory,
            changes or (),
            project=project,
            dry_run=dry_run,
            cancel=cancel,
            on_notice=note,
            measure=measure,
            engine=engine if measure else None,
            model=model if measure else None,
            base_url=base_url if measure else None,
        )
    if as_json:
        out_json(done.as_json())
    else:
        _show(done)
    result = done.result
    if result.outcome == "interrupted":
        note("interrupted; nothing was written")
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.outcome == "short":
        note(f"the target is missed: {result.kept:,} of {result.target:,} rows are kept")
        raise typer.Exit(EXIT_SHORT)
    if result.failed:
        note(f"{many(result.failed, 'task')} failed")
        raise typer.Exit(EXIT_SHORT)


def _show(done: Recurated) -> None:
    result = done.result
    if result.filters:
        rows: list[tuple[str, ...]] = [("filter", "dropped", "flagged")]
        for name, counts in result.filters.items():
            rows.append((name, f"{counts['dropped']:,}", f"{counts['flagged']:,}"))
        out(table(rows))
        out("")
    out(
        f"planned {result.planned:,} = kept {result.kept:,} + dropped {result.dropped:,} "
        f"+ failed {result.failed:,} + pending {result.pending:,}"
    )
    changes = done.changes
    out(f"{len(changes.enter):,} enter, {len(changes.leave):,} leave")
    for sign, items, why in (("+", changes.enter, "was dropped by"), ("-", changes.leave, "dropped by")):
        for id, name in items[:SHOWN]:
            out(f"  {sign} {id}  {name if name in ('failed', 'surplus') else f'{why} {name}'}")
        if len(items) > SHOWN:
            out(f"  {sign} and {len(items) - SHOWN:,} more (--json lists all)")
    if done.version is not None and result.outcome != "interrupted":
        out(f"dataset  {result.dir}/dataset")
        out(f"report   synthgen report {result.dir}")
