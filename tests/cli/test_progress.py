"""What is said of a run's progress: kept, dropped by filter, tokens a second, and how long it will take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synthgen.cli import progress as shown
from synthgen.cli.progress import ProgressLine
from synthgen.run_result import Progress

AT_FIRST = Progress("generating", planned=None, target=100, by_filter={})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return now


def test_a_target(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine()
    line(replace(AT_FIRST, output_tokens=1))
    clock[0] += 60
    drops = {"words": {"dropped": 3}, "refusal": {"dropped": 7}, "toxicity": {"dropped": 0}}
    line(replace(AT_FIRST, kept=30, dropped=10, output_tokens=6000, in_flight=8, by_filter=drops))
    first, last = capsys.readouterr().err.splitlines()
    assert "left" not in first
    # 30 of 40 are kept, in a minute: 70 more take 93 tries, at 40 a minute
    assert last == (
        "30/100 kept (about 133 tries expected) · 10 dropped (refusal 7, words 3) · 100 tokens/s "
        "· 8 in flight · 1 min 0 s, about 2 min 20 s left"
    )


def test_going_on_counts_from_where_it_was(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine()
    at = Progress("generating", planned=1000, target=None, kept=500, by_filter={})
    line(at)
    clock[0] += 10
    line(replace(at, kept=600))
    assert capsys.readouterr().err.splitlines()[-1].endswith("10 s, about 40 s left")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7300, "2 h 1 min")]
)
def test_times(seconds: float, text: str) -> None:
    assert shown._time(seconds) == text
