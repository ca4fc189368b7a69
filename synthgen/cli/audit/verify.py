"""synthgen audit verify: is a dataset, or a proof, what it claims to be?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.audit.options import EXIT_TAMPERED, authenticity, in_bounds, judging
from synthgen.cli.counting import Counting
from synthgen.cli.options import JsonOption, out, out_json, plain
from synthgen.plural import many

if TYPE_CHECKING:
    from synthgen.audit.checkpoint import ExtensionVerdict
    from synthgen.audit.findings import Findings
    from synthgen.audit.proof import ProofVerdict
    from synthgen.audit.verify import FolderVerdict


SHOWN = 20


def verify(
    directory: Annotated[Path | None, typer.Argument(help="A dataset's directory, or a run's.")] = None,
    proof: Annotated[
        Path | None,
        typer.Option(
            "--proof",
            help="In place of a directory: a proof of `audit show --proof` or `audit checkpoint --since`.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="One of `audit checkpoint`: the ledger has to extend it."),
    ] = None,
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
    from synthgen.audit.checkpoint import ExtensionVerdict, check_extension, is_extension
    from synthgen.audit.proof import ProofVerdict, check_proof
    from synthgen.audit.verify import verify as judged
    from synthgen.errors import UsageError

    verdict: FolderVerdict | ProofVerdict | ExtensionVerdict
    key = require_signature or key
    with in_bounds(), judging(), Counting() as tell:
        if proof is not None and directory is None and is_extension(proof):
            verdict = check_extension(proof, key, checkpoint)
        elif proof is not None and directory is None and checkpoint is None:
            verdict = check_proof(proof, key)
        elif directory is not None and proof is None:
            verdict = judged(directory, key, checkpoint, tell=tell)
        else:
            raise UsageError(
                "give a directory, or a proof with --proof",
                hint="--checkpoint goes with a directory, or with a proof of `audit checkpoint --since`",
            )
    if as_json:
        out_json(verdict.as_json())
    else:
        _show_findings(verdict.findings)
        if isinstance(verdict, ProofVerdict):
            _show_of_proof(verdict)
        elif isinstance(verdict, ExtensionVerdict):
            _show_of_extension(verdict)
        else:
            _show(verdict)
        out(f"authentic   {authenticity(verdict.signers, verdict.authentic)}")
    if not verdict.intact or (require_signature is not None and not verdict.authentic):
        raise typer.Exit(EXIT_TAMPERED)


def _show_findings(findings: Findings) -> None:
    for finding in findings.shown:
        out(f"! {plain(str(finding), 300)}")
    if findings.count > len(findings.shown):
        out(f"! and {findings.count - len(findings.shown):,} more")


def _show(verdict: FolderVerdict) -> None:
    from synthgen.journal_entries import STATES

    states = ", ".join(f"{verdict.states[state]:,} {state}" for state in STATES)
    if verdict.erased:
        states += f", {len(verdict.erased):,} of them erased"
    out(f"ledger      {many(verdict.size, 'record')}: {states}; root {verdict.root}")
    if verdict.checkpoint is not None:
        saved = verdict.checkpoint
        who = authenticity(saved.signers, saved.authentic)
        out(f"checkpoint  {many(saved.size, 'record')}; root {saved.root}; {who}")
    looked = f"{verdict.files:,} files" + (", the journal record by record" if verdict.journal else "")
    if verdict.run and not verdict.journal:
        looked += "; the journal is not there, or not in order"
    if verdict.versions:
        looked += f", versions {', '.join(plain(name, 20) for name in verdict.versions[:SHOWN])}"
    if verdict.intact:
        out(f"integrity   intact: {looked}")
    else:
        out(f"integrity   NOT INTACT: {verdict.findings.count:,} findings in {looked}")
    if verdict.not_bound:
        named = ", ".join(plain(name, 80) for name in verdict.not_bound[:SHOWN])
        out(f"not judged  {named}: no manifest is over it; `synthgen report` writes it anew")


def _show_of_extension(verdict: ExtensionVerdict) -> None:
    for name, saved in (("before", verdict.before), ("after", verdict.after)):
        who = authenticity(saved.signers, saved.authentic)
        out(f"{name:<10}  {many(saved.size, 'record')}; root {saved.root}; {who}")
    proved = "intact: the later ledger begins with the earlier one" if verdict.intact else "NOT INTACT"
    out(f"integrity   {proved}")


def _show_of_proof(verdict: ProofVerdict) -> None:
    said = ", ".join(f"{name} {plain(value, 80)}" for name, value in verdict.record.items())
    out(f"record      {said or 'none'}")
    out(f"ledger      entry {verdict.index:,} of {verdict.size:,} (from 0); root {verdict.root}")
    proved = "intact: the ledger with that root has this record" if verdict.intact else "NOT INTACT"
    out(f"integrity   {proved}")
