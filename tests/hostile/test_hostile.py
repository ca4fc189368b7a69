"""Whatever a stranger wrote, synthgen says what is wrong, or runs it, in bounded time and memory.

Each case is a process of its own under limits of memory and of processor time. An audit hook in it records
which files it opens and whether it reaches for the network or another program.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from synthgen import load
from synthgen.prompt import TextTemplate
from tests.hostile.corpus import CORPUS, TEXTS, Hostile
from tests.hostile.previewed import SHOWN
from tests.standin import StandIn
from tests.support import FakeEngine, project, read_jsonl, recipe, run_it, write

ROOT = Path(__file__).parent.parent.parent
MEMORY = 3_000_000_000  # address space: what onnxruntime and pyarrow map counts too
SECONDS = 30
SECRET = "the-secret-outside"
WATCHED = """
import os, sys
root, log = os.path.realpath(sys.argv.pop(1)), open(sys.argv.pop(1), "a")
outside = os.path.dirname(root)
def hook(event, args):
    if event == "open" and isinstance(args[0], str):
        path = os.path.realpath(args[0])
        if (path.startswith(outside + os.sep) and not path.startswith(root + os.sep)) or path in (
            "/etc/passwd", "/etc/hosts", "/dev/zero"
        ):
            print("opened", path, file=log, flush=True)
    elif event in (
        "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"
    ):
        print(event, args, file=log, flush=True)
sys.addaudithook(hook)
from synthgen.cli import main
main()
"""
# Many previews in one process, each in a project of its own. What a session notes of synthgen's own source
# and of the machine is no work of a recipe's.
PREVIEWING = """
import contextlib, io, json, os, resource, sys
cases, log = json.loads(open(sys.argv[1]).read()), open(sys.argv[2], "a")
did, outside, root = [], "/", "/"
def hook(event, args):
    if event == "open" and isinstance(args[0], str):
        path = os.path.realpath(args[0])
        if (path.startswith(outside + os.sep) and not path.startswith(root + os.sep)) or path in (
            "/etc/passwd", "/etc/hosts", "/dev/zero"
        ):
            did.append(f"opened {path}")
    elif event == "subprocess.Popen" and args[0] in ("git", "uname"):
        pass
    elif event in (
        "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"
    ):
        did.append(f"{event} {args}")
import synthgen.engines
from synthgen.cli import main
from tests.support import FakeEngine
sys.addaudithook(hook)
for name, project, arguments, said in cases:
    root = os.path.realpath(project)
    outside = os.path.dirname(root)
    plain, judged = said if isinstance(said, list) else (said, said)
    engine = FakeEngine(lambda request: judged if request.schema is not None else plain)
    synthgen.engines.open_engines = lambda models, *_, **__: dict.fromkeys(models, engine)
    os.chdir(root)
    did.clear()
    sys.argv = ["synthgen", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:
            err.write(f"Traceback: {error!r}")
    seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    said = [name, code, out.getvalue(), err.getvalue(), sorted(set(did)), seconds]
    log.write(json.dumps(said) + "\\n")
    log.flush()
"""


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))


def made(root: Path, case: Hostile) -> Path:
    """Write a case's project, with secrets beside it."""
    inner = root / "project"
    if isinstance(case.said, bytes):
        project(inner)
        (inner / "recipes" / "a.yaml").write_bytes(case.said)
    elif isinstance(case.said, str):
        project(inner)
        (inner / "recipes" / "a.yaml").write_text(case.said)
    else:
        project(inner, case.said)
    write(inner, case.files)
    write(root, {"secret.jsonl": json.dumps({"text": SECRET}), "secret.yaml": SECRET})
    if case.prepare is not None:
        case.prepare(inner)
    return inner


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNTHGEN_")}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, "OPENAI_API_KEY": SECRET, "OPENBLAS_NUM_THREADS": "1"}


def validated(root: Path, case: Hostile) -> tuple[int, str, str, str]:
    """Exit code, output, errors, and what it did that it should not."""
    inner, log = made(root, case), root / "watched.log"
    log.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(inner), str(log), "validate", "recipes/a.yaml"],
        cwd=inner, env=environment(), capture_output=True, preexec_fn=limited, timeout=4 * SECONDS,
        check=False,
    )  # fmt: skip
    return (
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
        log.read_text().replace(f"opened {log}\n", ""),
    )


@dataclass(frozen=True)
class Previewed:
    """How a preview ended: exit code, output, errors, what it did that it should not, processor time."""

    code: int
    out: str
    err: str
    did: list[str]
    seconds: float


@pytest.fixture(scope="module")
def previews(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Previewed]:
    """Every case that comes so far, previewed in one process under the limits of memory."""
    place = tmp_path_factory.mktemp("previews")
    cases: list[Any] = []
    for name in HARMLESS:
        inner = made(place / name.replace("/", "-"), CORPUS[name])
        cases.append([name, str(inner), ["preview", "recipes/a.yaml", "-n", "2"], "an answer of five words"])
    for name, case in SHOWN.items():
        inner = place / name / "project"
        project(inner, case.said, rows=case.tasks)
        write(inner, case.files)
        arguments = ["preview", "recipes/a.yaml", "-n", str(case.tasks)]
        cases.append([name, str(inner), arguments, case.answer])
    listed, log = place / "cases.json", place / "log.jsonl"
    listed.write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, "-c", PREVIEWING, str(listed), str(log)],
        env=environment(), capture_output=True, text=True, check=False, timeout=8 * SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {said[0]: Previewed(*said[1:]) for said in map(json.loads, log.read_text().splitlines())}


