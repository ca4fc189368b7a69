"""synthgen audit: is a dataset what it claims to be?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli import audit_export
from synthgen.cli.options import JsonOption, note, out, out_json, plain

if TYPE_CHECKING:
    from synthgen.audit.verify import Verdict

app = typer.Typer(help="Verify what a run published.", no_args_is_help=True, rich_markup_mode=None)
app.command("export")(audit_export.export)
EXIT_TAMPERED = 1
EXIT_CANNOT_JUDGE = 2


@app.command("verify")
def verify(
    directory: Annotated[Path, typer.Argument(help="A dataset's directory, or a run's.")],
    key: Annotated[
        Path | None, typer.Option("--key", help="A public key (.pub) to check the signature against.")
    ] = None,
    require_signature: Annotated[
        Path | None,
        typer.Option("--require-signature", help="The same, and exit 1 unless that key signed it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file, row and ledger entry. Exit 0 intact, 1 altered or missing, 2 cannot be judged."""
    from synthgen.audit.findings import CannotJudge
    from synthgen.audit.verify import verify as judged

    try:
        verdict = judged(directory, require_signature or key)
    except CannotJudge as error:
        note(f"cannot be judged: {error}")
        raise typer.Exit(EXIT_CANNOT_JUDGE) from None
    if as_json:
        out_json(verdict.as_json())
    else:
        _show(verdict)
    if not verdict.intact or (require_signature is not None and not verdict.authentic):
        raise typer.Exit(EXIT_TAMPERED)


def _show(verdict: Verdict) -> None:
    for finding in verdict.findings.shown:
        out(f"! {plain(str(finding), 300)}")
    if verdict.findings.count > len(verdict.findings.shown):
        out(f"! and {verdict.findings.count - len(verdict.findings.shown):,} more")
    states = ", ".join(f"{verdict.states[state]:,} {state}" for state in ("kept", "dropped", "failed"))
    out(f"ledger      {verdict.size:,} records: {states}; root {verdict.root}")
    looked = f"{verdict.files:,} files" + (", the journal record by record" if verdict.journal else "")
    if verdict.intact:
        out(f"integrity   intact: {looked}")
    else:
        out(f"integrity   NOT INTACT: {verdict.findings.count:,} findings in {looked}")
    out(f"authentic   {_authenticity(verdict)}")


def _authenticity(verdict: Verdict) -> str:
    signers = ", ".join(plain(keyid, 80) for keyid in verdict.signers)
    if not verdict.signers:
        return "unsigned: whoever could write here could have made this manifest"
    if verdict.authentic is None:
        return f"not checked: it names the key {signers}; give the public key with --key"
    if verdict.authentic:
        return f"signed by the key that was given, {signers}"
    return f"NOT signed by the key that was given: it names {signers}"
