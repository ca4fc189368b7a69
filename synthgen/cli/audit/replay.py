"""synthgen audit replay: does a record follow from what was recorded, and does its engine say it again?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.audit.options import judging
from synthgen.cli.options import (
    BaseUrlOption,
    DirectoryArgument,
    EngineOption,
    JsonOption,
    ModelOption,
    note,
    out,
    out_json,
    plain,
)

if TYPE_CHECKING:
    from synthgen.audit.bits import Bits
    from synthgen.audit.replay import Replays

SHOWN = 20


def replay(
    directory: DirectoryArgument,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Records.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, help="So many, drawn.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="What they are drawn with.")] = 0,
    no_engine: Annotated[bool, typer.Option("--no-engine", help="The transcript alone.")] = False,
    project: Annotated[
        Path | None, typer.Option("--project", help="Where prompts/ is, if not above runs/.")
    ] = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute records again from the raw answers, and ask their engine again.

    Exit 0 all replayed, 1 something differs, 2 something cannot be judged, 4 the engine cannot be had.
    """
    from synthgen.audit.replay import Asking
    from synthgen.audit.replay import replay as replayed

    asking = None if no_engine else Asking(engine, model, base_url, notify=note)
    with judging():
        found = replayed(directory, ids or (), sample=sample, seed=seed, project=project, asking=asking)
    if as_json:
        out_json(found.as_json())
    else:
        _show(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _show(found: Replays) -> None:
    shown = 0
    for record in found.records:
        said = [f"differs: {each}" for each in record.transcript.differs]
        said += [f"not judged: {each}" for each in record.transcript.unjudged]
        said += [_told(bits) for bits in record.bits if bits.outcome != "bit"]
        shown += bool(said)
        if shown <= SHOWN:
            for each in said:
                out(f"! {record.id}  {plain(each, 300)}")
    if shown > SHOWN:
        out(f"! and {shown - SHOWN:,} more records (--json lists all)")
    for what, counts in (("transcript", found.transcripts), ("engine", found.bits)):
        if what == "engine" and not found.asked:
            out("engine      not asked")
            continue
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
        out(f"{what:<10}  {told or 'no request'}")


def _told(bits: Bits) -> str:
    told = f"request {bits.key[:12]} {bits.outcome}"
    if bits.points:
        told += f" ({'; '.join(bits.points)})"
    if bits.at is not None:
        place = f"character {bits.at:,}"
        if bits.token is not None:
            one, other = (
                "the end" if each is None else repr(each) for each in (bits.token_before, bits.token_now)
            )
            place = f"token {bits.token:,}, {one}, now {other}, {place}"
        told += f": first at {place}: {bits.before!r}, now {bits.now!r}"
    return told
