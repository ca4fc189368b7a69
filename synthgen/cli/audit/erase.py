"""synthgen audit erase: contents of records are removed for good, and the proofs of the others still hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from synthgen.cli.audit.options import judging
from synthgen.cli.options import DirectoryArgument, JsonOption, note, on_a_terminal, out, out_json, plain
from synthgen.plural import many


def erase(
    directory: DirectoryArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Records, or beginnings of their ids.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask no question.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase the contents of records from the journal and from every version's files, for good."""
    from synthgen.audit.erase import erase as erased

    with judging():
        done = erased(directory, ids, None if yes or not on_a_terminal() else _confirm)
    for folder in done.unsigned:
        note(f"{folder}: the manifests were signed, and are unsigned now: the key is not here")
    if as_json:
        out_json(done.as_json())
        return
    for id in done.ids:
        out(f"erased   {plain(id, 80)}")
    out(f"with     {done.contents:,} contents and {done.answers:,} answers that no other record uses")
    for folder in done.rewritten:
        out(f"written  {folder}")
    note("copies elsewhere, and the seeds in the project, are as they were")


def _confirm(ids: Sequence[str]) -> bool:
    return typer.confirm(f"erase {many(len(ids), 'record')} for good?", err=True)
