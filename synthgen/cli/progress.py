"""Progress on standard error: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from synthgen.cli.options import say
from synthgen.run_result import Progress

EVERY = 10.0
ENOUGH = 3.0  # seconds, before which nothing is foretold


class ProgressLine:
    """Shows how far a run is. Call it with each `Progress`; `end()` leaves the last state standing."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._first_token: float | None = None
        self._shown = 0.0
        self._stage = ""
        self._start: tuple[float, int] | None = (
            None  # when this session was first heard of, and how far it was
        )

    def __call__(self, progress: Progress) -> None:
        """Show it, if it is time."""
        now = time.monotonic()
        if progress.output_tokens and self._first_token is None:
            self._first_token = now
        if self._live:
            say("\r\x1b[2K" + self._text(progress, now))
        elif progress.stage != self._stage or now - self._shown >= EVERY:
            say(self._text(progress, now) + "\n")
            self._shown = now
        self._stage = progress.stage

    def end(self) -> None:
        """Finish the line."""
        if self._live:
            say("\r\x1b[2K")

    def _text(self, progress: Progress, now: float) -> str:
        judged = progress.kept + progress.dropped + progress.failed
        if progress.stage != "generating":
            return (
                f"{progress.stage} …" if progress.stage == "starting" else f"{progress.stage} the dataset …"
            )
        if progress.target is not None:
            head = f"{progress.kept:,}/{progress.target:,} kept"
            if judged:
                expected = round(progress.target * judged / max(progress.kept, 1))
                head += f" (about {expected:,} tries expected)"
        else:
            head = f"{judged:,}/{progress.planned:,} done · {progress.kept:,} kept"
        parts = [head, f"{progress.dropped:,} dropped{self._worst(progress)}"]
        if progress.failed:
            parts.append(f"{progress.failed:,} failed")
        if progress.reused:
            parts.append(f"{progress.reused:,} answers reused")
        if self._first_token is not None and now > self._first_token + 1:
            parts.append(f"{progress.output_tokens / (now - self._first_token):,.0f} tokens/s")
        parts.append(
            f"{progress.in_flight} in flight · {_time(now - self._began)}{self._left(progress, now)}"
        )
        return " · ".join(parts)

    def _left(self, progress: Progress, now: float) -> str:
        """How long it will go on, from how fast it was in this session."""
        judged = progress.kept + progress.dropped + progress.failed
        if self._start is None:
            self._start = (now, judged)
        seconds, done = now - self._start[0], judged - self._start[1]
        if seconds < ENOUGH or not done:
            return ""
        if progress.target is not None:
            left = (progress.target - progress.kept) * judged / max(progress.kept, 1)
        else:
            left = (progress.planned or judged) - judged
        return f", about {_time(left * seconds / done)} left"

    @staticmethod
    def _worst(progress: Progress) -> str:
        drops = {name: counts["dropped"] for name, counts in progress.by_filter.items() if counts["dropped"]}
        if not drops:
            return ""
        most = sorted(drops.items(), key=lambda item: -item[1])[:3]
        return " (" + ", ".join(f"{name} {count:,}" for name, count in most) + ")"


def _time(seconds: float) -> str:
    """`12 s`, `3 min 5 s`, `2 h 40 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
