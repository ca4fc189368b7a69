"""Worker processes: the same results as here, no harm from what filters print, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from synthgen import driver
from synthgen.errors import RunError
from synthgen.loaded import Loaded
from synthgen.workers import InProcess, InProcesses, open_measurer
from tests.support import FakeEngine, loaded, recipe, run_it, tree

MINE = """\
    import sys
    from synthgen import Measurement, abstain, filter

    print("loading, to standard output")

    @filter(max=3)
    def mine(record, *, is_: str = "x"):
        print("measuring, to standard output", flush=True)
        sys.stdout.write("and more\\n")
        number = int(record["n"])
        if number % 5 == 1:
            raise LookupError("nothing there")
        if number % 5 == 2:
            return abstain("even")
        return Measurement(number, {"set": {"b", "a"}, "text": record.text, "is": is_})
"""
RUN_KIND = """\
    from synthgen import filter
    @filter(kind="run", max=0)
    class seen:
        def features(self, records):
            return [bytes([int(record["n"]) % 256, 255, 0]) for record in records]
        def resolve(self, id, feature):
            return 0
        def keep(self, id, feature):
            pass
"""
FILTERS = {"mine": MINE, "seen": RUN_KIND}
CHAIN = [{"mine": {"is": "y", "max": 3}}, {"words": {"of": "all", "min": 2}}, "refusal", "seen"]


def given(root: Path, filters: Any = None, code: Any = None) -> Loaded:
    said = recipe(seeds={"n": list(range(40))}, steps=[], record={"text": "some text {{ n }}"}, model=None)
    said["filters"] = CHAIN if filters is None else filters
    return loaded(root, said, rows=0, filters=FILTERS if code is None else code)


def batch(count: int) -> tuple[list[str], list[bytes], list[list[str]]]:
    bodies = [
        orjson.dumps({"fields": {"n": number}, "row": {"text": f"some text {number}"}})
        for number in range(count)
    ]
    known = [["words"] if number % 3 == 0 else [] for number in range(count)]
    return [f"{number:032x}" for number in range(count)], bodies, known


@contextmanager
def processes(loaded_: Loaded, count: int = 1) -> Iterator[InProcesses]:
    measurer = InProcesses(loaded_.chain, loaded_.project, count)
    try:
        yield measurer
    finally:
        measurer.close()
        assert all(worker.poll() is not None for worker in measurer._all)


def test_processes_measure_the_same(tmp_path: Path) -> None:
    given_ = given(tmp_path)
    here = InProcess(given_.chain).measure(*batch(40))
    with processes(given_, 2) as measurer:
        there = measurer.measure(*batch(40))
        again = measurer.measure(*batch(40))
        assert measurer.measure([], [], []).results == []
    assert there == here
    assert again == here
    assert sum(isinstance(result["mine"], str) for result in here.results) == 8
    assert "LookupError: nothing there (line 12 of mine.py)" in str(here.results[1]["mine"])
    assert here.features[3]["seen"] == bytes([3, 255, 0])
    assert "words" not in here.results[0]
    assert "words" in here.results[1]


def test_a_killed_worker_is_told_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    with processes(given(tmp_path)) as measurer:
        measurer.measure(*batch(3))
        measurer._all[0].kill()
        measurer._all[0].wait()
        for _ in range(3):
            with pytest.raises(RunError, match=r"ended on its own \(exit -9\)"):
                measurer.measure(*batch(3))


def test_a_filter_that_brings_its_process_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """\
        import os
        from synthgen import filter
        @filter(max=3)
        def fatal(record):
            os._exit(7)
    """
    monkeypatch.setattr(driver, "open_measurer", lambda chain, project, _: InProcesses(chain, project, 1))
    given_ = given(tmp_path, ["fatal"], {"fatal": code})
    with pytest.raises(RunError, match="exit 7"):
        run_it(given_, FakeEngine())


def test_a_filter_that_cannot_be_made_there(tmp_path: Path) -> None:
    code = """\
        from synthgen import filter
        @filter(max=3)
        class picky:
            def __init__(self):
                raise ValueError("no level")
            def measure(self, record):
                return 1
    """
    said = "filter picky cannot be made: ValueError: no level"
    with (
        processes(given(tmp_path, ["picky"], {"picky": code})) as measurer,
        pytest.raises(RunError, match=said),
    ):
        measurer.measure(*batch(3))


def test_the_dataset_is_the_same_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_ = given(tmp_path)
    run_it(given_, FakeEngine(), directory=tmp_path / "here")
    monkeypatch.setattr(driver, "open_measurer", lambda chain, project, _: InProcesses(chain, project, 2))
    run_it(given_, FakeEngine(), directory=tmp_path / "there")
    of_sessions = ("manifest.json", "sessions.jsonl")
    here, there = ({
        key: value
        for key, value in tree(tmp_path / place).items()
        if key not in of_sessions and not key.startswith("run.")
    } for place in ("here", "there"))  # fmt: skip
    assert "dataset/manifest.json" in here
    assert here == there


def test_small_runs_stay_here(tmp_path: Path) -> None:
    given_ = given(tmp_path)
    assert isinstance(open_measurer(given_.chain, given_.project, 1000), InProcess)
    assert isinstance(open_measurer([], given_.project, None), InProcess)
    many = open_measurer(given_.chain, given_.project, 1001)
    try:
        assert isinstance(many, InProcesses)
        assert many.parallel == len(many._all) >= 1
    finally:
        many.close()


PARENT = """
    import sys
    from pathlib import Path
    from synthgen import load
    from synthgen.workers import InProcesses
    loaded = load(Path(sys.argv[1]))
    measurer = InProcesses(loaded.chain, loaded.project, 2)
    print(*(worker.pid for worker in measurer._all), flush=True)
    sys.stdin.read()
"""


def test_workers_end_when_the_run_is_killed(tmp_path: Path) -> None:
    given_ = given(tmp_path, ["refusal"])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(given_.file.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    watched = [os.pidfd_open(pid) for pid in pids]
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    import select

    for handle in watched:
        ready, _, _ = select.select([handle], [], [], 30)
        os.close(handle)
        assert ready, "a worker outlived the run"


def test_workers_do_not_hear_the_terminals_ctrl_c(tmp_path: Path) -> None:
    with processes(given(tmp_path)) as measurer:
        measurer.measure(*batch(1))  # it is ready now
        measurer._all[0].send_signal(signal.SIGINT)
        assert len(measurer.measure(*batch(3)).results) == 3
