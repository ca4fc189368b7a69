"""Datasets train: the libraries load each format, and TRL's trainers take two steps on each, on the CPU."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from synthgen.engines.gguf import to_safetensors
from synthgen.export.convert import FILES, export
from tests.support import loaded, recipe, run_it

pytestmark = [pytest.mark.trainers, pytest.mark.slow]

SPLITS = {"train": 0.7, "test": 0.3}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "required": ["a", "b"]}},
    },
    {"type": "function", "function": {"name": "now", "description": "The time."}},
]
CHATML = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}{% set said = call.function.arguments %}"
    "{{ call.function.name }}({{ said if said is string else said | tojson }}){% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rows(number: int) -> dict[str, dict[str, Any]]:
    """A row of each kind that a dataset may have."""
    question = {"role": "user", "content": f"What is {number} and {number}?"}
    right = {"role": "assistant", "content": f"It is {2 * number}."}
    wrong = {"role": "assistant", "content": "Nobody knows."}
    id = {"id": f"{number:032x}"}
    add = {
        "name": "add",
        "arguments": json.dumps({"a": number, "b": number, "unit": [None, "x"][number % 2]}),
    }
    call = {
        "id": "call_1",
        "type": "function",
        "function": add if number % 3 else {"name": "now", "arguments": "{}"},
    }
    calling = {"role": "assistant", "content": "", "tool_calls": [call]}
    heard = {
        "role": "tool",
        "content": str(2 * number),
        "tool_call_id": "call_1",
        "name": call["function"]["name"],
    }
    return {
        "calling": {
            **id,
            "messages": [question, calling, heard, right],
            "tools": TOOLS[:1] if number % 3 else TOOLS,
        },
        "called": {**id, "prompt": [question], "chosen": [calling], "rejected": [wrong], "tools": TOOLS},
        "conversation": {**id, "messages": [{"role": "system", "content": "Add."}, question, right]},
        "short": {**id, "messages": [question, right]},
        "preference": {**id, "prompt": [question], "chosen": [right], "rejected": [wrong]},
    }


def written(out: Path, kind: str, format: str, files: str, *, plain: bool = False) -> Any:
    """The dataset as `datasets` loads it."""
    import datasets

    export(
        "sums",
        {},
        {"train": lambda: (rows(number)[kind] for number in range(8))},
        out,
        format,
        files=files,
        plain=plain,
    )
    if files == "arrow":
        return datasets.load_from_disk(str(out))["train"]
    kinds = {"jsonl": "json", "parquet": "parquet"}
    pattern = "train.jsonl" if files == "jsonl" else "data/train-*.parquet"
    return datasets.load_dataset(
        kinds[files], data_files=str(out / pattern), split="train", cache_dir=str(out.parent / "cache")
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of random weights, and a tokenizer of bytes with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    symbols = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*symbols, *letters])}
    model = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=CHATML
    )
    tokenizer.add_special_tokens({"additional_special_tokens": symbols[1:2]})
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=2,
    )
    place = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def small(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model of every run here, as trainers load it."""
    return to_safetensors(default_model, tmp_path_factory.mktemp("small"))


