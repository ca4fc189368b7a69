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
from pathlib import Path
from typing import Any

import pytest

from synthgen import load
from synthgen.prompt import TextTemplate
from tests.hostile.corpus import CORPUS, TEXTS, Hostile
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


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))


def validated(root: Path, case: Hostile) -> tuple[int, str, str, str]:
    """Exit code, output, errors, and what it did that it should not."""
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
    log = root / "watched.log"
    log.write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SYNTHGEN_")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(inner), str(log), "validate", "recipes/a.yaml"],
        cwd=inner,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
             "OPENAI_API_KEY": SECRET, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, preexec_fn=limited, timeout=4 * SECONDS, check=False,
    )  # fmt: skip
    return (
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
        log.read_text(),
    )


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_recipe_has_a_clean_outcome(tmp_path: Path, name: str) -> None:
    case = CORPUS[name]
    code, out, err, did = validated(tmp_path, case)
    assert "Traceback" not in err, err[-2000:]
    assert did.replace(f"opened {tmp_path}/watched.log\n", "") == ""
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


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(CORPUS) + len(TEXTS) >= 100


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
