"""synthgen preview: a few tasks through everything, each shown as a tree."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synthgen.cli.options import (
    OPEN,
    AllowOption,
    BaseUrlOption,
    EngineOption,
    JsonOption,
    ModelOption,
    RecipeArgument,
    bound,
    note,
    out,
    out_json,
    plain,
    results_only,
)
from synthgen.cli.show import show_row

if TYPE_CHECKING:
    from synthgen.curate import Judged
    from synthgen.loaded import Loaded
    from synthgen.view import RunView


def preview(
    recipe: RecipeArgument,
    count: Annotated[int, typer.Option("-n", help="How many tasks.", min=1, max=1000)] = 5,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    allow_path: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a few tasks and show each as a tree: seeds, what was asked and answered, records, measurements.

    Nothing is left on disk. Records are shown whether they are kept or not.
    """
    from synthgen import api
    from synthgen.cli.progress import ProgressLine
    from synthgen.stopping import Stop, cancel_on

    with results_only():
        loaded = api.load(
            recipe, engine=engine, model=model, base_url=base_url, tasks=count, allow=tuple(allow_path or ())
        )
    for notice in loaded.notices:
        note(f"note: {notice}")
    seen: list[Judged] = []
    line = ProgressLine()
    cancel = Stop()
    with tempfile.TemporaryDirectory(prefix="synthgen-preview-") as place:
        try:
            with cancel_on([signal.SIGINT, signal.SIGTERM], cancel, note), results_only():
                result = api.run(
                    loaded,
                    Path(place) / "run",
                    cancel=cancel,
                    on_progress=line,
                    on_record=seen.append,
                    on_notice=note,
                )
                records = _records(loaded, Path(place) / "run", seen)
        finally:
            line.end()
    if as_json:
        out_json(records)
    else:
        tasks = [list(branches) for _, branches in groupby(records, key=itemgetter("task"))]
        for number, branches in enumerate(tasks, 1):
            _show_task(loaded, branches, f"{number}/{len(tasks)}")
    if result.outcome == "interrupted":
        note("interrupted")
        raise typer.Exit(130)


def _records(loaded: Loaded, run: Path, seen: Sequence[Judged]) -> list[dict[str, Any]]:
    """Each record with the seeds that it is from, and with what was asked for it, in order."""
    from synthgen.view import RunView

    with RunView(run) as view:
        return [_record(loaded, view, judged) for judged in seen]


def _record(loaded: Loaded, view: RunView, judged: Judged) -> dict[str, Any]:
    import orjson

    entry = judged.entry
    content = orjson.loads(judged.body) if judged.body is not None else None
    fields = content["fields"] if content else None
    task = next(loaded.plan.tasks(entry.task), None) if fields is None else None
    seeds = fields or (task.values if task is not None else {})
    verdicts = dict(entry.verdicts)
    return {
        "id": entry.id,
        **(content["row"] if content else {}),
        "task": entry.task,
        "branch": entry.branch,
        "state": entry.state,
        "dropped_by": entry.dropped_by,
        "error": entry.error,
        "seeds": {name: seeds[name] for name in loaded.recipe.seeds if name in seeds},
        "sources": list(entry.sources),
        "steps": _steps(loaded, view, entry.requests, fields),
        "skipped": _skipped(loaded, fields),
        "measurements": verdicts,
        "asked_by_filters": {
            name: [_asked(view, bytes.fromhex(key)) for key in keys]
            for name, verdict in verdicts.items()
            if (keys := (verdict.get("detail") or {}).get("requests"))
        },
    }


