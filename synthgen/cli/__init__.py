"""The command line: one command a file; each parses, calls the Python interface, prints."""

from __future__ import annotations

import sys

import typer

from synthgen.cli import filters, init, models, preview, run, validate
from synthgen.cli.options import version_callback

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
app.add_typer(filters.app, name="filters")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command that the arguments name; errors end with a sentence and their exit code."""
    from synthgen.errors import SynthgenError

    try:
        app()
    except SynthgenError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
