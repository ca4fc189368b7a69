"""synthgen status: how far a run is, while it runs and afterwards."""

from __future__ import annotations

from typing import Any

from synthgen.cli.options import DirectoryArgument, JsonOption, out, out_json, plain, table
from synthgen.plural import many


def status(directory: DirectoryArgument, as_json: JsonOption = False) -> None:
    """How far a run is: also of one that is running."""
    from synthgen.journal_reading import making_sense
    from synthgen.view import RunView

    with making_sense(directory), RunView(directory) as view:
        said = view.status()
    if as_json:
        out_json(said)
        return
    running = f" (process {said['process']})" if said["process"] else ""
    out(f"{said['run']}  {said['state']}{running}  {said['dir']}")
    out("")
    _show_counts(said)
    if said["curated"]:
        out(f"curated later: versions {', '.join(map(str, said['curated']))}")
    out(f"{many(said['requests'], 'request')}, {many(said['answers'], 'answer')} stored{_pace(said)}")
    last = said["sessions"][-1] if said["sessions"] else None
    if last is not None:
        ended = f", ended {last['ended']}: {last['outcome']}" if last["ended"] else ""
        out(plain(f"session {len(said['sessions'])} began {last['started']}{ended}", 300))
    if said["last_error"]:
        out(f"last error: {plain(said['last_error'], 300)}")


def _show_counts(said: dict[str, Any]) -> None:
    if said["kept"] is None:
        out("nothing is judged yet")
        return
    if said["filters"]:
        rows: list[tuple[str, ...]] = [("filter", "dropped", "flagged")]
        for name, counts in said["filters"].items():
            rows.append((plain(name, 80), f"{counts['dropped']:,}", f"{counts['flagged']:,}"))
        out(table(rows))
        out("")
    out(
        f"planned {said['planned']:,} = kept {said['kept']:,} + dropped {said['dropped']:,} "
        f"+ failed {said['failed']:,} + pending {said['pending']:,}"
    )
    if said["target"] is not None:
        out(f"target {said['kept']:,} of {said['target']:,} kept")


def _pace(said: dict[str, Any]) -> str:
    if said["state"] != "running" or said["answers_per_second"] is None:
        return ""
    return f" · {said['answers_per_second']:,.1f}/s, {said['output_tokens_per_second']:,.0f} tokens/s of late"
