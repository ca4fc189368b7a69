"""The law, with real processes: a run comes through everything, and its dataset is the undisturbed one's.

Faults of the server, any number of requests at a time, and SIGKILL at random moments: the bytes are the same,
what was answered is kept, and nothing is asked or judged twice.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from synthgen.audit.checkpoint import checkpoint
from synthgen.audit.place import place_of
from synthgen.audit.verify import verify
from synthgen.digests import sampling_seed
from synthgen.view import RunView
from tests.processes import ended, query, started, wait_for
from tests.standin import Settings, StandIn, serving
from tests.support import project, read_jsonl, recipe, tree

pytestmark = pytest.mark.slow

# Measures something, and says on what; slow enough that a kill can come in between.
SEEN = """\
    import os
    import time
    from synthgen import filter

    @filter(max=1000)
    def seen(record, *, seconds: float = 0.0):
        time.sleep(seconds)
        with open(os.environ["SEEN"], "a") as file:
            file.write(record.id + "\\n")
        return len(record.text)
"""
FAULTS = {
    "429": 0.1, "429-after": 0.1, "429-date": 0.1, "503": 0.05, "503-after": 0.05, "reset": 0.04,
    "half": 0.04, "not-json": 0.04, "empty": 0.04,
}  # fmt: skip
SERVER = {"engine": "openai", "id": "standin"}


@dataclass(frozen=True)
class Case:
    """A recipe, its rows, and how the server answers it."""

    recipe: dict[str, Any]
    rows: Sequence[Any]
    unusable: dict[str, float] = field(default_factory=dict)
    pace: float = 0.008

    def settings(self, **more: Any) -> Settings:
        return Settings(unusable=self.unusable, keep_answers=True, retry_after=0.01, **more)


def documents(count: int, each: int = 1) -> list[dict[str, str]]:
    """Rows, gone through so many times."""
    topics = "rivers bread winter engines letters music stone planets".split()
    return [
        {"text": f"notes on {topics[n % 8]} and {topics[n // 8 % 8]} in the year {1000 + n}, as told twice"}
        for number in range(count)
        for n in [number % (count // each)]
    ]


PLAIN = Case(
    recipe(
        model=SERVER,
        filters=[
            "seen", {"words": {"min": 15}}, {"characters": {"max": 180}}, "refusal",
            {"duplicate": {"of": "instruction", "max": 0.9, "words": 2}},
        ],
        output={"split": {"train": 0.8, "test": 0.2}},
    ),
    documents(400, each=2),
)  # fmt: skip
STEPS = Case(
    recipe(
        model=SERVER,
        steps=[
            {
                "ask": {
                    "prompt": {
                        "user": "Ask a question about {{ doc }}",
                        "output": {
                            "type": "object",
                            "properties": {
                                "question": {"type": "string", "minLength": 5},
                                "level": {"enum": ["easy", "hard"]},
                            },
                            "required": ["question", "level"],
                            "additionalProperties": False,
                        },
                    }
                }
            },
            {"answer": {"prompt": {"system": "Be {{ ask.level }}.", "user": "{{ ask.question }}"}}},
        ],
        record={
            "messages": [{"user": "{{ ask.question }}"}, {"assistant": "{{ answer }}"}],
            "level": "{{ ask.level }}",
        },
        filters=["seen", {"words": {"min": 18}}, "refusal"],
        target=120,
    ),
    documents(100),
    unusable={"cut": 0.1, "invalid": 0.1, "blank": 0.1},
)
FANNED = Case(
    recipe(
        model=SERVER,
        seeds={
            "doc": {"path": "data/docs.jsonl", "field": "text"},
            "style": ["a poem", "a letter", "a list"],
            "level": {"choice": {"easy": 0.6, "hard": 0.4}},
        },
        steps=[{"answer": {"prompt": {"user": "Write {{ style }}, {{ level }} to read, of {{ doc }}"}}}],
        filters=["seen", {"words": {"min": 14}}, {"characters": {"max": 140, "action": "flag"}}],
        budget={"output_tokens": 8000},
    ),
    documents(200),
)
CURATED = Case(
    recipe(
        model=None,
        steps=[],
        seeds={"row": {"path": "data/docs.jsonl"}},
        record={"from": "row"},
        filters=[
            {"seen": {"seconds": 0.002}},
            {"characters": {"min": 58}},
            "refusal",
        ],
    ),
    [
        {"messages": [{"role": "user", "content": "And?"}, {"role": "assistant", "content": row["text"]}]}
        if n % 50
        else {"text": "no conversation"}
        for n, row in enumerate(documents(900, each=2))
    ],
)
JUDGED = Case(
    recipe(
        model=SERVER,
        filters=[
            "seen",
            {"duplicate": {"max": 0.9, "words": 2}},
            {"judge": {"min": 2, "votes": 2}},
            {"words": {"min": 13}},
        ],
        target=80,
    ),
    documents(100),
    unusable={"cut": 0.1, "invalid": 0.1, "blank": 0.1},
)
BRANCHED = Case(
    recipe(
        model=SERVER,
        steps=[
            {
                "topics": {
                    "prompt": {"user": "Name topics of {{ doc }}"},
                    "output": {
                        "type": "object",
                        "properties": {
                            "names": {
                                "type": "array", "items": {"type": "string", "minLength": 5},
                                "minItems": 1, "maxItems": 3,
                            },
                            "level": {"enum": ["easy", "hard"]},
                        },
                        "required": ["names", "level"],
                        "additionalProperties": False,
                    },
                    "retries": 1,
                }
            },
            {
                "question": {
                    "prompt": {"user": "Ask of {{ topic }}, number {{ doc }}"},
                    "foreach": "topics.names", "as": "topic",
                }
            },
            {"hint": {"prompt": {"user": "Hint at {{ question }}"}, "when": "topics.level == 'hard'"}},
            {"answers": {"prompt": {"user": "{{ question }} {{ hint }}"}, "n": 3, "gather": True}},
            {"comment": {"prompt": {"user": "Compare {{ answers | join }}"}, "n": 2}},
        ],
        record={
            "prompt": [{"user": "{{ question }}"}],
            "chosen": [{"assistant": "{{ answers | best(answers | map('length')) }}"}],
            "rejected": [{"assistant": "{{ answers | worst(answers | map('length')) }}"}],
            "answers": {"value": "answers"},
            "comment": "{{ comment }}",
        },
        filters=["seen", {"words": {"of": "comment", "min": 18}}, "refusal"],
        target=60,
    ),
    documents(60),
    unusable={"cut": 0.15, "invalid": 0.2, "blank": 0.05},
)  # fmt: skip
BALANCED = Case(
    recipe(
        model=SERVER,
        seeds={
            "doc": {"path": "data/docs.jsonl", "field": "text"},
            "level": {"choice": {"easy": 0.8, "hard": 0.2}},
        },
        steps=[{"answer": {"prompt": {"user": "Write, {{ level }} to read, of {{ doc }}"}}}],
        record={"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}], "level": "{{ level }}"},
        filters=["seen", {"words": {"min": 15}}],
        target=90,
        balance={"level": "even"},
        round=24,
    ),
    documents(300),
)
CASES = {
    "plain": PLAIN, "steps": STEPS, "fanned": FANNED, "curated": CURATED, "judged": JUDGED,
    "branched": BRANCHED, "balanced": BALANCED,
}  # fmt: skip
ASKING = [name for name, case in CASES.items() if case.recipe["steps"]]


OF_THIS_RUN = ("failed.jsonl", "manifest.json", "sessions.jsonl", "answers.jsonl")


def outputs(directory: Path) -> dict[str, bytes]:
    """Every output of a run that holds nothing of its faults and its sessions, as failed.jsonl does."""
    whole = tree(directory)
    return {
        name: data for name, data in whole.items() if not name.startswith("run.") and name not in OF_THIS_RUN
    }


class Place:
    """A project of one case on disk, and what an undisturbed run of it writes."""

    def __init__(self, root: Path, case: Case) -> None:
        self.root = root
        self.case = case
        project(root, case.recipe, rows=case.rows, filters={"seen": SEEN})
        self.undisturbed = root / "undisturbed"
        self.summary = self.run(self.undisturbed, at_a_time=32)
        self.bytes = outputs(self.undisturbed)

    def environment(self, server: StandIn, directory: Path) -> dict[str, str]:
        return {"SYNTHGEN_BASE_URL": server.url, "SEEN": str(directory) + ".seen"}

    def run(self, directory: Path, *, at_a_time: int | None, **settings: Any) -> dict[str, Any]:
        """A whole run, as many requests at a time as it finds out without `at_a_time`; gives its summary."""
        given = () if at_a_time is None else ("--concurrency", at_a_time)
        with serving(self.case.settings(**settings)) as server:
            said, _ = ended(
                "run", "a", "-o", directory, "--json", *given,
                cwd=self.root, code=self.code, env=self.environment(server, directory), patience=240,
            )  # fmt: skip
            if settings.get("faults"):
                assert set(server.faulted) == set(settings["faults"])
                assert sum(server.faulted.values()) > 0.3 * server.completed
            again = [
                seed for seed, times in Counter(seed for _, seed in server.answered).items() if times > 1
            ]
            assert again == []
        return dict(json.loads(said))

    @property
    def code(self) -> int:
        return 0 if self.case in (PLAIN, BALANCED) else 3  # some tasks fail, or the budget ends it


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    made: dict[str, Place] = {}

    def place(name: str) -> Place:
        if name not in made:
            made[name] = Place(tmp_path_factory.mktemp(name), CASES[name])
        return made[name]

    return place


def side_by_side(*runs: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(runs)) as threads:
        for ran in [threads.submit(run) for run in runs]:
            ran.result()


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_one_at_a_time_and_512(places: Callable[[str], Place], name: str) -> None:
    place = places(name)
    said = place.summary
    assert said["planned"] == said["kept"] + said["dropped"] + said["failed"] + said["pending"]
    assert min(said["kept"], said["dropped"]) > 10, said
    assert (said["failed"] > 0) == (name in ("steps", "curated", "judged", "branched")), said
    targets = ("steps", "judged", "branched", "balanced")
    ends = dict.fromkeys(targets, "target") | {"fanned": "output_tokens"}
    assert said["ended_by"] == ends.get(name, "tasks")

    def at(count: int) -> None:
        directory = place.root / f"at-{count}"
        summary = place.run(directory, at_a_time=count)
        assert outputs(directory) == place.bytes
        assert counted(summary) == counted(said)

    side_by_side(partial(at, 1), partial(at, 512))


def counted(said: dict[str, Any]) -> dict[str, Any]:
    return {name: said[name] for name in ("planned", "kept", "dropped", "failed", "pending", "filters")}


@pytest.fixture(scope="module")
def through_faults(places: Callable[[str], Place]) -> Iterator[Mapping[str, Future[dict[str, Any]]]]:
    """The summary of each case's run through faults; they run side by side, for mostly they wait."""

    def run(name: str) -> dict[str, Any]:
        place = places(name)
        return place.run(place.root / "faults", at_a_time=None, faults=FAULTS, most_faults=3)

    with ThreadPoolExecutor(len(ASKING)) as threads:
        yield {name: threads.submit(run, name) for name in ASKING}


