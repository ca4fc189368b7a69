"""Charts as SVG, drawn here: numbers and shapes alone, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, TOP, FOOT = 480.0, 140.0, 18.0, 24.0
SKEWED = 40  # times as high as the middle bin: then the square root of the count is drawn
SIDE = 2.0
WIDEST = 44.0  # bars of few values are no wider


def number(value: float) -> str:
    """A number for people: `1,204`, `0.835`, `1.2e-07`."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def share(part: float, whole: float) -> str:
    """A share in percent; what is there is never 0 %, and what is not all is never 100 %."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent not in (0, 100) else f"{percent:.0f} %"


def histogram(
    said: Mapping[str, Any],
    label: str,
    bounds: Mapping[str, float | None] | None = None,
    median: float | None = None,
) -> str:
    """Bars of what is within a bound, those outside on top of them, and the bounds as lines."""
    bins = said["bins"]
    if not bins:
        return ""
    low, high = bins[0]["from"], bins[-1]["to"]
    scale = _scale([each["inside"] + each["outside"] for each in bins])
    room = HEIGHT - TOP - FOOT
    width = (WIDTH - 2 * SIDE) / len(bins)
    parts = []
    for place, each in enumerate(bins):
        total = each["inside"] + each["outside"]
        if not total:
            continue
        whole = max(scale(total) * room, 1.5)
        out = whole * each["outside"] / total
        x, floor = SIDE + place * width, HEIGHT - FOOT
        title = f"{_range(each['from'], each['to'])}: {total:,}"
        title += f", {each['outside']:,} of them outside" if each["outside"] else ""
        bars = []
        if each["inside"]:
            bars.append(_bar("in", x, floor - whole + out, width, whole - out))
        if each["outside"]:
            bars.append(_bar("out", x, floor - whole, width, out))
        parts.append(f"<g><title>{escape(title)}</title>{''.join(bars)}</g>")
    parts.append(f'<path class="axis" d="M0 {HEIGHT - FOOT}H{WIDTH:g}"/>')
    parts.extend(_ticks(said, median))
    parts.extend(
        _bound(name, bound, low, high) for name, bound in (bounds or {}).items() if bound is not None
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def is_skewed(said: Mapping[str, Any]) -> bool:
    """Whether one bin stands so high that square roots are drawn."""
    counts = sorted(total for each in said["bins"] if (total := each["inside"] + each["outside"]))
    return bool(counts) and counts[-1] > SKEWED * counts[len(counts) // 2]


def pace(values: Sequence[float], label: str) -> str:
    """An area over time."""
    most = max(values, default=0) or 1
    height, step = 72.0, WIDTH / max(len(values), 1)
    points = "".join(
        f"{'M' if not place else 'L'}{place * step:.1f} {height - value / most * (height - 6):.1f}"
        f"H{(place + 1) * step:.1f}"
        for place, value in enumerate(values)
    )
    return (
        f'<svg class="pace" viewBox="0 0 {WIDTH:g} {height:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><path class="area" d="{points}V{height:g}H0Z"/>'
        f'<path class="line" d="{points}"/></svg>'
    )


def bar(parts: Sequence[tuple[str, float]], mark: float | None = None) -> str:
    """One bar of parts, each with its class and its share of the whole width; `mark` is a line across."""
    at, drawn = 0.0, []
    for name, part in parts:
        if part > 0:
            drawn.append(
                f'<rect class="{name}" x="{100 * at:.3f}%" width="{100 * part:.3f}%" height="100%"/>'
            )
        at += part
    if mark is not None:
        x = 100 * min(max(mark, 0.0), 1.0)
        drawn.append(f'<line class="wished" x1="{x:.3f}%" x2="{x:.3f}%" y1="0" y2="100%"/>')
    return f'<svg class="bar" aria-hidden="true">{"".join(drawn)}</svg>'


def scatter(points: Sequence[Mapping[str, Any]]) -> str:
    """The points of the map, numbered; the page's script colours them."""
    size = 560.0
    middle, reach = size / 2, size / 2 - 12
    dots = "".join(
        f'<circle data-n="{n}" cx="{middle + point["x"] * reach:.1f}" cy="{middle - point["y"] * reach:.1f}" '
        f'r="4"/>'
        for n, point in enumerate(points)
    )
    low = min((point["y"] for point in points), default=-1)
    high = max((point["y"] for point in points), default=1)
    top, tall = middle - high * reach - 12, max((high - low) * reach + 24, 160)
    return (
        f'<svg id="map" viewBox="0 {top:.1f} {size:g} {tall:.1f}" tabindex="0" role="application" '
        'aria-roledescription="map" aria-describedby="map-help" aria-label="Answers by what they mean">'
        f"{dots}</svg>"
    )


