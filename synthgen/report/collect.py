"""What a report says of one version of a run, read in one pass and in memory that does not grow with it.

Counts and distributions are of every record; texts, diversity and the map are of samples, each of which says
so. A sample is chosen by the digests of the records' ids: the same run gives the same report, but for what
its sessions say of time.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from synthgen import __version__
from synthgen.audit.place import journal_of
from synthgen.errors import RecipeError, UsageError
from synthgen.journal import VERSIONS
from synthgen.journal_reading import making_sense, open_for_reading, stored_record
from synthgen.record import Record
from synthgen.report import pace
from synthgen.report.differences import differences
from synthgen.report.diversity import MEASURES, lexical, vendi
from synthgen.report.sample import Sample
from synthgen.report.shares import Shares, category, wished
from synthgen.report.spread import Spread
from synthgen.view import RunView

TOKENIZER = "WordPiece of all-MiniLM-L6-v2"  # near enough to others for text in Latin script
FORMAT = 1
MAPPED = 500  # records whose texts are embedded; each takes 10 to 80 ms
VARIED = 500  # texts that diversity is measured on
KEPT_ROWS, DROPPED_ROWS, FAILED_ROWS = 200, 120, 20
AT_THE_EDGE = 3
PAIRS, SAME_PAIRS = 6, 2
TEXT = 1200  # characters of a text that are shown
WHOLE = 6000  # characters of a row's texts
OUTSIDE = ("drop", "flag", "redact")


class Key(NamedTuple):
    """Where a record is in its version."""

    task: int
    branch: str


@dataclass
class Measured:
    """One filter, with all that it measured."""

    link: Mapping[str, Any]
    spread: Spread = field(default_factory=Spread)
    abstained: int = 0
    outside: int = 0
    dropped: int = 0
    flagged: int = 0
    values: dict[str, int] = field(default_factory=Counter)
    kept_at: dict[str, Sample[tuple[Key, float]]] = field(default_factory=dict)
    dropped_at: dict[str, Sample[tuple[Key, float]]] = field(default_factory=dict)
    pairs: Sample[tuple[Key, float, str]] = field(default_factory=lambda: Sample(PAIRS))
    same: Sample[tuple[Key, float, str]] = field(default_factory=lambda: Sample(SAME_PAIRS))

    @property
    def bounds(self) -> dict[str, float]:
        """`min` and `max`, as far as there are any."""
        return {name: self.link[name] for name in ("min", "max") if self.link[name] is not None}

    def add(self, key: Key, id: str, state: str, by: str | None, verdict: Mapping[str, Any]) -> None:
        """What it measured of one record."""
        value, said = verdict["value"], verdict["verdict"]
        outside = said in OUTSIDE
        self.outside += outside
        self.flagged += said == "flag"
        if value is None:
            self.abstained += 1
            return
        self.spread.add(value, outside=outside)
        for name, bound in self.bounds.items():
            beyond = value > bound if name == "max" else value < bound
            distance = abs(value - bound)
            if beyond and by == self.link["name"]:
                self.dropped_at.setdefault(name, Sample(AT_THE_EDGE)).offer(id, (key, value), distance)
            elif not outside and state == "kept":
                self.kept_at.setdefault(name, Sample(AT_THE_EDGE)).offer(id, (key, value), distance)
        detail = verdict.get("detail")
        if outside and isinstance(detail, Mapping) and isinstance(detail.get("of"), str):
            (self.same if value >= 1 else self.pairs).offer(id, (key, value, detail["of"]))


class Report:
    """The one pass. `said` gives what came of it."""

    def __init__(self, journal: sqlite3.Connection, version: int, chain: Sequence[Mapping[str, Any]]) -> None:
        self._journal = journal
        self._version = version
        self.measured = {link["name"]: Measured(link) for link in chain}
        self.states: Counter[str] = Counter()
        self.by: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.unsure = 0
        self.shares = Shares()
        self.lengths = {name: Spread() for name in ("answer", "rejected", "instruction", "messages")}
        self.erased = 0
        self.mapped: Sample[Key] = Sample(MAPPED)
        self.varied: Sample[Key] = Sample(VARIED)
        self.kept_rows: Sample[Key] = Sample(KEPT_ROWS)
        self.failed_rows: Sample[Key] = Sample(FAILED_ROWS)
        each = max(DROPPED_ROWS // max(len(chain), 1), 3)
        self.dropped_rows: dict[str, Sample[Key]] = {name: Sample(each) for name in self.measured}

    def read(self) -> None:
        """Look at every record once."""
        rows = self._journal.execute(
            "SELECT r.task, r.branch, r.id, r.state, r.dropped_by, r.verdicts, r.erased IS NOT NULL, c.body "
            "FROM records AS r LEFT JOIN contents AS c ON c.sha256 = r.content "
            "WHERE r.version = ? ORDER BY r.task, r.branch",
            (self._version,),
        )
        for task, branch, id, state, by, verdicts, erased, body in rows:
            self._add(Key(task, branch), id, state, by, orjson.loads(verdicts))
            self.erased += erased
            if body is not None:
                self._content(Key(task, branch), id, state, orjson.loads(body))

    def _add(self, key: Key, id: str, state: str, by: str | None, verdicts: Mapping[str, Any]) -> None:
        self.states[state] += 1
        if by is not None:
            self.by[by] += 1
            if by in self.dropped_rows:
                self.dropped_rows[by].offer(id, key)
        for name, verdict in verdicts.items():
            if name in self.measured:
                self.measured[name].add(key, id, state, by, verdict)
            detail = verdict.get("detail")
            if name == "language" and state == "kept":
                found = detail.get("found") if isinstance(detail, Mapping) else None
                if isinstance(found, str):
                    self.languages[found] += 1
                else:
                    self.unsure += 1
        if state == "kept":
            self.kept_rows.offer(id, key)
        elif state == "failed":
            self.failed_rows.offer(id, key)

    def _content(self, key: Key, id: str, state: str, content: Mapping[str, Any]) -> None:
        from synthgen.filters.words import words

        record = Record(id, content["fields"], content["row"])
        self.mapped.offer(id, key)
        self.shares.add(record.fields, record.row, kept=state == "kept")
        if state != "kept":
            return
        self.varied.offer(id, key)
        self.lengths["answer"].add(words(record.pick("answer")))
        if record.row.get("rejected"):
            rejected = Record(record.id, {}, {"messages": record.row["rejected"]})
            texts = record.row["rejected"] if isinstance(record.row["rejected"], str) else rejected.answer
            self.lengths["rejected"].add(words(replace(record, text=texts)))
        if record.messages:
            self.lengths["instruction"].add(words(record.pick("instruction")))
            self.lengths["messages"].add(len(record.messages))

    def record(self, key: Key) -> tuple[dict[str, Any], Record]:
        """A record with its provenance, its texts cut to what is shown; and as filters see it."""
        entry, body, _ = stored_record(self._journal, self._version, *key)
        content = orjson.loads(body) if body is not None else {"fields": {}, "row": {}}
        record = Record(entry.id, content["fields"], content["row"])
        shown, room = [], WHOLE
        for name, text in _texts(record):
            part = text[: min(TEXT, room)]
            room -= len(part)
            shown.append({"name": name, "text": part, "length": len(text)})
        measured = {
            name: {"value": verdict["value"], "verdict": verdict["verdict"], **_said(verdict.get("detail"))}
            for name, verdict in entry.verdicts.items()
        }
        return {
            "id": entry.id,
            "task": entry.task,
            "branch": entry.branch,
            "state": entry.state,
            "dropped_by": entry.dropped_by,
            "error": entry.error and entry.error[:500],
            "parts": shown,
            "measurements": measured,
            "sources": [{name: _short(value) for name, value in each.items()} for each in entry.sources],
            "requests": [each.hex() for each in entry.requests[:8]],
        }, record

    def funnel(self, judged: int) -> list[dict[str, Any]]:
        """Each filter in order: how many came to it, and how many it dropped."""
        left, found = judged, []
        for name, measured in self.measured.items():
            link = measured.link
            bound = {key: link[key] for key in ("of", "min", "max", "action")}
            said = {"filter": name, **bound, "came": left, "dropped": self.by[name]}
            found.append({**said, "flagged": measured.flagged})
            left -= self.by[name]
        return found

    def measurements(self) -> list[dict[str, Any]]:
        """Each filter's distribution, and the records at the edges of its bounds."""
        return [self._measurement(each) for each in self.measured.values()]

    def _measurement(self, measured: Measured) -> dict[str, Any]:
        link, spread = measured.link, measured.spread
        edges = []
        for name, bound in measured.bounds.items():
            # Where a filter says only yes or no, nothing that is kept is near the bound.
            kept = measured.kept_at.get(name) if spread.distinct > 2 else None
            dropped = measured.dropped_at.get(name)
            sides = {
                side: [self._example(*item, str(link["of"])) for item in sample.items()] if sample else []
                for side, sample in (("kept", kept), ("dropped", dropped))
            }
            if any(sides.values()):
                edges.append({"bound": name, "value": bound, **sides})
        return {
            "filter": link["name"],
            **{key: link[key] for key in ("of", "min", "max", "action")},
            "measured": spread.number,
            "abstained": measured.abstained,
            "outside": measured.outside,
            "quantiles": spread.quantiles(),
            "histogram": spread.histogram(list(measured.bounds.values())),
            "edges": edges,
        }

    def _example(self, key: Key, value: float, of: str) -> dict[str, Any]:
        said, record = self.record(key)
        text, detail = _part(record, of), said["measurements"]
        return {"id": said["id"], "value": value, "text": text[:TEXT], "length": len(text),
                "measurements": detail}  # fmt: skip

    def duplicates(self) -> list[dict[str, Any]]:
        """Pairs of a record and the one before it that it is like, with what differs."""
        found = []
        for name, measured in self.measured.items():
            of = str(measured.link["of"])
            for key, value, other in [*measured.pairs.items(), *measured.same.items()]:
                said, record = self.record(key)
                text = _part(record, of)
                pair: dict[str, Any] = {"filter": name, "of": of, "value": value, "id": said["id"]}
                place = self._journal.execute(
                    "SELECT task, branch FROM records WHERE id = ? AND version = ?", (other, self._version)
                ).fetchone()
                pair["other"] = other
                detail = said["measurements"][name].get("detail")
                pair["in"] = detail.get("in") if isinstance(detail, Mapping) else None
                if place is None or pair["in"]:
                    pair["left"], pair["right"] = [], [["same", text[:TEXT]]]
                else:
                    before = _part(self.record(Key(*place))[1], of)
                    pair["left"], pair["right"] = differences(before[:TEXT], text[:TEXT])
                found.append(pair)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A sample of rows of every fate."""
        dropped = [key for sample in self.dropped_rows.values() for key in sample.items()]
        keys = [*self.kept_rows.items(), *dropped, *self.failed_rows.items()]
        return [self.record(key)[0] for key in sorted(keys)]

    def meaning(self, fields: Sequence[str]) -> tuple[dict[str, Any] | None, float | None, float | None]:
        """The map, and the Vendi score of kept answers and of equally many of all."""
        from synthgen.report.meaning import MODEL, SEEN, embeddings, plane

        mapped, varied = self.mapped.items(), self.varied.items()
        keys = sorted({*mapped, *varied})
        if len(keys) < 3:
            return None, None, None
        known = {key: self.record(key) for key in keys}
        vectors = embeddings([record.answer or record.all for _, record in known.values()])
        place = {key: number for number, key in enumerate(keys)}
        size = min(len(mapped), len(varied))
        kept, everything = (vectors[[place[key] for key in part[:size]]] for part in (varied, mapped))
        ordered = sorted(mapped)
        where, share = plane(vectors[[place[key] for key in ordered]])
        points = [
            {
                "id": known[key][0]["id"],
                "x": round(float(x), 4),
                "y": round(float(y), 4),
                "fate": known[key][0]["dropped_by"] or known[key][0]["state"],
                "fields": {name: category(known[key][1].fields, known[key][1].row, name) for name in fields},
                "text": " ".join((known[key][1].answer or known[key][1].all)[:240].split()),
            }
            for key, (x, y) in zip(ordered, where, strict=True)
        ]
        said = {"sample": len(points), "of": self.mapped.seen, "model": MODEL, "characters": SEEN,
                "method": "principal components", "variance": round(share, 4), "points": points}  # fmt: skip
        return said, vendi(kept), vendi(everything)

    def in_words_and_tokens(self) -> list[dict[str, Any]]:
        """How long the parts of kept records are; in tokens those of a sample, which `sample` counts."""
        from synthgen.filters._minilm import tokens_in

        tokens = Spread()
        for key in self.varied.items():
            if text := self.record(key)[1].answer:
                tokens.add(tokens_in(text))
        units = {"messages": "turns"}
        spreads = [(name, units.get(name, "words"), spread) for name, spread in self.lengths.items()]
        spreads.insert(1, ("answer in tokens", "tokens", tokens))
        return [
            {
                "name": name,
                "unit": unit,
                "sample": spread.number if unit == "tokens" else None,
                "quantiles": spread.quantiles(),
                "histogram": spread.histogram(),
            }
            for name, unit, spread in spreads
            if spread.number
        ]

    def diversity(self, vendis: tuple[float | None, float | None]) -> dict[str, Any]:
        """Each measure of kept answers, and of equally many of all that were judged."""
        kept, everything = self.varied.items(), self.mapped.items()
        size = min(len(kept), len(everything))
        sides = [
            lexical([text for key in part[:size] if (text := self.record(key)[1].answer)])
            for part in (kept, everything)
        ]
        for side, score in zip(sides, vendis, strict=True):
            side["vendi"] = score
        return {
            "of": "answer",
            "sample": size,
            "kept_of": self.varied.seen,
            "measures": [
                {
                    "key": each.key,
                    "name": each.name,
                    "source": each.source,
                    "says": each.says,
                    "higher_is_more_varied": each.more,
                    "kept": _round(sides[0][each.key]),
                    "all": _round(sides[1][each.key]),
                }
                for each in MEASURES
            ],
        }


def collect(directory: Path, version: int | None = None, *, meaning: bool = True) -> dict[str, Any]:
    """Everything that a report says of a version of a run, or of what the run itself made.

    `directory` is that of a run or of a version beneath it. Without `meaning` nothing is embedded: there is
    no map and no Vendi score. Raises UsageError where there is no such run or version.
    """
    above, own = journal_of(directory)
    place, number = above or directory, version if version is not None else own
    with making_sense(place), RunView(place, number) as view:
        run, number, chain = view.directory, view.version, view.chain()
        status = view.status()
    with making_sense(run), closing(open_for_reading(run)) as journal:
        said = journal.execute(
            "SELECT command, finished, summary, progress FROM versions WHERE version = ?", (number,)
        ).fetchone()
        if said is None:
            raise UsageError(f"{run} has judged nothing yet", hint="a report needs a record or more")
        report = Report(journal, number, chain)
        report.read()
        lock = _lock(run, number, str(said[0]))
        shares = report.shares.as_json(wished(lock.get("recipe", {})))
        states, summary = report.states, orjson.loads(said[2] or said[3] or "{}")
        judged = sum(states.values())
        pending = status["pending"] if said[0] == "run" and status["version"] == number else 0
        around, *vendis = (
            report.meaning([each["field"] for each in shares]) if meaning else (None, None, None)
        )
        rows = report.rows()
        return {
            "format": FORMAT,
            "synthgen": __version__,
            "run": status["run"],
            "description": (lock.get("recipe") or {}).get("description"),
            "version": number,
            "command": said[0],
            "finished": said[1] is not None,
            "models": [each["id"] for each in (lock.get("models") or {}).values()],
            "counts": {
                "planned": judged + (pending or 0),
                "kept": states["kept"],
                "dropped": states["dropped"],
                "failed": states["failed"],
                "pending": pending or 0,
                "erased": report.erased,
                "target": summary.get("target") or (lock.get("recipe") or {}).get("target"),
            },
            "funnel": report.funnel(judged - states["failed"]),
            "measurements": report.measurements(),
            "duplicates": report.duplicates(),
            "lengths": {"tokenizer": TOKENIZER, "parts": report.in_words_and_tokens()},
            "tokens": pace.tokens(journal),
            "languages": {
                "counts": [{"language": name, "kept": count} for name, count in _commonest(report.languages)],
                "unsure": report.unsure,
            },
            "shares": shares,
            "diversity": report.diversity((vendis[0], vendis[1])),
            "map": around,
            "rows": {"sample": len(rows), "of": judged, "rows": rows},
            "sessions": pace.sessions(journal),
            "failures": pace.failures(journal),
        }


def folder_of(directory: Path, said: Mapping[str, Any]) -> Path:
    """The folder with the files of the version that was collected; the run's own while it has none."""
    run = journal_of(directory)[0] or directory
    folder = run / VERSIONS / str(said["version"])
    return folder if said["command"] == "curate" and folder.is_dir() else run