def _steps(
    loaded: Loaded, view: RunView, keys: Sequence[bytes], fields: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What was asked and answered, with the step of each request."""
    from synthgen.steps import steps_asked

    names, name, steps = steps_asked([step.fan for step in loaded.steps], fields), None, []
    for key in keys:
        told = _asked(view, key)
        if told["attempt"] == 0:
            name = next(names, None)
        steps.append({"step": name, **told})
    return steps


def _asked(view: RunView, key: bytes) -> dict[str, Any]:
    told = view.request(key)
    request, answer = told["request"], told["answer"]
    return {
        "key": told["key"],
        "attempt": request["attempt"],
        "messages": request["messages"],
        **({"reasoning": answer["reasoning"]} if answer and "reasoning" in answer else {}),
        "answer": answer["text"] if answer else None,
        "finish_reason": answer["finish_reason"] if answer else None,
        "errors": [failure["error"] for failure in told["failures"]],
    }


def _skipped(loaded: Loaded, fields: Mapping[str, Any] | None) -> list[str]:
    """The steps whose condition was false."""
    from synthgen.prompt import PromptFailed

    found = []
    for step in loaded.steps:
        if fields is not None and step.fan.when is not None and fields.get(step.name) is None:
            with suppress(PromptFailed):
                if not step.fan.when.value(fields):
                    found.append(step.name)
    return found


def _put(text: str, indent: str, limit: int = 600) -> None:
    """Text from anywhere, with this in front of each of its lines."""
    for line in plain(text, limit).splitlines() or [""]:
        out(f"{indent}{line}".rstrip())


def _show_task(loaded: Loaded, branches: Sequence[Mapping[str, Any]], number: str) -> None:
    """The seeds, what all branches were asked, and then each of them."""
    first = branches[0]
    many = f"  {len(branches)} branches" if len(branches) > 1 else ""
    out(f"── task {number}{many}")
    for name, value in first["seeds"].items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        _put(f"seed {name}: {text}".replace("\n", "\n  "), "")
    for source in first["sources"]:
        _put("from " + ", ".join(f"{key} {value}" for key, value in source.items()), "  ", 300)
    keys = [{step["key"] for step in branch["steps"]} for branch in branches]
    shared = set.intersection(*keys) if many else set()
    _show_steps((step for step in first["steps"] if step["key"] in shared), "")
    before = dict.fromkeys(shared, "")
    for place, branch in enumerate(branches):
        joint, indent = ("└─ ", "   ") if place == len(branches) - 1 else ("├─ ", "│  ")
        if not many:
            joint = indent = ""
        _show_branch(loaded, branch, before, joint, indent)
    out("")


def _show_branch(
    loaded: Loaded, record: Mapping[str, Any], before: dict[str, str], joint: str, indent: str
) -> None:
    """A record from where its task branched. `before` has the requests that were shown, by their keys, each
    with the branch that showed it; none where all branches share it.
    """
    why = f" by {record['dropped_by']}" if record["dropped_by"] else ""
    if joint:
        out(f"{joint}branch {record['branch']}")
    for step in record["steps"]:
        if before.get(step["key"]):
            out(f"{indent}step {step['step'] or '?'}: as in branch {before[step['key']]}")
    _show_steps((step for step in record["steps"] if step["key"] not in before), indent)
    before.update((step["key"], record["branch"]) for step in record["steps"] if step["key"] not in before)
    for name in record["skipped"]:
        when = next(step.fan.when.source for step in loaded.steps if step.name == name and step.fan.when)
        out(f"{indent}step {name}: skipped, since `{plain(when, 200)}` is false")
    out(f"{indent}record {record['id']}  {record['state']}{why}")
    show_row({name: record[name] for name in loaded.shape.columns if name in record}, 2000, indent + "  ")
    if record["error"]:
        _put(f"failed: {record['error']}", indent + "  ", 2000)
    for link in loaded.chain:
        verdict = record["measurements"].get(link.name)
        if verdict is None:
            continue
        value = "abstains" if verdict["value"] is None else f"{verdict['value']:g}"
        detail = {key: each for key, each in (verdict.get("detail") or {}).items() if key != "requests"}
        limits = bound(link.min, link.max)
        line = f"{link.name:<12} {value:<10} {limits:<14} {verdict['verdict']:<5}"
        _put(f"{line} {str(detail)[:200] if detail else ''}".rstrip(), indent + "  ", 300)
        for asked in record["asked_by_filters"].get(link.name, ()):
            _show_asked(asked, indent + "    ")


def _show_steps(steps: Iterable[Mapping[str, Any]], indent: str) -> None:
    """Requests in order; messages that are asked once more, for `n:`, are shown once."""
    before = None
    for step in steps:
        again = f", asked again ({step['attempt']})" if step["attempt"] else ""
        asked = (step["step"], step["messages"])
        out(f"{indent}step {step['step'] or '?'}{again}{', once more' if asked == before else ''}")
        _show_asked({**step, "messages": []} if asked == before else step, indent + "  ")
        before = asked


def _show_asked(asked: Mapping[str, Any], indent: str) -> None:
    """The messages of a request, its answer, and what was wrong."""
    for message in asked["messages"]:
        _put(f"[{message['role']}] {message.get('content', OPEN)}", indent)
    if "reasoning" in asked:
        _put(f"(thought) {asked['reasoning']}", indent)
    if asked["answer"] is not None:
        _put(f"→ {asked['answer']}", indent)
        if asked["finish_reason"] == "length":
            out(f"{indent}  (cut off at max_tokens)")
    for error in asked["errors"]:
        _put(f"! {error}", indent)
