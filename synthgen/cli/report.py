"""synthgen report: a page, a screen of text or JSON that makes somebody understand a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.options import JsonOption, VersionOption, out, out_json, plain

RunOrVersion = Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory, or a version's.")]


def report(
    directory: RunOrVersion,
    version: VersionOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; DIR/report.html by default.")
    ] = None,
    as_text: Annotated[bool, typer.Option("--text", help="Print it, and write no page.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a page about a run's dataset: one file that opens anywhere and fetches nothing."""
    from synthgen.errors import UsageError
    from synthgen.provenance.manifest import REPORT
    from synthgen.report.collect import collect, folder_of
    from synthgen.report.page import page, write_page
    from synthgen.report.text import text

    if output is not None and (as_text or as_json):
        raise UsageError(
            "a page is written, or something is printed", hint="leave out -o, or --text and --json"
        )
    said = collect(directory, version)
    if as_json:
        out_json(said)
    elif as_text:
        for line in text(said):
            out(plain(line))
    else:
        place = output or folder_of(directory, said) / REPORT
        write_page(place, page(said))
        out(str(place))
