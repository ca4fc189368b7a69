"""The command line: one command a file; each parses, calls the Python interface, prints."""

from __future__ import annotations

import io
import os
import sys

import typer

from synthgen.cli import (
    audit,
    compare,
    curate,
    export,
    filters,
    init,
    keys,
    mix,
    models,
    preview,
    push,
    recipes,
    report,
    run,
    show,
    stats,
    status,
    validate,
)
from synthgen.cli.options import note, plain, version_callback

app = typer.Typer(
    name="synthgen",
    help="Recipes in, instruction-tuning datasets out, every row with its provenance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", callback=version_callback, is_eager=True
    ),
) -> None:
    """Recipes in, instruction-tuning datasets out, every row with its provenance."""


app.command("init")(init.init)
app.command("validate")(validate.validate)
app.command("preview")(preview.preview)
app.command("run")(run.run)
app.command("curate")(curate.curate)
app.command("mix")(mix.mix)
app.command("status")(status.status)
app.command("show")(show.show)
app.command("stats")(stats.stats)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("push")(push.push)
app.add_typer(audit.app, name="audit")
app.add_typer(filters.app, name="filters")
app.add_typer(recipes.app, name="recipes")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command that the arguments name; errors end with a sentence and their exit code."""
    from synthgen.errors import SynthgenError

    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a terminal or pipe that knows no Unicode is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except SynthgenError as error:
        note(plain(f"error: {error}"))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        note("\ninterrupted")
        sys.exit(130)
    except BrokenPipeError:  # whoever read the results has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
