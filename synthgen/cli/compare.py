"""synthgen compare: two runs, or two versions of one, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.options import JsonOption, out, out_json, plain

One = Annotated[Path, typer.Argument(metavar="A", help="A run's directory, or a version's.")]
Other = Annotated[Path, typer.Argument(metavar="B", help="The one to compare with it.")]


def compare(
    a: One,
    b: Other,
    limit: Annotated[int, typer.Option("-n", "--limit", help="So many records of each kind.", min=1)] = 20,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a page instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Counts, measurements, diversity, and who entered and left, of two runs or versions."""
    from synthgen.errors import UsageError
    from synthgen.report.compare import compare as compared
    from synthgen.report.compare import comparison_text
    from synthgen.report.page import comparison_page, write_page

    if output is not None and as_json:
        raise UsageError("a page is written, or something is printed", hint="leave out -o, or --json")
    said = compared(a, b, limit)
    if as_json:
        out_json(said)
    elif output is not None:
        write_page(output, comparison_page(said))
        out(str(output))
    else:
        for line in comparison_text(said):
            out(plain(line))
