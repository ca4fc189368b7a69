"""`synthgen export`: what each format holds of a dataset, and that nothing is lost without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from synthgen.audit.tables import rows_of_parquet
from synthgen.audit.verify import verify
from synthgen.conversation import conversation
from synthgen.errors import RunError, UsageError
from synthgen.export import rows as row_files
from synthgen.export.convert import FILES, Exported, export
from synthgen.export.formats import CONSUMERS, FORMATS, Unfit, layout
from tests.processes import ended
from tests.support import loaded, read_jsonl, recipe, run_it, tree

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
AGAIN, SO = {"role": "user", "content": "And so?"}, {"role": "assistant", "content": "Nothing."}
CHAT = {"id": "a", "messages": [SYSTEM, ASK, SAY, AGAIN, SO], "topic": "reasons"}
SHORT = {"id": "b", "messages": [ASK, SAY], "topic": "causes"}
PREFERENCE = {"id": "c", "prompt": [SYSTEM, ASK], "chosen": [SAY], "rejected": [SO]}
LABELLED = {"id": "d", "prompt": [ASK], "completion": [SAY], "label": False}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALLING = {
    "id": "e",
    "messages": [
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "name": "add", "tool_call_id": "1"},
        SAY,
    ],
    "tools": TOOLS,
}


def write(out: Path, rows: Sequence[Mapping[str, Any]], format: str, **options: Any) -> Exported:
    return export("named", {"ledger": "0"}, {"train": lambda: iter(rows)}, out, format, **options)


def made(format: str, row: Mapping[str, Any], consumer: str = "trl", *, plain: bool = False) -> Any:
    return list(layout(format, consumer, plain=plain).make(row))


texts = st.text(min_size=1)
turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


@given(turns, st.none() | texts)
@pytest.mark.parametrize("format", ["messages", "prompt-completion", "sharegpt", "alpaca"])
def test_a_conversation_is_read_again_as_it_was(
    format: str, pairs: list[tuple[str, str]], system: str | None
) -> None:
    messages = [{"role": "system", "content": system}] if system is not None else []
    for question, answer in pairs:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    [row] = made(format, {"id": "a", "messages": messages})
    assert conversation(row) == messages


def test_what_each_format_makes_of_a_row() -> None:
    assert made("messages", CHAT) == [{"messages": CHAT["messages"]}]
    assert made("prompt-completion", SHORT) == [{"prompt": [ASK], "completion": [SAY]}]
    assert made("prompt-completion", SHORT, plain=True) == [{"prompt": "Why?", "completion": "Because."}]
    assert made("alpaca", CHAT) == [
        {
            "instruction": "And so?",
            "input": "",
            "output": "Nothing.",
            "system": "Be brief.",
            "history": [["Why?", "Because."]],
        }
    ]
    assert made("sharegpt", SHORT) == [
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}
    ]
    assert made("text", SHORT) == [
        {"text": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>\n"}
    ]
    assert made("text", {"id": "a", "text": "As it is."}) == [{"text": "As it is."}]


def test_preferences_as_each_trainer_wants_them() -> None:
    sides = {name: PREFERENCE[name] for name in ("prompt", "chosen", "rejected")}
    assert made("preference", PREFERENCE) == [sides]
    texts = {"id": "c", "prompt": "Why?", "chosen": "Because.", "rejected": "Nothing."}
    assert made("preference", texts) == [{"prompt": [ASK], "chosen": [SAY], "rejected": [SO]}]
    assert made("preference", texts, plain=True) == [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "Nothing."}
    ]
    assert made("preference", PREFERENCE, "axolotl") == [
        {"messages": [SYSTEM, ASK], "chosen": SAY, "rejected": SO}
    ]
    assert made("preference", PREFERENCE, "llamafactory") == [
        {
            "conversations": [
                {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Why?"}
            ],
            "chosen": {"from": "gpt", "value": "Because."},
            "rejected": {"from": "gpt", "value": "Nothing."},
        }
    ]  # fmt: skip


def test_labels_as_each_trainer_wants_them() -> None:
    parts = {name: LABELLED[name] for name in ("prompt", "completion", "label")}
    assert made("kto", LABELLED) == [parts]
    assert made("kto", {**LABELLED, "label": "True"}) == [{**parts, "label": True}]
    assert [(each["completion"], each["label"]) for each in made("kto", PREFERENCE)] == [
        ([SAY], True),
        ([SO], False),
    ]
    assert made("kto", PREFERENCE, "axolotl")[0] == {
        "system": "Be brief.",
        "prompt": "Why?",
        "completion": "Because.",
        "label": True,
    }
    assert made("kto", LABELLED, "llamafactory") == [
        {
            "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}],
            "kto_tag": False,
        }
    ]


def test_tools_and_calls_of_them() -> None:
    [row] = made("sharegpt", CALLING)
    assert [turn["from"] for turn in row["conversations"]] == ["human", "function_call", "observation", "gpt"]
    assert json.loads(row["conversations"][1]["value"]) == {"name": "add", "arguments": {"a": 1}}
    for format in ("alpaca", "text"):
        with pytest.raises(Unfit):
            made(format, CALLING)


@pytest.mark.parametrize(
    ("format", "row", "why"),
    [
        ("alpaca", {"messages": [ASK]}, "take turns"),
        ("alpaca", {"messages": [ASK, ASK, SAY]}, "take turns"),
        ("alpaca", PREFERENCE, "preference and kto"),
        ("prompt-completion", {"messages": [ASK]}, "does not end with"),
        ("preference", CHAT, "no `chosen`"),
        ("preference", {"chosen": "a", "rejected": "b"}, "no `prompt`"),
        ("kto", {**LABELLED, "label": "maybe"}, "neither true nor false"),
        ("kto", CHAT, "no `prompt`"),
        ("messages", LABELLED, "its format is kto"),
        ("messages", {"note": "x"}, "no conversation"),
        ("text", {"messages": [ASK, {"role": "assistant", "content": "<|im_end|>"}]}, "a mark of ChatML"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(format: str, row: Mapping[str, Any], why: str) -> None:
    with pytest.raises(Unfit, match=why):
        made(format, row)


def test_several_answers_have_no_place_but_at_trl() -> None:
    row = {**PREFERENCE, "chosen": [SAY, AGAIN, SO]}
    assert made("preference", row)[0]["chosen"] == [SAY, AGAIN, SO]
    for consumer in ("axolotl", "llamafactory"):
        with pytest.raises(Unfit, match="several messages"):
            made("preference", row, consumer)


def read(out: Path, files: str) -> list[dict[str, Any]]:
    if files == "jsonl":
        return read_jsonl(out / "train.jsonl")
    if files == "parquet":
        return list(pq.read_table(out / "data" / "train-00000-of-00001.parquet").to_pylist())
    with pa.ipc.open_stream(out / "train" / "data-00000-of-00001.arrow") as stream:
        return list(stream.read_all().to_pylist())


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_rows_in_each_kind_of_file(tmp_path: Path, format: str) -> None:
    row = {"preference": PREFERENCE, "kto": LABELLED}.get(format, CHAT)
    for consumer in CONSUMERS:
        read_rows = []
        for files in FILES:
            out = tmp_path / f"{consumer}-{files}"
            done = write(out, [row, {**row, "id": "z"}], format, consumer=consumer, files=files)
            assert done.rows == {"train": 2}
            read_rows.append(read(out, files))
        assert read_rows[0] == read_rows[1] == read_rows[2]
        assert [each["id"] for each in read_rows[0]] == [row["id"], "z"]
        assert read_rows[0][0].get("topic") == row.get("topic")


def test_no_columns_that_nothing_is_in(tmp_path: Path) -> None:
    write(tmp_path / "short", [SHORT], "alpaca")
    assert list(read_jsonl(tmp_path / "short" / "train.jsonl")[0]) == [
        "id", "instruction", "input", "output", "topic"
    ]  # fmt: skip
    write(tmp_path / "both", [SHORT, CHAT], "alpaca")
    assert [row["history"] for row in read_jsonl(tmp_path / "both" / "train.jsonl")] == [
        [], [["Why?", "Because."]]
    ]  # fmt: skip


def test_calls_of_tools_in_columns_of_one_type(tmp_path: Path) -> None:
    write(tmp_path / "jsonl", [CALLING], "messages")
    [row] = read(tmp_path / "jsonl", "jsonl")
    assert row == {**CALLING, "tools": json.dumps(TOOLS, separators=(",", ":"))}
    for files in ("parquet", "arrow"):
        write(tmp_path / files, [CALLING], "messages", files=files)
        [row] = read(tmp_path / files, files)
        call = row["messages"][1]["tool_calls"][0]
        assert json.loads(call["function"].pop("arguments")) == {"a": 1}
        assert call == {"id": "1", "type": "function", "function": {"name": "add"}}
        assert row["messages"][2]["tool_call_id"] == "1"
        assert json.loads(row["tools"]) == TOOLS
    odd = {"id": "f", "messages": [ASK, {**SAY, "weight": 1}]}
    with pytest.raises(UsageError, match="weight, for which jsonl alone has room"):
        write(tmp_path / "odd", [odd], "messages", files="parquet")
    assert not (tmp_path / "odd").exists()


def test_other_fields_go_along_or_it_is_said_that_they_do_not(tmp_path: Path) -> None:
    rows = [{**SHORT, "input": "mine", "tags": ["x", 1]}, {**SHORT, "input": "yours", "tags": {}}]
    done = write(tmp_path / "out", rows, "alpaca", files="parquet")
    assert [(row["input"], row["tags"]) for row in read(tmp_path / "out", "parquet")] == [
        ("", '["x",1]'), ("", "{}")
    ]  # fmt: skip
    assert any("`input` of 2 rows is not there" in notice for notice in done.notices)
    done = write(tmp_path / "again", rows, "sharegpt")
    assert [row["tags"] for row in read(tmp_path / "again", "jsonl")] == [["x", 1], {}]
    assert done.notices == []


def test_other_fields_keep_their_types(tmp_path: Path) -> None:
    mine = {"truth": True, "count": 3, "share": 0.5, "mixed": "x", "nothing": None, "gap": "there"}
    rows = [{**SHORT, **mine}, {**SHORT, **mine, "mixed": 1, "gap": None}]
    for files in FILES:
        write(tmp_path / files, rows, "messages", files=files)
    assert read(tmp_path / "jsonl", "jsonl") == rows
    expected = [{**rows[0], "mixed": '"x"'}, {**rows[1], "mixed": "1"}]
    assert read(tmp_path / "parquet", "parquet") == read(tmp_path / "arrow", "arrow") == expected


def test_columns_of_a_dataset_are_read_again_as_they_were(tmp_path: Path) -> None:
    kinds: dict[str, Any] = {"chosen": "messages", "score": "number", "any": "json", "label": "boolean"}
    rows = [
        {"id": "a", "chosen": [ASK, SAY], "score": 0.5, "any": {"b": [1, None]}, "label": True},
        {"id": "b", "chosen": [SAY], "score": None, "any": None, "label": False},
    ]
    writer = row_files.ParquetWriter(tmp_path, "train", row_files.arrow_schema(kinds))
    for row in rows:
        writer.write(row, b"")
    writer.close()
    [file] = tmp_path.iterdir()
    assert [json.loads(line) for line in rows_of_parquet([file])] == rows
    more = row_files.ParquetWriter(tmp_path / "more", "train", row_files.arrow_schema(kinds))
    with pytest.raises(RunError, match="more than a role and a content"):
        more.write({**rows[0], "chosen": [{**SAY, "weight": 1}]}, b"")


def test_rows_that_do_not_fit(tmp_path: Path) -> None:
    rows = [SHORT, CALLING, {**CALLING, "id": "g"}]
    with pytest.raises(UsageError, match=r"2 rows do not fit alpaca: .*take turns \(the first: e\)"):
        write(tmp_path / "out", rows, "alpaca")
    assert list(tmp_path.iterdir()) == []
    done = write(tmp_path / "out", rows, "alpaca", skip=True)
    assert sum(done.skipped.values()) == 2
    assert done.rows == {"train": 1}
    assert any("2 rows left out" in notice for notice in done.notices)
    assert json.loads((tmp_path / "out" / "export.json").read_bytes())["skipped"] == done.skipped
    with pytest.raises(UsageError, match="no row fits kto"):
        write(tmp_path / "kto", [SHORT], "kto", skip=True)


def test_large_rows_and_turns_out_of_turn_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = write(tmp_path / "out", [{"id": "h", "messages": [ASK, SAY, SAY]}], "messages")
    assert any("in 1 row user and assistant do not take turns" in notice for notice in done.notices)
    long = {"id": "i", "messages": [ASK, {"role": "assistant", "content": "x" * 2_000_000}]}
    done = write(tmp_path / "long", [SHORT, long], "messages")
    assert done.notices == ["1 row is larger than 2 MB"]


# What the documentation of each says that a layout needs, by what its configuration says.
def factory_needs(said: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    columns = said["columns"]
    assert set(columns) <= {
        "prompt", "query", "response", "history", "messages",
        "system", "tools", "chosen", "rejected", "kto_tag",
    }  # fmt: skip
    assert set(columns.values()) <= row.keys()
    ranking = said.get("ranking", False)
    assert ranking == ("chosen" in columns)
    if said.get("formatting") == "sharegpt":
        tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
                "system_tag": "system", **said.get("tags", {})}  # fmt: skip
        turns = row[columns["messages"]]
        roles = [turn[tags["role_tag"]] for turn in turns]
        assert all(isinstance(turn[tags["content_tag"]], str) for turn in turns)
        roles = roles[1:] if roles[0] == tags["system_tag"] else roles
        expected = [tags["user_tag"], tags["assistant_tag"]] * len(roles)
        assert roles == expected[: len(roles)]
        assert len(roles) % 2 == (1 if ranking else 0)
        for side in ("chosen", "rejected"):
            if side in columns:
                assert row[columns[side]][tags["role_tag"]] == tags["assistant_tag"]
    else:
        for name in ("prompt", "response", "chosen", "rejected"):
            assert name not in columns or isinstance(row[columns[name]], str)
        assert all(len(pair) == 2 for pair in row.get(columns.get("history", ""), []))
    if "kto_tag" in columns:
        assert isinstance(row[columns["kto_tag"]], bool)


def axolotl_needs(said: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    [about] = said["datasets"]
    assert about["ds_type"] == "json"
    kind = about["type"]
    if isinstance(kind, dict):
        fields = [value for name, value in kind.items() if name.startswith("field_")]
        assert all(isinstance(row[name], str) for name in fields)
    elif str(kind).startswith("chat_template"):
        keys = about["message_property_mappings"]
        for message in row[about["field_messages"]]:
            assert isinstance(message[keys["content"]], str)
        for side in ("field_chosen", "field_rejected"):
            if side in about:
                assert row[about[side]][keys["role"]] == "assistant"
    else:
        pairs = ("completion",) if said.get("rl") == "kto" else ("chosen", "rejected")
        needed = {
            "alpaca": ("instruction", "input", "output"),
            "completion": (about.get("field"),),
            "chatml.prompt_pairs": ("prompt", *pairs),
        }[kind]
        assert all(isinstance(row[name], str) for name in needed)
    if said.get("rl") == "kto":
        assert isinstance(row["label"], bool)
        assert said["remove_unused_columns"] is False  # it refuses to begin without


CASES = [
    (format, consumer, plain)
    for format in FORMATS
    for consumer in CONSUMERS
    for plain in (False, True)
    if not plain or (consumer == "trl" and format in ("prompt-completion", "preference", "kto"))
]
# Those that a trainer knows no layout for.
NO_FACTORY = {
    *(("prompt-completion", consumer, False) for consumer in CONSUMERS),
    ("preference", "trl", False), ("preference", "axolotl", False), ("kto", "trl", False),
}  # fmt: skip
NO_AXOLOTL = {
    *(("prompt-completion", consumer, False) for consumer in CONSUMERS),
    ("preference", "trl", False), ("preference", "llamafactory", False),
    ("kto", "trl", False), ("kto", "llamafactory", False),
}  # fmt: skip


@pytest.mark.parametrize(("format", "consumer", "plain"), CASES)
def test_the_configuration_fits_the_rows(tmp_path: Path, format: str, consumer: str, plain: bool) -> None:
    row = {"preference": {**PREFERENCE, "prompt": [ASK]}, "kto": LABELLED}.get(format, SHORT)
    done = write(tmp_path / "out", [row], format, consumer=consumer, plain=plain)
    [written] = read_jsonl(tmp_path / "out" / "train.jsonl")
    with_factory, with_axolotl = "dataset_info.json" in done.files, "axolotl.yaml" in done.files
    if with_factory:
        said = json.loads((tmp_path / "out" / "dataset_info.json").read_bytes())
        assert said.keys() == {"named-train"}
        assert (tmp_path / "out" / said["named-train"]["file_name"]).is_file()
        factory_needs(said["named-train"], written)
    if with_axolotl:
        axolotl_needs(YAML(typ="safe").load(tmp_path / "out" / "axolotl.yaml"), written)
    assert with_factory == ((format, consumer, plain) not in NO_FACTORY)
    assert with_axolotl == ((format, consumer, plain) not in NO_AXOLOTL)
    assert len(done.notices) == (not with_factory) + (not with_axolotl)


def test_what_axolotl_would_pass_over_is_not_configured(tmp_path: Path) -> None:
    system = {"id": "j", "messages": [SYSTEM, ASK, SAY]}
    write(tmp_path / "system", [system], "alpaca")
    said = YAML(typ="safe").load(tmp_path / "system" / "axolotl.yaml")
    assert said["datasets"][0]["type"]["field_system"] == "system"
    done = write(tmp_path / "history", [CHAT], "alpaca")
    assert "axolotl.yaml" not in done.files
    assert done.notices == ["no axolotl.yaml: axolotl knows no such layout"]
    said = json.loads((tmp_path / "history" / "dataset_info.json").read_bytes())
    assert said["named-train"]["columns"]["history"] == "history"


@pytest.mark.parametrize("files", FILES)
def test_a_card_names_the_splits_that_have_rows(tmp_path: Path, files: str) -> None:
    """Without it `datasets` takes the configuration for rows, and cannot read what has none."""
    done = export(
        "named",
        {},
        {"fit": lambda: iter([CHAT]), "holdout": lambda: iter([SHORT]), "none": lambda: iter(())},
        tmp_path / "out",
        "messages",
        files=files,
    )
    assert done.notices == ["no row is in `none`"]
    infos = json.loads((done.dir / "dataset_info.json").read_text())
    assert set(infos) == {"named-fit", "named-holdout"}
    if files == "arrow":
        return
    front = (done.dir / "README.md").read_text().split("---\n")[1]
    [config] = YAML(typ="safe").load(front)["configs"]
    assert [each["split"] for each in config["data_files"]] == ["fit", "holdout"]
    assert all(list(done.dir.glob(each["path"])) for each in config["data_files"])


def test_no_rows_are_no_export(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the dataset has no rows"):
        write(tmp_path / "out", [], "messages")
    assert not (tmp_path / "out").exists()


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "GROUP_ROWS", 2)
    monkeypatch.setattr(row_files, "SHARD_BYTES", 200)
    rows = [{**SHORT, "id": str(number)} for number in range(9)]
    write(tmp_path / "out", rows, "messages", files="parquet")
    said = json.loads((tmp_path / "out" / "dataset_info.json").read_bytes())
    names = [each["file_name"] for each in said.values()]
    assert len(names) == len(set(said)) > 1
    assert [id for name in names for id in pq.read_table(tmp_path / "out" / name)["id"].to_pylist()] == [
        row["id"] for row in rows
    ]


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, [SHORT], "messages", files="parquet")
    write(out, [SHORT], "text")
    assert {path.name for path in out.iterdir()} == {
        "README.md", "train.jsonl", "dataset_info.json", "axolotl.yaml", "export.json"
    }  # fmt: skip
    before = tree(out)
    write(out, [SHORT], "text")
    assert tree(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "novel.txt").write_text("Chapter 1")
    for place in (tmp_path / "mine", tmp_path / "mine" / "novel.txt"):
        with pytest.raises(UsageError, match="is no export"):
            write(place, [SHORT], "text")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "mine"}


SPLITS = {"train": 0.6, "test": 0.4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    record = {"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}], "topic": "{{ doc }}"}
    said = recipe(record=record, filters=[{"words": {"min": 5}}], output={"split": SPLITS})
    return run_it(loaded(root, said, rows=20), directory=root / "run").dir


@pytest.mark.parametrize("files", FILES)
def test_the_command(finished: Path, tmp_path: Path, files: str) -> None:
    out, err = ended("export", finished, "sharegpt", "--files", files, "--json", cwd=tmp_path)
    said = json.loads(out)
    assert err == ""
    expected = {split: len(read_jsonl(finished / "dataset" / f"{split}.jsonl")) for split in SPLITS}
    assert said["rows"] == expected
    assert said["dir"] == "a-sharegpt"
    assert set(tree(tmp_path / "a-sharegpt")) == set(said["files"])
    whole = read(tmp_path / "a-sharegpt", files)
    given = read_jsonl(finished / "dataset" / "train.jsonl")
    assert [(row["id"], conversation(row), row["topic"]) for row in whole] == [
        (row["id"], row["messages"], row["topic"]) for row in given
    ]
    assert verify(finished).intact


def test_a_dataset_alone_and_from_parquet_alone(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "dataset", tmp_path / "dataset")
    ended("export", "dataset", "text", "-o", "one", cwd=tmp_path)
    for split in SPLITS:
        (tmp_path / "dataset" / f"{split}.jsonl").unlink()
    ended("export", "dataset", "text", "-o", "two", cwd=tmp_path)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    ended("export", finished, "text", "-o", "three", cwd=tmp_path)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")


def test_what_the_command_refuses(finished: Path, tmp_path: Path) -> None:
    _, err = ended("export", finished, "shargpt", cwd=tmp_path, code=2)
    assert "did you mean 'sharegpt'?" in err
    _, err = ended("export", finished, "text", "--files", "csv", cwd=tmp_path, code=2)
    assert "there is no --files 'csv'" in err
    _, err = ended("export", finished, "alpaca", "--plain", cwd=tmp_path, code=2)
    assert "no plain one" in err
    _, err = ended("export", finished, "text", "-o", finished / "dataset" / "x", cwd=tmp_path, code=2)
    assert "would lie in" in err
    _, err = ended("export", tmp_path, "text", cwd=tmp_path, code=2)
    assert "holds no run and no dataset of synthgen" in err
    _, err = ended("export", finished, "preference", cwd=tmp_path, code=2)
    assert "no row fits preference" in err
    assert list(tmp_path.iterdir()) == []
    assert verify(finished).intact
