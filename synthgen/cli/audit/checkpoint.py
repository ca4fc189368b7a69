"""synthgen audit checkpoint: how far a run's ledger is now, for an auditor to keep."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.audit.options import AnyDirectory, in_bounds, judging
from synthgen.cli.options import VersionOption, note


def checkpoint(
    directory: AnyDirectory,
    since: Annotated[
        Path | None,
        typer.Option("--since", help="An earlier checkpoint: give the proof that the ledger extends it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file, instead of standard output.")
    ] = None,
    version: VersionOption = None,
) -> None:
    """Print size and root of the ledger as JSON, signed where there is a key. Exit 2 where there is none."""
    from synthgen.audit.checkpoint import checkpoint as taken
    from synthgen.audit.place import place_of
    from synthgen.errors import UsageError
    from synthgen.provenance.keys import signing_key

    signer = signing_key(os.environ)
    with in_bounds(), judging():
        data = taken(place_of(directory, version), signer, since)
    if output is None:
        sys.stdout.write(data.decode())
    else:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    if signer is None:
        note("it is unsigned: there is no key here (synthgen keys new)")
