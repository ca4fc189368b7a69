"""The report in a screen of terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from synthgen.plural import many
from synthgen.report.charts import number, share
from synthgen.report.story import story

WIDE = 40
EIGHTHS = " ▁▂▃▄▅▆▇█"
FIELDS, VALUES = 3, 4


def text(said: Mapping[str, Any]) -> list[str]:
    """Lines of at most 100 characters, but for names that are longer, from what `collect` gave."""
    counts = said["counts"]
    judged = counts["kept"] + counts["dropped"] + counts["failed"]
    unfinished = "" if said["finished"] else ", not finished"
    lines = [f"{said['run']}, version {said['version']} ({said['command']}{unfinished})", ""]
    lines += [f"  {sentence}" for sentence in story(said)]
    lines += ["", *_funnel(said["funnel"], counts, judged)]
    if said["measurements"]:
        lines += ["", *_measurements(said["measurements"])]
    lines += ["", *_shares(said)]
    lines += ["", *([_diversity(said["diversity"])] if said["diversity"]["sample"] else [])]
    lines += _work(said)
    return lines


def spark(histogram: Mapping[str, Any], width: int = 24) -> str:
    """A histogram in one line: the heights are square roots, and what is there is never nothing."""
    bins = [each["inside"] + each["outside"] for each in histogram["bins"]]
    if not bins:
        return ""
    number_of = min(width, len(bins))
    edges = [place * len(bins) // number_of for place in range(number_of + 1)]
    totals = [sum(bins[start:end]) for start, end in pairwise(edges)]
    most = max(totals) or 1
    return "".join(EIGHTHS[max(round(8 * (each / most) ** 0.5), 1 if each else 0)] for each in totals)


def bounds(said: Mapping[str, Any]) -> str:
    """A filter's bound: `≥ 0.3`, `5 … 400`."""
    low, high = said["min"], said["max"]
    if low is not None and high is not None:
        return f"{number(low)} … {number(high)}"
    return f"≤ {number(high)}" if high is not None else "" if low is None else f"≥ {number(low)}"


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as aligned columns, those of `right` to the right."""
    if not rows:
        return []
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _funnel(funnel: Sequence[Mapping[str, Any]], counts: Mapping[str, Any], judged: int) -> list[str]:
    planned = counts["planned"]
    rows = [("planned", _bar(planned, planned), f"{planned:,}", "")]
    if counts["pending"]:
        rows.append(("pending", _bar(judged, planned), f"{judged:,}", f"-{counts['pending']:,}"))
    if counts["failed"]:
        left = judged - counts["failed"]
        rows.append(("failed", _bar(left, planned), f"{left:,}", f"-{counts['failed']:,}"))
    for each in funnel:
        left = each["came"] - each["dropped"]
        lost = f"-{each['dropped']:,}" if each["dropped"] else ""
        rows.append((each["filter"][:24], _bar(left, planned), f"{left:,}", lost))
    rows.append(
        ("kept", _bar(counts["kept"], planned), f"{counts['kept']:,}", share(counts["kept"], planned))
    )
    return columns(rows, right=(2, 3))


def _bar(part: int, whole: int) -> str:
    return "█" * (max(round(WIDE * part / whole), 1 if part else 0) if whole else 0)


def _measurements(measurements: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [("measured", "least", "", "most", "median", "bound", "outside")]
    for each in measurements:
        quantiles = each["quantiles"]
        least, middle, most = (number(quantiles[key]) if quantiles else "" for key in ("0", "0.5", "1"))
        outside = f"{each['outside']:,}" if each["outside"] else ""
        rows.append(
            (each["filter"][:24], least, spark(each["histogram"]), most, middle, bounds(each), outside)
        )
    return columns(rows, right=(1, 6))


def _shares(said: Mapping[str, Any]) -> list[str]:
    rows = []
    for part in said["lengths"]["parts"]:
        quantiles = part["quantiles"]
        span = (
            f"{number(quantiles['0.05'])} to {number(quantiles['0.95'])}, median {number(quantiles['0.5'])}"
        )
        rows.append(
            (part["name"] if part["sample"] else f"{part['name']} ({part['unit']})", f"nine in ten {span}")
        )
    languages = said["languages"]
    total = sum(each["kept"] for each in languages["counts"]) + languages["unsure"]
    if languages["counts"]:
        found = [f"{each['language']} {share(each['kept'], total)}" for each in languages["counts"][:VALUES]]
        rows.append(("languages", ", ".join(found)))
    kept = said["counts"]["kept"]
    for field in said["shares"][:FIELDS] if kept else ():
        found = []
        for each in field["values"][:VALUES]:
            wish = f" of {100 * each['wished']:.0f} %" if each["wished"] is not None else ""
            found.append(
                f"{' '.join(each['value'].split())[:20] or '(empty)'} {share(each['kept'], kept)}{wish}"
            )
        more = len(field["values"]) - VALUES + field["others"]["values"]
        rows.append((field["field"][:24], ", ".join(found) + (f", {more} more" if more > 0 else "")))
    return columns(rows)


def _diversity(said: Mapping[str, Any]) -> str:
    found = [
        f"{each['name']} {number(each['kept'])}" for each in said["measures"] if each["kept"] is not None
    ]
    return f"  diversity of {said['sample']:,} kept answers: {', '.join(found)}"


def _work(said: Mapping[str, Any]) -> list[str]:
    tokens, failed = said["tokens"], said["failures"]
    sessions = said["sessions"]
    took = sum(each["seconds"] or 0 for each in sessions)
    line = f"  {many(len(sessions), 'session')}, {took:,.0f} s"
    if tokens["answers"]:
        line += f"; {many(tokens['answers'], 'answer')}, {many(tokens['output_tokens'], 'token')} out"
    if failed["tries"]:
        line += f"; {many(failed['tries'], 'try')} failed"
    return [line]
