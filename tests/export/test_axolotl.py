"""axolotl's own loaders read each export by its axolotl.yaml, and make examples of it.

It needs other versions of what the trainers' tests need, so that it is in no lock: docs/export.md says how
to run this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from synthgen.export.convert import export
from synthgen.models import cache_dir

pytest.importorskip("axolotl")

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
AGAIN, SO = {"role": "user", "content": "And so?"}, {"role": "assistant", "content": "Nothing."}
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": PARAMETERS}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
ROWS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"messages": [SYSTEM, ASK, SAY, AGAIN, SO]},
        {
            "messages": [
                {"role": "user", "content": "What for?"},
                {"role": "assistant", "content": "For fun."},
            ]
        },
    ],
    "short": [{"messages": [ASK, SAY]}, {"messages": [AGAIN, SO]}],
    "told": [{"messages": [SYSTEM, ASK, SAY]}, {"messages": [AGAIN, SO]}],
    "calls": [
        {
            "messages": [
                ASK,
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": "2", "tool_call_id": "call_1"},
                SAY,
            ],
            "tools": TOOLS,
        },
        {"messages": [ASK, SAY], "tools": None},
    ],
    "preference": [
        {"prompt": [SYSTEM, ASK], "chosen": [SAY], "rejected": [SO]},
        {"prompt": [AGAIN], "chosen": [SO], "rejected": [SAY]},
    ],
    "judged": [
        {"prompt": [SYSTEM, ASK], "completion": [SAY], "label": True},
        {"prompt": [AGAIN], "completion": [SO], "label": False},
    ],
    "text": [{"text": "Once."}, {"text": "Twice."}],
}
CHATML = """{% for tool in tools or [] %}{{ tool | tojson }}
{% endfor %}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}{% for call in message.tool_calls or [] %}{{ call.function.name }}({{
call.function.arguments | tojson }}){% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def exported(tmp_path: Path, kind: str, format: str, **options: Any) -> dict[str, Any]:
    """The configuration, which is for the folder of the export."""
    rows = [{"id": f"{number:032x}", **row} for number, row in enumerate(ROWS[kind])]
    out = tmp_path / "out"
    parts = {"train": lambda: iter(rows), "test": lambda: iter(rows[:1])}
    export("it", {}, parts, out, format, **options)
    said: dict[str, Any] = YAML(typ="safe", pure=True).load(out / "axolotl.yaml")
    return said


def configured(said: dict[str, Any], tmp_path: Path) -> Any:
    """As axolotl validates it, with the least that it wants besides."""
    from axolotl.utils.config import normalize_config, validate_config
    from axolotl.utils.dict import DictDefault

    file = next((cache_dir() / "converted").glob("SmolLM2*/tokenizer.json"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_bytes(file.read_bytes())
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHATML}
    about |= {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    (model / "tokenizer_config.json").write_text(json.dumps(about))
    sizes = {"vocab_size": 49152, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    (model / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
    cfg = validate_config(
        DictDefault(
            {
                **said,
                "base_model": str(model),
                "chat_template": "tokenizer_default",
                "sequence_len": 512,
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "num_epochs": 1,
                "learning_rate": 1e-5,
                "output_dir": str(tmp_path / "trained"),
                "dataset_prepared_path": str(tmp_path / "prepared"),
                "bf16": False,
            }
        )
    )
    normalize_config(cfg)
    return cfg


def examples(cfg: Any) -> tuple[Any, Any, Any]:
    """What it would train on, what it would test on, and its tokenizer."""
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.data.rl import prepare_preference_datasets
    from axolotl.utils.data.sft import prepare_datasets

    tokenizer = load_tokenizer(cfg)
    if cfg.rl:
        return (*prepare_preference_datasets(cfg, tokenizer), tokenizer)
    train, test, *_ = prepare_datasets(cfg, tokenizer)
    return train, test, tokenizer


def trained_on(example: Any, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in example["labels"] if label != -100]))


@pytest.mark.parametrize("files", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("kind", "format", "options"),
    [
        ("chat", "messages", {}),
        ("chat", "sharegpt", {}),
        ("short", "alpaca", {}),
        ("told", "alpaca", {}),
        ("short", "prompt-completion", {"plain": True}),
    ],
)
def test_its_loader_trains_on_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, format: str, options: Any, files: str
) -> None:
    said = exported(tmp_path, kind, format, files=files, **options)
    monkeypatch.chdir(tmp_path / "out")
    train, test, tokenizer = examples(configured(said, tmp_path))
    assert (len(train), len(test)) == (2, 1)
    for row in ROWS[kind]:
        answers = [each["content"] for each in row["messages"] if each["role"] == "assistant"]
        asked = [each["content"] for each in row["messages"] if each["role"] != "assistant"]
        [found] = [
            each
            for each in train
            if all(text in tokenizer.decode(each["input_ids"]) for text in (*asked, *answers))
        ]
        on = trained_on(found, tokenizer)
        assert all(text in on for text in answers)
        assert not any(text in on for text in asked)


def test_it_trains_on_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = exported(tmp_path, "calls", "messages", consumer="axolotl")
    monkeypatch.chdir(tmp_path / "out")
    train, _, tokenizer = examples(configured(said, tmp_path))
    [calling] = [each for each in train if "add" in tokenizer.decode(each["input_ids"])]
    assert '"name": "add"' in tokenizer.decode(calling["input_ids"])
    on = trained_on(calling, tokenizer)
    assert 'add({"a": 1})' in on
    assert "Because." in on
    assert "Why?" not in on
    assert len(train) == 2


@pytest.mark.parametrize("files", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("kind", "format"), [("preference", "preference"), ("preference", "kto"), ("judged", "kto")]
)
def test_preferences_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, format: str, files: str
) -> None:
    said = exported(tmp_path, kind, format, files=files, consumer="axolotl")
    monkeypatch.chdir(tmp_path / "out")
    train, test, _ = examples(configured(said, tmp_path))
    for row in ROWS[kind]:
        prompt = [each["content"] for each in row["prompt"]]
        found = [each for each in train if all(text in each["prompt"] for text in prompt)]
        found.sort(key=lambda each: not each.get("label"))  # it shuffles
        if format == "preference":
            assert [row["chosen"][0]["content"] in each["chosen"] for each in found] == [True]
            assert [row["rejected"][0]["content"] in each["rejected"] for each in found] == [True]
        else:
            sides = (
                [(row["completion"][0], row["label"])]
                if "label" in row
                else [(row["chosen"][0], True), (row["rejected"][0], False)]
            )
            assert len(found) == len(sides)
            for (answer, label), each in zip(sides, found, strict=True):
                assert answer["content"] in each["completion"]
                assert each["label"] is label
    assert len(test) >= 1


def test_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = exported(tmp_path, "text", "text")
    monkeypatch.chdir(tmp_path / "out")
    train, _, tokenizer = examples(configured(said, tmp_path))
    assert sorted(trained_on(each, tokenizer).removesuffix("<|im_end|>") for each in train) == [
        "Once.",
        "Twice.",
    ]
