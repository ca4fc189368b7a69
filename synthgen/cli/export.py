"""synthgen export: a dataset in the format that a trainer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.options import JsonOption, VersionOption, note, out, out_json, plain
from synthgen.plural import many


def export(
    directory: Annotated[Path, typer.Argument(help="A run's directory, a version's, or a dataset's.")],
    format: Annotated[
        str,
        typer.Argument(help="messages, prompt-completion, sharegpt, alpaca, preference, kto or text."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder; by default NAME-FORMAT right here.")
    ] = None,
    files: Annotated[
        str, typer.Option("--files", help="jsonl, parquet, or arrow for load_from_disk.")
    ] = "jsonl",
    consumer: Annotated[
        str, typer.Option("--for", help="trl, axolotl or llamafactory, where their layouts differ.")
    ] = "trl",
    plain_texts: Annotated[
        bool, typer.Option("--plain", help="Prompts and answers as texts, not as lists of messages.")
    ] = False,
    reasoning: Annotated[
        str | None,
        typer.Option("--reasoning", help="A field to put before the answer, as <think>...</think>."),
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out, and count, rows that the format cannot hold.")
    ] = False,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset in the format that a trainer reads, with the configuration that goes with it."""
    from synthgen.audit.findings import CannotJudge
    from synthgen.audit.material import Material
    from synthgen.errors import UsageError
    from synthgen.export.convert import FILES
    from synthgen.export.convert import export as write
    from synthgen.export.formats import CONSUMERS, FORMATS
    from synthgen.yamlfile import did_you_mean

    for what, said, known in (
        ("format", format, FORMATS), ("--files", files, FILES), ("--for", consumer, CONSUMERS)
    ):  # fmt: skip
        if said not in known:
            raise UsageError(f"there is no {what} {said!r}", hint=did_you_mean(said, known))
    try:
        material = Material(directory, version)
        name = str(material.lock["recipe"].get("name"))
        place = output or Path(f"{name}-{format}")
        if directory.resolve() in (place.resolve(), *place.resolve().parents):
            raise UsageError(f"{place} would lie in {directory}", hint="write it to another folder with -o")
        done = write(
            name,
            {"name": name, "ledger": material.manifest.ledger.root},
            material.rows(),
            place,
            format,
            consumer=consumer,
            files=files,
            plain=plain_texts,
            skip=skip,
            reasoning=reasoning,
        )
    except CannotJudge as error:
        hint = None
        if (directory / "run.sqlite").is_file() and not (directory / "dataset").exists():
            hint = f"its run is not finished: `synthgen status {directory}` tells how far it is"
        raise UsageError(f"nothing can be exported: {error}", hint=hint) from None
    for notice in done.notices:
        note(plain(notice, 1000))
    if as_json:
        out_json(done.as_json())
        return
    out(f"{many(sum(done.rows.values()), 'row')} in {done.dir}")
    for each in done.files:
        out(f"  {each}")