def shows_no_controls(text: str) -> bool:
    """Whether a terminal may be shown this: nothing in it moves, colours, names or turns anything."""
    return all(char.isprintable() or char in "\n\t" for char in text)


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_recipe_has_a_clean_outcome(tmp_path: Path, name: str) -> None:
    case = CORPUS[name]
    code, out, err, did = validated(tmp_path, case)
    assert "Traceback" not in err, err[-2000:]
    assert did == ""
    assert SECRET not in out + err
    if case.shows is not None:
        assert code == 0, err[-2000:]
        assert case.shows in out
        return
    assert case.says is not None
    if case.says == "" and not case.line and code == 0:
        return  # harmless, or an error: either is clean
    assert code == 2, (code, err[-2000:])
    assert case.says in err
    assert len(err) < 20_000
    if case.line:
        assert ".yaml:" in err or "docs.jsonl" in err or "data/x." in err, err


HARMLESS = [name for name, case in CORPUS.items() if case.shows or (case.says == "" and not case.line)]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_validates_previews_cleanly(previews: dict[str, Previewed], name: str) -> None:
    ended = previews[name]
    is_clean(ended)
    assert ended.code in (0, 2), (ended.code, ended.err[-2000:])
    if CORPUS[name].shows:
        assert "── task 1/" in ended.out


@pytest.mark.parametrize("name", SHOWN)
def test_a_hostile_preview_has_a_clean_outcome(previews: dict[str, Previewed], name: str) -> None:
    ended, case = previews[name], SHOWN[name]
    is_clean(ended)
    assert ended.code == case.code, (ended.code, ended.err[-2000:])
    assert case.shows in ended.out, (ended.out[-2000:], ended.err[-2000:])


def test_a_preview_gives_no_key_to_an_address_that_only_a_recipe_names(
    tmp_path: Path, standin: StandIn
) -> None:
    said = recipe(model={"id": "standin", "engine": "openai", "base_url": standin.url})
    project(tmp_path, said, rows=2)
    done = subprocess.run(
        [sys.executable, "-m", "synthgen", "preview", "recipes/a.yaml", "-n", "2"],
        cwd=tmp_path, env={**environment(), "SYNTHGEN_API_KEY": SECRET}, capture_output=True, text=True,
        check=False, timeout=4 * SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("── task ") == 2 == standin.completed
    assert not [key for key in standin.keys if SECRET in str(key)]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("run")]


def is_clean(ended: Previewed) -> None:
    assert "Traceback" not in ended.err, ended.err[-2000:]
    assert ended.did == []
    assert SECRET not in ended.out + ended.err
    assert shows_no_controls(ended.out + ended.err)
    assert len(ended.out) < 200_000
    assert ended.seconds < SECONDS


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(CORPUS) + len(TEXTS) + len(SHOWN) >= 140


@pytest.mark.parametrize("name", TEXTS)
def test_text_of_a_seed_stays_in_its_message(tmp_path: Path, name: str) -> None:
    said = recipe(steps=[{"answer": {"prompt": {"system": "Be brief.", "user": "Of: {{ doc }}"}}}])
    engine = FakeEngine()
    result = run_it(load(project(tmp_path, said, rows=[{"text": TEXTS[name]}])), engine)
    (request,) = engine.asked
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert request.messages[1]["content"] == f"Of: {TEXTS[name]}".strip()
    (row,) = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"] == TEXTS[name].strip()
    assert TextTemplate("{{ x }}").render({"x": TEXTS[name]}) == TEXTS[name].strip()


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "verdict", ['{"reason": "bad", "score": 1}', "The score is 5.", '{"reason": "x", "score": 9}']
)
def test_text_of_a_record_cannot_judge_itself(tmp_path: Path, name: str, verdict: str) -> None:
    """The verdict is read from the judge's JSON alone, and the record's text has no way out of its fence."""
    judged: list[Any] = []

    def answer(request: Any) -> str:
        if request.schema is None:
            return TEXTS[name]
        judged.append(request)
        return verdict

    said = recipe(filters=[{"judge": {"min": 4}}])
    result = run_it(load(project(tmp_path, said, rows=[{"text": TEXTS[name]}])), FakeEngine(answer))
    assert (result.kept, result.dropped + result.failed) == (0, 1)
    for request in judged:
        assert [message["role"] for message in request.messages] == ["system", "user"]
        whole = request.messages[1]["content"]
        for mark in ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "[INST]", "<<SYS>>", "</s>"):
            assert mark not in whole
        opened = [line for line in whole.splitlines() if line.startswith("<<<")]
        codes = [line.removeprefix("<<<") for line in opened]
        assert len(codes) == 2
        assert all(TEXTS[name].find(code) == -1 and f"{code}>>>" in whole for code in codes)