@pytest.mark.parametrize("name", ASKING)
def test_the_same_bytes_through_faults(
    places: Callable[[str], Place], through_faults: Mapping[str, Future[dict[str, Any]]], name: str
) -> None:
    summary = through_faults[name].result()
    place = places(name)
    assert outputs(place.root / "faults") == place.bytes
    assert counted(summary) == counted(place.summary)
    failed = place.root / "faults" / "failed.jsonl"
    if place.summary["failed"]:  # the same ones, for the same reason
        there, here = (
            [(row["id"], row["error"], row["requests"]) for row in read_jsonl(file)]
            for file in (place.undisturbed / "failed.jsonl", failed)
        )
        assert here == there
    else:
        assert not failed.exists()


class Life:
    """One run that is killed again and again, and what has to be true after each time."""

    def __init__(self, place: Place, directory: Path, server: StandIn, chance: random.Random) -> None:
        self.place = place
        self.directory = directory
        self.server = server
        self.chance = chance
        self.seen = Path(str(directory) + ".seen")
        self.begun = 0.0
        self.kept: set[int] = (
            set()
        )  # the seeds of requests whose answers were in the journal at the last kill
        self.judged: set[str] = set()
        self.version: list[Any] = []
        self.checkpoints: list[Path] = []  # what an auditor kept after each kill

    def process(self) -> Any:
        return started(
            "run", "a", "-o", self.directory, "--json",
            cwd=self.place.root, env=self.place.environment(self.server, self.directory),
        )  # fmt: skip

    def killed(self) -> bool:
        """Run it until a random moment; False where it came to its end before that."""
        asked, lines, answered = len(self.server.asked), self.lines(), len(self.server.answered)
        with self.process() as process:
            if self.chance.random() < 0.15:
                time.sleep(self.chance.uniform(0.05, 0.7))  # while it starts
            elif self.place.case.recipe["steps"] and self.chance.random() < 0.4:
                wait_for(lambda: process.poll() is not None or len(self.server.asked) > asked)
                # While it asks, mostly; now and then longer than the second within which answers are durable.
                time.sleep(self.chance.choice((0.0, 0.0, 1.2)) + self.chance.uniform(0.0, 0.7))
            else:
                stored = self.stored()
                wait_for(lambda: process.poll() is not None or self.stored() > stored, pace=0.02)
                time.sleep(self.chance.uniform(0.0, 0.6))  # while it judges
            moment = time.monotonic()
            process.kill()
            process.communicate()
        self.nothing_twice(asked, lines)
        self.nothing_lost({seed for at, seed in self.server.answered[answered:] if at < moment - 1})
        assert process.returncode in (-signal.SIGKILL, self.place.code)
        return process.returncode == -signal.SIGKILL

    def lines(self) -> int:
        return self.seen.read_text().count("\n") if self.seen.exists() else 0

    def stored(self) -> int:
        found = query(self.directory, "SELECT count(*) FROM records")
        return found[0][0] if found else 0

    def nothing_twice(self, asked: int, lines: int) -> None:
        """What was in the journal when this session began was neither asked nor judged again."""
        assert self.kept.isdisjoint(self.server.asked[asked:])
        if self.judged:
            assert self.judged.isdisjoint(self.seen.read_text().splitlines()[lines:])

    def nothing_lost(self, answered: set[int]) -> None:
        """The journal is sound, and holds what this session was answered, but for the last second."""
        assert query(self.directory, "PRAGMA integrity_check") in ([], [("ok",)])
        keys = query(self.directory, "SELECT key FROM completions")
        kept = {sampling_seed(key) for (key,) in keys}
        assert self.kept <= kept
        assert answered <= kept
        judged = {id for (id,) in query(self.directory, "SELECT id FROM records")}
        assert self.judged <= judged
        version = query(self.directory, "SELECT version, started FROM versions")
        if self.judged:
            assert version == self.version
        self.kept, self.judged, self.version = kept, judged, version
        if judged:
            with RunView(self.directory) as view:
                said = view.status()
            assert said["state"] == "stopped" or (self.directory / "dataset").exists()
            assert said["planned"] == said["kept"] + said["dropped"] + said["failed"] + said["pending"]
            assert said["kept"] + said["dropped"] + said["failed"] == len(judged)
            file = Path(f"{self.directory}.{len(self.checkpoints)}.json")
            file.write_bytes(checkpoint(place_of(self.directory), None))
            self.checkpoints.append(file)
        dataset = self.directory / "dataset"
        if dataset.exists():
            files = {f"dataset/{name}": data for name, data in tree(dataset).items()}
            assert files == {n: data for n, data in self.place.bytes.items() if n.startswith("dataset/")}

    def status(self) -> dict[str, Any]:
        said, _ = ended("status", self.directory, "--json", cwd=self.place.root)
        return dict(json.loads(said))

    def finish(self) -> None:
        """Let it come to its end: everything is as if nothing had happened."""
        asked, lines = len(self.server.asked), self.lines()
        if self.judged:
            said = self.status()
            assert said["planned"] == said["kept"] + said["dropped"] + said["failed"] + said["pending"]
            assert said["answers"] == len(self.kept)
        with self.process() as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == self.place.code, err
        assert "Traceback" not in err
        self.nothing_twice(asked, lines)
        assert counted(json.loads(out)) == counted(self.place.summary)
        assert outputs(self.directory) == self.place.bytes
        assert query(self.directory, "PRAGMA integrity_check") == [("ok",)]
        for file in [None, *self.checkpoints]:
            verdict = verify(self.directory, None, file)
            assert verdict.intact, verdict.findings.shown


@pytest.mark.parametrize(
    ("name", "faults", "kills"),
    [
        ("plain", False, 5),
        ("plain", True, 4),
        ("steps", False, 6),
        ("fanned", False, 6),
        ("curated", False, 5),
        ("judged", True, 4),
        ("branched", False, 4),
        ("branched", True, 4),
    ],
)  # two runs each: 76 in all
def test_killed_at_random_moments_and_gone_on_with(
    places: Callable[[str], Place], name: str, faults: bool, kills: int
) -> None:
    place = places(name)
    with_faults = {"faults": FAULTS, "most_faults": 2} if faults else {}

    def killed(which: int) -> None:
        chance = random.Random(f"{name} {faults} {which}")
        done = lives = 0
        while done < kills:  # one that ends before its time begins a new life
            lives += 1
            directory = place.root / f"killed-{faults}-{which}-{lives}"
            with serving(place.case.settings(pace=place.case.pace, **with_faults)) as server:
                life = Life(place, directory, server, chance)
                while done < kills and life.killed():
                    done += 1
                life.finish()

    side_by_side(partial(killed, 0), partial(killed, 1))
