"""synthgen stats: how measurements are distributed and where each bound cuts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.cli.options import (
    DirectoryArgument,
    JsonOption,
    VersionOption,
    bound,
    note,
    out,
    out_json,
    table,
)

WIDTH = 40
PARTS = ("bad_dropped", "good_dropped", "bad_kept", "good_kept")


def stats(
    directory: DirectoryArgument,
    label: Annotated[
        Path | None,
        typer.Option(
            "--label", help='Lines of {"id": ..., "label": "good" or "bad"}: how right each bound is.'
        ),
    ] = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Each measurement's distribution, and where its bound cuts."""
    from synthgen.errors import UsageError
    from synthgen.journal_reading import making_sense
    from synthgen.stats import distributions, read_labels, rightness
    from synthgen.view import RunView

    labels = read_labels(label) if label is not None else None
    with making_sense(directory), RunView(directory, version) as view:
        judged, chain = view.version, view.chain()
        measured = distributions(chain, view.verdicts())
        right = None
        if labels is not None:
            names = [link["name"] for link in chain]
            right = rightness(labels, view.records(None, None), names)
    said: dict[str, Any] = {"filters": [each.as_json() for each in measured]}
    if right is not None:
        said["labels"] = {name: each.as_json() for name, each in right.items()}
        elsewhere = len(labels or ()) - sum(said["labels"]["(all)"][part] for part in PARTS)
        if elsewhere == len(labels or ()):
            raise UsageError(
                "none of the labelled ids is among these records", hint="`synthgen show DIR` has them"
            )
        if elsewhere:
            note(f"{elsewhere:,} of the {len(labels or ()):,} labelled ids are not among these records")
    if as_json:
        out_json(said)
        return
    for each in said["filters"]:
        show_distribution(each)
    if not measured:
        note("it was judged by no filter" if judged else "nothing is judged yet")
    if right is not None:
        _show_labels(said["labels"])


def show_distribution(said: Mapping[str, Any]) -> None:
    """Print one filter's distribution, with what is outside its bound marked."""
    limits = bound(said["min"], said["max"]) or "no bound"
    out(
        f"{said['filter']} of {said['of']}: {said['measured']:,} measured, {said['abstained']:,} abstained, "
        f"{said['outside']:,} outside ({limits}: {said['action']})"
    )
    if said["quantiles"]:
        marks = {"0": "least", "0.5": "median", "1": "most"}
        shown = [f"{marks.get(share, share)} {value:g}" for share, value in said["quantiles"].items()]
        out("  " + " · ".join(shown))
    most = max((each["count"] for each in said["histogram"]), default=0)
    for each in said["histogram"]:
        bar = "█" * max(round(each["count"] / most * WIDTH), 1 if each["count"] else 0)
        cut = "  " if _inside(each, said) else "x "
        out(f"  {cut}{each['from']:>10.4g} {bar} {each['count']:,}")
    out("")


def _inside(each: Mapping[str, float], said: Mapping[str, Any]) -> bool:
    """Whether any of a bin is within the bound."""
    return (said["min"] is None or each["to"] >= said["min"]) and (
        said["max"] is None or each["from"] <= said["max"]
    )


def _show_labels(labels: Mapping[str, Mapping[str, Any]]) -> None:
    rows: list[tuple[str, ...]] = [
        ("bound", "precision", "recall", "bad dropped", "good dropped", "bad kept", "good kept")
    ]
    for name, each in labels.items():
        shares = [f"{each[part]:.3f}" if each[part] is not None else "-" for part in ("precision", "recall")]
        counts = [f"{each[part]:,}" for part in PARTS]
        rows.append((name, *shares, *counts))
    out(table(rows))