def two_steps(trainer: str, tiny: Path, folder: Path, dataset: Any, *sees: str) -> Mapping[str, float]:
    """What the trainer logs at the end; whether its model has learned anything is asserted here.

    So is that each of `sees` is in what an SFTTrainer makes of the first row.
    """
    import torch
    import trl
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    options: dict[str, Any] = {"max_length": 512} if trainer != "KTO" else {}
    config = getattr(trl, f"{trainer}Config")(
        output_dir=str(folder / "trained"), max_steps=2, per_device_train_batch_size=2, use_cpu=True,
        learning_rate=0.01, report_to=[], save_strategy="no", bf16=False, disable_tqdm=True,
        gradient_checkpointing=False, **options,
    )  # fmt: skip
    made = getattr(trl, f"{trainer}Trainer")(
        model=model,
        args=config,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    for text in sees:
        assert text in made.processing_class.decode(made.train_dataset[0]["input_ids"])
    done = made.train()
    assert done.global_step == 2
    assert any(not torch.equal(each, before[name]) for name, each in made.model.named_parameters())
    return dict(done.metrics)


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize(
    ("kind", "format", "plain"),
    [
        ("conversation", "messages", False),
        ("conversation", "prompt-completion", False),
        ("short", "prompt-completion", True),
        ("conversation", "text", False),
    ],
)
def test_sft(tmp_path: Path, tiny: Path, kind: str, format: str, plain: bool, files: str) -> None:
    dataset = written(tmp_path / "out", kind, format, files, plain=plain)
    assert dataset["id"] == [f"{number:032x}" for number in range(8)]
    assert two_steps("SFT", tiny, tmp_path, dataset)["train_loss"] > 0


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("format", ["messages", "prompt-completion"])
def test_sft_on_calls_of_tools(tmp_path: Path, tiny: Path, format: str, files: str) -> None:
    dataset = written(tmp_path / "out", "calling", format, files)
    sees = (
        '{"type": "function", "function": {"name": "add"',
        "assistant\nnow({})<|im_end|>\n<|im_start|>tool\n0",
    )
    assert two_steps("SFT", tiny, tmp_path, dataset, *sees)["train_loss"] > 0


@pytest.mark.parametrize(
    ("template", "files"),
    [
        ("qwen2_5", "jsonl"),
        ("llama3_1", "jsonl"),
        ("qwen3", "jsonl"),
        ("qwen3", "parquet"),
        ("qwen3", "arrow"),
    ],
)
def test_templates_write_the_calls_that_were_made(
    tmp_path: Path, tiny: Path, template: str, files: str
) -> None:
    """Of a call they write the arguments as an object, and not a text of it."""
    import trl
    from transformers import AutoTokenizer

    there = Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja"
    row = written(tmp_path / "out", "calling", "messages", files)[1]
    text = AutoTokenizer.from_pretrained(tiny).apply_chat_template(
        row["messages"], tools=json.loads(row["tools"]), chat_template=there.read_text(), tokenize=False
    )
    assert re.search(r'"name": "add", "(?:arguments|parameters)": \{"a": 1, "b": 1, "unit": "x"\}', text)
    assert re.search(r'"required": \[\s*"a",\s*"b"\s*\]', text)


@pytest.mark.parametrize("trainer", ["DPO", "KTO"])
@pytest.mark.parametrize("files", FILES)
def test_a_call_may_be_preferred(tmp_path: Path, tiny: Path, trainer: str, files: str) -> None:
    dataset = written(tmp_path / "out", "called", {"DPO": "preference", "KTO": "kto"}[trainer], files)
    assert two_steps(trainer, tiny, tmp_path, dataset)["train_loss"] > 0


@pytest.mark.parametrize("formats", [["parquet", "jsonl"], ["jsonl"]])
def test_a_dataset_with_tools_trains_as_it_was_published(
    tmp_path: Path, tiny: Path, formats: list[str]
) -> None:
    import datasets

    seeds = {"row": {"path": "data/docs.jsonl"}}
    record = {"from": "row", "tools": {"value": "row.tools", "type": "tools"}}
    output = {"formats": formats}
    said = recipe(model=None, steps=None, seeds=seeds, record=record, output=output, filters=["tool_calls"])
    given = [rows(number)["calling"] for number in range(8)]
    done = run_it(loaded(tmp_path, said, rows=given), directory=tmp_path / "run")
    assert done.kept == 8
    there = datasets.load_dataset(str(done.dir / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(there) == 8
    sees = ('"name": "add"', "assistant\nnow({})<|im_end|>\n<|im_start|>tool\n0<|im_end|>")
    assert two_steps("SFT", tiny, tmp_path, there, *sees)["train_loss"] > 0


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("plain", [False, True])
def test_dpo(tmp_path: Path, tiny: Path, plain: bool, files: str) -> None:
    dataset = written(tmp_path / "out", "preference", "preference", files, plain=plain)
    assert two_steps("DPO", tiny, tmp_path, dataset)["train_loss"] > 0


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("plain", [False, True])
def test_kto(tmp_path: Path, tiny: Path, plain: bool, files: str) -> None:
    dataset = written(tmp_path / "out", "preference", "kto", files, plain=plain)
    assert dataset["label"] == [True, False] * 8
    assert two_steps("KTO", tiny, tmp_path, dataset)["train_loss"] > 0


@pytest.mark.parametrize(
    ("trainer", "kind", "format"),
    [
        ("SFT", "conversation", "messages"),
        ("DPO", "preference", "preference"),
        ("KTO", "preference", "kto"),
    ],
)
def test_the_small_model_takes_two_steps(
    tmp_path: Path, small: Path, trainer: str, kind: str, format: str
) -> None:
    dataset = written(tmp_path / "out", kind, format, "parquet")
    assert two_steps(trainer, small, tmp_path, dataset)["train_loss"] > 0


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("format", ["sharegpt", "alpaca"])
def test_what_trl_does_not_read_is_loaded_too(tmp_path: Path, format: str, files: str) -> None:
    dataset = written(tmp_path / "out", "conversation", format, files)
    columns = {"sharegpt": ["conversations"], "alpaca": ["instruction", "input", "output", "system"]}
    assert dataset.column_names == ["id", *columns[format]]
    assert len(dataset) == 8


def test_a_dataset_that_was_published_trains_as_it_is(tmp_path: Path, tiny: Path) -> None:
    import datasets

    said = recipe(output={"split": SPLITS})
    done = run_it(loaded(tmp_path, said, rows=30), directory=tmp_path / "run")
    there = datasets.load_dataset(str(done.dir / "dataset"), cache_dir=str(tmp_path / "cache"))
    for split in SPLITS:
        given = [json.loads(line) for line in (done.dir / "dataset" / f"{split}.jsonl").open()]
        assert there[split].to_list() == given
        stated = datasets.load_dataset(
            str(done.dir / "dataset"), "provenance", split=split, cache_dir=str(tmp_path / "cache")
        )
        assert stated["id"] == [row["id"] for row in given]
    assert two_steps("SFT", tiny, tmp_path, there["train"])["train_loss"] > 0


def test_datasets_do_not_take_each_others_place_in_the_cache(tmp_path: Path) -> None:
    """Nor does a split without rows stand in the way."""
    import datasets

    split = {"train": 0.9999, "test": 0.0001}
    for rows in (3, 5):
        said = recipe(output={"split": split})
        done = run_it(loaded(tmp_path / str(rows), said, rows=rows), directory=tmp_path / str(rows) / "run")
        for name in ("default", "provenance"):
            there = datasets.load_dataset(str(done.dir / "dataset"), name, cache_dir=str(tmp_path / "cache"))
            assert {split: len(part) for split, part in there.items()} == {"train": rows}
