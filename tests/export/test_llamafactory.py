"""LLaMA-Factory's own loader reads each export by its dataset_info.json, and makes examples of it.

It needs other versions of what the trainers' tests need, so that it is in no lock: docs/export.md says how
to run this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synthgen.export.convert import FILES, export
from synthgen.models import cache_dir

pytest.importorskip("llamafactory")

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
AGAIN, SO = {"role": "user", "content": "And so?"}, {"role": "assistant", "content": "Nothing."}
TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
]


def call(number: int) -> dict[str, Any]:
    function = {"name": "add", "arguments": json.dumps({"a": number})}
    return {"id": f"call_{number}", "type": "function", "function": function}


CALLING = [
    ASK,
    {"role": "assistant", "content": "", "tool_calls": [call(1)]},
    {"role": "tool", "content": "2", "tool_call_id": "call_1"},
    SAY,
    AGAIN,
    {"role": "assistant", "content": "", "tool_calls": [call(2)]},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "chat": [{"messages": [SYSTEM, ASK, SAY, AGAIN, SO]}, {"messages": [ASK, SAY]}],
    "short": [{"messages": [ASK, SAY]}, {"messages": [AGAIN, SO]}],
    "calls": [{"messages": CALLING, "tools": TOOLS}, {"messages": [ASK, SAY], "tools": None}],
    "preference": [
        {"prompt": [SYSTEM, ASK], "chosen": [SAY], "rejected": [SO]},
        {"prompt": [ASK, SAY, AGAIN], "chosen": [SO], "rejected": [SAY]},
    ],
    "judged": [
        {"prompt": [SYSTEM, ASK], "completion": [SAY], "label": True},
        {"prompt": [AGAIN], "completion": [SO], "label": False},
    ],
    "text": [{"text": "Once."}, {"text": "Twice."}],
}
TURNS = {"user": "user", "assistant": "assistant", "tool": "observation"}


def turn(message: dict[str, Any]) -> dict[str, Any]:
    if calls := message.get("tool_calls"):
        function = calls[0]["function"]
        said = {"name": function["name"], "arguments": json.loads(function["arguments"])}
        return {"role": "function", "content": said}
    return {"role": TURNS[message["role"]], "content": message["content"]}


def expected(row: dict[str, Any]) -> dict[str, Any]:
    """What LLaMA-Factory is to hold of a row: system, what is said before the answers, the answers."""
    nothing = {"role": "assistant", "content": ""}
    before, answers = row.get("prompt", []), [row.get("chosen", [None])[0], row.get("rejected", [None])[0]]
    if "messages" in row:
        *before, last = row["messages"]
        answers = [last]
    elif "completion" in row:
        answers = row["completion"]
    elif "text" in row:
        return {"system": "", "prompt": [{"role": "user", "content": row["text"]}], "response": []}
    system = before[0]["content"] if before[0] is SYSTEM else ""
    response = [turn(each) for each in answers]
    if "label" in row:
        response = [*response, nothing] if row["label"] else [nothing, *response]
    return {
        "system": system,
        "prompt": [turn(each) for each in before if each is not SYSTEM],
        "response": response,
    }


def heard(example: dict[str, Any]) -> dict[str, Any]:
    def said(message: dict[str, Any]) -> dict[str, Any]:
        content = message["content"]
        return {**message, "content": json.loads(content) if message["role"] == "function" else content}

    return {
        "system": example["_system"] or "",
        "prompt": [said(each) for each in example["_prompt"]],
        "response": [said(each) for each in example["_response"]],
    }


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize(
    ("kind", "format", "consumer", "plain", "stage"),
    [
        ("chat", "messages", "trl", False, "sft"),
        ("chat", "sharegpt", "trl", False, "sft"),
        ("chat", "alpaca", "trl", False, "sft"),
        ("short", "alpaca", "trl", False, "sft"),
        ("short", "prompt-completion", "trl", True, "sft"),
        ("calls", "sharegpt", "trl", False, "sft"),
        ("preference", "preference", "llamafactory", False, "rm"),
        ("judged", "kto", "llamafactory", False, "kto"),
        ("preference", "kto", "llamafactory", False, "kto"),
        ("text", "text", "trl", False, "pt"),
    ],
)
def test_its_loader_reads_what_is_there(
    tmp_path: Path, kind: str, format: str, consumer: str, plain: bool, stage: Any, files: str
) -> None:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.data.loader import _get_merged_dataset
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import PreTrainedTokenizerFast, Seq2SeqTrainingArguments

    rows = [{"id": f"{number:032x}", **row} for number, row in enumerate(ROWS[kind])]
    out = tmp_path / "out"
    export("it", {}, {"train": lambda: iter(rows)}, out, format, consumer=consumer, plain=plain, files=files)
    names = list(json.loads((out / "dataset_info.json").read_bytes()))
    model = ModelArguments(model_name_or_path="none", cache_dir=str(tmp_path / "cache"))
    data = DataArguments(
        dataset=",".join(names), dataset_dir=str(out), template="chatml", overwrite_cache=True
    )
    training = Seq2SeqTrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    aligned = _get_merged_dataset(data.dataset, model, data, training, stage)
    wanted = [expected(row) for row in ROWS[kind]]
    if kind == "preference" and format == "kto":
        labelled = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in ROWS[kind]
            for side in ("chosen", "rejected")
        ]
        wanted = [expected(row) for row in labelled]
    assert [heard(example) for example in aligned] == wanted
    if kind == "calls":
        assert [json.loads(each["_tools"] or "null") for each in aligned] == [
            [TOOLS[0]["function"]],
            None,
        ]

    file = next((cache_dir() / "converted").glob("SmolLM2*/tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file), bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    template = get_template_and_fix_tokenizer(tokenizer, data)
    made = get_dataset(template, model, data, training, stage, tokenizer)["train_dataset"]
    assert len(made) == len(wanted)
    texts = [
        tokenizer.decode(ids)
        for name in made.column_names
        if name.endswith("input_ids")
        for ids in made[name]
    ]
    said = [each["content"] for each in (message for row in wanted for message in row["prompt"])]
    assert all(any(content in text for text in texts) for content in said if isinstance(content, str))
