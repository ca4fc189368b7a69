"""The command line: what it prints where, what it ends with, and that errors are sentences."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import synthgen
from synthgen import driver, engines
from synthgen.cli import main
from synthgen.engines.base import ModelIdentity, Request, RequestFailed
from synthgen.errors import EngineUnreachable
from synthgen.project import runs_folder
from synthgen.project import shipped as shipped_folder
from synthgen.workers import InProcess
from tests.support import FakeEngine, answer_of, docs, jsonl, project, read_jsonl, recipe, run_it, tree

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in the project at tmp_path, with an engine of our own; in this process, for speed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    for name in [name for name in os.environ if name.startswith("SYNTHGEN_")]:
        monkeypatch.delenv(name)

    def run_command(*arguments: str, engine: Any = None) -> Ended:
        fake = engine or FakeEngine()
        monkeypatch.setattr(engines, "open_engines", lambda models, *_, **__: dict.fromkeys(models, fake))
        monkeypatch.setattr(sys, "argv", ["synthgen", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return Ended(code, shown.out, shown.err)

    return run_command


def process(*arguments: str, cwd: Path, script: str | None = None, **options: Any) -> subprocess.Popen[str]:
    start = ["-m", "synthgen"] if script is None else ["-c", textwrap.dedent(script)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SYNTHGEN_")}
    environment |= {"PYTHONPATH": str(ROOT), **options}
    return subprocess.Popen(
        [sys.executable, *start, *arguments],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_run_prints_the_object_that_scripts_rely_on(tmp_path: Path, command: Command) -> None:
    project(tmp_path, recipe(filters=[{"words": {"min": 5}}, "refusal"]), rows=12)
    ended = command("run", "recipes/a.yaml", "--json")
    assert ended.code == 0
    said = ended.json
    more = {"outcome", "ended_by", "reused_from", "money"}  # than the design names
    assert [key for key in said if key not in more] == [
        "run", "dir", "planned", "kept", "dropped", "failed", "pending", "reused", "filters", "usage",
        "seconds",
    ]  # fmt: skip
    assert said["run"] == "a"
    assert Path(said["dir"]).resolve() == tmp_path / "runs" / "a"
    assert said["planned"] == 12 == said["kept"] + said["dropped"] + said["failed"] + said["pending"]
    assert list(said["filters"]) == ["words", "refusal"]
    assert list(said["filters"]["words"]) == ["dropped", "flagged"]
    assert said["filters"]["words"]["dropped"] == said["dropped"] > 0
    assert said["usage"] == {"input_tokens": 120, "output_tokens": 60, "requests": 12}
    assert isinstance(said["seconds"], float)
    assert len(read_jsonl(Path(said["dir"]) / "dataset" / "train.jsonl")) == said["kept"]


def test_run_for_people(tmp_path: Path, command: Command) -> None:
    project(tmp_path, recipe(filters=[{"words": {"min": 5}}]), rows=12)
    ended = command("run", "a")
    assert ended.code == 0
    assert "planned 12 = kept" in ended.out
    assert "words" in ended.out
    assert "\x1b" not in ended.out + ended.err
    again = command("run", "a")
    assert again.code == 0
    assert "nothing to do" in again.out


def test_the_run_directory_can_be_named(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path)
    assert command("run", "a", "-o", "elsewhere").code == 0
    assert (tmp_path / "elsewhere" / "dataset" / "train.jsonl").exists()
    monkeypatch.setenv("SYNTHGEN_OUTPUT", "from-environment")
    monkeypatch.setenv("SYNTHGEN_TASKS", "2")
    ended = command("run", "a", "--json")
    assert (ended.json["dir"], ended.json["planned"]) == ("from-environment", 2)
    assert command("run", "a", "--json", "-o", "flag", "--tasks", "3").json["planned"] == 3


def test_failed_tasks_end_with_three(tmp_path: Path, command: Command) -> None:
    project(tmp_path)
    failing = FakeEngine(
        lambda request: RequestFailed("no") if "number 2" in str(request.messages) else answer_of(request)
    )
    ended = command("run", "a", engine=failing)
    assert ended.code == 3
    assert "1 task failed" in ended.err
    assert "--retry-failed" in ended.err
    assert command("run", "a").code == 3
    mended = command("run", "a", "--retry-failed", "--json")
    assert (mended.code, mended.json["kept"]) == (0, 5)


def test_what_helps_against_failures_is_said(tmp_path: Path, command: Command) -> None:
    project(tmp_path)
    refusing = FakeEngine(lambda request: RequestFailed("no"))
    said = command("run", "a", engine=refusing).err
    assert "--retry-failed asks again what the engine refused" in said
    assert "`retries:`" not in said

    step = {"answer": {"prompt": {"user": "Say something of {{ doc }}", "output": {"type": "integer"}}}}
    project(tmp_path, recipe(name="b", steps=[step]), name="b")
    said = command("run", "b", engine=FakeEngine(lambda request: "no number")).err
    assert "the step's `retries:` or `max_tokens:`" in said
    assert "the engine refused" not in said
    assert "`retries:`" in command("run", "b").err  # also where there is nothing to do

    record = {"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer.text }}"}]}
    project(tmp_path, recipe(name="c", record=record), name="c")
    for _ in range(2):
        ended = command("run", "c")
        assert ended.code == 3
        assert "--retry-failed" not in ended.err
        assert "change what is named there" in ended.err


def test_a_missed_target_ends_with_three_the_second_time_too(tmp_path: Path, command: Command) -> None:
    project(tmp_path, recipe(filters=[{"words": {"min": 99}}], target=2, passes=1))
    ended = command("run", "a")
    assert ended.code == 3
    assert "0 of 2 rows are kept; the seeds are exhausted" in ended.err
    again = command("run", "a")
    assert again.code == 3
    assert "0 of 2" in again.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "no-such-recipe"], "there is no recipe 'no-such-recipe'"),
        (["run", "recipes"], "is a folder"),
        (["run", "broken"], "recipes/broken.yaml:3:1: unknown key 'seds'\n  did you mean 'seeds'?"),
        (["validate", "broken"], "did you mean 'seeds'?"),
        (["preview", "broken"], "did you mean 'seeds'?"),
        (["run", "a", "-o", "data"], "is not empty and holds no run"),
        (["run", "a", "--engine", "vlm"], "vlm"),
        (["run", "a", "--model", ""], "model"),
        (["filters", "show", "refusl"], "did you mean 'refusal'?"),
        (["init", "data"], "not empty"),
        (["run"], "Missing argument"),
        (["nothing"], "No such command"),
        (["run", "a", "--nothing"], "No such option"),
        (["run", "a", "--tasks", "0"], "greater than or equal to 1"),
        (["preview", "a", "-n", "0"], "greater than or equal to 1"),
    ],
)
def test_usage_errors_end_with_two(tmp_path: Path, command: Command, arguments: list[str], said: str) -> None:
    project(tmp_path)
    project(tmp_path, "version: 1\nname: broken\nseds: {}\nrecord: {x: y}\n", name="broken")
    ended = command(*arguments)
    assert ended.code == 2
    assert said in ended.err
    assert ended.out == ""


def test_an_engine_out_of_reach_ends_with_four(tmp_path: Path, command: Command) -> None:
    project(tmp_path)
    ended = command("run", "a", engine=FakeEngine(lambda _: EngineUnreachable("nobody there")))
    assert (ended.code, ended.out) == (4, "")
    assert "error: nobody there" in ended.err


def test_a_failure_while_running_ends_with_one(tmp_path: Path, command: Command) -> None:
    project(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.sqlite").write_text("not a database " * 100)
    ended = command("run", "a")
    assert ended.code == 1
    assert "is damaged" in ended.err


def test_validate_lists_what_would_be_done(tmp_path: Path, command: Command) -> None:
    seeds = {
        "doc": {"path": "data/docs.jsonl", "field": "text"},
        "level": {"choice": {"easy": 0.6, "hard": 0.4}},
    }
    steps = [
        {"plan": {"prompt": {"user": "{{ doc }}", "output": {"type": "object"}}}},
        {"answer": {"prompt": {"user": "{% for x in plan.points %}{{ x|upper }}{% endfor %} {{ level }}"}}},
    ]
    project(tmp_path, recipe(seeds=seeds, steps=steps, filters=[{"words": {"min": 5, "max": 9}}]), rows=12)
    engine = FakeEngine()
    ended = command("validate", "a", "--json", engine=engine)
    assert ended.code == 0, ended.err
    said = ended.json
    assert (said["recipe"], said["tasks"], said["target"], said["requests"]) == ("a", 12, None, 24)
    assert said["output_tokens_at_most"] == 24 * 512
    assert said["seeds"] == {"doc": 12, "level": 2}
    assert [step["name"] for step in said["steps"]] == ["plan", "answer"]
    assert [step["structured"] for step in said["steps"]] == [True, False]
    assert said["first_prompt"] == [{"role": "user", "content": "document number 0"}]
    [words] = said["filters"]
    assert len(words.pop("code_sha256")) == 64
    assert words == {
        "name": "words", "origin": "shipped", "of": "answer", "min": 5, "max": 9, "action": "drop",
        "params": {},
    }  # fmt: skip
    shown = command("validate", "recipes/a.yaml", engine=engine)
    assert "recipes/a.yaml is valid" in shown.out
    assert "╰─ words   filter: answer 5 to 9" in shown.out
    assert engine.started == 0
    assert not (tmp_path / "runs").exists()


def test_validate_shows_what_reads_what_and_what_it_costs_at_most(tmp_path: Path, command: Command) -> None:
    said = recipe(
        model={"id": "m", "engine": "openai", "prices": {"input": 1e6, "output": 2e6}},
        seeds={"doc": {"path": "data/docs.jsonl", "field": "text"}, "level": ["easy"]},
        sampling={"max_tokens": 10},
        steps=[
            {"plan": {"prompt": {"user": "Plan {{ doc }}"}}},
            {"answer": {"prompt": {"user": "Follow {{ plan }}"}, "when": "level == 'easy'"}},
        ],
    )
    project(tmp_path, said, rows=3)
    shown = command("validate", "a", "--json").json
    assert [step["reads"] for step in shown["steps"]] == [["doc"], ["level", "plan"]]
    assert shown["money_at_most"] == pytest.approx(shown["input_tokens"] + 2 * 3 * 20, abs=1)
    text = command("validate", "a").out
    assert "●          doc     seed, 3 to go through" in text
    assert "step only when `level == 'easy'`" in text
    assert "← level, plan\n" in text
    assert {"from": "step:plan", "to": "step:answer", "fields": ["plan"], "uses": ["prompt"]} in (
        shown["graph"]["edges"]
    )
    drawn = text.partition("is valid\n")[2].partition("tasks ")[0]
    assert max(map(len, drawn.splitlines())) <= 80
    assert "at most, at the prices of the recipe" in text


def test_validate_says_how_long_it_takes_once_that_was_measured(tmp_path: Path, command: Command) -> None:
    project(tmp_path, rows=20)
    before = command("validate", "recipes/a.yaml")
    assert "time     unknown: no finished run in runs/ has asked some-model here" in before.out
    assert "synthgen run recipes/a.yaml --tasks 20 -o runs/a-trial" in before.out
    said = command("validate", "recipes/a.yaml", "--json").json
    assert (said["time"], said["time_unknown_for"]) == (None, ["some-model"])
    known = FakeEngine(identity=ModelIdentity("llamacpp", "some-model", weights="sha256:0"))
    command("run", "recipes/a.yaml", "-o", "runs/a-trial", engine=known)
    after = command("validate", "recipes/a.yaml")
    assert re.search(r"time     \d+ s to [0-9.]+ (s|min|h)", after.out)
    assert "tokens/s as measured in a-trial" in after.out
    said = command("validate", "recipes/a.yaml", "--json").json
    assert (said["time"]["measured"][0]["answers"], said["time_unknown_for"]) == (20, [])


def test_validate_counts_a_list_that_a_step_gathered_and_says_where_it_cannot(
    tmp_path: Path, command: Command
) -> None:
    steps = [
        {"answers": {"prompt": {"user": "{{ doc }}"}, "n": 4, "gather": True}},
        {"grades": {"prompt": {"user": "{{ it }}"}, "foreach": "answers", "as": "it", "gather": True}},
        {"more": {"prompt": {"user": "{{ item }}"}, "foreach": "doc.split()", "gather": True}},
    ]
    record = {"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answers | best(grades) }} {{ more }}"}]}
    project(tmp_path, recipe(model="org/model", steps=steps, record=record), rows=3)
    said = command("validate", "a", "--json").json
    assert said["requests"] == 3 * (4 + 4 + 1)
    [notice] = said["notices"]
    assert "step more" in notice
    text = command("validate", "a").out
    assert "step asked 4 times, gathered" in text
    assert "step for each it of `answers`, gathered" in text


def test_curate_shows_who_enters_and_leaves(tmp_path: Path, command: Command) -> None:
    project(tmp_path, recipe(filters=[{"words": {"min": 5}}]), rows=30)
    first = command("run", "recipes/a.yaml", "--json").json
    shown = command("curate", "runs/a", "--set", "words.min=8", "--dry-run")
    assert shown.code == 0
    assert "0 enter" in shown.out
    assert not (tmp_path / "runs" / "a" / "versions").exists()
    said = command("curate", "runs/a", "--set", "words.min=8", "--json").json
    assert said["dir"] == "runs/a/versions/2"
    assert said["kept"] == first["kept"] - len(said["leave"])
    assert said["usage"] == {"input_tokens": 0, "output_tokens": 0, "requests": 0}
    assert {each["dropped_by"] for each in said["leave"]} == {"words"}
    assert len(read_jsonl(tmp_path / "runs/a/versions/2/dataset/train.jsonl")) == said["kept"]
    wrong = command("curate", "runs/a", "--set", "word.min=8")
    assert (wrong.code, "no filter 'word'" in wrong.err, "'words'" in wrong.err) == (2, True, True)


def test_export_of_what_is_not_finished_says_so(tmp_path: Path, command: Command) -> None:
    project(tmp_path)
    assert command("run", "a", engine=FakeEngine(lambda _: EngineUnreachable("gone"))).code == 4
    ended = command("export", "runs/a", "messages")
    assert ended.code == 2
    assert "its run is not finished: `synthgen status runs/a`" in ended.err
    assert "judged" not in ended.err


def test_export_names_the_layout_that_a_trainer_has(tmp_path: Path, command: Command) -> None:
    record = {
        "prompt": [{"user": "{{ doc }}"}],
        "chosen": [{"assistant": "{{ answer }}"}],
        "rejected": [{"assistant": "no"}],
    }
    project(tmp_path, recipe(record=record))
    assert command("run", "a").code == 0
    ended = command("export", "runs/a", "preference")
    assert "LLaMA-Factory has another layout for this, which `--for llamafactory` writes" in ended.err
    there = command("export", "runs/a", "preference", "--for", "llamafactory", "-o", "factory")
    assert "LLaMA-Factory" not in there.err
    assert (tmp_path / "factory" / "dataset_info.json").exists()
    parts = {part["name"]: part for part in command("report", "runs/a", "--json").json["lengths"]["parts"]}
    assert parts["rejected"]["quantiles"]["0.5"] == 1
    assert parts["answer"]["quantiles"]["0.5"] > 1


def test_a_shipped_recipe_runs_in_the_project_that_one_is_in(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = shipped_folder("recipes") / "curate-chat.yaml"
    ended = command("run", str(shipped), "--json")
    assert ended.code in (0, 3), ended.err
    assert Path(ended.json["dir"]).resolve() == tmp_path / "runs" / "curate-chat"
    monkeypatch.chdir(shipped_folder("recipes").resolve().parent)
    assert runs_folder(shipped).resolve() == shipped_folder("recipes").resolve().parent / "runs"


def test_mix_names_the_run_of_a_project_and_says_what_weights_missed(
    tmp_path: Path, command: Command
) -> None:
    for name, start in (("one", 0), ("two", 0)):
        project(tmp_path / name, recipe(name=name), rows=docs(20, start=start), name=name)
        run_it(tmp_path / name / "recipes" / f"{name}.yaml")
    ended = command("mix", "one", "two/runs/two", "-o", "all")
    assert ended.code == 2
    assert "it is a project; did you mean one/runs/one?" in ended.err
    both = ("mix", "one/runs/one", "two/runs/two", "-o", "all", "--weight", "one=1", "--weight", "two=1")
    ended = command(*both)
    assert ended.code in (0, 3), ended.err
    assert "where 50% was wished: not enough of its rows come once" in ended.err


def test_validate_says_that_a_model_is_not_there(tmp_path: Path, command: Command) -> None:
    project(tmp_path, recipe(model="smollm-135"))
    ended = command("validate", "recipes/a.yaml", "--json")
    assert ended.code == 0
    [said] = ended.json["notices"]
    assert "there is no model 'smollm-135'" in said
    assert "smollm2-135m" in said
    for there in ("smollm2-135m", "org/name", {"engine": "openai", "id": "x", "base_url": "http://h/v1"}):
        project(tmp_path, recipe(model=there))
        assert command("validate", "recipes/a.yaml", "--json").json["notices"] == []


def test_validate_finds_prompts_that_do_not_render(tmp_path: Path, command: Command) -> None:
    steps = [{"answer": {"prompt": {"user": "{{ doc.title }}"}}}]
    project(tmp_path, recipe(steps=steps))
    ended = command("validate", "a")
    assert ended.code == 2
    assert "title" in ended.err


def test_run_refuses_prompts_that_do_not_render_and_keeps_the_dataset(
    tmp_path: Path, command: Command
) -> None:
    project(tmp_path, recipe(), rows=3)
    assert command("run", "a").code == 0
    before = (tmp_path / "runs" / "a" / "dataset" / "train.jsonl").read_bytes()
    project(tmp_path, recipe(steps=[{"answer": {"prompt": {"user": "{{ doc.title }}"}}}]), rows=3)
    ended = command("run", "a")
    assert ended.code == 2
    assert "step answer does not render" in ended.err
    assert re.search(r"a\.yaml:\d+:\d+: step answer", ended.err)
    assert (tmp_path / "runs" / "a" / "dataset" / "train.jsonl").read_bytes() == before


def test_a_field_that_a_row_lacks_is_told_with_its_line_and_the_nearest(
    tmp_path: Path, command: Command
) -> None:
    seeds = {"doc": {"path": "data/docs.jsonl"}}
    prompt = "system: a\nuser: |\n  b\n  {{ doc.txt }}\n"
    project(
        tmp_path, recipe(seeds=seeds, steps=[{"answer": {"prompt": "p"}}]), files={"prompts/p.yaml": prompt}
    )
    ended = command("validate", "a")
    assert ended.code == 2
    assert "p.yaml:4: step answer does not render" in ended.err
    assert "did you mean 'text'?" in ended.err


def test_run_says_why_tasks_failed(tmp_path: Path, command: Command) -> None:
    project(
        tmp_path,
        recipe(filters=["leaves"]),
        rows=3,
        filters={
            "leaves": """
            import sys

            from synthgen import filter

            @filter(max=0)
            def leaves(record):
                sys.exit(7)
            """
        },
    )
    ended = command("run", "a")
    assert ended.code == 3
    assert "SystemExit: 7" in ended.err
    assert "filter leaves failed: SystemExit: 7 (line 8 of leaves.py)" in ended.err
    assert "3 times" in ended.err


def test_preview_shows_records_and_leaves_nothing(tmp_path: Path, command: Command) -> None:
    project(tmp_path, recipe(filters=[{"words": {"min": 6}}]), rows=12)
    before = tree(tmp_path)
    ended = command("preview", "a", "-n", "4", "--json")
    assert ended.code == 0
    assert len(ended.json) == 4
    for record in ended.json:
        assert list(record) == [
            "id", "messages", "task", "branch", "state", "dropped_by", "error", "seeds", "sources", "steps",
            "skipped", "measurements", "asked_by_filters",
        ]  # fmt: skip
        [asked] = record["steps"]
        assert (asked["step"], asked["attempt"]) == ("answer", 0)
        assert asked["answer"].strip() == record["messages"][1]["content"]
        assert asked["messages"][0]["content"].startswith("Say something of")
        assert record["state"] == ("kept" if record["measurements"]["words"]["value"] >= 6 else "dropped")
    shown = command("preview", "a", "-n", "2")
    assert shown.out.count("── ") == 2
    assert "[assistant]" in shown.out
    assert tree(tmp_path) == before


def test_a_models_control_codes_do_not_reach_the_terminal(tmp_path: Path, command: Command) -> None:
    project(tmp_path)
    ended = command("preview", "a", "-n", "1", engine=FakeEngine(lambda _: "\x1b[2Jcleared\x07 \u202etext"))
    assert "cleared" in ended.out
    for code in ("\x1b", "\x07", "\u202e"):
        assert code not in ended.out


def test_filters_are_listed_and_shown(tmp_path: Path, command: Command) -> None:
    mine = '''\
        from synthgen import filter
        @filter(max=0.3)
        def mine(record, *, level: int = 3):
            """How much of mine it has.

            And more about it."""
            return 0
    '''
    project(tmp_path, filters={"mine": mine})
    ended = command("filters", "list", "--json")
    by_name = {item["name"]: item for item in ended.json}
    assert {"mine", "words", "refusal"} <= set(by_name)
    assert (by_name["mine"]["origin"], by_name["mine"]["max"]) == ("project", 0.3)
    assert by_name["words"]["origin"] == "shipped"
    listed = command("filters", "list").out
    assert "How much of mine it has." in listed
    assert "And more" not in listed
    shown = command("filters", "show", "mine")
    assert "And more about it." in shown.out
    assert "level: int = 3" in shown.out
    assert command("filters", "show", "mine", "--json").json["parameters"] == {
        "level": {"type": "int", "default": "3"}
    }


def test_modules_beside_filters_are_not_listed(tmp_path: Path, command: Command) -> None:
    other = "from synthgen import filter\n@filter(max=0)\ndef another(record):\n    return 0\n"
    project(tmp_path, filters={"tools": "import re\nX = re.compile('x')\n", "misnamed": other})
    ended = command("filters", "list", "--json")
    assert not {"tools", "misnamed", "another"} & {item["name"] for item in ended.json}
    assert "tools" not in ended.err
    assert "defines no filter named 'misnamed' (it defines: another)" in ended.err


def test_types_and_defaults_are_shown_as_they_are_written(command: Command) -> None:
    assert "rubric: synthgen.measure.PromptFile = judge" in command("filters", "show", "judge").out
    assert "schema: dict[str, typing.Any] | None = None" in command("filters", "show", "valid_json").out
    assert "pattern: str (required)" in command("filters", "show", "regex").out
    for item in command("filters", "list", "--json").json:
        for parameter in item["parameters"].values():
            assert "0x" not in parameter["type"]
            assert "Path(" not in parameter.get("default", "")


def test_a_broken_filter_does_not_hide_the_others(tmp_path: Path, command: Command) -> None:
    project(tmp_path, filters={"broken": "raise ValueError('no')\n"})
    ended = command("filters", "list", "--json")
    assert {"words", "refusal"} <= {item["name"] for item in ended.json}
    assert "broken.py:1" in ended.err


def test_init_makes_a_project_that_validates(tmp_path: Path, command: Command) -> None:
    ended = command("init", "new")
    assert ended.code == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "recipes", "prompts", "filters", "data", "README.md", ".gitignore",
    }  # fmt: skip
    assert command("validate", "new/recipes/facts.yaml").code == 0
    assert command("init", "new").code == 2
    (tmp_path / "empty").mkdir()
    assert command("init", "empty").code == 0


def test_version_and_help(command: Command) -> None:
    assert command("--version").out == f"synthgen {synthgen.__version__}\n"
    ended = command("--help")
    assert ended.code == 0
    for name in ("init", "validate", "preview", "run", "filters", "models"):
        assert f"  {name} " in ended.out


def test_as_a_module_and_without_a_traceback(tmp_path: Path) -> None:
    project(tmp_path, recipe(filters=["refusl"]))
    done = process("validate", "a", cwd=tmp_path)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (2, "")
    assert err.startswith("error: ")
    assert "did you mean 'refusal'?" in err


WITH_ENGINE = """
    import asyncio, sys
    from pathlib import Path
    import synthgen.engines
    from synthgen import driver
    from tests.support import FakeEngine, answer_of
    driver.DRAIN_SECONDS = 0.1
    count = 0
    async def answer(request):
        global count
        count += 1
        if count > int(Path("answers").read_text()):
            print("asking", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
        return answer_of(request)
    engine = FakeEngine(answer, slots=2)
    synthgen.engines.open_engines = lambda models, *_, **__: dict.fromkeys(models, engine)
    from synthgen.cli import main
    main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    project(tmp_path, rows=10)
    (tmp_path / "answers").write_text("6")
    first = process("run", "a", "--json", cwd=tmp_path, script=WITH_ENGINE)
    assert first.stderr is not None
    for line in first.stderr:
        if line == "asking\n":
            break
    first.send_signal(number)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert "run the same command again" in err
    assert "Traceback" not in err
    said = json.loads(out)
    assert said["kept"] + said["pending"] == said["planned"] == 10
    assert said["usage"]["requests"] == 6
    (tmp_path / "answers").write_text("100")
    second = process("run", "a", "--json", cwd=tmp_path, script=WITH_ENGINE)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    said = json.loads(out)
    assert (said["kept"], said["reused"], said["usage"]["requests"]) == (10, 6, 4)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    project(tmp_path, rows=10)
    (tmp_path / "answers").write_text("6")
    script = WITH_ENGINE.replace("DRAIN_SECONDS = 0.1", "DRAIN_SECONDS = 1000")
    first = process("run", "a", cwd=tmp_path, script=script)
    assert first.stderr is not None
    for line in first.stderr:
        if line == "asking\n":
            break
    first.send_signal(signal.SIGINT)
    while first.poll() is None:  # two that come before Python looks are one to it
        first.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(timeout=1)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "Traceback" not in err


def test_what_a_filter_prints_is_not_among_the_results(tmp_path: Path) -> None:
    code = """\
        import sys
        from synthgen import filter
        print("loaded")
        @filter(max=3)
        def loud(record):
            print("measured")
            return 1
    """
    project(tmp_path, recipe(filters=["loud"]), filters={"loud": code})
    (tmp_path / "answers").write_text("100")
    for arguments in (["run", "a", "--json"], ["preview", "a", "--json"], ["validate", "a", "--json"]):
        done = process(*arguments, cwd=tmp_path, script=WITH_ENGINE)
        out, err = done.communicate(timeout=60)
        assert done.returncode == 0, err
        json.loads(out)
        assert "loaded" in err


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "docs.jsonl").write_text(jsonl(docs(5)))
    done = process("filters", "list", "--json", cwd=tmp_path)
    assert done.stdout is not None
    assert done.stderr is not None
    done.stdout.close()
    err = done.stderr.read()
    done.wait(timeout=60)
    assert "Traceback" not in err


