"""A dataset in another format: every row read twice, to see what there is and then to write it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from synthgen import __version__
from synthgen.digests import file_digest, sha256
from synthgen.errors import UsageError
from synthgen.export import snippets
from synthgen.export.card import configurations
from synthgen.export.durable import exchange, make_folder, remove, rename, told, write_bytes
from synthgen.export.formats import (
    CALLED,
    Layout,
    Unfit,
    alternates,
    as_object,
    conversation_of,
    layout,
    renamed,
    taken,
    tools_of,
)
from synthgen.export.rows import (
    CALLING,
    LARGE_ROW,
    ArrowWriter,
    JsonlWriter,
    Kind,
    ParquetWriter,
    RowWriter,
    arrow_schema,
)
from synthgen.export.thoughts import with_thoughts
from synthgen.plural import many

FILES = ("jsonl", "parquet", "arrow")
ABOUT = "export.json"
CARD = "README.md"

Rows = Callable[[], Iterator[Mapping[str, Any]]]
Tools = Callable[[Mapping[str, Any]], Any]  # what a row's column `tools` holds


@dataclass(frozen=True)
class Exported:
    """What was written: rows by split, rows left out by the reason, and what else there is to know."""

    dir: Path
    format: str
    rows: Mapping[str, int]
    skipped: Mapping[str, int]
    notices: Sequence[str]
    files: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "dir": str(self.dir),
            "format": self.format,
            "rows": dict(self.rows),
            "skipped": dict(self.skipped),
            "notices": list(self.notices),
            "files": list(self.files),
        }


@dataclass
class _Survey:
    """What a first look at the rows tells."""

    columns: dict[str, Kind]
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    hidden: Counter[str] = field(default_factory=Counter)
    large: int = 0
    out_of_turn: int = 0
    renamed: int = 0
    rows: int = 0


def export(
    name: str,
    source: Mapping[str, Any],
    splits: Mapping[str, Rows],
    out: Path,
    format: str,
    *,
    consumer: str = "trl",
    files: str = "jsonl",
    plain: bool = False,
    skip: bool = False,
    reasoning: str | None = None,
) -> Exported:
    """Write the rows of a dataset's splits in another format to the folder `out`, which appears whole.

    `name` is the dataset's, and `source` what is said of it in `export.json`. With `skip`, rows that the
    format cannot hold are left out and counted. `reasoning` names a field that is put before the answer.
    Raises UsageError where there are rows that do not fit without `skip`, where nothing is left, or where
    `out` holds something else than an earlier export; RunError where it cannot be written.
    """
    if out.exists() and not (out.is_dir() and ((out / ABOUT).is_file() or not any(out.iterdir()))):
        raise UsageError(f"{out} is there already, and is no export", hint="give another folder with -o")
    if reasoning is not None:
        splits = {split: partial(_thinking, rows, reasoning) for split, rows in splits.items()}
    made = layout(format, consumer, plain=plain)
    tools = partial(tools_of, format=format, consumer=consumer)
    seen = _survey(made, tools, splits)
    _refuse(seen, format, skip=skip)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    with told(out):
        try:
            make_folder(unfinished)
            counts, of_split = _write(unfinished, made, tools, seen, splits, files)
            notices = _notices(seen, format)
            notices += [f"no row is in `{split}`" for split, number in counts.items() if not number]
            of_split = {split: names for split, names in of_split.items() if counts[split]}
            notices += _configure(unfinished, name, made, seen, of_split, (format, consumer))
            if files != "arrow":
                write_bytes(unfinished / CARD, _card(unfinished, name, format, counts, of_split).encode())
            said = {
                "synthgen": __version__,
                "format": format,
                "for": consumer,
                **({"reasoning": reasoning} if reasoning is not None else {}),
                "rows": counts,
                "skipped": dict(sorted(seen.skipped.items())),
                "notices": notices,
                "source": dict(source),
            }
            write_bytes(unfinished / ABOUT, orjson.dumps(said, option=orjson.OPT_INDENT_2))
            _replace(unfinished, out)
        finally:
            remove(unfinished)
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return Exported(out, format, counts, dict(seen.skipped), notices, written)


def _thinking(rows: Rows, column: str) -> Iterator[Mapping[str, Any]]:
    return with_thoughts(rows(), column)


def _survey(made: Layout, tools: Tools, splits: Mapping[str, Rows]) -> _Survey:
    seen = _Survey(dict(made.columns))
    optional = {name for name in ("system", "history") if name in made.columns}
    used: set[str] = set()
    rest: dict[str, Kind | None] = {}
    for rows in splits.values():
        for row in rows():
            try:
                rendered = list(made.make(row))
            except Unfit as unfit:
                seen.skipped[str(unfit)] += 1
                seen.first.setdefault(str(unfit), str(row.get("id")))
                continue
            seen.rows += len(rendered)
            used |= {name for each in rendered for name in optional if each[name]}
            for name, value in _others(row, made, tools, seen.hidden).items():
                kind = rest.setdefault(name, None) if value is None else _kind(value)
                rest[name] = kind if rest.get(name) in (None, kind) else "json"
            for each in rendered:
                _look_for_calls(each, seen.columns)
            seen.large += len(orjson.dumps(row)) > LARGE_ROW
            seen.out_of_turn += not alternates(conversation_of(row))
            seen.renamed += "conversations" in made.columns and renamed(conversation_of(row))
    for name in optional - used:
        del seen.columns[name]
    seen.columns |= {name: kind or "text" for name, kind in rest.items()}
    return seen


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "integer"
    return "text" if isinstance(value, str) else "number" if isinstance(value, float) else "json"


def _look_for_calls(rendered: Mapping[str, Any], columns: dict[str, Kind]) -> None:
    """A column of messages that bear more than role and content, or of calls, holds that, too."""
    for name, kind in columns.items():
        if kind == "messages" and any(len(message) != 2 for message in rendered[name]):
            columns[name] = "tool messages"
        if kind == "turns" and any(turn["from"] in CALLED for turn in rendered[name]):
            columns[name] = "tool turns"


def _others(
    row: Mapping[str, Any], made: Layout, tools: Tools, hidden: Counter[str] | None = None
) -> dict[str, Any]:
    """The fields of a row that the format leaves as they are; one of a column's name is hidden by it."""
    found: dict[str, Any] = {}
    for name in row.keys() - taken(row) - {"id"}:
        if name in made.columns:
            if hidden is not None:
                hidden[name] += 1
        else:
            found[name] = tools(row) if name == "tools" else row[name]
    return {name: found[name] for name in row if name in found}