def _lock(run: Path, version: int, command: str) -> dict[str, Any]:
    """What took effect in a version; empty where its files are not written yet."""
    from synthgen.yamlfile import LOCK_BYTES, read_yaml

    folder = run if command == "run" else run / VERSIONS / str(version)
    try:
        said = read_yaml(folder / "recipe.lock.yaml", LOCK_BYTES).data
    except (OSError, RecipeError):
        return {}
    return said if isinstance(said, dict) else {}


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    from synthgen.record import as_text, content_text

    for message in record.messages:
        rest = {name: value for name, value in message.items() if name not in ("role", "content") and value}
        text = content_text(message)
        yield (
            str(message.get("role")),
            "\n".join([*([text] if text else []), *([as_text(rest)] if rest else [])]),
        )
    for name, value in record.row.items():
        if name != "messages":
            yield name, as_text(value)


def _part(record: Record, of: str) -> str:
    try:
        return record.part(of)
    except KeyError:
        return ""


def _said(detail: Any) -> dict[str, Any]:
    """A detail, where it is short enough to be shown."""
    if not detail:
        return {}
    return (
        {"detail": detail} if len(orjson.dumps(detail)) <= 600 else {"detail": {"…": "too long to be shown"}}
    )


def _short(value: Any) -> Any:
    return value[:300] if isinstance(value, str) else value


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _commonest(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:12]
