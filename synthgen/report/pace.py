"""When a run was at work: its sessions, what its engines answered over time, and what failed."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

import orjson

from synthgen.report.spread import Spread

BUCKETS = 60
SHOWN = 8
ASKED = "FROM completions WHERE source IS NULL"


def sessions(journal: sqlite3.Connection) -> list[dict[str, Any]]:
    """Each process that wrote to the run, with its answers over time where an engine gave any."""
    found = []
    rows = journal.execute(
        "SELECT session, command, started, ended, outcome, environment FROM sessions ORDER BY session"
    ).fetchall()
    for number, command, started, ended, outcome, environment in rows:
        said = orjson.loads(environment)
        found.append(
            {
                "session": number,
                "command": command,
                "started": started,
                "ended": ended,
                "seconds": _seconds(started, ended),
                "outcome": outcome,
                "synthgen": said.get("synthgen"),
                "platform": said.get("platform"),
                "cpus": said.get("cpus"),
                **_answers(journal, number),
            }
        )
    return found


def tokens(journal: sqlite3.Connection) -> dict[str, Any]:
    """What engines were asked and answered, in their own tokens; `lengths` are of the answers."""
    asked, given, told = journal.execute(
        f"SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0) {ASKED}"
    ).fetchone()
    reused = journal.execute("SELECT count(*) FROM completions WHERE source IS NOT NULL").fetchone()[0]
    spread = Spread()
    for (count,) in journal.execute("SELECT output_tokens FROM completions"):
        spread.add(count)
    return {
        "answers": asked,
        "reused": reused,
        "input_tokens": given,
        "output_tokens": told,
        "lengths": {"quantiles": spread.quantiles(), "histogram": spread.histogram()},
    }


def failures(journal: sqlite3.Connection) -> dict[str, Any]:
    """Tries that failed: how many, of how many requests, how many for good, and what they said."""
    tries, requests, final = journal.execute(
        "SELECT count(*), count(DISTINCT key), count(DISTINCT CASE WHEN final > 0 THEN key END) FROM failures"
    ).fetchone()
    said = journal.execute(
        "SELECT substr(error, 1, 300), count(*) FROM failures GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?", (SHOWN,)
    )
    return {
        "tries": tries,
        "requests": requests,
        "given_up": final,
        "errors": [{"error": error, "count": count} for error, count in said],
    }


def _answers(journal: sqlite3.Connection, session: int) -> dict[str, Any]:
    count, first, last, told = journal.execute(
        f"SELECT count(*), min(arrived), max(arrived), coalesce(sum(output_tokens), 0) {ASKED} "
        "AND session = ?",
        (session,),
    ).fetchone()
    begun = journal.execute(
        "SELECT min(issued) FROM requests WHERE session = ? AND key IN "  # noqa: S608 - of a name of our own
        f"(SELECT key {ASKED} AND session = ?)",
        (session, session),
    ).fetchone()[0]
    if not count:
        return {"answers": 0, "output_tokens": 0, "pace": None}
    start = min(first, begun) if begun is not None else first
    seconds = max(last - start, 1e-3)
    width = seconds / BUCKETS
    buckets = [[0, 0] for _ in range(BUCKETS)]
    query = (
        "SELECT CAST(min(max((arrived - ?) / ?, 0), ?) AS INTEGER), count(*), sum(output_tokens) "
        f"{ASKED} AND session = ? GROUP BY 1"
    )
    for bucket, answers, output in journal.execute(query, (start, width, BUCKETS - 1, session)):
        buckets[bucket] = [answers, output]
    return {
        "answers": count,
        "output_tokens": told,
        "pace": {
            "seconds": seconds,
            "width": width,
            "answers": [answers for answers, _ in buckets],
            "tokens": [output for _, output in buckets],
        },
    }


def _seconds(started: str, ended: str | None) -> float | None:
    if ended is None:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