def _refuse(seen: _Survey, format: str, *, skip: bool) -> None:
    """Raises UsageError where rows do not fit and are not to be left out, or none is left."""
    if not seen.skipped and not seen.rows:
        raise UsageError("the dataset has no rows", hint="`synthgen stats` shows where each bound cuts")
    if not seen.skipped or (skip and seen.rows):
        return
    number, [(reason, _)] = sum(seen.skipped.values()), seen.skipped.most_common(1)
    rows = (
        "no row fits"
        if not seen.rows
        else f"{number:,} rows do not fit"
        if number > 1
        else "one row does not fit"
    )
    hint = "`--skip` leaves such rows out and counts them" if seen.rows else "another format holds them"
    raise UsageError(f"{rows} {format}: {reason} (the first: {seen.first[reason]})", hint=hint)


def _write(
    folder: Path, made: Layout, tools: Tools, seen: _Survey, splits: Mapping[str, Rows], files: str
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Counts of rows, and names of files, by split."""
    counts: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    columns, dropped = seen.columns, made.columns.keys() - seen.columns.keys()
    for split, rows in splits.items():
        writer = _writer(folder, split, columns, files)
        try:
            for row in rows():
                others = _others(row, made, tools)
                try:
                    rendered = list(made.make(row))
                except Unfit:
                    continue
                for each in rendered:
                    for name in dropped:
                        del each[name]
                    whole = {"id": row.get("id"), **each, **others}
                    whole = _with_arguments(whole, columns, as_text=files != "jsonl")
                    writer.write(whole, orjson.dumps(whole))
        finally:
            writer.close()
        counts[split] = sum(writer.counts.values())
        names[split] = [path.relative_to(folder).as_posix() for path in writer.counts]
    if files == "arrow":
        write_bytes(folder / "dataset_dict.json", orjson.dumps({"splits": list(splits)}))
    return counts, names


def _writer(folder: Path, split: str, columns: Mapping[str, Kind], files: str) -> RowWriter:
    if files == "jsonl":
        return JsonlWriter(folder / f"{split}.jsonl")
    if files == "parquet":
        return ParquetWriter(folder / "data", split, arrow_schema(columns))
    return ArrowWriter(folder, split, arrow_schema(columns))


def _with_arguments(row: dict[str, Any], columns: Mapping[str, Kind], *, as_text: bool) -> dict[str, Any]:
    """The arguments of calls as chat templates want them, as objects; as JSON where a column has one type."""
    for name, kind in columns.items():
        if kind != "tool messages":
            continue
        messages = []
        for message in row[name]:
            if as_text and (more := message.keys() - {*CALLING}):
                others = ", ".join(sorted(more))
                raise UsageError(f"a message of {row['id']} has {others}, for which jsonl alone has room")
            calls = [_call(each, as_text=as_text) for each in message.get("tool_calls") or ()]
            messages.append({**message, "tool_calls": calls} if calls else message)
        row[name] = messages
    return row


def _call(said: Mapping[str, Any], *, as_text: bool) -> dict[str, Any]:
    function = dict(said.get("function") or {})
    arguments = function.get("arguments")
    if not as_text:
        function["arguments"] = as_object(arguments)
    elif not isinstance(arguments, str):
        function["arguments"] = orjson.dumps(arguments).decode()
    return {"id": said.get("id"), "type": said.get("type"), "function": function}


def _notices(seen: _Survey, format: str) -> list[str]:
    said = []
    for reason, number in sorted(seen.skipped.items()):
        said.append(f"{many(number, 'row')} left out: {reason} (the first: {seen.first[reason]})")
    for name, number in sorted(seen.hidden.items()):
        rows = many(number, "row")
        said.append(f"the field `{name}` of {rows} is not there: {format} has a column of that name")
    if seen.renamed:
        said.append(f"the ids of calls in {many(seen.renamed, 'row')} are not there: turns have none")
    if seen.large:
        said.append(f"{many(seen.large, 'row', 'is')} larger than {LARGE_ROW // 1_000_000} MB")
    if seen.out_of_turn and format != "text":
        rows = many(seen.out_of_turn, "row")
        said.append(f"in {rows} user and assistant do not take turns: LLaMA-Factory skips such")
    return said


def _configure(
    folder: Path,
    name: str,
    made: Layout,
    seen: _Survey,
    files: Mapping[str, Sequence[str]],
    asked: tuple[str, str],
) -> list[str]:
    """Write the trainers' snippets; what is told where there is none. `asked`: format and consumer."""
    told = []
    columns = {each: kind for each, kind in seen.columns.items() if each in (*made.columns, "tools")}
    factory = snippets.llamafactory(name, columns, files)
    axolotl = snippets.axolotl(columns, files)
    if factory is not None:
        text = orjson.dumps(factory, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        write_bytes(folder / "dataset_info.json", text)
    else:
        calling = "tool messages" in columns.values()
        hint = "; `synthgen export DIR sharegpt` gives calls as it reads them" if calling else ""
        told.append(f"no dataset_info.json: {_other('LLaMA-Factory', 'llamafactory', *asked)}{hint}")
    if axolotl is not None:
        write_bytes(folder / "axolotl.yaml", axolotl.encode())
    else:
        hint = "; with tools it reads the messages of `--for axolotl`, as jsonl" if "tools" in columns else ""
        told.append(f"no axolotl.yaml: {_other('axolotl', 'axolotl', *asked)}{hint}")
    return told


def _other(trainer: str, name: str, format: str, consumer: str) -> str:
    """What is told of a trainer that this layout is not for."""
    if consumer != name and layout(format, name) is not layout(format, consumer):
        return f"{trainer} has another layout for this, which `--for {name}` writes"
    return f"{trainer} knows no such layout"


def _card(
    folder: Path, name: str, format: str, counts: Mapping[str, int], files: Mapping[str, Sequence[str]]
) -> str:
    """Whatever the splits are called, `datasets.load_dataset` finds them by this."""
    digests = "".join(file_digest(folder / each) for names in files.values() for each in names)
    parquet = any(each.endswith(".parquet") for names in files.values() for each in names)
    glob = ("data/{}-*.parquet" if parquet else "{}.jsonl").format
    front = "\n".join(configurations({"default": glob}, counts, sha256(digests.encode())))
    return f"---\n{front}\n---\n\n# {name}\n\nExported by synthgen as {format}: `{ABOUT}` tells from what.\n"


def _replace(unfinished: Path, out: Path) -> None:
    if out.exists() and exchange(unfinished, out):
        return
    remove(out)
    rename(unfinished, out)
