"""Whatever fails or ends while the files are written: a reader sees the old dataset or the new one, whole."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver
from synthgen.audit.verify import verify
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import RunError
from synthgen.export import durable
from synthgen.loaded import Loaded
from synthgen.provenance.manifest import statement_in
from synthgen.run_result import RunResult
from synthgen.workers import InProcess
from tests.support import FakeEngine, answer_of, loaded, recipe, run_it, tree

OPERATIONS = ("_open", "_write", "_fsync", "_mkdir", "_rename", "_exchange", "_unlink", "_rmdir")
SPLIT = {"split": {"train": 0.6, "test": 0.4}}
OLD = recipe(filters=[{"words": {"min": 1}}], output=SPLIT)
NEW = recipe(filters=[{"words": {"min": 6}}], output=SPLIT, tasks=9)
Strike = Callable[..., Any]


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


def answer(request: Request) -> Any:
    return RequestFailed("too long") if "number 9" in str(request.messages) else answer_of(request)


def unasked(request: Request) -> Any:
    raise AssertionError(f"asked again: {request}")


OF_SESSIONS = ("manifest.json", "sessions.jsonl", "answers.jsonl")  # every session writes others


def files(directory: Path) -> dict[str, bytes]:
    return {
        name: data
        for name, data in tree(directory).items()
        if not name.startswith("run.") and name not in OF_SESSIONS
    }


def beneath(there: dict[str, bytes], folder: str) -> dict[str, bytes]:
    return {name: data for name, data in there.items() if name.startswith(f"{folder}/")}


class Disk:
    """Counts what is asked of the system, and strikes at one of it."""

    def __init__(
        self, patch: pytest.MonkeyPatch, at: int | None = None, strike: Strike | None = None
    ) -> None:
        self.asked: list[str] = []
        for name in OPERATIONS:
            patch.setattr(durable, name, self._counted(name, getattr(durable, name), at, strike))

    def _counted(self, name: str, real: Strike, at: int | None, strike: Strike | None) -> Strike:
        def operation(*arguments: Any) -> Any:
            self.asked.append(name)
            if strike is not None and len(self.asked) - 1 == at:
                strike(name, *arguments)
            return real(*arguments)

        return operation


def kill(name: str, *arguments: Any) -> None:
    """End this process here and now; what is being written is cut in half."""
    if name == "_write":
        os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> Strike:
    def strike(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return strike


def no_exchange(*_: Any) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@dataclass
class Case:
    """A run whose every record is judged, and of whose dataset nothing is written yet."""

    given: Loaded
    template: Path
    before: dict[str, bytes]  # its outputs, of an earlier version
    after: dict[str, bytes]  # what an undisturbed run writes

    def place(self, root: Path) -> Path:
        """A copy of it."""
        shutil.rmtree(root / "run", ignore_errors=True)
        return Path(shutil.copytree(self.template, root / "run"))

    def write(self, directory: Path) -> RunResult:
        """Go on with it: nothing is left but to write."""
        engine = FakeEngine(unasked)
        result = run_it(self.given, engine, directory=directory)
        assert engine.started == 0
        return result

    def check(self, directory: Path, moment: object) -> None:
        """A reader sees one version or the other, and each file of it is whole."""
        there = files(directory)
        dataset = beneath(there, "dataset")
        assert dataset in (beneath(self.before, "dataset"), beneath(self.after, "dataset")), moment
        for name, data in there.items():
            if not name.startswith((".", "dataset/")):
                assert data in (self.before.get(name), self.after.get(name)), (moment, name)
        for name in OF_SESSIONS:
            data = (directory / name).read_bytes() if (directory / name).exists() else b""
            if data and name == "manifest.json":
                assert statement_in(data), moment
            elif data:
                assert data.endswith(b"}\n"), (moment, name)
        if dataset:
            statement = statement_in(dataset["dataset/manifest.json"])
            named = {f"dataset/{item['name']}": item["digest"]["sha256"] for item in statement["subject"]}
            assert named == {
                name: hashlib.sha256(data).hexdigest() for name, data in dataset.items()
                if name != "dataset/manifest.json"
            }, moment  # fmt: skip

    def goes_on(self, directory: Path, moment: object) -> None:
        """The next run completes it, to the same bytes."""
        assert self.write(directory).outcome in ("done", "nothing to do"), moment
        assert files(directory) == self.after, moment


@pytest.fixture(params=["first", "replaced"])
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    template = tmp_path / "template"
    before: dict[str, bytes] = {}
    if request.param == "replaced":
        run_it(loaded(tmp_path, OLD, rows=12), FakeEngine(answer), directory=template)
        before = files(template)
        assert "failed.jsonl" in before
    given = loaded(tmp_path, NEW, rows=12)
    undisturbed = run_it(given, FakeEngine(answer), directory=tmp_path / "undisturbed")
    assert undisturbed.kept
    assert undisturbed.dropped
    gc.collect()  # files that an earlier test left open are closed now, and not amid what is counted
    with monkeypatch.context() as patch:
        Disk(patch, 0, refuse(errno.EIO))
        with pytest.raises(RunError):
            run_it(given, FakeEngine(answer), directory=template)
    after = files(tmp_path / "undisturbed")
    assert beneath(after, "dataset") != beneath(before, "dataset")
    assert "failed.jsonl" not in after
    return Case(given, template, before, after)


def dry(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations of an undisturbed writing, in order."""
    place = case.place(tmp_path)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        case.goes_on(place, "dry")
    verdict = verify(place)
    assert verdict.intact, verdict.findings.shown
    return disk.asked


