"""Datasets of conversations that call tools: published, verified, redacted, mixed, and exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.audit.replay import replay
from synthgen.audit.tables import rows_of_parquet
from synthgen.audit.verify import verify
from synthgen.conversation import conversation
from synthgen.errors import RunError, UsageError
from synthgen.export import rows as row_files
from synthgen.export.convert import FILES, export
from synthgen.export.formats import Unfit, layout
from synthgen.mixing import given as dataset_of
from synthgen.mixing import make_project, notices
from synthgen.recurate import recurate
from synthgen.run_result import RunResult
from tests.processes import ended
from tests.support import adds_up, loaded, read_jsonl, recipe, run_it, tree

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
DIAL = {"type": "function", "function": {"name": "dial", "parameters": {"type": "object"}}}
ASK, SAY = {"role": "user", "content": "Weather in Bath?"}, {"role": "assistant", "content": "It rains."}
HI, HELLO = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello to you."}


def call(id: str, name: str = "weather", arguments: Any = '{"city": "Bath"}') -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Any, content: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(id: str, content: str = "rain", name: str = "weather") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": id, "name": name}


CHAT = {"messages": [ASK, calling(call("x")), result("x"), SAY], "tools": [WEATHER]}
TURNS = {
    "conversations": [
        {"from": "human", "value": "Weather in York?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "York"}}'},
        {"from": "observation", "value": "sun"},
        {"from": "gpt", "value": "Sunny."},
    ],
    "tools": json.dumps([WEATHER["function"]]),
}
PLAIN = {"messages": [HI, HELLO], "tools": None}
WRONG = {"messages": [ASK, calling(call("x", arguments="{}"))], "tools": [WEATHER]}
ENDS = {"messages": [ASK, calling(call("x"), call("y"))], "tools": [WEATHER]}
ROWS = [CHAT, TURNS, PLAIN, WRONG, ENDS]
RECORD = {"from": "row", "tools": {"value": "row.tools", "type": "tools"}}


def run_of(root: Path, rows: Any = ROWS, *, name: str = "a", record: Any = RECORD, **parts: Any) -> RunResult:
    """A run that curates these rows."""
    seeds = {"row": {"path": "data/docs.jsonl"}}
    said = recipe(name=name, model=None, steps=None, seeds=seeds, record=record, **parts)
    return run_it(loaded(root, said, rows=rows, name=name), directory=root / "runs" / name)


def of(files: Path) -> list[bytes]:
    return list(rows_of_parquet(sorted((files / "data").glob("*.parquet"))))


def test_a_dataset_with_tools(tmp_path: Path) -> None:
    done = run_of(tmp_path, filters=["tool_calls", {"words": {"min": 1}}, "duplicate"])
    assert (done.kept, done.dropped, done.failed) == (4, 1, 0)
    assert adds_up(done)
    dataset = done.dir / "dataset"
    rows = read_jsonl(dataset / "train.jsonl")
    assert [row["messages"] for row in rows] == [
        CHAT["messages"],
        conversation(TURNS, calls=True),
        PLAIN["messages"],
        ENDS["messages"],
    ]
    assert [row["tools"] for row in rows] == [[WEATHER], [WEATHER], None, [WEATHER]]
    [dropped] = read_jsonl(done.dir / "dropped.jsonl")
    assert dropped["dropped_by"]["filter"] == "tool_calls"
    assert "'city' is a required property" in dropped["dropped_by"]["detail"]["reason"]
    assert of(dataset) == (dataset / "train.jsonl").read_bytes().splitlines()
    assert verify(done.dir).intact
    assert "`tools` are what a message may call" in (dataset / "README.md").read_text()
    fields = json.loads((dataset / "croissant.json").read_bytes())["recordSet"][0]["field"]
    parts = {each["name"]: [part["name"] for part in each.get("subField", ())] for each in fields}
    assert parts == {"id": [], "messages": ["role", "content"], "tools": []}


def test_equal_runs_are_equal_and_go_on(tmp_path: Path) -> None:
    first, second = (run_of(tmp_path / name, filters=["tool_calls"]) for name in ("a", "b"))
    assert tree(first.dir / "dataset") == tree(second.dir / "dataset")
    again = run_of(tmp_path / "a", filters=["tool_calls"])
    assert again.kept == first.kept
    assert tree(first.dir / "dataset") == tree(second.dir / "dataset")
    looser = recurate(first.dir, ["tool_calls.max=1"])
    assert looser.result.kept == 5
    assert of(looser.result.dir / "dataset") == (
        (looser.result.dir / "dataset" / "train.jsonl").read_bytes().splitlines()
    )
    assert verify(first.dir).intact
    found = replay(first.dir, sample=9).records
    assert len(found) == 5
    assert {each.transcript.outcome for each in found} == {"replayed"}


def test_a_row_that_was_altered_is_found(tmp_path: Path) -> None:
    done = run_of(tmp_path)
    [shard] = (done.dir / "dataset" / "data").glob("*.parquet")
    table = pq.read_table(shard)
    rows = table.to_pylist()
    rows[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"city": "York"}'
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), shard)
    said = [finding.message for finding in verify(done.dir).findings.shown]
    assert any("its row is not the one of the ledger" in each for each in said)


def test_without_the_field_tools_nothing_is_other_than_it_was(tmp_path: Path) -> None:
    heard = [HI, HELLO, {"role": "tool", "name": "x", "tool_call_id": "1", "content": "heard"}]
    done = run_of(tmp_path, [{"messages": heard}, {"messages": CHAT["messages"]}], record={"from": "row"})
    assert (done.kept, done.failed) == (1, 1)
    [row] = read_jsonl(done.dir / "dataset" / "train.jsonl")
    assert row["messages"] == [HI, HELLO, {"role": "tool", "content": "heard"}]
    [failed] = read_jsonl(done.dir / "failed.jsonl")
    assert "message 2 has tool_calls: a record holds calls where it has a field `tools`" in failed["error"]
    [shard] = (done.dir / "dataset" / "data").glob("*.parquet")
    plain = row_files.arrow_schema({"messages": "messages"})
    assert pq.read_schema(shard).field("messages").type == plain.field("messages").type
    assert "tools" not in (done.dir / "dataset" / "README.md").read_text()


def test_tools_that_are_none_fail_their_row(tmp_path: Path) -> None:
    done = run_of(tmp_path, [CHAT, {**CHAT, "tools": "weather"}])
    assert (done.kept, done.failed) == (1, 1)
    [failed] = read_jsonl(done.dir / "failed.jsonl")
    assert "`row.tools`: tools are a list, or its JSON, and not 'weather'" in failed["error"]


def test_columns_of_other_names_and_tools_as_json(tmp_path: Path) -> None:
    record = {
        "prompt": {"value": "row.messages[:1]", "type": "messages"},
        "chosen": {"value": "row.messages[1:2]", "type": "messages"},
        "rejected": [{"assistant": "No."}],
        "tools": {"value": "row.tools"},
    }
    done = run_of(tmp_path, [CHAT], record=record)
    dataset = done.dir / "dataset"
    assert of(dataset) == (dataset / "train.jsonl").read_bytes().splitlines()
    [row] = read_jsonl(dataset / "train.jsonl")
    assert row["chosen"] == [calling(call("x"))]
    [shard] = (dataset / "data").glob("*.parquet")
    kinds = {field.name: row_files.holds_calls(field) for field in pq.read_schema(shard)}
    assert kinds == {"id": False, "prompt": True, "chosen": True, "rejected": False, "tools": False}
    assert verify(done.dir).intact


def test_redaction_reaches_calls_and_results(tmp_path: Path) -> None:
    secret, number = "ada.l@analytical-engines.co.uk", 442079461234
    told = {"to": secret, "phone": number, "times": 3, "text": f"Mail {secret}"}
    rows = [
        {
            "messages": [
                ASK,
                calling(call("x", "dial", json.dumps(told))),
                result("x", f'{{"mail": "{secret}"}}', "dial"),
                SAY,
            ],
            "tools": [DIAL],
        },
        PLAIN,
    ]
    done = run_of(tmp_path, rows, filters=[{"pii": {"action": "redact"}}, "tool_calls"])
    assert done.filters["pii"]["redacted"] == 1
    assert done.kept == 2
    messages = read_jsonl(done.dir / "dataset" / "train.jsonl")[0]["messages"]
    assert json.loads(messages[1]["tool_calls"][0]["function"]["arguments"]) == {
        "to": "[EMAIL]",
        "phone": "[PHONE]",
        "times": 3,
        "text": "Mail [EMAIL]",
    }
    assert messages[2]["content"] == '{"mail": "[EMAIL]"}'
    for name, data in tree(done.dir).items():
        if not name.startswith("run."):
            assert secret.encode() not in data, name
            assert str(number).encode() not in data, name
    assert verify(done.dir).intact


def test_a_mix_of_datasets_of_which_one_has_tools(tmp_path: Path) -> None:
    first = run_of(tmp_path / "one", [CHAT, TURNS], name="one").dir
    second = run_of(tmp_path / "two", [{"messages": [HI, HELLO]}], name="two", record={"from": "row"}).dir
    for number, paths in enumerate([(first, second), (second, first)]):
        datasets = [dataset_of(path, path.name) for path in paths]
        assert not any("left behind" in each for each in notices(datasets))
        mix = tmp_path / f"mix{number}"
        done = run_it(make_project(mix, datasets, {}, None, None), directory=mix / "run")
        assert (done.kept, done.failed) == (3, 0)
        rows = read_jsonl(done.dir / "dataset" / "train.jsonl")
        by = {row["messages"][0]["content"]: row for row in rows}
        assert by[ASK["content"]]["messages"] == CHAT["messages"]
        assert by[HI["content"]]["tools"] is None
        assert of(done.dir / "dataset") == (done.dir / "dataset" / "train.jsonl").read_bytes().splitlines()
        assert verify(done.dir).intact
    (first / "dataset" / "train.jsonl").unlink()
    alone = [dataset_of(first, "one")]
    done = run_it(make_project(tmp_path / "p", alone, {}, None, None), directory=tmp_path / "p" / "run")
    row = read_jsonl(done.dir / "dataset" / "train.jsonl")[0]
    assert row["messages"] == CHAT["messages"]


def made(format: str, row: Any, consumer: str = "trl", *, plain: bool = False) -> Any:
    return list(layout(format, consumer, plain=plain).make(row))


def test_what_each_format_makes_of_calls() -> None:
    assert made("messages", CHAT) == [{"messages": CHAT["messages"]}]
    assert made("prompt-completion", CHAT) == [
        {"prompt": CHAT["messages"][:-1], "completion": CHAT["messages"][-1:]}
    ]
    assert made("prompt-completion", ENDS) == [{"prompt": [ASK], "completion": ENDS["messages"][1:]}]
    [turns] = made("sharegpt", ENDS)
    assert [turn["from"] for turn in turns["conversations"]] == ["human", "function_call"]
    assert len(json.loads(turns["conversations"][1]["value"])) == 2
    pair = {"prompt": [ASK], "chosen": [calling(call("x"))], "rejected": [SAY]}
    assert made("preference", pair) == [pair]
    assert made("kto", pair)[0] == {"prompt": [ASK], "completion": pair["chosen"], "label": True}


@pytest.mark.parametrize(
    ("format", "row", "options", "why"),
    [
        ("alpaca", CHAT, {}, "take turns"),
        ("alpaca", ENDS, {}, "more than a role and a text"),
        ("text", CHAT, {}, "more than a role and a text"),
        ("prompt-completion", ENDS, {"plain": True}, "more than a role and a text"),
        ("sharegpt", {"messages": [ASK, calling(call("x"), content="I look.")]}, {}, "a text and a call"),
        (
            "sharegpt",
            {"messages": [ASK, calling(call("x"), call("y", "dial")), result("y", "", "dial"), result("x")]},
            {},
            "in the order of the calls",
        ),
        (
            "preference",
            {"prompt": [ASK], "chosen": [calling(call("x"))], "rejected": [SAY]},
            {"consumer": "axolotl"},
            "more than a role and a text",
        ),
    ],
)
def test_what_a_format_cannot_hold_of_calls(format: str, row: Any, options: Any, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        made(format, row, **options)


names = st.sampled_from(["f", "g"])
objects = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3), max_size=2)


@given(st.data())
def test_sharegpt_is_read_again_as_it_was(data: Any) -> None:
    messages: list[dict[str, Any]] = []
    count = 0
    for _ in range(data.draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": data.draw(st.text())})
        calls = []
        for name in data.draw(st.lists(names, max_size=3)):
            count += 1
            arguments = json.dumps(data.draw(objects), ensure_ascii=False, separators=(",", ":"))
            calls.append(call(f"call_{count}", name, arguments))
        if calls:
            messages.append(calling(*calls))
            messages += [result(each["id"], data.draw(st.text()), each["function"]["name"]) for each in calls]
        messages.append({"role": "assistant", "content": data.draw(st.text())})
    [row] = made("sharegpt", {"messages": messages})
    assert conversation(row, calls=True) == messages


def write(out: Path, rows: Any, format: str, **options: Any) -> Any:
    return export("named", {}, {"train": lambda: iter(rows)}, out, format, **options)


@pytest.mark.parametrize("files", FILES)
def test_calls_in_each_kind_of_file(tmp_path: Path, files: str) -> None:
    rows = [{"id": str(number), **row} for number, row in enumerate([CHAT, PLAIN])]
    for format, columns in (("messages", ["messages"]), ("prompt-completion", ["prompt", "completion"])):
        out = tmp_path / format
        write(out, rows, format, files=files)
        if files == "jsonl":
            read = read_jsonl(out / "train.jsonl")
        elif files == "parquet":
            read = [orjson.loads(line) for line in of(out)]
        else:
            import pyarrow as pa

            with pa.ipc.open_stream(out / "train" / "data-00000-of-00001.arrow") as stream:
                read = stream.read_all().to_pylist()
        told = [row_files.without_gaps([each for c in columns for each in row[c]]) for row in read]
        arguments = told[0][1]["tool_calls"][0]["function"].pop("arguments")
        assert arguments == ({"city": "Bath"} if files == "jsonl" else '{"city": "Bath"}')
        told[0][1]["tool_calls"][0]["function"]["arguments"] = '{"city": "Bath"}'
        assert told == [CHAT["messages"], PLAIN["messages"]]
        assert [row["tools"] for row in read] == [json.dumps([WEATHER], separators=(",", ":")), None]


def test_arguments_that_an_object_would_change_stay_a_text(tmp_path: Path) -> None:
    texts = [f'{{"n": {2**70}}}', "no JSON", "[1]", '{"n": 1e999}', '{"n": 1.50}']
    row = {"id": "a", "messages": [ASK, calling(*(call(text, arguments=text) for text in texts))]}
    write(tmp_path / "out", [row], "messages")
    [read] = read_jsonl(tmp_path / "out" / "train.jsonl")
    arguments = [each["function"]["arguments"] for each in read["messages"][1]["tool_calls"]]
    assert arguments == [*texts[:4], {"n": 1.5}]


def test_what_is_told_of_sharegpt_and_the_snippets(tmp_path: Path) -> None:
    done = write(tmp_path / "turns", [{"id": "a", **CHAT}, {"id": "b", **PLAIN}], "sharegpt")
    assert "the ids of calls in 1 row are not there: turns have none" in done.notices
    assert any("no axolotl.yaml" in notice for notice in done.notices)
    said = json.loads((tmp_path / "turns" / "dataset_info.json").read_bytes())["named-train"]
    assert said == {
        "file_name": "train.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "tools"},
    }
    row = read_jsonl(tmp_path / "turns" / "train.jsonl")[0]
    # As LLaMA-Factory documents it: an even place is the user's or a result, an odd one the model's.
    assert [turn["from"] for turn in row["conversations"]] == ["human", "function_call", "observation", "gpt"]
    assert json.loads(row["tools"]) == [WEATHER["function"]]
    done = write(tmp_path / "messages", [{"id": "a", **CHAT}], "messages", consumer="axolotl")
    assert any("`synthgen export DIR sharegpt` gives calls" in notice for notice in done.notices)
    assert not (tmp_path / "messages" / "dataset_info.json").exists()
    assert "field_tools: tools" in (tmp_path / "messages" / "axolotl.yaml").read_text()
    # As axolotl reads it: a list, whose parameters may be a text; arguments an object, or a text.
    row = read_jsonl(tmp_path / "messages" / "train.jsonl")[0]
    [tool] = row["tools"]
    assert {**tool["function"], "parameters": json.loads(tool["function"]["parameters"])} == WEATHER[
        "function"
    ]
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Bath"}
    for number, options in enumerate([{}, {"consumer": "axolotl", "files": "parquet"}]):
        done = write(tmp_path / str(number), [{"id": "a", **CHAT}], "messages", **options)
        assert any("it reads the messages of `--for axolotl`, as jsonl" in notice for notice in done.notices)
        assert not (tmp_path / str(number) / "axolotl.yaml").exists()
    done = write(tmp_path / "plain", [{"id": "b", **PLAIN}], "sharegpt")
    assert not (tmp_path / "plain" / "axolotl.yaml").exists()
    plain = {"id": "b", "messages": PLAIN["messages"]}
    assert write(tmp_path / "toolless", [plain], "sharegpt").notices == []
    assert (tmp_path / "toolless" / "axolotl.yaml").exists()


def test_a_published_dataset_is_exported_from_either_kind_of_file(tmp_path: Path) -> None:
    done = run_of(tmp_path, [CHAT, TURNS, PLAIN])
    shutil.copytree(done.dir / "dataset", tmp_path / "dataset")
    for format in ("messages", "sharegpt", "prompt-completion"):
        ended("export", "dataset", format, "-o", f"{format}-1", cwd=tmp_path)
    (tmp_path / "dataset" / "train.jsonl").unlink()
    for format in ("messages", "sharegpt", "prompt-completion"):
        ended("export", "dataset", format, "-o", f"{format}-2", cwd=tmp_path)
        assert tree(tmp_path / f"{format}-1") == tree(tmp_path / f"{format}-2")
    _, err = ended("export", "dataset", "text", "-o", "x", cwd=tmp_path, code=2)
    assert "2 rows do not fit text: a message has more than a role and a text" in err
    ended("export", "dataset", "text", "-o", "x", "--skip", cwd=tmp_path)
    assert len(read_jsonl(tmp_path / "x" / "train.jsonl")) == 1


def test_nothing_of_a_message_is_left_behind_without_a_word(tmp_path: Path) -> None:
    writer = row_files.ParquetWriter(tmp_path, "train", row_files.arrow_schema({"messages": "tool messages"}))
    with pytest.raises(RunError, match="a message of a has weight"):
        writer.write({"id": "a", "messages": [{**SAY, "weight": 1}]}, b"")
    with pytest.raises(UsageError, match="weight, for which jsonl alone has room"):
        write(tmp_path / "x", [{"id": "a", "messages": [{**SAY, "weight": 1}]}], "messages", files="parquet")


def test_what_is_shown_of_calls(tmp_path: Path) -> None:
    done = run_of(tmp_path, [ENDS, CHAT])
    out, _ = ended("show", done.dir, cwd=tmp_path)
    assert 'weather({"city": "Bath"}) weather({"city": "Bath"})' in out.splitlines()[0]
    first = out.split()[0]
    out, _ = ended("show", done.dir, first, cwd=tmp_path)
    assert 'weather({"city": "Bath"})' in out
    out, _ = ended("audit", "export", done.dir, "csv", cwd=tmp_path)
    assert "weather(" in out.splitlines()[1]
