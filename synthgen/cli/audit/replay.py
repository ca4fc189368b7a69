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
from synthgen.plural import many

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
        show(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def show(found: Replays) -> None:
    """The findings, each once, and how many there were of what."""
    said = _grouped(found)
    for line, (ids, count) in list(said.items())[:SHOWN]:
        where = f"record {ids[0]}" if len(ids) == 1 else f"{many(len(ids), 'record')}, such as {ids[0]}"
        if count > len(ids):
            where = f"{count:,} times in {where}"
        out(f"! {plain(line, 300)}  ({plain(where, 120)})")
    if len(said) > SHOWN:
        out(f"! and {len(said) - SHOWN:,} more findings (--json lists all)")
    for what, counts in (("transcript", found.transcripts), ("engine", found.bits)):
        if what == "engine" and not found.asked:
            out("engine      not asked")
            continue
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
        out(f"{what:<10}  {told or 'no request'}")


def _grouped(found: Replays) -> dict[str, tuple[list[str], int]]:
    """What is wrong, what differs first: each said once, with the records that it is of, and how often."""
    said: list[tuple[int, str, str]] = []
    for record in found.records:
        said += [(0, f"transcript differs: {each}", record.id) for each in record.transcript.differs]
        said += [(2, f"transcript not judged: {each}", record.id) for each in record.transcript.unjudged]
        said += [
            (1 if bits.outcome == "differs" else 3, _told(bits), record.id)
            for bits in record.bits
            if bits.outcome != "bit"
        ]
    groups: dict[str, tuple[list[str], int]] = {}
    for _, line, id in sorted(said, key=lambda each: each[0]):
        ids, count = groups.setdefault(line, ([], 0))
        if id not in ids[-1:]:
            ids.append(id)
        groups[line] = (ids, count + 1)
    return groups


def _told(bits: Bits) -> str:
    """Where it is not comparable the points alone, which many requests have in common."""
    if bits.outcome != "differs":
        return f"engine {bits.outcome}: {'; '.join(bits.points)}"
    told = f"engine differs in request {bits.key[:12]}"
    if bits.points:
        told += f" ({'; '.join(bits.points)})"
    if bits.at is None:
        return told
    place = f"character {bits.at:,}"
    if bits.token is not None:
        one, other = (
            "the end" if each is None else repr(each) for each in (bits.token_before, bits.token_now)
        )
        place = f"token {bits.token:,} ({one}, now {other}), {place}"
    return f"{told} from {place}: {bits.before!r}, now {bits.now!r}"