def killed_at(case: Case, place: Path, at: int) -> None:
    """Write in a process of its own, which ends at operation number `at`."""
    child = os.fork()
    if child == 0:
        try:
            Disk(pytest.MonkeyPatch(), at, kill)
            case.write(place)
        except BaseException:
            traceback.print_exc()
        os._exit(70)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, at


def test_every_kind_of_operation_is_among_them(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = dry(case, tmp_path, monkeypatch)
    asked = Counter(order)
    replacing = {"_exchange", "_unlink"} if case.before else set()
    assert set(asked) == {"_open", "_write", "_fsync", "_mkdir", "_rename", "_rmdir"} | replacing
    assert (
        asked["_open"] == sum("/" in name for name in case.after) + 5
    )  # dropped, manifest, lock, sessions, answers
    assert asked["_fsync"] == asked["_open"] + asked["_mkdir"] + 1  # the run's own folder
    assert asked["_write"] >= asked["_open"] - 2  # two splits may be empty
    if case.before:
        assert (
            order[: order.index("_exchange")].count("_fsync") == asked["_fsync"] - 1
        )  # all, and then it moves


def test_killed_at_every_operation(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dry(case, tmp_path, monkeypatch)
    for at, name in enumerate(asked):
        place = case.place(tmp_path)
        killed_at(case, place, at)
        case.check(place, (at, name))
        case.goes_on(place, (at, name))


@pytest.mark.parametrize("case", ["replaced"], indirect=True)
def test_killed_where_folders_cannot_be_exchanged(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the old folder is missing for a moment, and is back as soon as the run is opened."""
    monkeypatch.setattr(durable, "_exchange", no_exchange)
    asked = dry(case, tmp_path, monkeypatch)
    missing = 0
    for at in range(asked.index("_rename", asked.index("_exchange")) - 1, len(asked)):
        place = case.place(tmp_path)
        killed_at(case, place, at)
        missing += not (place / "dataset").exists()
        durable.recover(place)
        case.check(place, (at, asked[at]))
        case.goes_on(place, (at, asked[at]))
    assert missing == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_refused_at_every_operation(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    said = "^the disk is full: the outputs cannot be" if number == errno.ENOSPC else "Input/output error"
    asked = dry(case, tmp_path, monkeypatch)
    published = max(place for place, name in enumerate(asked) if name == "_fsync")
    for at, name in enumerate(asked):
        place = case.place(tmp_path)
        with monkeypatch.context() as patch:
            Disk(patch, at, refuse(number))
            # What is left over once the dataset is in its place is no failure, and the next run removes it.
            if at > published and not (name == "_unlink" and at == len(asked) - 1):
                case.write(place)
            else:
                with pytest.raises(RunError, match=said) as refused:
                    case.write(place)
                assert refused.value.exit_code == 1
                assert "run the same command again" in str(refused.value)
        case.check(place, (at, name))
        case.goes_on(place, (at, name))


@pytest.mark.parametrize("first", [0, 20])
def test_a_disk_that_stays_full(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    place = case.place(tmp_path)
    with monkeypatch.context() as patch:
        left = [first]
        for name in ("_open", "_write", "_mkdir", "_fsync"):
            patch.setattr(durable, name, full_after(left, getattr(durable, name)))
        with pytest.raises(RunError, match="the disk is full"):
            case.write(place)
    case.check(place, first)
    case.goes_on(place, first)


def full_after(left: list[int], real: Strike) -> Strike:
    def operation(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    return operation


def test_folders_change_places(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    if not durable.exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this system cannot exchange folders")
    assert (tmp_path / "one" / "name").read_text() == "other"
    assert (tmp_path / "other" / "name").read_text() == "one"
    with pytest.raises(FileNotFoundError):
        durable.exchange(tmp_path / "one", tmp_path / "missing")


def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").touch()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "broken").symlink_to(tmp_path / "nowhere")
    durable.remove(tmp_path / "near")
    assert not (tmp_path / "near").exists()
    assert (tmp_path / "far" / "file").exists()
