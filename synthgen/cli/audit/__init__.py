"""synthgen audit: is a dataset what it claims to be, and where does what is in it come from?"""

from __future__ import annotations

import typer

from synthgen.cli.audit import checkpoint, diff, erase, explain, export, replay, show, trace, verify

app = typer.Typer(
    help="Verify and explain what a run published.", no_args_is_help=True, rich_markup_mode=None
)
app.command("verify")(verify.verify)
app.command("show")(show.show)
app.command("explain")(explain.explain)
app.command("diff")(diff.diff)
app.command("export")(export.export)
app.command("replay")(replay.replay)
app.command("trace")(trace.trace)
app.command("checkpoint")(checkpoint.checkpoint)
app.command("erase")(erase.erase)