def _scale(counts: Sequence[int]) -> Any:
    most = max(counts)
    skewed = is_skewed({"bins": [{"inside": count, "outside": 0} for count in counts]})
    return (lambda count: math.sqrt(count / most)) if skewed else (lambda count: count / most)


def _bar(name: str, x: float, y: float, width: float, height: float) -> str:
    x, width = x + max(width - WIDEST, 0) / 2, min(width, WIDEST)
    gap = 1.0 if width > 3 else 0.4
    place = f'x="{x + gap / 2:.2f}" y="{y:.2f}" width="{width - gap:.2f}" height="{height:.2f}"'
    return f'<rect class="{name}" {place}/>'


def _ticks(said: Mapping[str, Any], median: float | None) -> list[str]:
    low, high = said["bins"][0]["from"], said["bins"][-1]["to"]
    first, last = (low + 0.5, high - 0.5) if _whole(said) else (low, high)
    texts = [number(_rounded(value, last - first)) for value in (first, last)]
    if said["below"]:
        texts[0] += f" ({said['below']:,} below)"
    if said["above"]:
        texts[1] += f" ({said['above']:,} beyond)"
    y = HEIGHT - 6
    found = [
        f'<text class="tick" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'
        for text, anchor, x in zip(texts, ("start", "end"), (0.0, WIDTH), strict=True)
    ]
    if median is not None and low <= median <= high:
        x = SIDE + (median - low) / (high - low) * (WIDTH - 2 * SIDE)
        found.append(f'<path class="median" d="M{x:.1f} {HEIGHT - FOOT}v5"/>')
        left, right = (8.0 * len(text) + 50 for text in texts)
        if left < x < WIDTH - right:
            where = f'x="{x:.1f}" y="{y:g}" text-anchor="middle"'
            found.append(f'<text class="tick" {where}>median {number(median)}</text>')
    return found


def _whole(said: Mapping[str, Any]) -> bool:
    """Whether the bins hold whole numbers, whose edges are halves."""
    return bool((said["bins"][0]["from"] - 0.5).is_integer() and (said["bins"][-1]["to"] - 0.5).is_integer())


def _bound(name: str, value: float, low: float, high: float) -> str:
    text = f"{name} {number(value)}"
    if not low <= value <= high:
        right = value > high
        x, anchor = (WIDTH, "end") if right else (0.0, "start")
        arrow = f"{text} →" if right else f"← {text}"
        return f'<text class="bound" x="{x:g}" y="13" text-anchor="{anchor}">{arrow}</text>'
    x = SIDE + (value - low) / (high - low) * (WIDTH - 2 * SIDE)
    # The words stand on the side that the bound shuts out, where there are fewer bars, if there is room.
    left = (name == "min" and x > 70) or x > WIDTH - 70
    anchor, shift = ("end", -5) if left else ("start", 5)
    return (
        f'<path class="bound" d="M{x:.1f} 2V{HEIGHT - FOOT}"/>'
        f'<text class="bound" x="{x + shift:.1f}" y="13" text-anchor="{anchor}">{text}</text>'
    )


def _range(start: float, end: float) -> str:
    if (start - 0.5).is_integer() and (end - start).is_integer():
        first, last = int(start + 0.5), int(end - 0.5)
        return f"{first:,}" if first == last else f"{first:,} to {last:,}"
    return f"{number(_rounded(start, end - start))} to {number(_rounded(end, end - start))}"


def _rounded(value: float, span: float) -> float:
    """No digits that are much finer than the span."""
    if span <= 0:
        return value
    return round(value, min(max(0, 2 - math.floor(math.log10(span))), 12))