def test_a_terminal_that_knows_no_unicode(tmp_path: Path) -> None:
    project(tmp_path, recipe(name="a", description="x"), rows=[{"text": "naïve — 三"}] * 3)
    done = process("validate", "a", cwd=tmp_path, PYTHONIOENCODING="ascii")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    assert "is valid" in out


def test_a_library_run_and_the_command_agree(tmp_path: Path, command: Command) -> None:
    path = project(tmp_path, recipe(filters=[{"words": {"min": 5}}]), rows=8)
    run_it(path, directory=tmp_path / "library")
    command("run", "a", "-o", "command")
    assert tree(tmp_path / "library" / "dataset") == tree(tmp_path / "command" / "dataset")


def test_nothing_is_asked_by_a_recipe_without_steps(tmp_path: Path, command: Command) -> None:
    said = recipe(
        model=None, steps=[], seeds={"row": {"path": "data/docs.jsonl"}}, record={"from": "row"},
    )  # fmt: skip
    project(tmp_path, said, rows=[{"prompt": "Why?", "completion": "So."}])
    engine = FakeEngine(_unasked)
    ended = command("run", "a", "--json", engine=engine)
    assert (ended.code, ended.json["kept"]) == (0, 1)


def _unasked(request: Request) -> str:
    raise AssertionError(request)
