"""The configuration that LLaMA-Factory and axolotl want for a dataset, as their documentation has it.

LLaMA-Factory: `data/README.md` of its repository. axolotl: `docs/dataset-formats/` and `docs/rlhf.qmd`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthgen.export.rows import Kind

Columns = Mapping[str, Kind]
Known = Sequence[tuple[Mapping[str, Kind], Mapping[str, Any]]]

_TYPES = {".jsonl": "json", ".parquet": "parquet", ".arrow": "arrow"}
_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}
_SHAREGPT = {"formatting": "sharegpt"}
_SIDES = {"chosen": "chosen", "rejected": "rejected"}

# The first whose columns a dataset has, with what they hold, is its layout.
_LLAMAFACTORY: Known = (
    (
        {"conversations": "turns", "chosen": "turn"},
        {**_SHAREGPT, "ranking": True, "columns": {"messages": "conversations", **_SIDES}},
    ),
    (
        {"conversations": "turns", "kto_tag": "boolean"},
        {**_SHAREGPT, "columns": {"messages": "conversations", "kto_tag": "kto_tag"}},
    ),
    ({"conversations": "turns"}, {**_SHAREGPT, "columns": {"messages": "conversations"}}),
    ({"messages": "messages", "chosen": "message"}, {}),
    ({"messages": "messages"}, {**_SHAREGPT, "columns": {"messages": "messages"}, "tags": _TAGS}),
    ({"messages": "tool messages"}, {}),  # it would train on the texts, and leave out the calls
    (
        {"instruction": "text"},
        {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
    ),
    ({"prompt": "text", "chosen": "text"}, {"ranking": True, "columns": {"prompt": "prompt", **_SIDES}}),
    (
        {"prompt": "text", "completion": "text", "label": "boolean"},
        {"columns": {"prompt": "prompt", "response": "completion", "kto_tag": "label"}},
    ),
    ({"prompt": "text"}, {"columns": {"prompt": "prompt", "response": "completion"}}),
    ({"text": "text"}, {"columns": {"prompt": "text"}}),
)

_CHAT = {
    "type": "chat_template",
    "field_messages": "messages",
    "message_property_mappings": {"role": "role", "content": "content"},
}
_AXOLOTL: Known = (
    (
        {"messages": "messages", "chosen": "message"},
        {
            **_CHAT,
            "rl": "dpo",
            "type": "chat_template.default",
            "field_chosen": "chosen",
            "field_rejected": "rejected",
            "roles": {role: [role] for role in ("user", "assistant", "system")},
        },
    ),
    ({"messages": "messages"}, _CHAT),
    ({"messages": "tool messages"}, _CHAT),
    ({"conversations": "turns", "chosen": "turn"}, {}),
    ({"conversations": "turns", "kto_tag": "boolean"}, {}),
    ({"conversations": "tool turns"}, {}),  # axolotl reads calls from `tool_calls` alone
    (
        {"conversations": "turns"},
        {
            "type": "chat_template",
            "field_messages": "conversations",
            "message_property_mappings": {"role": "from", "content": "value"},
        },
    ),
    ({"instruction": "text", "history": "pairs"}, {}),  # nothing of axolotl's reads earlier turns
    (
        {"instruction": "text", "system": "text"},  # nor its own `alpaca` a system's message
        {
            "type": {
                "system_prompt": "",
                "field_system": "system",
                "field_instruction": "instruction",
                "field_input": "input",
                "field_output": "output",
                "format": "{instruction}\n{input}",
                "no_input_format": "{instruction}",
            }
        },
    ),
    ({"instruction": "text"}, {"type": "alpaca"}),
    ({"prompt": "text", "chosen": "text"}, {"rl": "dpo", "type": "chatml.prompt_pairs"}),
    (
        {"prompt": "text", "label": "boolean"},
        {"rl": "kto", "remove_unused_columns": False, "type": "chatml.prompt_pairs"},
    ),
    (
        {"prompt": "text"},
        {
            "type": {
                "field_instruction": "prompt",
                "field_output": "completion",
                "format": "{instruction}",
                "no_input_format": "{instruction}",
            }
        },
    ),
    ({"text": "text"}, {"type": "completion", "field": "text"}),
)


def llamafactory(name: str, columns: Columns, files: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
    """dataset_info.json, one entry a file; None where LLaMA-Factory knows no such layout."""
    turns: Columns = {name: "turns" if kind == "tool turns" else kind for name, kind in columns.items()}
    about = _first(_LLAMAFACTORY, turns)
    if not about:
        return None
    optional = {each: each for each in ("system", "history", "tools") if each in columns}
    about["columns"] = {**about["columns"], **optional}
    said = {}
    for split, of_split in files.items():
        for number, file in enumerate(of_split):
            part = f"-{number:05d}" if len(of_split) > 1 else ""
            said[f"{name}-{split}{part}"] = {"file_name": file, **about}
    return said


def axolotl(columns: Columns, files: Mapping[str, Sequence[str]]) -> str | None:
    """The part of axolotl's YAML that is about the dataset; None where axolotl knows no such layout.

    Paths are relative to the folder of the export. The first split is trained on; the second is the test.
    """
    about = _first(_AXOLOTL, columns)
    if not about:
        return None
    if "tools" in columns and about["type"] == "chat_template":
        # It takes a list of tools, and no text: Parquet and Arrow have one.
        if columns["tools"] != "json" or any(
            not file.endswith(".jsonl") for of in files.values() for file in of
        ):
            return None
        about["field_tools"] = "tools"
    said: dict[str, Any] = {
        name: about.pop(name) for name in ("rl", "remove_unused_columns") if name in about
    }
    for part, of_split in zip(("datasets", "test_datasets"), files.values(), strict=False):
        said[part] = [
            {"path": file, "ds_type": _TYPES[Path(file).suffix], "split": "train", **about}
            for file in of_split
        ]
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.ignore_aliases = lambda _: True
    out = io.StringIO()
    yaml.dump(said, out)
    return out.getvalue()


def _first(known: Known, columns: Columns) -> dict[str, Any]:
    return next((dict(about) for signature, about in known if signature.items() <= columns.items()), {})
